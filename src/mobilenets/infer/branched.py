"""SqueezeNet and ShuffleNet V2 as others keep them: Caffe's arrays in an .npz, torchvision's tensors.

Caffe's SqueezeNet (github.com/forresti/SqueezeNet) reads blue, green, red and takes means off; torchvision's
names are those of `torchvision/models/squeezenet.py` and `shufflenetv2.py` (BSD-3-Clause).
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from mobilenets.infer import imagenet
from mobilenets.infer.artefact import Artefact
from mobilenets.infer.recognise import renamed
from mobilenets.infer.timm import tensors_in
from mobilenets.spec import branching, building, head, zoo
from mobilenets.spec.net import NORM_TENSORS, Net, tensors
from mobilenets.spec.op import Convolution
from mobilenets.spec.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess

Tensors = dict[str, NDArray[np.float32]]
CAFFE = "conv10.weight"
"""Tells Caffe's SqueezeNet from other arrays."""
CAFFE_PIXELS, CAFFE_CROP = 227, 227 / 256
CAFFE_MEAN = (123.0, 117.0, 104.0)
"""Of red, green, blue, in levels; its weights take the levels as they are."""
FIRES_AT = {"squeezenet-1.0": (3, 4, 5, 7, 8, 9, 10, 12), "squeezenet-1.1": (3, 4, 6, 7, 9, 10, 11, 12)}
"""Where torchvision has fire2 to fire9 among its layers."""
FIRE_PARTS = {"squeeze": "squeeze", "expand1": "expand1x1", "expand3": "expand3x3"}
BRANCHES = {
    "left.depthwise": "branch1.0",
    "left.pointwise": "branch1.2",
    "reduce": "branch2.0",
    "depthwise": "branch2.3",
    "expand": "branch2.5",
}
"""Layers of a unit of ShuffleNet V2; each one's batch norm has the next number."""
SHUFFLENET, SQUEEZENET = "stage2.0.branch1.0.weight", "features.3.squeeze.weight"
MOST_BYTES = 1 << 30


def from_arrays(data: bytes) -> Artefact:
    """The SqueezeNet in an .npz of Caffe's names, [out, in, height, width]; its blue comes first no more.

    ValueError for other arrays, for pickled ones, and where tensors are missing, extra or of another shape.
    """
    found = _arrays(data)
    if CAFFE not in found:
        raise ValueError(f"an .npz of {len(found)} arrays, but no SqueezeNet of Caffe: no {CAFFE}")
    made = zoo.body("squeezenet-1.0", 1.0, CAFFE_PIXELS)
    net = head.convolved(made, max(1, found[CAFFE].shape[0] if found[CAFFE].ndim else 1))
    theirs = {}
    for name in tensors(net):
        node, _, part = name.rpartition(".")
        fire, _, layer = node.partition(".")
        known = {"stem": "conv1", f"{head.HEAD}.pointwise": "conv10"}
        inner = "squeeze1x1" if layer == "squeeze" else FIRE_PARTS.get(layer)
        theirs[name] = f"{known.get(node, f'{fire}_{inner}')}.{part}"
    weights = renamed(net, theirs, found)
    weights["stem.weight"] = np.ascontiguousarray(weights["stem.weight"][:, ::-1])
    return Artefact(
        net=net,
        weights=weights,
        preprocess=Preprocess(
            height=CAFFE_PIXELS,
            width=CAFFE_PIXELS,
            fraction=CAFFE_CROP,
            mean=CAFFE_MEAN,
            std=(1.0, 1.0, 1.0),
        ),
        labels=_labels(found[CAFFE].shape[0]),
        source={
            "format": "caffe",
            "input": "levels − (123, 117, 104), as Caffe's were trained; blue and red "
            "changed places in the first layer",
        },
    )


def from_torchvision(data: bytes) -> Artefact:
    """The SqueezeNet or ShuffleNet V2 in a safetensors file of torchvision's names.

    Raises ValueError that lists what is missing, extra or of another shape.
    """
    found = tensors_in(data)
    net = _shufflenet(found) if SHUFFLENET in found else _squeezenet(found)
    weights = renamed(net, names(net), found)
    side = net.resolution
    return Artefact(
        net=net,
        weights=weights,
        preprocess=Preprocess(height=side, width=side, mean=IMAGENET_MEAN, std=IMAGENET_STD),
        labels=_labels(next(iter(weights[name].shape[0] for name in weights if name.startswith(head.HEAD)))),
        source={"format": "torchvision", "input": "torchvision's mean and std of ImageNet"},
    )


def names(net: Net) -> dict[str, str]:
    """torchvision's name for each of our tensors."""
    found = {}
    for node in net.nodes:
        layer, norm = _layer(net.name, node.name)
        for part in ("weight", "bias"):
            found[f"{node.name}.{part}"] = f"{layer}.{part}"
        if isinstance(node.op, Convolution) and node.op.norm is not None:
            found.update({f"{node.name}.norm.{part}": f"{norm}.{part}" for part in NORM_TENSORS})
    wanted = tensors(net)
    return {ours: their for ours, their in found.items() if ours in wanted}


def _layer(net: str, node: str) -> tuple[str, str]:
    """torchvision's names of a layer's convolution and batch norm."""
    if net in FIRES_AT:
        if node == "stem":
            return "features.0", ""
        if node.startswith(head.HEAD):
            return "classifier.1", ""
        fire, _, part = node.partition(".")
        if part not in FIRE_PARTS:
            return "", ""
        return f"features.{FIRES_AT[net][int(fire.removeprefix('fire')) - 2]}.{FIRE_PARTS[part]}", ""
    if node == "stem":
        return "conv1.0", "conv1.1"
    if node == "last.pointwise":
        return "conv5.0", "conv5.1"
    stage, _, rest = node.partition(".")
    unit, _, part = rest.partition(".")
    if part not in BRANCHES:
        return ("fc", "") if node == head.HEAD else ("", "")
    place = f"{stage}.{int(unit.removeprefix('unit')) - 1}"
    branch, number = BRANCHES[part].split(".")
    return f"{place}.{branch}.{number}", f"{place}.{branch}.{int(number) + 1}"


def _squeezenet(found: Mapping[str, NDArray[np.float32]]) -> Net:
    newer = f"features.{FIRES_AT['squeezenet-1.1'][2]}.squeeze.weight" in found
    name = "squeezenet-1.1" if newer else "squeezenet-1.0"
    top = found.get("classifier.1.weight")
    return head.convolved(zoo.body(name), 1000 if top is None or not top.ndim else max(1, top.shape[0]))


def _shufflenet(found: Mapping[str, NDArray[np.float32]]) -> Net:
    wide = found.get("stage2.0.branch1.2.weight", found[SHUFFLENET])
    half = wide.shape[0] if wide.ndim else 0
    width = next((one for one, table in branching.SHUFFLENET_V2.items() if table[0] == 2 * half), 1.0)
    net = building.as_pytorch(branching.shufflenet_v2(width))
    top = found.get("fc.weight")
    return net if top is None or not top.ndim else head.classify(net, max(1, top.shape[0]))


def _labels(classes: int) -> tuple[str, ...]:
    return imagenet.labels() if classes == imagenet.CLASSES else ()


def _arrays(data: bytes) -> Tensors:
    """Every array of an .npz, in float32; pickled ones are refused unread."""
    found: Tensors = {}
    left = MOST_BYTES
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for entry in archive.infolist():
                left -= entry.file_size
                if left < 0:
                    raise ValueError(f"more than {MOST_BYTES} bytes of arrays")
                value = np.lib.format.read_array(io.BytesIO(archive.read(entry)), allow_pickle=False)
                if value.dtype.kind != "f":
                    raise ValueError(f"its array {entry.filename} is {value.dtype}, not floating point")
                found[entry.filename.removesuffix(".npy")] = np.asarray(value, np.float32)
    except (zipfile.BadZipFile, OSError, EOFError, RuntimeError, NotImplementedError, TypeError) as error:
        raise ValueError(f"a damaged .npz ({' '.join(str(error).split())[:120]}); get it again") from error
    return found
