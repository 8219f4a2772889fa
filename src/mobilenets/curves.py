"""What is told of a training while it goes on: a row for each step, TensorBoard's events, a line an epoch."""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING, Any

from mobilenets.console import Reporter, percent
from mobilenets.infer.sealed import write_whole

if TYPE_CHECKING:
    from mobilenets.train.loop import Taken
    from mobilenets.train.run import Epoch

STEPS, EVENTS = "steps.csv", "events"
HEAD = "step,loss,share_of_rate,images_per_second,waited_s"
COMMAS = HEAD.count(",")
FLUSH_S = 10.0


class Curves:
    """Rows, events and lines of one run. Steps that an earlier, cut-off run took after its last checkpoint
    are taken, and told, again.
    """

    def __init__(self, out: Path, progress: Reporter, *, resume: bool) -> None:
        self._out, self._progress, self._resume = out, progress, resume
        self._events: Events | None = None
        self._begun = False
        self._last = 0

    def step(self, taken: Taken) -> None:
        """A step was taken. Its row is in the file when this returns: no state is kept that lacks it."""
        if not self._begun:
            self._begin(taken.step)
        speed = taken.pictures / taken.seconds
        row = (taken.step, f"{taken.loss!r}", f"{taken.rate:.6g}", f"{speed:.1f}", f"{taken.waited:.4f}")
        _append(self._out / STEPS, (",".join(map(str, row)) + "\n").encode())
        if self._events is not None:
            told = {"loss": taken.loss, "rate": taken.rate, "images_per_second": speed}
            self._events.add(told, taken.step)
        self._last = taken.step
        self._progress("train", taken.step + 1, taken.steps)

    def epoch(self, epoch: Epoch, epochs: int) -> None:
        """An epoch ended."""
        if self._events is not None and epoch.val_accuracy is not None:
            # At the step that it was scored after: what a resumed run makes void is told by steps.
            self._events.add({"validation": epoch.val_accuracy}, self._last)
            self._events.flush()
        self._progress.row(
            ("epoch", "loss", "validation", "time"),
            (
                f"{epoch.epoch}/{epochs}",
                f"{epoch.loss:.4f}",
                percent(epoch.val_accuracy),
                f"{epoch.seconds:.0f} s",
            ),
        )

    def close(self) -> None:
        """All of it is on disk afterwards, as far as the disk takes it."""
        if self._events is not None:
            try:
                self._events.flush()
            except OSError:  # why the run ends is told by who ends it
                return

    def _begin(self, step: int) -> None:
        path = self._out / STEPS
        kept: list[str] = []
        if self._resume and path.exists():
            lines = path.read_text().splitlines()[1:]
            kept = [line for line in lines if _number(line) < step]
        write_whole(path, "".join(f"{line}\n" for line in (HEAD, *kept)).encode())
        if not self._resume:  # the curves of another run would be drawn through this one's
            rmtree(self._out / EVENTS, ignore_errors=True)
        try:
            self._events = Events(self._out / EVENTS, step)
        except ImportError:  # an extra; the table of steps says the same
            self._events = None
        self._begun = True


class Events:
    """Numbers as TensorBoard reads them: records of a length, its check, a message, its check.

    tensorboardX' own writer is a thread, whose errors nobody hears.
    """

    def __init__(self, folder: Path, step: int) -> None:
        """What an earlier file in the folder says of `step` and later steps is void. Raises ImportError
        without tensorboardX."""
        from tensorboardX.proto import event_pb2, summary_pb2
        from tensorboardX.record_writer import masked_crc32c

        self._event, self._summary, self._check = event_pb2, summary_pb2.Summary, masked_crc32c
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}"
        self._waiting: list[bytes] = []
        self._flushed = time.monotonic()
        self._record(event_pb2.Event(wall_time=time.time(), file_version="brain.Event:2"))
        began = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._record(event_pb2.Event(wall_time=time.time(), step=step, session_log=began))

    def add(self, values: dict[str, float], step: int) -> None:
        """Numbers by name, of one step."""
        told = [self._summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        summary = self._summary(value=told)
        self._record(self._event.Event(wall_time=time.time(), step=step, summary=summary))
        if time.monotonic() - self._flushed > FLUSH_S:
            self.flush()

    def flush(self) -> None:
        """What was added is in the file afterwards."""
        data, self._waiting = b"".join(self._waiting), []
        self._flushed = time.monotonic()
        if data:
            _append(self._path, data)

    def _record(self, event: Any) -> None:
        data = event.SerializeToString()
        size = struct.pack("<Q", len(data))
        check, other = (struct.pack("<I", self._check(part)) for part in (size, data))
        self._waiting += [size, check, data, other]


def _append(path: Path, data: bytes) -> None:
    """Raises OSError with the file's name where not all of it could be written."""
    try:
        with path.open("ab", buffering=0) as file:
            if file.write(data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}; make room, then give --resume", str(path)) from error


def _number(row: str) -> float:
    """The step that a row is of; none is greater where a write was cut off."""
    first = row.partition(",")[0]
    return int(first) if first.isdecimal() and row.count(",") == COMMAS else float("inf")
