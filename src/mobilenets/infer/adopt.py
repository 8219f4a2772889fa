"""Any file of weights, told by its first bytes and not by its name, as one model of our own."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mobilenets.infer import artefact, branched, keras, tflite, timm
from mobilenets.infer.artefact import Artefact
from mobilenets.infer.fold import fold
from mobilenets.infer.integer import dequantised
from mobilenets.infer.sealed import KEY, ArtefactError
from mobilenets.spec.head import headless
from mobilenets.spec.net import Net, Node, tensors
from mobilenets.spec.op import Add, BatchNorm, Conv, Depthwise, Pointwise

MOST_BYTES = 1 << 30
FOREIGN = {
    b"PK\x03\x04": "a zip archive (a PyTorch checkpoint or a .keras model?)",
    b"\x80": "a Python pickle, which could run anything",
    b"\x08": "perhaps an ONNX model",
    b"<": "a web page or XML, not weights",
}
KNOWN = "known are mobilenets models, .tflite, Keras' .h5, .safetensors of timm and torchvision, Caffe's .npz"
ARRAY = re.compile(rb"PK\x03\x04.{22}(..)..[^\x00]{0,200}\.npy", re.DOTALL)
"""How an .npz begins: a zip archive whose first name ends so."""


def read(path: Path, *, integers: bool = False) -> Artefact:
    """The model in a file of any kind that is known, whatever its name ends in.

    A quantised `.tflite` keeps its integers where `integers` says so and is read in float32 otherwise; one of
    our own stays what it is.
    Labels are ImageNet's names where the classifier has its thousand classes (a background class is dropped).
    `source` names the file, its format and its SHA-256. Raises ValueError, one line that names the file, what
    is wrong and what to do.
    """
    try:
        if path.is_dir():
            raise ValueError("a folder; give a file of weights, or a library that was compiled")
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"{path.stat().st_size} bytes: larger than any MobileNet")
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    try:
        kind, reader = _reader(data, path.name, integers)
        model = reader(data)
    except ValueError as error:
        kinds = ArtefactError if isinstance(error, ArtefactError) else ValueError
        raise kinds(f"{path}: {error}") from error
    except MemoryError as error:
        raise ValueError(f"{path}: its tensors do not fit in memory") from error
    source = {**model.source, "file": path.name, "format": kind, "sha256": hashlib.sha256(data).hexdigest()}
    if kind == "mobilenets" and model.source:
        source = {
            "file": path.name,
            "format": kind,
            "sha256": source["sha256"],
            "made_from": dict(model.source),
        }
    return replace(model, source=source)


def _reader(data: bytes, name: str, integers: bool) -> tuple[str, Callable[[bytes], Artefact]]:
    if not data:
        raise ValueError("the file is empty; get it again")
    if data[4:8] == tflite.MAGIC:
        return "tflite", lambda content: tflite.read(content, integers=integers)
    if data.startswith(keras.MAGIC):
        resolution = named_resolution(name)
        return "keras", lambda content: keras.read(content, resolution)
    if data[8:9] == b"{" and int.from_bytes(data[:8], "little") < 1 << 32:
        table = data[: 8 + int.from_bytes(data[:8], "little")]
        if f'"{KEY}"'.encode() in table:
            return "mobilenets", artefact.from_bytes
        if any(f'"{name}"'.encode() in table for name in (branched.SHUFFLENET, branched.SQUEEZENET)):
            return "torchvision", branched.from_torchvision
        return "timm", timm.read
    if ARRAY.match(data):
        return "caffe", branched.from_arrays
    foreign = next((text for magic, text in FOREIGN.items() if data.startswith(magic)), "no file of weights")
    raise ValueError(f"{foreign}; {KNOWN}")


def named_resolution(name: str) -> int:
    """The resolution that Keras writes into its files' names, 224 where there is none; no tensor depends on
    it."""
    found = re.search(r"mobilenet_[\d_]*?_(128|160|192|224)_tf|kernels_[\d.]+_(96|128|160|192|224)", name)
    return int(found[1] or found[2]) if found else 224


def in_floats(model: Artefact) -> Artefact:
    """The model in float32: a quantised one computes the same then, but for the rounding of its maps."""
    if not model.scales:
        return model
    made = dequantised(model.net, model.weights, model.scales, model.preprocess)
    return replace(model, weights={name: made[name] for name in tensors(model.net)}, scales={})


def body(model: Artefact, net: Net) -> dict[str, NDArray[np.float32]]:
    """The weights of `model` for the body of `net`, at any resolution, head left out.

    Where one of the two has its batch norms folded, weights are folded or get a batch norm that leaves the
    function unchanged. Raises ValueError that lists the layers that are not the same.
    """
    model = in_floats(model)
    have, want = headless(model.net), headless(net)
    theirs = {node.name: node for node in have.nodes}
    ours = {node.name: node for node in want.nodes}
    different = [
        f"{name}: {_plain(theirs[name])} there, {_plain(node)} here"
        for name, node in ours.items()
        if name in theirs and _plain(theirs[name]) != _plain(node)
    ]
    parts = (
        ("missing", [name for name in ours if name not in theirs]),
        ("extra", [name for name in theirs if name not in ours]),
        ("different", different),
    )
    if any(texts for _, texts in parts):
        listed = "; ".join(f"{what}: {', '.join(texts[:3])}" for what, texts in parts if texts)
        raise ValueError(
            f"weights of {have.name} {have.width:g} do not fit {want.name} {want.width:g}: {listed}"
        )
    weights = {name: value for name, value in model.weights.items() if name in tensors(have)}
    if all(_normed(node) is None for node in want.nodes):
        _, weights = fold(have, weights)
    made: dict[str, NDArray[np.float32]] = {}
    for node in want.nodes:
        norm = _normed(node)
        if norm is not None and _normed(theirs[node.name]) is None:
            made.update(_with_norm(node, weights, norm))
        else:
            made.update({name: weights[name] for name in weights if name.startswith(f"{node.name}.")})
    return made


def _normed(node: Node) -> BatchNorm | None:
    return node.op.norm if isinstance(node.op, Conv | Depthwise | Pointwise) else None


def _plain(node: Node) -> str:
    """The node's operation without its batch norm and bias, in words; of a sum what it adds."""
    op = node.op
    if isinstance(op, Add):
        return f"the sum of {' and '.join(node.inputs)}"
    if isinstance(op, Conv | Depthwise | Pointwise):
        op = replace(op, norm=None, bias=False)
        return str(op).replace(", norm=None, bias=False", "")
    return str(op)


def _with_norm(
    node: Node, weights: dict[str, NDArray[np.float32]], norm: BatchNorm
) -> dict[str, NDArray[np.float32]]:
    """A folded convolution as one with a batch norm that only adds the bias: γ = √(1 + ε), σ² = 1, μ = 0."""
    weight = weights[f"{node.name}.weight"]
    channels = weight.shape[0]
    bias = weights.get(f"{node.name}.bias", np.zeros(channels, np.float32))
    return {
        f"{node.name}.weight": weight,
        f"{node.name}.norm.weight": np.full(channels, np.sqrt(1 + norm.epsilon), np.float32),
        f"{node.name}.norm.bias": bias,
        f"{node.name}.norm.running_mean": np.zeros(channels, np.float32),
        f"{node.name}.norm.running_var": np.ones(channels, np.float32),
    }
