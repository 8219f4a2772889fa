"""The race itself: turns in random order, so that what disturbs the machine disturbs everybody."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median

from mobilenets.bench.team import Worker, WorkerError
from mobilenets.data.digests import Progress

FIRST_CALLS = 4
LEAST_CALLS, MOST_CALLS = 3, 4000
Aside = Callable[[Worker, str], None]
"""Told of a worker that fell out, and why."""


@dataclass(slots=True)
class Times:
    """Seconds of the calls of each turn."""

    turns: list[list[float]] = field(default_factory=list)

    @property
    def calls(self) -> list[float]:
        return [one for turn in self.turns for one in turn]

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
) -> dict[Worker, Times]:
    """Every worker's times; in each round each has one turn of about `turn_s`, in another order.

    A worker that ends or hangs is told to `aside` and left out, all of its times with it.
    """
    calls: dict[Worker, int] = {}
    times = {worker: Times() for worker in workers}
    for number in range(-1, rounds):  # the first warms up and tells how long a call takes
        turns = list(times)
        order.shuffle(turns)
        for worker in turns:
            try:
                found = worker.turn(calls.get(worker, FIRST_CALLS))
            except WorkerError as error:
                aside(worker, str(error))
                del times[worker]
                continue
            if number < 0:
                wanted = round(turn_s / max(median(found), 1e-7))
                calls[worker] = min(max(wanted, LEAST_CALLS), MOST_CALLS)
            else:
                times[worker].turns.append(found)
        progress("race", number + 1, rounds)
    return times
