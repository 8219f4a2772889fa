"""The one protocol of everything that runs a model, and its numpy form."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mobilenets.infer.artefact import Artefact
from mobilenets.infer.image import normalise, prepare
from mobilenets.infer.integer import IntegerWalk
from mobilenets.infer.resize import Frame
from mobilenets.infer.walk import Walk
from mobilenets.spec.preprocess import Preprocess


class Engine(Protocol):
    """Runs one model on frames as they come: uint8 [height, width, 3] of any size, RGB.

    `engine(frame)` gives each output by name, `engine.many(frames)` the same with a leading axis.
    """

    def __call__(self, frame: Frame) -> dict[str, NDArray[np.float32]]: ...

    def many(self, frames: Sequence[Frame]) -> dict[str, NDArray[np.float32]]: ...


class NumpyEngine:
    """The reference engine: preparation and walk in numpy, in integers for a quantised model."""

    def __init__(self, model: Artefact) -> None:
        self._run = _integers(model) if model.scales else _floats(model)
        self._preprocess = model.preprocess

    def __call__(self, frame: Frame) -> dict[str, NDArray[np.float32]]:
        return {name: value[0] for name, value in self.many([frame]).items()}

    def many(self, frames: Sequence[Frame]) -> dict[str, NDArray[np.float32]]:
        """Outputs of several frames, each with a leading axis; frames may differ in size."""
        return self.prepared(np.stack([prepare(frame, self._preprocess) for frame in frames]))

    def prepared(self, levels: Frame) -> dict[str, NDArray[np.float32]]:
        """Outputs for frames that are prepared, uint8 [n, height, width, 3]: nothing is cut or resized."""
        return self._run(levels)


def _floats(model: Artefact) -> Callable[[Frame], dict[str, NDArray[np.float32]]]:
    walk = Walk(model.net, model.weights)
    return lambda prepared: walk(normalise(prepared, model.preprocess))


def _integers(model: Artefact) -> Callable[[Frame], dict[str, NDArray[np.float32]]]:
    walk = IntegerWalk(model.net, model.weights, model.scales, model.preprocess)
    scales = {output.name: model.scales.get(output.node) for output in model.net.outputs}

    def run(prepared: Frame) -> dict[str, NDArray[np.float32]]:
        found = walk(prepared)
        return {
            name: value if (s := scales[name]) is None else s.values(value) for name, value in found.items()
        }

    return run


def latency_ms(engine: Engine, target: Preprocess, runs: int = 20) -> float:
    """Median milliseconds from a frame of twice the target's sides to outputs, after a warm-up."""
    frame = np.random.default_rng(0).integers(
        0, 256, (2 * target.height, 2 * target.width, 3), dtype=np.uint8
    )
    engine(frame)
    taken = []
    for _ in range(runs):
        begun = time.perf_counter()
        engine(frame)
        taken.append(1e3 * (time.perf_counter() - begun))
    return round(median(taken), 3)
