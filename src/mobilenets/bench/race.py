"""The race itself: turns in random order, so that what disturbs the machine disturbs everybody."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median

import numpy as np

from mobilenets.bench.team import Worker, WorkerError
from mobilenets.data.digests import Progress
from mobilenets.energy import Counter

Aside = Callable[[Worker, str], None]
"""Told of a worker that fell out, and why."""


@dataclass(slots=True)
class Times:
    """Seconds of the calls of each turn; watts of those turns in which a counter told them."""

    turns: list[list[float]] = field(default_factory=list)
    watts: list[float] = field(default_factory=list)

    def __add__(self, other: Times) -> Times:
        return Times(self.turns + other.turns, self.watts + other.watts)

    @property
    def n(self) -> int:
        return sum(len(turn) for turn in self.turns)

    def at(self, *shares: float) -> list[float]:
        """Seconds below which these shares of the calls lie, each turn counting the same.

        A turn in which the machine was disturbed has fewer calls, and would count for less.
        """
        seconds = np.concatenate(self.turns)
        weights = np.concatenate([np.full(len(turn), 1 / len(turn)) for turn in self.turns])
        found = np.quantile(seconds, shares, weights=weights, method="inverted_cdf")
        return [float(one) for one in found]

    @property
    def medians(self) -> list[float]:
        """Of each turn."""
        return [median(turn) for turn in self.turns]


def raced(
    workers: Sequence[Worker],
    rounds: int,
    turn_s: float,
    order: random.Random,
    aside: Aside,
    progress: Progress,
    counter: Counter | None = None,
) -> dict[Worker, Times]:
    """Every worker's times; in each round each has one turn of about `turn_s`, in another order.

    A worker that ends or hangs is told to `aside` and left out, all of its times with it.
    """
    times = {worker: Times() for worker in workers}
    for number in range(-1, rounds):  # the first warms up
        turns = list(times)
        order.shuffle(turns)
        for worker in turns:
            try:
                if counter is not None:
                    counter.begin()
                found = worker.turn(turn_s)
                watts = None if counter is None else counter.end()
            except WorkerError as error:
                aside(worker, str(error))
                del times[worker]
                continue
            if number >= 0:
                times[worker].turns.append(found)
                times[worker].watts += [] if watts is None else [watts]
        progress("race", number + 1, rounds)
    return times
