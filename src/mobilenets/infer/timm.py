"""timm's MobileNet V1 files: its tensor names and habits, read as a network of the zoo.

timm builds them in `timm/models/efficientnet.py` (`_gen_mobilenet_v1`, Apache-2.0): channels rounded to
multiples of 8, symmetric padding, relu6, batch norms with PyTorch's epsilon, and for `100h` a pointwise layer
before the pool.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from mobilenets.infer.artefact import Artefact
from mobilenets.infer.recognise import labels_for, renamed, without_background
from mobilenets.spec import head, zoo
from mobilenets.spec.net import NORM_TENSORS, Net
from mobilenets.spec.preprocess import Preprocess

EPSILON = 1e-5
STAGES = (1, 2, 2, 6, 2)
"""Blocks of each stage; timm numbers a block by its stage and its place there."""
WIDE_CROP = 0.9
"""The crop with which timm evaluates width 1.25; the others keep 0.875."""
DTYPES = ("F32", "F16")


def read(data: bytes, resolution: int = 224) -> Artefact:
    """The V1 in a safetensors file that timm wrote, with or without its classifier.

    The file does not say a resolution; `resolution` is what the network is set to. Pixels go to −1…1, as
    timm's V1 were trained (mean and std 0.5). Raises ValueError that lists what is missing, extra or of
    another shape.
    """
    found = _tensors(data)
    if "conv_stem.weight" not in found:
        raise ValueError(
            "a safetensors file, but neither a mobilenets model nor a V1 of timm: no conv_stem.weight"
        )
    net = _net(found, resolution)
    weights = renamed(net, names(net), found)
    net, weights = without_background(net, weights)
    fraction = WIDE_CROP if net.width == 1.25 else 0.875
    return Artefact(
        net=net,
        weights=weights,
        preprocess=Preprocess(height=resolution, width=resolution, fraction=fraction),
        labels=labels_for(net),
        source={"format": "timm", "input": "(levels − 127.5) / 127.5, timm's mean and std of 0.5"},
    )


def names(net: Net) -> dict[str, str]:
    """timm's name for each of our tensors."""
    theirs = {"stem": ("conv_stem", "bn1"), "last.pointwise": ("conv_head", "bn2")}
    block = 0
    for stage, count in enumerate(STAGES):
        for place in range(count):
            block += 1
            theirs[f"block{block}.depthwise"] = (
                f"blocks.{stage}.{place}.conv_dw",
                f"blocks.{stage}.{place}.bn1",
            )
            theirs[f"block{block}.pointwise"] = (
                f"blocks.{stage}.{place}.conv_pw",
                f"blocks.{stage}.{place}.bn2",
            )
    found = {f"{head.HEAD}.{part}": f"classifier.{part}" for part in ("weight", "bias")}
    for ours, (convolution, norm) in theirs.items():
        found[f"{ours}.weight"] = f"{convolution}.weight"
        found.update({f"{ours}.norm.{part}": f"{norm}.{part}" for part in NORM_TENSORS})
    wanted = {node.name for node in net.nodes}
    return {ours: their for ours, their in found.items() if _node(ours) in wanted}


def _node(tensor: str) -> str:
    return tensor.removesuffix(".weight").removesuffix(".bias").split(".norm")[0]


def _net(found: Mapping[str, NDArray[np.float32]], resolution: int) -> Net:
    last = found.get("blocks.4.1.conv_pw.weight", found["conv_stem.weight"])
    full = 1024 if "blocks.4.1.conv_pw.weight" in found else zoo.V1_STEM
    width = round(last.shape[0] / full * 20) / 20 if last.ndim else 0.0
    if not 0 < width <= 8:
        raise ValueError(f"its layers are {list(last.shape)}: no width of V1 has that")
    net = zoo.v1(
        width,
        resolution,
        last="conv_head.weight" in found,
        rounding="divisible",
        padding="symmetric",
        epsilon=EPSILON,
    )
    top = found.get("classifier.weight")
    return net if top is None or not top.ndim else head.classify(net, max(top.shape[0], 1))


def _tensors(data: bytes) -> dict[str, NDArray[np.float32]]:
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
