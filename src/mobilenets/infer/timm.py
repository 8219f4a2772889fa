"""timm's MobileNet files: its tensor names and habits, read as a network of the zoo.

timm builds them in `timm/models/efficientnet.py` and `timm/models/mobilenetv3.py` (Apache-2.0): channels
rounded to multiples of 8, symmetric padding, batch norms with PyTorch's epsilon, and for V1 `100h` a
pointwise layer before the pool. Files of its `tf_` networks have the same names and pad as TensorFlow does:
nothing in them says so.
"""

from __future__ import annotations

import json
import re
import struct
from collections import Counter
from collections.abc import Mapping

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from mobilenets.infer.artefact import Artefact
from mobilenets.infer.recognise import labels_for, renamed, without_background
from mobilenets.spec import head, zoo
from mobilenets.spec.net import NORM_TENSORS, Net
from mobilenets.spec.op import Convolution
from mobilenets.spec.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess

STAGES: dict[str, tuple[int, ...]] = {
    "v1": (1, 2, 2, 6, 2),
    "v2": (1, 2, 3, 4, 3, 3, 1),
    "v3-large": (1, 2, 3, 4, 2, 3, 1),
    "v3-small": (1, 2, 3, 2, 3, 1),
    "v3-large-minimalistic": (1, 2, 3, 4, 2, 3, 1),
    "v3-small-minimalistic": (1, 2, 3, 2, 3, 1),
    "v4-conv-small": (2, 2, 6, 6, 1),
    "v4-conv-medium": (1, 2, 8, 11, 1),
}
"""Blocks of each stage; timm numbers a block by its stage and its place there. Of V3 and V4 the last stage is
the pointwise layer before the pool."""
WIDEST = {
    "v1": 1024,
    "v2": 320,
    "v3-large": 960,
    "v3-small": 576,
    "v4-conv-small": 960,
    "v4-conv-medium": 960,
}
"""Channels that the last of a network's blocks gives at width 1."""
PLACE = re.compile(r"blocks\.(\d+)\.(\d+)\.")
CROPS = {("v1", 1.25): 0.9, ("v4-conv-medium", 1.0): 0.95}
"""The crops with which timm evaluates where they are not 0.875."""
DTYPES = ("F32", "F16")
EXPANDED = {"expand": ("conv_pw", "bn1"), "depthwise": ("conv_dw", "bn2"), "project": ("conv_pwl", "bn3")}
SEPARABLE = {
    "depthwise": ("conv_dw", "bn1"),
    "pointwise": ("conv_pw", "bn2"),
    "project": ("conv_pw", "bn2"),
    "gate.reduce": ("se.conv_reduce", ""),
    "gate.expand": ("se.conv_expand", ""),
}
UNIVERSAL = {
    ours: (f"{their}.conv", f"{their}.bn")
    for ours, their in (
        *(("first", "dw_start"), ("expand", "pw_exp"), ("depthwise", "dw_mid"), ("project", "pw_proj")),
    )
}
FUSED = {"conv": ("conv_exp", "bn1"), "project": ("conv_pwl", "bn2")}
SINGLE = {"conv": ("conv", "bn1"), "pointwise": ("conv", "bn1")}
"""Of each kind of block: its layers, and timm's names of their convolution and batch norm."""


def read(data: bytes, resolution: int | None = None) -> Artefact:
    """The MobileNet in a safetensors file that timm wrote, with or without its classifier.

    The file does not say a resolution: the published one unless it is given; nor how pixels become an input:
    V1 takes −1…1, the others mean and std of ImageNet, as the published weights of timm's recipes were
    trained. Raises ValueError that lists what is missing, extra or of another shape.
    """
    found = tensors_in(data)
    if "conv_stem.weight" not in found:
        raise ValueError(
            "a safetensors file, but neither a mobilenets model nor a MobileNet of timm: no conv_stem.weight"
        )
    net = _net(found, resolution)
    weights = renamed(net, names(net), found)
    net, weights = without_background(net, weights)
    side, fraction = net.resolution, CROPS.get((net.name, net.width), 0.875)
    if net.name == "v1":
        pre = Preprocess(height=side, width=side, fraction=fraction)
        told = "(levels − 127.5) / 127.5, timm's mean and std of 0.5"
    else:
        pre = Preprocess(height=side, width=side, fraction=fraction, mean=IMAGENET_MEAN, std=IMAGENET_STD)
        told = "timm's mean and std of ImageNet; the file does not say"
    source = {"format": "timm", "input": told}
    return Artefact(net=net, weights=weights, preprocess=pre, labels=labels_for(net), source=source)


def names(net: Net) -> dict[str, str]:
    """timm's name for each of our tensors."""
    found = {}
    parts: dict[str, set[str]] = {}
    for node in net.nodes:
        unit, _, part = node.name.partition(".")
        parts.setdefault(unit, set()).add(part)
    places = [
        f"blocks.{stage}.{place}" for stage, count in enumerate(STAGES[net.name]) for place in range(count)
    ]
    for node in net.nodes:
        unit, _, part = node.name.partition(".")
        if node.name == head.HEAD:
            found.update({f"{head.HEAD}.{one}": f"classifier.{one}" for one in ("weight", "bias")})
        elif isinstance(node.op, Convolution):
            layer, norm = _layer(net.name, unit, part, parts[unit], places)
            found[f"{node.name}.weight"] = f"{layer}.weight"
            if node.op.bias:
                found[f"{node.name}.bias"] = f"{layer}.bias"
            if node.op.norm is not None:
                found.update({f"{node.name}.norm.{one}": f"{norm}.{one}" for one in NORM_TENSORS})
    return found


def _layer(net: str, unit: str, part: str, parts: set[str], places: list[str]) -> tuple[str, str]:
    """timm's names of a layer's convolution and batch norm."""
    if unit == "stem":
        return "conv_stem", "bn1"
    if unit == "last":
        if net in ("v1", "v2"):
            return "conv_head", "bn2"
        return ("conv_head", "norm_head") if part == "vector" else (f"{places[-1]}.conv", f"{places[-1]}.bn1")
    if parts in ({"conv"}, {"pointwise"}):
        kind = SINGLE
    elif "conv" in parts:
        kind = FUSED
    elif net.startswith("v4"):
        kind = UNIVERSAL
    else:
        kind = SEPARABLE | EXPANDED if "expand" in parts else SEPARABLE
    place = places[int(unit.removeprefix("block")) - 1]
    layer, norm = kind[part]
    return f"{place}.{layer}", f"{place}.{norm}"


def _net(found: Mapping[str, NDArray[np.float32]], resolution: int | None) -> Net:
    """The network whose stages the file has, else that of its kind of blocks, for what then differs."""
    there = {place for name in found if (place := PLACE.match(name)) is not None}
    stages = Counter(int(stage) for stage, _ in {one.groups() for one in there})
    has = tuple(stages[number] for number in sorted(stages))
    gated = any(".se." in name for name in found)
    kinds = [name for name, want in STAGES.items() if want == has]
    kinds = [name for name in kinds if not name.startswith("v3") or gated != name.endswith("minimalistic")]
    expands = any("conv_pwl" in name for name in found)
    name = kinds[0] if kinds else "v2" if expands else "v1"
    last = found["conv_stem.weight"]
    full = zoo.V1_STEM
    at_one = zoo.timm(name, 1.0, zoo.DEFAULTS[name][0])
    ends = [one for one in names(at_one).values() if one.startswith("blocks.") and one in found]
    convolutions = [one for one in ends if found[one].ndim == 4]
    if convolutions and kinds:
        last, full = found[convolutions[-1]], WIDEST[name.removesuffix("-minimalistic")]
    width = round(last.shape[0] / full * 20) / 20 if last.ndim else 0.0
    if not 0 < width <= 8:
        raise ValueError(f"its layers are {list(last.shape)}: no width of {name} has that")
    wide = name == "v1" and "conv_head.weight" in found
    net = zoo.timm(name, width, resolution or zoo.DEFAULTS[name][0], last=wide)
    top = found.get("classifier.weight")
    return net if top is None or not top.ndim else head.classify(net, max(top.shape[0], 1))


def tensors_in(data: bytes) -> dict[str, NDArray[np.float32]]:
    """Every tensor of a safetensors file but counters, in float32. ValueError for a file that is damaged."""
    try:
        (length,) = struct.unpack("<Q", data[:8])
        table = json.loads(data[8 : 8 + length])
        kinds = {name: entry["dtype"] for name, entry in table.items() if name != "__metadata__"}
    except (struct.error, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError("no safetensors file: its header cannot be read; get it again") from error
    for name, kind in kinds.items():
        if not name.endswith(".num_batches_tracked") and kind not in DTYPES:
            raise ValueError(f"its tensor {name} is {kind}; convert it to float32")
    try:
        found = safetensors.numpy.load(data)
    except (SafetensorError, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"a damaged safetensors file ({error}); get it again") from error
    return {
        name: np.asarray(value, np.float32)
        for name, value in found.items()
        if not name.endswith(".num_batches_tracked")
    }
