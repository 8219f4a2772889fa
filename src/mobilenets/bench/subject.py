"""What is raced: a network with its weights, one picture for it, and what the reference makes of that."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mobilenets.costs.count import cost
from mobilenets.infer import artefact, compiled, tflite, weights
from mobilenets.infer.artefact import Artefact
from mobilenets.infer.image import ImageError, decode, normalise, prepare
from mobilenets.infer.ready import load
from mobilenets.infer.resize import Frame
from mobilenets.infer.walk import Walk
from mobilenets.listing import pictures
from mobilenets.spec import zoo
from mobilenets.spec.net import Net, tensors
from mobilenets.spec.preprocess import Preprocess

FRAMES = 16
DRAWN_SIDES = (160, 480)
GIVEN, LIBRARY, LEVELS, VALUES = "given.tflite", "given", "levels.npy", "values.npy"
CALIBRATION, MODEL, CALIBRATION_FOLDER = "calibration.npy", "model.safetensors", "calibration"


@dataclass(frozen=True, slots=True)
class Subject:
    """A model in a race; `folder` holds what engines are made from, under the digest of all of it.

    `wanted` is the first output that the numpy walk gives for the picture, float32 [n]; None where the model
    is a compiled one, whose weights nobody else can have.
    """

    name: str
    model: Artefact
    weights: str
    digest: str
    macs: int
    folder: Path
    wanted: NDArray[np.float32] | None
    quantised: bool = False
    """Whether the file that was given is quantised already."""


def opened(
    model: str,
    *,
    width: float | None,
    resolution: int | None,
    seed: int,
    calibrate: Path | None,
    progress: weights.Progress | None = None,
) -> Subject:
    """What `model` names: a file, a known set of weights, or a network of the zoo with random weights."""
    if model in zoo.NETS and not Path(model).exists():
        net = zoo.net(model, 1.0 if width is None else width, resolution)
        size = Preprocess(height=net.input.height, width=net.input.width)
        made = Artefact(net=net, weights=random_weights(net, seed), preprocess=size)
        return _prepared(made, None, f"random, seed {seed}", calibrate)
    if width is not None or resolution is not None:
        raise ValueError(f"{model}: has its own width and resolution; these go with {', '.join(zoo.NETS)}")
    found = load(model, progress).artefact
    path = Path(model) if Path(model).exists() else None
    return _prepared(found, path, str(found.source.get("file", model)), calibrate)


def random_weights(net: Net, seed: int) -> dict[str, NDArray[np.float32]]:
    """Weights of a size that keeps activations near one; speed hangs on nothing else of them."""
    random = np.random.default_rng(seed)
    made = {}
    for name, shape in tensors(net).items():
        if name.endswith("running_var"):
            values = random.uniform(0.5, 1.5, shape)
        elif len(shape) == 1:
            values = random.normal(0, 0.1, shape) + name.endswith("norm.weight")
        else:
            values = random.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
        made[name] = values.astype(np.float32)
    return made


def _prepared(model: Artefact, path: Path | None, told: str, calibrate: Path | None) -> Subject:
    levels = np.stack([prepare(frame, model.preprocess) for frame in _frames(calibrate)])
    given = path.read_bytes() if path is not None and path.suffix in (".tflite", *compiled.SUFFIXES) else b""
    is_tflite = given[4:8] == tflite.MAGIC
    own = artefact.digest(model) if model.weights else str(model.source["digest"])
    key = hashlib.sha256(f"{own} {levels.shape} ".encode() + levels.tobytes() + given).hexdigest()[:24]
    folder = weights.cache_dir() / "bench" / key
    values = normalise(levels[:1], model.preprocess)
    wanted = None
    if model.weights:
        found = Walk(model.net, model.weights)(values)
        wanted = found[model.net.outputs[0].name][0].ravel()
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        place = Path(tempfile.mkdtemp(prefix=".part-", dir=folder.parent))
        try:
            _write(place, model, levels, values, given, path)
            place.chmod(0o755)
            place.rename(folder)
        except OSError:
            if not folder.exists():  # another process may have been faster
                raise
        finally:
            shutil.rmtree(place, ignore_errors=True)
    return Subject(
        name=f"{model.net.name} {model.net.width:g} at {model.net.resolution}",
        model=model,
        weights=told,
        digest=own,
        macs=cost(model.net).macs,
        folder=folder,
        wanted=wanted,
        quantised=is_tflite and str(model.source.get("weights", "")) in ("uint8", "int8"),
    )


def _write(
    place: Path,
    model: Artefact,
    levels: Frame,
    values: NDArray[np.float32],
    given: bytes,
    path: Path | None,
) -> None:
    from PIL import Image

    np.save(place / LEVELS, levels[0])
    np.save(place / VALUES, values[0])
    np.save(place / CALIBRATION, levels)
    (place / CALIBRATION_FOLDER).mkdir()
    for number, one in enumerate(levels):
        Image.fromarray(one).save(place / CALIBRATION_FOLDER / f"{number:02}.png")
    if model.weights:
        artefact.save(model, place / MODEL)
    if given and path is not None:
        (place / (GIVEN if given[4:8] == tflite.MAGIC else f"{LIBRARY}{path.suffix}")).write_bytes(given)


def _frames(folder: Path | None) -> list[Frame]:
    """Frames that a network may see: the user's pictures, or road signs drawn here."""
    if folder is None:
        from mobilenets.data.signs import FACES, sign

        drawn = (
            sign(name, np.random.default_rng(number), DRAWN_SIDES)
            for number, name in zip(range(FRAMES), cycle(FACES), strict=False)
        )
        return [decode(data) for data in drawn]
    frames: list[Frame] = []
    for _, data in pictures([str(folder)]):
        if isinstance(data, str):
            raise ValueError(f"{folder}: {data}")
        try:
            frames.append(decode(data()))
        except (ImageError, OSError):
            continue  # a bad picture among good ones calibrates nothing
        if len(frames) == FRAMES:
            break
    if not frames:
        raise ValueError(f"{folder}: none of its pictures can be read; see `mobilenets doctor`")
    return frames
