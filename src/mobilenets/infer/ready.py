"""A model ready to use: pictures in, answers or features out, with numpy alone."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mobilenets.infer.compiled import CompiledEngine
from mobilenets.infer.decode import Answer, answer
from mobilenets.infer.image import decode
from mobilenets.infer.resize import Frame
from mobilenets.spec.suffix import COMPILED

if TYPE_CHECKING:
    from mobilenets.infer.artefact import Artefact
    from mobilenets.infer.engine import Engine
    from mobilenets.infer.weights import Progress

Picture: TypeAlias = str | PathLike[str] | bytes | Image.Image | Frame
"""A file's path, a file's bytes, a Pillow image, or RGB uint8 [height, width, 3]."""


class Model:
    """A model and the engine that runs it: `model(picture)` answers, `model.features(picture)` describes."""

    def __init__(self, described: Artefact | CompiledEngine, engine: Engine | None = None) -> None:
        if isinstance(described, CompiledEngine):
            engine = described
        elif engine is None:
            from mobilenets.infer.engine import NumpyEngine

            engine = NumpyEngine(described)
        self.engine, self._described = engine, described

    @property
    def artefact(self) -> Artefact:
        """All that is known of the model; without weights where they are compiled."""
        known = self._described
        return known.model if isinstance(known, CompiledEngine) else known

    @property
    def labels(self) -> tuple[str, ...]:
        return self._described.labels

    def __call__(self, picture: Picture, top: int = 5) -> Answer:
        """The `top` best labels, best first. Raises ValueError for a model that names no classes."""
        return answer(self.logits([self.frame(picture)])[0], self.labels, top, self._described.threshold)

    def features(self, picture: Picture) -> NDArray[np.float32]:
        """The body's features of a picture, float32 [channels]."""
        return self.engine(self.frame(picture))["features"]

    def logits(self, frames: Sequence[Frame]) -> NDArray[np.float32]:
        """Logits [n, classes] of frames of any size; their softmax is a probability over `labels`."""
        if not self.labels:
            raise ValueError(
                f"{self.artefact.net.name}: a body without named classes; it gives features only"
            )
        return self.engine.many(frames)["logits"]

    def frame(self, picture: Picture) -> Frame:
        """A picture as uint8 [height, width, 3]. Raises ImageError where it cannot be decoded."""
        if isinstance(picture, np.ndarray):
            return picture
        if isinstance(picture, Image.Image):
            return np.asarray(picture.convert("RGB"))
        data = picture if isinstance(picture, bytes) else Path(picture).read_bytes()
        return decode(data, self._described.preprocess)


def load(
    model: str | PathLike[str], progress: Progress | None = None, *, integers: bool = False, threads: int = 1
) -> Model:
    """A model file (our own, `.tflite`, Keras, timm), or weights by a name of `mobilenets models`.

    So is a library that `mobilenets compile` built (`.so`): that is code, and runs as such, with `threads`.

    With `integers` a quantised `.tflite` computes in its own integers; otherwise it is read in float32.
    A name is looked for in the cache and then fetched from its home; `progress` is told of the bytes. Raises
    ValueError, one line, for a file that is damaged or of no kind that is known.
    """
    named = str(model)
    if Path(named).suffix in COMPILED and Path(named).exists():
        return Model(CompiledEngine(Path(named), threads))
    # A compiled model needs none of these: they take longer to import than it to answer.
    from mobilenets.infer import adopt, weights
    from mobilenets.spec.published import PUBLISHED

    if not Path(named).exists() and any(entry.name == named for entry in PUBLISHED):
        entry = next(entry for entry in PUBLISHED if entry.name == named)
        size = entry.net, entry.width, entry.resolution
        return Model(weights.load(weights.find(named, *size, progress=progress), integers=integers))
    if not Path(named).exists():
        raise ValueError(f"{named}: no such file, nor a name that `mobilenets models` lists")
    return Model(adopt.read(Path(named), integers=integers))
