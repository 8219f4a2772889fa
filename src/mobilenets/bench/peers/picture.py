"""The picture that every engine is given, prepared outside the timed part, and the shape of a peer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Run = Callable[[], NDArray[np.float32]]
"""One answer: the output fetched, float32 [n] or [1, n]."""


class Picture:
    """`values` float32 [height, width, 3] and `levels` uint8 of the same picture, read when asked for."""

    def __init__(self, source: Path) -> None:
        self.source = source

    @property
    def values(self) -> NDArray[np.float32]:
        found: NDArray[np.float32] = np.load(self.source / "values.npy")
        return found

    @property
    def levels(self) -> NDArray[np.uint8]:
        found: NDArray[np.uint8] = np.load(self.source / "levels.npy")
        return found

    def bytes_in(self, place: Path) -> NDArray[np.uint8]:
        """The picture as the bytes that a file of int8 takes, [1, 3, height, width]; `place` has them."""
        height, width, channels = self.levels.shape
        found: NDArray[np.uint8] = np.fromfile(place / "input.bin", np.uint8)
        return found.reshape(1, channels, height, width)

    @property
    def planes(self) -> NDArray[np.float32]:
        """The values as [1, 3, height, width]."""
        return np.ascontiguousarray(self.values.transpose(2, 0, 1)[None])
