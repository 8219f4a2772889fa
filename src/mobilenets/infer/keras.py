"""Keras applications' MobileNet files (HDF5): its layer names and habits, read as a network of the zoo.

Keras builds them in `keras/src/applications/mobilenet.py` (Apache-2.0): channels truncated, SAME padding,
relu6, batch norms with an epsilon of 1e-3, a 1 × 1 convolution `conv_preds` as the classifier. Its depthwise
layers of stride 2 pad below and right by one, which is SAME on the even maps of all its published
resolutions. V2 and V3 are built in `mobilenet_v2.py` and `mobilenet_v3.py`: channels in multiples of 8; V2's
classifier is a dense layer, V3's a convolution, and V3 takes levels, which it brings to −1…1 itself.
"""

from __future__ import annotations

import io
import math
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilenets.infer.artefact import Artefact
from mobilenets.infer.recognise import labels_for, renamed, without_background
from mobilenets.spec import head, zoo
from mobilenets.spec.net import Net
from mobilenets.spec.op import Convolution, Linear
from mobilenets.spec.preprocess import Preprocess

MAGIC = b"\x89HDF\r\n\x1a\n"
NORMS = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
MOST_BYTES = 1 << 30
LAYER = re.compile(
    r"conv1|conv_(?:dw|pw)_\d+|(?:conv1|conv_(?:dw|pw)_\d+)_bn|conv_preds"
    r"|Conv1|bn_Conv1|Conv_1|Conv_1_bn|predictions|conv|conv_bn|conv_1|conv_1_bn|conv_2|logits"
    r"|(?:expanded_conv|block)(?:_\d+)?_(?:expand|depthwise|project|squeeze_excite_conv(?:_1)?)(?:_BN|_bn)?"
)
V2_LAST, V3_LAST = "block_16_project/kernel", "conv_1/kernel"
"""Whose channels tell the width."""
V2_NAMES = {
    "stem": ("Conv1", "bn_Conv1"),
    "last.pointwise": ("Conv_1", "Conv_1_bn"),
    head.HEAD: ("predictions", ""),
}
V3_NAMES = {
    "stem": ("conv", "conv_bn"),
    "last.pointwise": ("conv_1", "conv_1_bn"),
    "last.vector": ("conv_2", ""),
    head.HEAD: ("logits", ""),
}
GATES = {"gate.reduce": "squeeze_excite_conv", "gate.expand": "squeeze_excite_conv_1"}
STORED = re.compile(r"(?:^|/)layers/(conv2d|depthwise_conv2d|batch_normalization)(?:_(\d+))?/vars/(\d+)$")
"""A tensor in Keras 3's own format: the kind of layer, its number among its kind, the variable's number."""
DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, OverflowError, MemoryError)
"""What h5py raises on files that are cut short or altered."""


def read(data: bytes, resolution: int = 224) -> Artefact:
    """The V1, V2 or V3 in a Keras `.h5` (weights or whole model, with or without top), a V1 in `.weights.h5`.

    The file does not say a resolution; `resolution` is what the network is set to. Pixels go to −1…1, as
    `keras.applications.mobilenet.preprocess_input` does. Raises ValueError that lists what is missing, extra
    or of another shape, or says that h5py is missing.
    """
    found = _tensors(data)
    net = _net(found, resolution)
    net, weights = without_background(net, renamed(net, names(net), found))
    return Artefact(
        net=net,
        weights=weights,
        preprocess=Preprocess(height=resolution, width=resolution),
        labels=labels_for(net),
        source={"format": "keras", "input": "(levels − 127.5) / 127.5, Keras' preprocess_input"},
    )


def names(net: Net) -> dict[str, str]:
    """Keras' name for each of our tensors, as `layer/variable`."""
    found = {}
    for node in net.nodes:
        layer, norm = _layer(net.name, node.name)
        if not isinstance(node.op, Linear) or not layer:
            continue
        found[f"{node.name}.weight"] = f"{layer}/kernel"
        if node.op.bias:
            found[f"{node.name}.bias"] = f"{layer}/bias"
        if isinstance(node.op, Convolution) and node.op.norm is not None:
            found.update({f"{node.name}.norm.{ours}": f"{norm}/{their}" for ours, their in NORMS.items()})
    return found


def _layer(net: str, node: str) -> tuple[str, str]:
    """Keras' names of a layer and of its batch norm."""
    block, _, part = node.removeprefix("block").partition(".")
    if net.startswith(("v2", "v3")):
        fixed = V2_NAMES if net == "v2" else V3_NAMES
        if node in fixed or not block.isdigit():
            return fixed.get(node, ("", ""))
        later = "block" if net == "v2" else "expanded_conv"
        place = "expanded_conv" if block == "1" else f"{later}_{int(block) - 1}"
        layer = f"{place}_{GATES.get(part, part)}"
        return layer, f"{layer}_{'BN' if net == 'v2' else 'bn'}"
    if node in ("stem", head.HEAD):
        return ("conv1", "conv1_bn") if node == "stem" else ("conv_preds", "")
    layer = {"depthwise": f"conv_dw_{block}", "pointwise": f"conv_pw_{block}"}.get(part, "")
    return layer, f"{layer}_bn"


def _net(found: dict[str, NDArray[np.float32]], resolution: int) -> Net:
    later = _later(found, resolution)
    if later is not None:
        return later
    stem = found.get("conv1/kernel")
    if stem is None:
        raise ValueError(
            f"an HDF5 file, but no V1 of Keras, V2 or V3: no conv1/kernel among its {len(found)} tensors"
        )
    last = found.get("conv_pw_13/kernel", stem)
    width = round(last.shape[0] / (1024 if last is not stem else zoo.V1_STEM), 2)
    if not 0 < width <= 8:
        raise ValueError(f"its last layer makes {last.shape[0]} channels: no width of V1 has that")
    net = zoo.v1(width, resolution, rounding="keras")
    top = found.get("conv_preds/kernel")
    return net if top is None else head.classify(net, top.shape[0])


def _later(found: dict[str, NDArray[np.float32]], resolution: int) -> Net | None:
    """The V2 or V3 that a file has, None where it has neither."""
    if V2_LAST in found:
        name, last, full = "v2", found[V2_LAST], 320
        top = found.get("predictions/kernel")
    elif V3_LAST in found and "expanded_conv_project/kernel" in found:
        large = "expanded_conv_14_project/kernel" in found
        gated = any("squeeze_excite" in one for one in found)
        name = f"v3-{'large' if large else 'small'}{'' if gated else '-minimalistic'}"
        last, full = found[V3_LAST], 960 if large else 576
        top = found.get("logits/kernel")
    else:
        return None
    width = round(last.shape[0] / full * 20) / 20
    if not 0 < width <= 8:
        raise ValueError(f"its last block gives {list(last.shape)} channels: no width of {name} has that")
    net = zoo.body(name, width, resolution)
    return net if top is None else head.classify(net, top.shape[0])


def _tensors(data: bytes) -> dict[str, NDArray[np.float32]]:
    """Every tensor of the file as `layer/variable`, in our order of axes."""
    try:
        import h5py
    except ImportError as error:
        raise ValueError("a Keras file needs h5py to be read: pip install h5py") from error
    found: dict[str, NDArray[np.float32]] = {}
    left = MOST_BYTES

    def take(path: str, item: Any) -> None:
        nonlocal left
        if not isinstance(item, h5py.Dataset) or path.startswith("optimizer"):
            return
        # Such values lie wherever the file says: any file of this user's, or one that never ends.
        if item.external or item.is_virtual:
            raise ValueError(f"{path} keeps its values in another file, which is not read")
        name = _name(path)
        left -= math.prod(item.shape or ()) * item.dtype.itemsize
        if left < 0:
            raise ValueError(f"more than {MOST_BYTES} bytes of tensors")
        if item.dtype.kind != "f":
            if item.ndim:
                raise ValueError(f"{path} holds {item.dtype}, not floating point")
            return  # a counter, such as a seed generator's state
        if name in found:
            raise ValueError(f"two tensors called {name}")
        if name.endswith("/kernel") and item.ndim < 2:
            raise ValueError(f"{path} has the shape {list(item.shape)}: no kernel has that")
        found[name] = _turned(name, np.asarray(item[()], np.float32))

    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            file.visititems(take)
    except DAMAGE as error:
        text = " ".join(str(error).split())[:120]
        raise ValueError(f"a damaged or foreign HDF5 file ({text}); get it again") from error
    return found


def _name(path: str) -> str:
    """`layer/variable` for a path in a file of any of Keras' generations."""
    stored = STORED.search(path)
    if stored is not None:
        return _stored_name(stored[1], int(stored[2] or 0), int(stored[3])) or path
    *groups, variable = path.split("/")
    variable = variable.removesuffix(":0").replace("depthwise_kernel", "kernel")
    layer = next((group for group in groups if LAYER.fullmatch(group)), None)
    return f"{layer}/{variable}" if layer else path


def _stored_name(kind: str, number: int, variable: int) -> str | None:
    """Keras 3 numbers layers of a kind in their order: conv2d is the stem, then pointwise, then the
    classifier."""
    if kind == "batch_normalization":
        order = "conv1" if number == 0 else f"conv_{'dw' if number % 2 else 'pw'}_{(number + 1) // 2}"
        parts = list(NORMS.values())
        return f"{order}_bn/{parts[variable]}" if variable < len(parts) else None
    part = ("kernel", "bias")[variable] if variable < 2 else str(variable)
    if kind == "depthwise_conv2d":
        return f"conv_dw_{number + 1}/{part}"
    layer = "conv1" if number == 0 else f"conv_pw_{number}" if number <= 13 else "conv_preds"
    return f"{layer}/{part}"


def _turned(name: str, value: NDArray[np.float32]) -> NDArray[np.float32]:
    """[height, width, in, out] to [out, in, height, width]; a depthwise filter's channels come first too."""
    layer, _, variable = name.partition("/")
    if variable == "kernel" and value.ndim == 2:
        return np.ascontiguousarray(value.T)
    if variable != "kernel" or value.ndim != 4:
        return value
    if layer in ("conv_preds", "logits") and value.shape[:2] == (1, 1):
        return np.ascontiguousarray(value[0, 0].T)
    axes = (2, 3, 0, 1) if layer.startswith("conv_dw") or layer.endswith("depthwise") else (3, 2, 0, 1)
    return np.ascontiguousarray(value.transpose(axes))
