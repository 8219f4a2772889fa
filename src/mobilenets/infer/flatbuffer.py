"""How FlatBuffers lie in bytes: tables, vectors and texts, every read checked against the end of the file.

Source: https://flatbuffers.dev/internals/. The caller follows offsets one at a time, so that no file can make
the reader recurse, loop or allocate more than the file holds.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOST_ITEMS = 1 << 16
"""The longest vector of tables or texts that is followed."""


class DamagedError(ValueError):
    """An offset or a length that leads out of the file."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table at `place` of `data`; its fields are found by slot, their number in the schema."""

    data: bytes
    place: int

    def number(self, slot: int, kind: str, default: int | float = 0) -> int | float:
        """A scalar of struct type `kind` (`b`, `i`, `I`, `Q`, `f` …); `default` where it isn't stored."""
        at = self._field(slot)
        return default if at is None else _unpack(self.data, kind, at)

    def count(self, slot: int, kind: str = "I", default: int = 0) -> int:
        """A whole number."""
        return int(self.number(slot, kind, default))

    def table(self, slot: int) -> Table | None:
        """A table of its own, None where there is none."""
        at = self._field(slot)
        return None if at is None else _table(self.data, _follow(self.data, at))

    def tables(self, slot: int) -> list[Table]:
        """A vector of tables, empty where there is none."""
        at = self._field(slot)
        if at is None:
            return []
        first, count = _vector(self.data, _follow(self.data, at), 4)
        if count > MOST_ITEMS:
            raise DamagedError(f"a list of {count} tables")
        return [_table(self.data, _follow(self.data, first + 4 * i)) for i in range(count)]

    def numbers(self, slot: int, dtype: str) -> NDArray[np.generic]:
        """A vector of scalars as a read-only view of the file, empty where there is none."""
        at = self._field(slot)
        if at is None:
            return np.empty(0, dtype)
        first, count = _vector(self.data, _follow(self.data, at), np.dtype(dtype).itemsize)
        return np.frombuffer(self.data, dtype, count, first)

    def text(self, slot: int) -> str:
        """A text, empty where there is none; bytes that are no UTF-8 are replaced."""
        return self.numbers(slot, "u1").tobytes()[:256].decode("utf-8", "replace")

    def _field(self, slot: int) -> int | None:
        vtable = self.place - int(_unpack(self.data, "i", self.place))
        length = int(_unpack(self.data, "H", vtable))
        if 4 + 2 * slot + 2 > length:
            return None
        offset = int(_unpack(self.data, "H", vtable + 4 + 2 * slot))
        return self.place + offset if offset else None


def root(data: bytes) -> Table:
    """The table that a file starts with. Raises DamagedError where there can be none."""
    return _table(data, _follow(data, 0))


def _table(data: bytes, place: int) -> Table:
    vtable = place - int(_unpack(data, "i", place))
    _unpack(data, "HH", vtable)
    return Table(data, place)


def _unpack(data: bytes, kind: str, at: int) -> int | float:
    if at < 0 or at + struct.calcsize("<" + kind) > len(data):
        raise DamagedError(f"an offset leads to byte {at} of {len(data)}")
    value: int | float = struct.unpack_from("<" + kind, data, at)[0]
    return value


def _follow(data: bytes, at: int) -> int:
    return at + int(_unpack(data, "I", at))


def _vector(data: bytes, at: int, size: int) -> tuple[int, int]:
    count = int(_unpack(data, "I", at))
    if at + 4 + count * size > len(data):
        raise DamagedError(f"a list of {count} × {size} bytes at byte {at} of {len(data)}")
    return at + 4, count
