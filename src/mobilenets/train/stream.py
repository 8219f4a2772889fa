"""Work on batches in threads, in order, with few of them waiting."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Batch = TypeVar("Batch")
Made = TypeVar("Made")


def streamed(
    pool: ThreadPoolExecutor, work: Callable[[Batch], Made], batches: Iterable[Batch], ahead: int
) -> Iterator[Made]:
    """`work` of every batch, in order, few of them waiting (`ahead`): `Executor.map` would hold them all."""
    running: deque[Future[Made]] = deque()
    for batch in batches:
        running.append(pool.submit(work, batch))
        if len(running) > ahead:
            yield running.popleft().result()
    for future in running:
        yield future.result()
