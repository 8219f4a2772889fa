"""Worker processes that do one kind of job, replaced where one dies; cores and memory of a process."""

from __future__ import annotations

import ctypes
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Generic, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")
START = "import sys; sys.path[:] = {path!r}; from mobilenets.data.crew import serve; serve()"
TRIES = 2
PIPE_BYTES = 1 << 20
"""A prepared picture has 150 KB: through a pipe of the usual 64 it takes three switches of process."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8


@dataclass(frozen=True, slots=True)
class Died:
    """What comes back for a job on which a worker process died each time it was tried."""

    reason: str


class Crew(Generic[Job, Result]):
    """Processes that each run `work(job)`, a picklable function. With no workers all is done in this process.

    They are plain interpreters: multiprocessing would import the caller's main module in each, and torch with
    it.
    """

    def __init__(self, work: Callable[[Job], Result], workers: int) -> None:
        self._work = work
        self._members = [_Member(pickle.dumps(work)) for _ in range(workers)]

    def __enter__(self) -> Crew[Job, Result]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for member in self._members:
            member.over()

    def map(self, jobs: Sequence[Job], ahead: int = 64) -> Iterator[Result | Died]:
        """Results in the order of the jobs, at most `ahead` of them made before they are asked for.

        Raises what `work` raises. A worker that dies twice on a job gives `Died` for it.
        """
        if not self._members:
            yield from map(self._work, jobs)
            return
        results: queue.SimpleQueue[tuple[int, object]] = queue.SimpleQueue()
        turn, numbers = threading.Lock(), iter(range(len(jobs)))
        room, stop = threading.Semaphore(max(ahead, len(self._members))), threading.Event()

        def feed(member: _Member) -> None:
            while True:
                room.acquire()
                with turn:
                    number = next(numbers, None)
                if number is None or stop.is_set():
                    return
                try:
                    results.put((number, member.ask(jobs[number])))
                except Exception as error:  # handed on to the thread that waits for the results
                    results.put((number, _Raised(error)))

        threads = [threading.Thread(target=feed, args=(m,), daemon=True) for m in self._members]
        for thread in threads:
            thread.start()
        try:
            yield from self._ordered(len(jobs), results, room)
        finally:
            stop.set()
            for _ in threads:
                room.release()
            for thread in threads:
                thread.join()

    def _ordered(
        self, count: int, results: queue.SimpleQueue[tuple[int, object]], room: threading.Semaphore
    ) -> Iterator[Result | Died]:
        early: dict[int, object] = {}
        for number in range(count):
            while number not in early:
                got, result = results.get()
                early[got] = result
            value = early.pop(number)
            if isinstance(value, _Raised):
                raise value.error
            yield value  # type: ignore[misc]  # what the worker's `work` returned, or Died
            room.release()


@dataclass(frozen=True, slots=True)
class _Raised:
    error: Exception


class _Member:
    """One process, started when it is first asked and again when it has died."""

    def __init__(self, work: bytes) -> None:
        self._work = work
        self._process: subprocess.Popen[bytes] | None = None
        self._over = False
        self._served = False

    def ask(self, job: object) -> object:
        how = ""
        for _ in range(TRIES):
            try:
                process = self._alive()
                _send(process.stdin, job)
                answer = _received(process.stdout)
            except (OSError, EOFError, pickle.UnpicklingError):
                code = self.end()
                # What was killed before it served, for want of memory as a rule, is worth another try too.
                if not self._served and (code is None or code >= 0):
                    raise RuntimeError(
                        f"{sys.executable}: a worker process does not start; try with 0 workers"
                    ) from None
                how = _ending(code)
                continue
            if isinstance(answer, _Raised):
                raise answer.error
            return answer
        return Died(f"the worker process died on it, twice ({how})")

    def over(self) -> None:
        """End, and start no more."""
        self._over = True
        self.end()

    def end(self) -> int | None:
        """The exit status, None where there was no process."""
        process, self._process = self._process, None
        if process is None:
            return None
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            with suppress(OSError):  # its other end is gone
                if pipe is not None:
                    pipe.close()
        return process.returncode

    def _alive(self) -> subprocess.Popen[bytes]:
        if self._over:  # a thread that still feeds it must not bring it back
            raise RuntimeError("the crew is gone")
        if self._process is None:
            self._served = False
            self._process = subprocess.Popen(
                [sys.executable, "-c", START.format(path=sys.path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # a worker has one core at most
            )
            _widen(self._process.stdout)
            _send(self._process.stdin, self._work)
            self._served = _received(self._process.stdout) is True
            if not self._served:
                raise EOFError
        return self._process


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def keep_freed_memory() -> None:
    """Ask glibc to keep what is freed: maps of tens of MB are else given back and faulted in for every layer.

    Measured: three times the pictures a second at batch 32, 1.3 times at batch 4. Other C libraries: nothing.
    """
    mallopt = _glibc("mallopt")
    if not mallopt(M_MMAP_THRESHOLD, 1 << 30):
        mallopt(M_MMAP_THRESHOLD, 32 << 20)  # the most that older ones take
    mallopt(M_TRIM_THRESHOLD, 1 << 30)
    mallopt(M_ARENA_MAX, 1)  # a thread's own arena gives its memory back whatever the threshold


def release_freed_memory() -> None:
    """Give back what was kept, where another stage would only add its own to it (glibc)."""
    _glibc("malloc_trim")(0)


def _glibc(name: str) -> Callable[..., int]:
    """A function of glibc's; one that does nothing where there is another C library."""
    try:
        found: Callable[..., int] = getattr(ctypes.CDLL("libc.so.6"), name)
    except (OSError, AttributeError):
        return lambda *_: 0
    return found


def serve() -> None:
    """A worker process: the work comes in, then jobs; a result goes out for each, until the pipe closes."""
    keep_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is the parent's to handle
    inward, outward = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a decoder that prints must not break the stream
    work = pickle.loads(_received(inward))  # type: ignore[arg-type]  # from the process that started this one
    _send(outward, True)
    while True:
        try:
            job = _received(inward)
        except EOFError:
            return
        try:
            result = work(job)
        except Exception as error:  # crosses to the process that asked
            result = _Raised(error)
        _send(outward, result)


def _widen(pipe: IO[bytes] | None) -> None:
    if sys.platform == "linux" and pipe is not None:
        import fcntl

        with suppress(OSError):  # a user has so much of it and no more
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)


def _send(pipe: IO[bytes] | None, value: object) -> None:
    if pipe is not None:
        pickle.dump(value, pipe, pickle.HIGHEST_PROTOCOL)
        pipe.flush()


def _received(pipe: IO[bytes] | None) -> object:
    if pipe is None:
        raise EOFError
    return pickle.load(pipe)  # from a process that this one started


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        try:
            return signal.Signals(-code).name
        except ValueError:
            return f"signal {-code}"
    return f"exit {code}"
