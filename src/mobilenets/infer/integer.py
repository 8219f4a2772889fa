"""Integer networks: what a quantised model computes, bit for bit. Compiled integer code answers to this.

Activations are unsigned bytes, weights signed ones, sums 32 bits wide:

    sum      = bias + Σ (a − zero of a) · (w − zero of w)
    quantity = zero + rint(clip(float32(sum) · multiplier, least − zero, most − zero))

where `multiplier` is float32(step of a · step of w / step of the result), `rint` rounds halves to even and
the clip is to bytes and to the activation. A node without a scale gives float32(sum) · float32(step of a ·
step of w). The image is its levels: zero is its mean, rounded, and the first layer's weights hold 1 / std.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilenets.infer.resize import Frame
from mobilenets.infer.scale import MOST, Scale
from mobilenets.infer.walk import Map, flat, laid_out, linear
from mobilenets.spec.net import Net, Node, shapes, weight_shape
from mobilenets.spec.op import Activation, Add, Convolution, Depthwise, Linear, Pool, unusual
from mobilenets.spec.preprocess import Preprocess

Tensors = Mapping[str, NDArray[Any]]
EXACT = 1 << 24
"""Whole numbers up to here are exact in float32."""
MOST_TERMS = 1 << 14
MOST_BIAS = (1 << 31) - 1 - MOST_TERMS * MOST * MOST
"""So many terms and this bias can't leave 32 bits, whatever the order they are added in."""


@dataclass(frozen=True, slots=True)
class Rescale:
    """From the sums of a node to what it gives: bytes about `zero`, or float32 where `zero` is None.

    `multiplier` has one number a channel; `least` and `most` bound the quantity less its zero. Sums in
    float32 are overwritten.
    """

    multiplier: NDArray[np.float32]
    zero: int | None
    least: int = 0
    most: int = 0

    def __call__(self, sums: NDArray[Any]) -> NDArray[Any]:
        scaled: Map = sums.astype(np.float32, copy=False)
        scaled *= self.multiplier
        if self.zero is None:
            return scaled
        np.rint(np.clip(scaled, self.least, self.most, out=scaled), out=scaled)
        if self.zero:
            scaled += np.float32(self.zero)
        return scaled.astype(np.uint8)


def image_zero(pre: Preprocess) -> tuple[int, int, int]:
    """The level of each colour that stands for nothing: what lies around the image."""
    zeros = [min(max(round(mean), 0), MOST) for mean in pre.mean]
    return zeros[0], zeros[1], zeros[2]


def bounds(scale: Scale, activation: Activation) -> tuple[int, int]:
    """The least and the greatest quantity, less its zero, that an activation lets pass."""
    least = -scale.zero if activation == "none" else 0
    most = MOST - scale.zero
    return least, min(most, round(6 / scale.step)) if activation == "relu6" else most


def refuse(net: Net) -> None:
    """Raises ValueError that names the first node for which no integers are defined."""
    for node in net.nodes:
        if what := "a sum of maps" if isinstance(node.op, Add) else unusual(node.op):
            raise ValueError(f"{node.name}: {what} cannot be quantised yet")
        if node.inputs[0] == "image" and isinstance(node.op, Depthwise | Pool):
            raise ValueError(f"{node.name}: no integers are defined for this layer on the image itself")


def rescale(net: Net, node: Node, tensors: Tensors, scales: Mapping[str, Scale]) -> Rescale:
    """What becomes of a node's sums."""
    source = node.inputs[0]
    step = 1.0 if source == "image" else scales[source].step
    if isinstance(node.op, Pool):
        x = shapes(net)[source]
        steps = np.full(x.channels, step / (x.height * x.width))
    else:
        steps = step * tensors[f"{node.name}.step"].astype(np.float64)
    scale = scales.get(node.name)
    if scale is None:
        return Rescale(steps.astype(np.float32), None)
    activation: Activation = node.op.activation if isinstance(node.op, Convolution) else "none"
    return Rescale((steps / scale.step).astype(np.float32), scale.zero, *bounds(scale, activation))


class IntegerLayer:
    """One node, ready to run in numpy: sums of whole numbers, held in floats that are exact."""

    def __init__(
        self, net: Net, node: Node, tensors: Tensors, scales: Mapping[str, Scale], image: Map | None = None
    ) -> None:
        """`image` is the zero of the levels, for the node that reads them."""
        self._node = node
        self._zero = np.float32(scales[node.inputs[0]].zero) if image is None else image
        self._rescale = rescale(net, node, tensors, scales)
        if isinstance(node.op, Pool):
            return
        weight = centred(node, tensors)
        bias = tensors[f"{node.name}.bias"].astype(np.int64)
        largest = MOST * np.abs(weight.astype(np.int64)).reshape(len(weight), -1).sum(1)
        kind = np.float32 if largest.max() < EXACT else np.float64
        self._kernel = laid_out(node, weight.astype(kind))
        self._bias = bias.astype(kind if (largest + np.abs(bias)).max() < EXACT else np.float64)

    def __call__(self, x: NDArray[np.uint8]) -> NDArray[Any]:
        """What the node gives for maps [n, height, width, channels] of bytes: bytes, or float32."""
        return self._rescale(self.sums(x))

    def sums(self, x: NDArray[np.uint8]) -> NDArray[Any]:
        """The node's sums with their biases, whole numbers all."""
        if isinstance(self._node.op, Pool):
            return np.asarray((x - self._zero).sum(axis=(1, 2), keepdims=True, dtype=np.float64))
        moved = x.astype(self._kernel.dtype)
        if np.any(self._zero):
            moved -= self._zero
        assert isinstance(self._node.op, Linear)  # `check` refuses others
        sums = linear(self._node.op, moved, self._kernel)
        if self._bias.dtype != sums.dtype:
            return np.asarray(sums + self._bias)
        sums += self._bias
        return sums


class IntegerWalk:
    """A quantised network, ready to run in numpy."""

    def __init__(self, net: Net, tensors: Tensors, scales: Mapping[str, Scale], pre: Preprocess) -> None:
        """Raises ValueError that lists the tensors and scales that are missing, extra or of another kind."""
        check(net, tensors, scales)
        self.net = net
        zero = np.array(image_zero(pre), np.float32)
        self._layers = {
            node.name: IntegerLayer(net, node, tensors, scales, zero if node.inputs[0] == "image" else None)
            for node in net.nodes
        }

    def __call__(self, levels: Frame, taps: Iterable[str] = ()) -> dict[str, NDArray[Any]]:
        """Outputs by name and nodes by name, as bytes or float32, of levels uint8 [n, height, width, 3]."""
        if levels.dtype != np.uint8 or levels.shape[1:] != tuple(self.net.input):
            raise ValueError(
                f"{self.net.name} takes uint8 [n, {', '.join(map(str, self.net.input))}], "
                f"not {levels.dtype} {list(levels.shape)}"
            )
        values: dict[str, NDArray[Any]] = {"image": levels}
        for node in self.net.nodes:
            values[node.name] = self._layers[node.name](values[node.inputs[0]])
        found = {output.name: flat(values[output.node]) for output in self.net.outputs}
        return found | {name: values[name] for name in taps}


def centred(node: Node, tensors: Tensors) -> NDArray[np.int32]:
    """A node's weights less their zeros."""
    weight = tensors[f"{node.name}.weight"].astype(np.int32)
    zero = tensors.get(f"{node.name}.zero")
    return weight if zero is None else weight - zero.reshape(-1, *(1,) * (weight.ndim - 1))


def dequantised(net: Net, tensors: Tensors, scales: Mapping[str, Scale], pre: Preprocess) -> dict[str, Map]:
    """The float32 weights of a network that computes the same, but for the rounding of activations."""
    found: dict[str, Map] = {}
    for node in net.nodes:
        if isinstance(node.op, Pool):
            continue
        step = tensors[f"{node.name}.step"].astype(np.float64)
        weight = centred(node, tensors) * step.reshape(-1, *(1,) * (tensors[f"{node.name}.weight"].ndim - 1))
        source = node.inputs[0]
        bias = tensors[f"{node.name}.bias"] * step * (1.0 if source == "image" else scales[source].step)
        if source == "image":  # levels there, (levels − mean) / std here
            off = np.array(pre.mean) - image_zero(pre)
            bias = bias + np.tensordot(weight.reshape(*weight.shape[:2], -1).sum(2), off, 1)
            weight = weight * np.array(pre.std).reshape(1, 3, *(1,) * (weight.ndim - 2))
        found[f"{node.name}.weight"] = weight.astype(np.float32)
        found[f"{node.name}.bias"] = bias.astype(np.float32)
    return found


def check(net: Net, tensors: Tensors, scales: Mapping[str, Scale]) -> None:
    """Raises ValueError that names the first tensor or scale that is missing, extra or of a wrong kind."""
    refuse(net)
    known = shapes(net)
    wanted: dict[str, tuple[str, tuple[int, ...]]] = {}
    for node in net.nodes:
        x = known[node.inputs[0]]
        weight = weight_shape(node.op, x)
        if isinstance(node.op, Convolution) and node.op.norm is not None:
            raise ValueError(f"{node.name}: has a batch norm; an integer network is folded")
        if weight is not None:
            own = {"weight": ("int8", weight), "step": ("float32", weight[:1]), "bias": ("int32", weight[:1])}
            if f"{node.name}.zero" in tensors:
                own["zero"] = ("int32", weight[:1])
            wanted |= {f"{node.name}.{part}": kind for part, kind in own.items()}
        read = any(node.name in other.inputs for other in net.nodes)
        if read and node.name not in scales:
            raise ValueError(f"{net.name}: {node.name} has no scale, and is read by others")
        terms = x.height * x.width if weight is None else int(np.prod(weight[1:]))
        if terms > MOST_TERMS:
            raise ValueError(f"{node.name}: sums of {terms} terms, more than {MOST_TERMS}, may leave 32 bits")
    for name in sorted(set(wanted) ^ set(tensors)):
        raise ValueError(f"{net.name}: tensor {name} is {'missing' if name in wanted else 'extra'}")
    for name in set(scales) - {node.name for node in net.nodes}:
        raise ValueError(f"{net.name}: a scale for {name}, which is no node")
    for name, (dtype, shape) in wanted.items():
        value = tensors[name]
        if value.dtype.name != dtype or value.shape != shape:
            raise ValueError(
                f"{name}: is {value.dtype} {list(value.shape)}, wanted {dtype} {list(shape)} "
                "in an integer network"
            )
        if name.endswith(".step") and not (np.isfinite(value).all() and value.min(initial=1) > 0):
            raise ValueError(f"{name}: holds a step that is no number above zero")
        if name.endswith(".bias") and np.abs(value.astype(np.int64)).max(initial=0) > MOST_BIAS:
            raise ValueError(f"{name}: holds a bias beyond {MOST_BIAS}")
        if name.endswith(".zero") and (value.min(initial=0) < -128 or value.max(initial=0) > 127):
            raise ValueError(f"{name}: holds a zero that is no signed byte")
