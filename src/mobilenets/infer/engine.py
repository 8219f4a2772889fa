"""The one protocol of everything that runs a model, and its numpy form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mobilenets.infer.artefact import Artefact
from mobilenets.infer.image import normalise, prepare
from mobilenets.infer.resize import Frame
from mobilenets.infer.walk import Walk


class Engine(Protocol):
    """Runs one model on frames as they come: uint8 [height, width, 3] of any size, RGB.

    `engine(frame)` gives each output by name, `engine.many(frames)` the same with a leading axis.
    """

    def __call__(self, frame: Frame) -> dict[str, NDArray[np.float32]]: ...

    def many(self, frames: Sequence[Frame]) -> dict[str, NDArray[np.float32]]: ...


class NumpyEngine:
    """The reference engine: preparation and walk in numpy."""

    def __init__(self, model: Artefact) -> None:
        self._walk = Walk(model.net, model.weights)
        self._preprocess = model.preprocess

    def __call__(self, frame: Frame) -> dict[str, NDArray[np.float32]]:
        return {name: value[0] for name, value in self.many([frame]).items()}

    def many(self, frames: Sequence[Frame]) -> dict[str, NDArray[np.float32]]:
        """Outputs of several frames, each with a leading axis; frames may differ in size."""
        prepared = np.stack([prepare(frame, self._preprocess) for frame in frames])
        return self._walk(normalise(prepared, self._preprocess))
