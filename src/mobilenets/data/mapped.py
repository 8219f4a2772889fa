"""Decoded pictures in one file that is mapped into memory.

It is numpy's own (`.npy`, uint8 [all, height, width, 3]), with a place for each picture that was wanted.
Behind the levels follow a JSON text (what was lost, a CRC-32 of every `BLOCK_BYTES` of all before it), the
text's length in eight bytes, and a SHA-256 of header, text and length.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from mobilenets.data.catalog import SetAside
from mobilenets.data.reading import Levels, Lost, Reading, Wanted, each

BLOCK_BYTES = 16 << 20
LENGTH_BYTES, SEAL_BYTES = 8, 32


@dataclass(frozen=True, slots=True, eq=False)
class Mapped:
    """Levels [all, height, width, 3], of which the places `kept` [n] are pictures."""

    levels: Levels
    kept: NDArray[np.int64]

    @property
    def height(self) -> int:
        return int(self.levels.shape[1])

    @property
    def width(self) -> int:
        return int(self.levels.shape[2])

    def __len__(self) -> int:
        return len(self.kept)

    def order(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """The order in which an epoch sees them: a permutation that depends on nothing else."""
        return np.random.default_rng([seed, epoch]).permutation(len(self.kept))

    def rows(self, which: NDArray[np.int64]) -> Levels:
        """uint8 [n, height, width, 3], a fresh array."""
        return self.levels[self.kept[which]]


def need(wanted: Wanted) -> int:
    """Bytes of the file, but for its text."""
    return len(wanted.items) * wanted.row_bytes + len(_header(wanted))


def make(path: Path, wanted: Wanted) -> Lost:
    """Decode all pictures into a file at `path`; what was lost. Raises OSError, early, for a full disk."""
    lost: dict[int, SetAside] = {}
    header = _header(wanted)
    with path.open("w+b") as file:
        reserve(file, need(wanted))
        file.write(header)
        work = Reading(wanted.catalog.bare(), wanted.target)
        for index, made in each(work, wanted, range(len(wanted.items))):
            if isinstance(made, SetAside):
                lost[index] = made
            else:
                file.seek(len(header) + index * wanted.row_bytes)
                file.write(made.data)
        file.flush()
        facts = {"lost": [[index, *astuple(one)] for index, one in sorted(lost.items())]}
        text = json.dumps({**facts, "sums": _sums(path, need(wanted), wanted)}).encode()
        tail = text + len(text).to_bytes(LENGTH_BYTES, "little")
        file.seek(need(wanted))
        file.write(tail + hashlib.sha256(header + tail).digest())
        file.flush()
        os.fsync(file.fileno())
    return lost


def opened(path: Path, wanted: Wanted) -> tuple[Mapped, Lost] | None:
    """The pictures of a whole file; None where there is none, or one that is cut short or altered."""
    header, size = _header(wanted), need(wanted)
    try:
        with path.open("rb") as file:
            if file.read(len(header)) != header:
                return None
            tail = file.seek(0, os.SEEK_END) - SEAL_BYTES - LENGTH_BYTES
            if tail < size:
                return None
            file.seek(size)
            text, length, seal = file.read(tail - size), file.read(LENGTH_BYTES), file.read(SEAL_BYTES)
        if int.from_bytes(length, "little") != len(text):
            return None
        if hashlib.sha256(header + text + length).digest() != seal:
            return None
        facts = json.loads(text)
        if _sums(path, size, wanted) != facts["sums"]:
            return None
        levels = np.load(path, mmap_mode="r")
    except (OSError, ValueError):
        return None
    lost = {int(index): SetAside(*rest) for index, *rest in facts["lost"]}
    kept = np.setdiff1d(np.arange(len(wanted.items), dtype=np.int64), np.fromiter(lost, np.int64))
    return Mapped(np.asarray(levels), kept), lost


def _header(wanted: Wanted) -> bytes:
    text = io.BytesIO()
    shape = (len(wanted.items), wanted.target.height, wanted.target.width, 3)
    np.lib.format.write_array_header_1_0(text, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return text.getvalue()


def reserve(file: BinaryIO, size: int) -> None:
    """Have the disk set aside what will be written, so that it is full now or not at all."""
    try:
        os.posix_fallocate(file.fileno(), 0, size)
        return
    except AttributeError:  # macOS and Windows have no such call
        pass
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):  # some file systems neither
            raise
    file.truncate(size)


def _sums(path: Path, size: int, wanted: Wanted) -> list[int]:
    """CRC-32 of each block of a file's first `size` bytes."""
    firsts = range(0, size, BLOCK_BYTES)

    def one(first: int) -> int:
        with path.open("rb") as file:
            file.seek(first)
            return zlib.crc32(file.read(min(BLOCK_BYTES, size - first)))

    made = []
    with ThreadPoolExecutor(max(1, wanted.workers)) as pool:
        for done, value in enumerate(pool.map(one, firsts), 1):
            made.append(value)
            wanted.progress("check", done, len(firsts))
    return made
