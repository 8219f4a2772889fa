"""Compiled code that this machine cannot load, run as a program by what can: an emulator, or Node."""

from __future__ import annotations

import shlex
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from math import prod
from threading import Timer
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from mobilenets.infer.resize import Frame

RUN, INPUT, USE, ARENA, STACK = 0, 1, 2, 3, 4
"""Requests, as in harness.c and harness.mjs; the last two in board.c alone."""
LIMIT_S = 300
"""For one answer."""


class ProgramError(RuntimeError):
    """A program ended before it answered: the code it ended with, and the first lines that it said."""

    def __init__(self, words: Sequence[str], code: int, said: Sequence[str]) -> None:
        told = "; ".join(said) or "it said nothing"
        super().__init__(f"{shlex.join(words)} ended with {code}: {told}: nothing was written")
        self.code, self.said = code, tuple(said)


class Program:
    """An `Engine` (see `infer.engine`) in another process, asked and answering by pipes."""

    def __init__(
        self, words: Sequence[str], outputs: Mapping[str, tuple[int, ...]], isas: Sequence[str]
    ) -> None:
        """`outputs` has the shape of each; of `isas` those stay that the program's processor has."""
        self._words, self._outputs = list(words), dict(outputs)
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the process
        self._process = subprocess.Popen(
            self._words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said
        )
        try:
            self.isas = tuple(isa for isa in isas if not self._asked(USE, len(isa), 0, isa.encode()))
            if not self.isas:
                raise RuntimeError(f"{shlex.join(words)}: runs none of {', '.join(isas)}")
            self.use(self.isas[0])
        except BaseException:
            self.close()
            raise

    def __call__(self, frame: Frame) -> dict[str, NDArray[np.float32]]:
        height, width = frame.shape[:2]
        self._checked(self._asked(RUN, width, height, np.ascontiguousarray(frame, np.uint8).tobytes()))
        return self._made()

    def many(self, frames: Sequence[Frame]) -> dict[str, NDArray[np.float32]]:
        """Outputs of several frames of any size, each with a leading axis."""
        rows = [self(frame) for frame in frames]
        return {name: np.stack([row[name] for row in rows]) for name in self._outputs}

    def input(self, values: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Outputs for an input that is prepared and normalised, float32 [height, width, 3]."""
        self._checked(self._asked(INPUT, 0, 0, np.ascontiguousarray(values, np.float32).tobytes()))
        return self._made()

    def use(self, isa: str) -> None:
        """Run by another instruction set. Raises ValueError where the program's processor lacks it."""
        self._checked(self._asked(USE, len(isa), 0, isa.encode()))

    def arena(self, width: int, height: int) -> int:
        """Bytes of an arena for such frames, of a program for a microcontroller."""
        return self._asked(ARENA, width, height, b"")

    def stack(self) -> int:
        """Bytes of stack that were ever used, of such a program."""
        return self._asked(STACK, 0, 0, b"")

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
        self._said.close()

    def __enter__(self) -> Program:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _asked(self, kind: int, width: int, height: int, data: bytes) -> int:
        """The code that a request is answered with."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(struct.pack("<3i", kind, width, height) + data)
            self._process.stdin.flush()
        except OSError as error:
            raise self._dead() from error
        return int(struct.unpack("<i", self._read(4))[0])

    def _made(self) -> dict[str, NDArray[np.float32]]:
        return {
            name: np.frombuffer(self._read(4 * prod(shape)), "<f4").reshape(shape)
            for name, shape in self._outputs.items()
        }

    def _read(self, size: int) -> bytes:
        assert self._process.stdout is not None
        watch = Timer(LIMIT_S, self._process.kill)
        watch.start()
        try:
            found = self._process.stdout.read(size)
        finally:
            watch.cancel()
        if len(found) != size:
            raise self._dead()
        return found

    def _dead(self) -> ProgramError:
        self._process.kill()
        code = self._process.wait()
        self._said.seek(0)
        said = self._said.read().decode(errors="replace").strip().splitlines()[:3]
        return ProgramError(self._words, code, said)

    def _checked(self, code: int) -> None:
        if code:
            raise ValueError(f"{shlex.join(self._words)}: error {code}")


def missing(runners: Sequence[Sequence[str]]) -> str:
    """The first runner that is not on this machine; empty where all are."""
    return next((words[0] for words in runners if shutil.which(words[0]) is None), "")


@contextmanager
def programs(
    runners: Sequence[Sequence[str]],
    words: Sequence[str],
    outputs: Mapping[str, tuple[int, ...]],
    isas: Sequence[str],
) -> Iterator[list[Program]]:
    """One program under each of its runners, ended in the end."""
    with ExitStack() as stack:
        yield [stack.enter_context(Program([*runner, *words], outputs, isas)) for runner in runners]
