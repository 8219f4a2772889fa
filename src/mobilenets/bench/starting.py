"""Cold starts: a fresh process from its start to its first answer, and the memory that took."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from mobilenets.bench.team import Job, Worker, WorkerError
from mobilenets.data.digests import Progress


@dataclass(frozen=True, slots=True)
class Start:
    """Medians over several starts; memory is None where the system does not tell."""

    seconds: float
    peak_rss_mb: float | None


def started(
    jobs: Sequence[Job],
    starts: int,
    order: random.Random,
    aside: Callable[[Job, str], None],
    progress: Progress,
) -> dict[Job, Start]:
    """Start each `starts` times, in turns of random order; one that fails is told to `aside`.

    Files are in the system's cache, as they are from the second start of the day on.
    """
    seconds: dict[Job, list[float]] = {job: [] for job in jobs}
    memory: dict[Job, list[float]] = {job: [] for job in jobs}
    for number in range(starts):
        turns = list(seconds)
        order.shuffle(turns)
        for job in turns:
            worker = Worker(job, once=True)
            try:
                took, told = worker.first()
            except WorkerError as error:
                aside(job, str(error))
                del seconds[job]
                continue
            finally:
                worker.close()
            seconds[job].append(took)
            if told["peak_rss_mb"] is not None:
                memory[job].append(told["peak_rss_mb"])
        progress("start", number + 1, starts)
    return {
        job: Start(median(took), median(memory[job]) if memory[job] else None)
        for job, took in seconds.items()
        if took
    }
