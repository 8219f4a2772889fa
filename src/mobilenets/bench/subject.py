"""What is raced: a network with its weights, one picture for it, and what the reference makes of that."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mobilenets.bench.keeping import made_whole
from mobilenets.costs.count import cost
from mobilenets.frames import frames
from mobilenets.infer import artefact, tflite, weights
from mobilenets.infer.adopt import in_floats
from mobilenets.infer.artefact import Artefact
from mobilenets.infer.image import normalise, prepare
from mobilenets.infer.ready import load
from mobilenets.infer.resize import Frame
from mobilenets.infer.walk import Walk, weightless
from mobilenets.spec import zoo
from mobilenets.spec.net import Net, Node, Output, tensors
from mobilenets.spec.op import Convolution, Linear, Shape
from mobilenets.spec.preprocess import Preprocess

NORM_FRAMES = 8


@dataclass(frozen=True, slots=True)
class Subject:
    """A model in a race; `folder` holds what engines are made from, under the digest of all of it.

    `wanted` is the first output that the numpy walk gives for the picture and for the other frames, float32
    [frames, n]; None where the model is a compiled one, whose weights nobody else can have.
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
        drawn = np.stack([prepare(frame, size) for frame in frames(None)[0][:NORM_FRAMES]])
        weights_of = random_weights(net, seed, normalise(drawn, size))
        made = Artefact(net=net, weights=weights_of, preprocess=size)
        return _prepared(made, None, f"random, seed {seed}", calibrate)
    if width is not None or resolution is not None:
        raise ValueError(f"{model}: has its own width and resolution; these go with {', '.join(zoo.NETS)}")
    found = load(model, progress).artefact
    path = Path(model) if Path(model).exists() else None
    return _prepared(found, path, str(found.source.get("file", model)), calibrate)


def random_weights(net: Net, seed: int, images: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """Random filters under norms that were measured on `images`, [n, height, width, 3], layer by layer.

    Without that a deep random network answers the same to every picture (correlation 0.999), and no
    comparison of answers would notice an engine that reads its input wrongly.
    """
    random = np.random.default_rng(seed)
    made: dict[str, NDArray[np.float32]] = {}
    for name, shape in tensors(net).items():
        part = name.rpartition(".")[2]
        if part in ("running_mean", "running_var"):
            values = np.full(shape, float(part == "running_var"))
        elif len(shape) == 1:
            # One is added to a norm's factor, and to its shift: most values then pass the activation, and
            # what rounding does to one layer does not grow from layer to layer.
            values = random.normal(0, 0.1, shape) + (name.endswith(("norm.weight", "norm.bias")))
        else:
            values = random.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
        made[name] = values.astype(np.float32)
    maps = {"image": images}
    for node in net.nodes:
        if not isinstance(node.op, Linear):
            maps[node.name] = weightless(node.op, [maps[name] for name in node.inputs])
            continue
        x = maps[node.inputs[0]]
        if isinstance(node.op, Convolution) and node.op.norm is not None:
            bare = _alone(replace(node, op=replace(node.op, norm=None, activation="none")), x, made)
            made[f"{node.name}.norm.running_mean"] = bare.mean(axis=(0, 1, 2))
            made[f"{node.name}.norm.running_var"] = bare.var(axis=(0, 1, 2))
        maps[node.name] = _alone(node, x, made)
    return made


def _alone(
    node: Node, x: NDArray[np.float32], weights: Mapping[str, NDArray[np.float32]]
) -> NDArray[np.float32]:
    """What one node makes of a map, by the walk."""
    net = Net(
        name=node.name,
        input=Shape(*x.shape[1:]),
        nodes=(replace(node, inputs=("image",)),),
        outputs=(Output("map", node.name, "vector"),),
    )
    y = Walk(net, {name: weights[name] for name in tensors(net)})(x)["map"]
    return y.reshape(len(x), 1, 1, -1) if y.ndim == 2 else y


def _prepared(model: Artefact, path: Path | None, told: str, calibrate: Path | None) -> Subject:
    levels = np.stack([prepare(frame, model.preprocess) for frame in frames(calibrate)[0]])
    data = b"" if path is None else path.read_bytes()
    is_tflite = data[4:8] == tflite.MAGIC
    given = data if is_tflite or model.scales or not model.weights else b""
    model = in_floats(model)
    own = artefact.digest(model) if model.weights else str(model.source["digest"])
    key = hashlib.sha256(f"{own} {levels.shape} ".encode() + levels.tobytes() + given).hexdigest()[:24]
    folder = weights.cache_dir() / "bench" / key
    values = normalise(levels, model.preprocess)
    wanted = None
    if model.weights:
        walk, first = Walk(model.net, model.weights), model.net.outputs[0].name
        wanted = np.stack([walk(one[None])[first][0].ravel() for one in values])
    if not folder.exists():
        with made_whole(folder) as place:
            _write(place, model, levels, values, given, path)
    return Subject(
        name=model.net.called,
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

    np.save(place / "levels.npy", levels[0])
    np.save(place / "values.npy", values[0])
    (place / "levels.bin").write_bytes(levels[0].tobytes())
    (place / "values.bin").write_bytes(values[0].tobytes())
    (place / "planes.bin").write_bytes(np.ascontiguousarray(values[0].transpose(2, 0, 1)).tobytes())
    np.save(place / "calibration.npy", levels)
    (place / "calibration").mkdir()
    for number, one in enumerate(levels):
        Image.fromarray(one).save(place / "calibration" / f"{number:02}.png")
    if model.weights:
        artefact.save(model, place / "model.safetensors")
    if given and path is not None:
        (place / f"given{'.tflite' if given[4:8] == tflite.MAGIC else path.suffix}").write_bytes(given)
