"""Workers from the parent's side: started, asked in turn, stopped while others run, ended."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from mobilenets.bench.engines import Engine
from mobilenets.bench.making import last_line

OPEN_S = 300.0
"""How long an engine may take to its first answer."""
TURN_S = 120.0
STOPS = hasattr(signal, "SIGSTOP")


@dataclass(frozen=True, slots=True)
class Job:
    """An engine with its file and a number of threads; `call` is python, or c where a C program calls it."""

    engine: Engine
    place: Path
    source: Path
    threads: int
    words: tuple[str, ...] = ()
    """The program, where it is not the Python worker."""

    @property
    def call(self) -> str:
        return "c" if self.words else "python"

    def command(self, once: bool) -> list[str]:
        """The process; `once` answers and ends."""
        if self.words:
            return [*self.words, "once" if once else "turns"]
        told = {
            "module": self.engine.module,
            "place": str(self.place),
            "source": str(self.source),
            "dtype": self.engine.kind,
            "threads": self.threads,
            "once": once,
        }
        return [sys.executable, "-m", "mobilenets.bench.worker", json.dumps(told)]

    def __str__(self) -> str:
        plural = "" if self.threads == 1 else "s"
        return f"{self.engine.name} ({self.engine.dtype}, {self.threads} thread{plural})"


class WorkerError(RuntimeError):
    """A worker ended, hung or could not start; the text says which. `code` is None unless it ended."""

    def __init__(self, told: str, code: int | None = None, said: str = "") -> None:
        super().__init__(told)
        self.code, self.said = code, said


class Worker:
    """One process that waits, stopped, for its next turn."""

    def __init__(self, job: Job, *, once: bool = False) -> None:
        self.job = job
        self._said: IO[str] = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115  # until close
        number = str(job.threads)
        pools = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), number)
        self._begun = time.perf_counter()
        self._process = subprocess.Popen(
            job.command(once),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env={**os.environ, **pools},
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout
        self._rest = b""
        self.pid = self._process.pid
        self.operations = 0.0
        """Of a call, where it measures the machine."""

    def first(self) -> tuple[float, dict[str, Any]]:
        """Seconds from the start of the process to its first answer, and what it tells of itself."""
        self._line(OPEN_S)
        seconds = time.perf_counter() - self._begun
        return seconds, self._line(OPEN_S)

    def turn(self, seconds: float) -> list[float]:
        """Seconds of each call of a turn of about `seconds`; it runs while nobody else does."""
        self._signal("SIGCONT")
        try:
            self._in.write(f"{seconds:.6f}\n".encode())
            self._in.flush()
        except OSError as error:
            raise self._ended() from error
        found: list[float] = self._line(TURN_S)
        self.stop()
        return found

    def stop(self) -> None:
        """No thread of it spins on while others run."""
        self._signal("SIGSTOP")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._in, self._out, self._said):
            try:
                stream.close()
            except OSError:  # what it had not read is of no use to anybody
                continue

    def _signal(self, name: str) -> None:
        if STOPS and self._process.poll() is None:
            self._process.send_signal(getattr(signal, name))

    def _line(self, limit_s: float) -> Any:
        """The next line, as JSON. Raises WorkerError where there comes none."""
        until = time.monotonic() + limit_s
        with selectors.DefaultSelector() as waiting:
            waiting.register(self._out, selectors.EVENT_READ)
            while b"\n" not in self._rest:
                if not waiting.select(max(0.0, until - time.monotonic())):
                    raise WorkerError(f"{self.job}: no answer within {limit_s:.0f} s")
                data = os.read(self._out.fileno(), 1 << 16)
                if not data:
                    raise self._ended()
                self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return json.loads(line)

    def _ended(self) -> WorkerError:
        try:
            code = self._process.wait(10)
        except subprocess.TimeoutExpired:
            code = 0
        self._said.seek(0)
        said = last_line(self._said.read())
        if code < 0:
            told = f"{self.job}: its process was ended by {signal.Signals(-code).name}"
        else:
            told = f"{self.job}: its process ended with {code}" + (f": {said}" if said else "")
        return WorkerError(told, code, said)


def close_all(workers: Sequence[Worker]) -> None:
    """End what was started, whatever happened."""
    for worker in workers:
        worker.close()
