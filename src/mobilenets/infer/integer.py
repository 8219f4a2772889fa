"""Integer networks: what a quantised model computes, bit for bit. Compiled integer code answers to this.

Activations are unsigned bytes, weights signed ones, sums 32 bits wide:

    sum      = bias + Σ (a − zero of a) · (w − zero of w)
    quantity = zero + rint(clip(float32(sum) · multiplier, least − zero, most − zero))

where `multiplier` is float32(float32(step of a · step of w) / step of the result), steps being float32 as
well, `rint` rounds halves to even and the clip is to bytes and to the activation. A node without a scale
gives float32(sum) · float32(step of a · step of w). The image is its levels: zero is its mean, rounded, and
the first layer's weights hold 1 / std.

Where no weights are, something else stands for float32(sum) · multiplier:

    mul        float32((a − zero of a) · (g − zero of g)) · float32(float32(step of a · step of g) / step)
    means      float32(Σ (a − zero of a) of what lies inside) · float32(step of a / so many / step)
    activate   float32(a − zero of a) · float32(step of a / step)

A sum of maps is of whole numbers alone, as XNNPACK adds: with m = float32(step of a / step) for each input,
s = min(20 − ⌊log₂ of the greatest m⌋, 30) and w = rint(m · 2ˢ), halves to even,

    quantity = zero + clip((Σ (a − zero of a) · w + 2ˢ⁻¹) >> s, least − zero, most − zero)

where >> rounds down: halves go up.

A hard sigmoid or swish is taken of v, which is that in real values: in every multiplier, step is 1. Then

    t = min(max(v + 3, 0), 6), and  hsigmoid  t · float32(1 / (6 · step)),  hswish  (v · t) · float32(…)

goes into clip. What moves or picks values (concat, slice, shuffle, maxpool) leaves bytes as they are: inputs
and result have one scale. Every float32 operation rounds by itself, none is fused with the next.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, assert_never

import numpy as np
from numpy.typing import NDArray

from mobilenets.infer import taught
from mobilenets.infer.resize import Frame
from mobilenets.infer.scale import MOST, Scale
from mobilenets.infer.walk import Map, flat, laid_out, linear, moved, windows
from mobilenets.spec.net import Net, Node, shapes, weight_shape
from mobilenets.spec.op import (
    Activate,
    Activation,
    Add,
    Concat,
    Conv,
    Convolution,
    Dense,
    Depthwise,
    Linear,
    MaxPool,
    MeanPool,
    Mul,
    Op,
    Pointwise,
    Pool,
    Shape,
    Shuffle,
    Slice,
)
from mobilenets.spec.preprocess import Preprocess

Tensors = Mapping[str, NDArray[Any]]
EXACT = 1 << 24
"""Whole numbers up to here are exact in float32."""
MOST_TERMS = 1 << 14
MOST_BIAS = (1 << 31) - 1 - MOST_TERMS * MOST * MOST
"""So many terms and this bias can't leave 32 bits, whatever the order they are added in."""
LEAST_MULTIPLIER, MOST_MULTIPLIER = 2.0**-100, 2.0**30
"""Between these a curve or a sum never meets an infinity or a number that some processors take for 0."""
FIXED_BITS = 20
"""Of the greatest multiplier of a sum of maps, below its first."""
MOST_SHIFT = 30
MOST_ADDED = 3
"""So many maps add up within 32 bits, whatever the order."""
LEAST_STEP, MOST_STEP = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
Kept = MaxPool | Concat | Slice | Shuffle
"""What moves or picks values and leaves them as they are: its inputs and its result have one scale."""


@dataclass(frozen=True, slots=True)
class Rescale:
    """From the sums of a node to what it gives: bytes about `zero`, or float32 where `zero` is None.

    `multiplier` has one number a channel, of an Add one for each input (see `fixed`), of a MeanPool one for
    each place [height, width, 1]. With a `curve` it makes real values, and `slope` is
    float32(1 / (6 · step)). `least` and `most` bound the quantity less its zero. Sums in float32 are
    overwritten.
    """

    multiplier: NDArray[np.float32]
    zero: int | None
    least: int = 0
    most: int = 0
    curve: Literal["hsigmoid", "hswish"] | None = None
    slope: np.float32 = np.float32(1)

    def __call__(self, sums: NDArray[Any]) -> NDArray[Any]:
        scaled: Map = sums.astype(np.float32, copy=False)
        scaled *= self.multiplier
        if self.curve is not None:
            bent = scaled + np.float32(3)
            np.clip(bent, 0, 6, out=bent)
            if self.curve == "hswish":
                bent *= scaled
            bent *= self.slope
            scaled = bent
        if self.zero is None:
            return scaled
        np.rint(np.clip(scaled, self.least, self.most, out=scaled), out=scaled)
        if self.zero:
            scaled += np.float32(self.zero)
        return scaled.astype(np.uint8)


def fixed(multiplier: NDArray[np.float32]) -> tuple[NDArray[np.int32], int]:
    """The multipliers of a sum of maps as whole numbers of 2**-shift, at most 2**21, and that shift."""
    exponent = int(np.frexp(multiplier.max())[1]) - 1
    shift = min(FIXED_BITS - exponent, MOST_SHIFT)
    return np.rint(np.ldexp(multiplier.astype(np.float64), shift)).astype(np.int32), shift


def image_zero(pre: Preprocess) -> tuple[int, int, int]:
    """The level of each colour that stands for nothing: what lies around the image."""
    zeros = [min(max(round(mean), 0), MOST) for mean in pre.mean]
    return zeros[0], zeros[1], zeros[2]


def bounds(scale: Scale, activation: Activation) -> tuple[int, int]:
    """The least and the greatest quantity, less its zero, that an activation lets pass."""
    least = 0 if activation in ("relu", "relu6", "hsigmoid") else -scale.zero
    most = MOST - scale.zero
    return least, min(most, round(6 / scale.step)) if activation == "relu6" else most


def activation_of(op: Op) -> Activation:
    """What an operation does to its sums at the end."""
    return op.activation if isinstance(op, Convolution | Add | Activate) else "none"


def refuse(net: Net) -> None:
    """Raises ValueError that names the first node for which no integers are defined."""
    for node in net.nodes:
        if (activation := activation_of(node.op)) in ("sigmoid", "swish"):
            raise ValueError(
                f"{node.name}: {activation} is computed in float32 alone and cannot be quantised; "
                f"h{activation} can"
            )
        if isinstance(node.op, Add) and (activation.startswith("h") or len(node.inputs) > MOST_ADDED):
            told = (
                f"of {len(node.inputs)} maps"
                if len(node.inputs) > MOST_ADDED
                else f"that ends in {activation}"
            )
            raise ValueError(
                f"{node.name}: no integers are defined for a sum {told}, only of two or three maps with "
                "relu, relu6 or none"
            )
        full = isinstance(node.op, Dense) or (isinstance(node.op, Conv | Pointwise) and node.op.groups == 1)
        if "image" in node.inputs and not full:
            raise ValueError(f"{node.name}: no integers are defined for this layer on the image itself")


def rescale(
    net: Net,
    node: Node,
    tensors: Tensors,
    scales: Mapping[str, Scale],
    known: Mapping[str, Shape] | None = None,
) -> Rescale:
    """What becomes of a node's sums; of nodes that keep their bytes, a multiplier of 1.

    `known` are the net's shapes, where they are at hand.
    """
    op, scale = node.op, scales.get(node.name)
    given = [1.0 if source == "image" else scales[source].step for source in node.inputs]
    known = shapes(net) if known is None else known
    x = known[node.inputs[0]]
    match op:
        case Pool():
            steps = np.full(x.channels, given[0] / (x.height * x.width))
        case MeanPool():
            steps = given[0] / inside(op, x)
        case Mul():
            steps = np.full(x.channels, np.float32(given[0]) * np.float32(given[1]))
        case Add():
            steps = np.array(given)
        case Activate() | MaxPool() | Concat() | Slice() | Shuffle():
            steps = np.full(known[node.name].channels, given[0])
        case Conv() | Depthwise() | Pointwise() | Dense():
            steps = np.float32(given[0]) * tensors[f"{node.name}.step"]
        case _:
            assert_never(op)
    # A product of steps is float32, and so is its quotient: XNNPACK rounds both.
    if scale is None:
        return Rescale(steps.astype(np.float32), None)
    activation = activation_of(op)
    held = bounds(scale, activation)
    match activation:
        case "hsigmoid" | "hswish":
            slope = np.float32(1 / (6 * scale.step))
            return Rescale(steps.astype(np.float32), scale.zero, *held, activation, slope)
        case _:
            step = np.float32(scale.step) if steps.dtype == np.float32 else scale.step
            return Rescale((steps / step).astype(np.float32), scale.zero, *held)


def inside(op: MeanPool, x: Shape) -> NDArray[np.float64]:
    """How many places of a map each window has inside, [height, width, 1]."""
    return np.asarray(windows(np.ones((1, x.height, x.width, 1)), op).sum(axis=(-2, -1))[0])


class IntegerLayer:
    """One node, ready to run in numpy: sums of whole numbers, held in floats that are exact."""

    def __init__(
        self, net: Net, node: Node, tensors: Tensors, scales: Mapping[str, Scale], image: Map | None = None
    ) -> None:
        """`image` is the zero of the levels, for the node that reads them."""
        self._node = node
        self._zeros: list[Any] = [
            image if source == "image" else np.float32(scales[source].zero) for source in node.inputs
        ]
        self._rescale = rescale(net, node, tensors, scales)
        if isinstance(node.op, Add):
            self._weights, self._shift = fixed(self._rescale.multiplier)
        if not isinstance(node.op, Linear):
            return
        weight = centred(node, tensors)
        bias = tensors[f"{node.name}.bias"].astype(np.int64)
        largest = MOST * np.abs(weight.astype(np.int64)).reshape(len(weight), -1).sum(1)
        kind = np.float32 if largest.max() < EXACT else np.float64
        self._kernel = laid_out(node, weight.astype(kind))
        self._bias = bias.astype(kind if (largest + np.abs(bias)).max() < EXACT else np.float64)

    def __call__(self, *given: NDArray[np.uint8]) -> NDArray[Any]:
        """What the node gives for maps [n, height, width, channels] of bytes: bytes, or float32."""
        op = self._node.op
        match op:
            case Conv() | Depthwise() | Pointwise() | Dense():
                return self._rescale(self._sums(op, given[0]))
            case Add():
                return self._added(given)
            case Mul():
                values, gate = self._less(given)
                return self._rescale(values * gate)
            case Pool():
                return self._rescale(
                    (given[0] - self._zeros[0]).sum(axis=(1, 2), keepdims=True, dtype=np.float64)
                )
            case MeanPool():
                return self._rescale(windows(self._less(given)[0], op).sum(axis=(-2, -1)))
            case Activate():
                return self._rescale(self._less(given)[0])
            case MaxPool():
                return np.asarray(windows(given[0], op).max(axis=(-2, -1)))
            case Concat() | Slice() | Shuffle():
                return moved(op, given)
            case _:
                assert_never(op)

    def _added(self, given: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """Maps added up in whole numbers of 32 bits."""
        made = self._rescale
        sums = np.full(given[0].shape, 1 << self._shift >> 1, np.int32)
        for x, zero, weight in zip(given, self._zeros, self._weights, strict=True):
            sums += (x.astype(np.int32) - np.int32(zero)) * weight
        sums >>= self._shift
        np.clip(sums, made.least, made.most, out=sums)
        return (sums + np.int32(made.zero or 0)).astype(np.uint8)

    def _less(self, given: Sequence[NDArray[np.uint8]]) -> list[Map]:
        """Bytes less their zeros."""
        return [np.asarray(x - zero, np.float32) for x, zero in zip(given, self._zeros, strict=True)]

    def _sums(self, op: Linear, x: NDArray[np.uint8]) -> NDArray[Any]:
        """A layer's sums with their biases, whole numbers all."""
        less = x.astype(self._kernel.dtype)
        if np.any(self._zeros[0]):
            less -= self._zeros[0]
        sums = linear(op, less, self._kernel)
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
        self._layers: dict[str, IntegerLayer | taught.TaughtLayer] = {
            node.name: taught.TaughtLayer(node, tensors, scales[node.inputs[0]])
            if taught.is_taught(node, tensors)
            else IntegerLayer(net, node, tensors, scales, zero if node.inputs[0] == "image" else None)
            for node in net.nodes
        }

    def __call__(self, levels: Frame, taps: Iterable[str] = ()) -> dict[str, NDArray[Any]]:
        """Outputs by name and nodes by name, as bytes or float32, of levels uint8 [n, height, width, 3]."""
        if levels.dtype != np.uint8 or levels.shape[1:] != tuple(self.net.input):
            raise ValueError(
                f"{self.net.name} takes uint8 [n, {', '.join(map(str, self.net.input))}], "
                f"not {levels.dtype} {list(levels.shape)}"
            )
        wanted = set(taps)
        needed = wanted | {output.node for output in self.net.outputs}
        last_use = {name: i for i, node in enumerate(self.net.nodes) for name in node.inputs}
        values: dict[str, NDArray[Any]] = {"image": levels}
        for index, node in enumerate(self.net.nodes):
            values[node.name] = self._layers[node.name](*(values[name] for name in node.inputs))
            for name in set(node.inputs) - needed:
                if last_use[name] == index:
                    del values[name]
        found = {output.name: flat(values[output.node]) for output in self.net.outputs}
        return found | {name: values[name] for name in wanted}


def centred(node: Node, tensors: Tensors) -> NDArray[np.int32]:
    """A node's weights less their zeros."""
    weight = tensors[f"{node.name}.weight"].astype(np.int32)
    zero = tensors.get(f"{node.name}.zero")
    return weight if zero is None else weight - zero.reshape(-1, *(1,) * (weight.ndim - 1))


def dequantised(net: Net, tensors: Tensors, scales: Mapping[str, Scale], pre: Preprocess) -> dict[str, Map]:
    """The float32 weights of a network that computes the same, but for the rounding of activations."""
    found: dict[str, Map] = {}
    for node in net.nodes:
        if not isinstance(node.op, Linear):
            continue
        if taught.is_taught(node, tensors):
            found |= {f"{node.name}.{part}": tensors[f"{node.name}.{part}"] for part in ("weight", "bias")}
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
        if taught.is_taught(node, tensors):
            wanted |= taught.wanted(net, node, scales)
        elif weight is not None:
            own = {"weight": ("int8", weight), "step": ("float32", weight[:1]), "bias": ("int32", weight[:1])}
            if f"{node.name}.zero" in tensors:
                own["zero"] = ("int32", weight[:1])
            wanted |= {f"{node.name}.{part}": kind for part, kind in own.items()}
        read = any(node.name in other.inputs for other in net.nodes)
        if read and node.name not in scales:
            raise ValueError(f"{net.name}: {node.name} has no scale, and is read by others")
        if node.name not in scales and activation_of(node.op) != "none":
            raise ValueError(f"{net.name}: {node.name} has no scale, and an activation wants one")
        if node.name not in scales and isinstance(node.op, Add):
            raise ValueError(f"{net.name}: {node.name} has no scale, and a sum of maps wants one")
        terms = 1 if weight is None else int(np.prod(weight[1:]))
        terms = x.height * x.width if isinstance(node.op, Pool) else terms
        if terms > MOST_TERMS:
            raise ValueError(f"{node.name}: sums of {terms} terms, more than {MOST_TERMS}, may leave 32 bits")
    for name in sorted(set(wanted) ^ set(tensors)):
        raise ValueError(f"{net.name}: tensor {name} is {'missing' if name in wanted else 'extra'}")
    for name in set(scales) - {node.name for node in net.nodes}:
        raise ValueError(f"{net.name}: a scale for {name}, which is no node")
    for name, scale in scales.items():
        if not LEAST_STEP <= scale.step <= MOST_STEP:
            raise ValueError(f"{name}: a step of {scale.step:.3g}, which float32 cannot hold")
    for name, (dtype, shape) in wanted.items():
        value = tensors[name]
        if value.dtype.name != dtype or value.shape != shape:
            raise ValueError(
                f"{name}: is {value.dtype} {list(value.shape)}, wanted {dtype} {list(shape)} "
                "in an integer network"
            )
        if name.endswith(".step") and not (np.isfinite(value).all() and value.min(initial=1) > 0):
            raise ValueError(f"{name}: holds a step that is no number above zero")
        if dtype == "float32" and not np.isfinite(value).all():
            raise ValueError(f"{name}: holds values that are not finite")
        if dtype == "int32" and np.abs(value.astype(np.int64)).max(initial=0) > MOST_BIAS:
            raise ValueError(f"{name}: holds a bias beyond {MOST_BIAS}")
        if name.endswith(".zero") and (value.min(initial=0) < -128 or value.max(initial=0) > 127):
            raise ValueError(f"{name}: holds a zero that is no signed byte")
    for node in net.nodes:
        if not taught.is_taught(node, tensors):
            _check_scales(net, node, tensors, scales, known)


def _check_scales(
    net: Net, node: Node, tensors: Tensors, scales: Mapping[str, Scale], known: Mapping[str, Shape]
) -> None:
    if isinstance(node.op, Kept):
        for source in node.inputs:
            if scales[source] != scales.get(node.name):
                raise ValueError(
                    f"{node.name}: gives the bytes of {source} as they are, and its scale is another; "
                    "give them one"
                )
        return
    with np.errstate(over="ignore", under="ignore"):
        made = rescale(net, node, tensors, scales, known)
    if isinstance(node.op, Add):
        if not (greatest := float(made.multiplier.max())) < 1 << FIXED_BITS:
            raise ValueError(
                f"{node.name}: reads a map whose step is {greatest:.3g} times that of its sum, not below "
                f"2**{FIXED_BITS}"
            )
        return
    if not np.isfinite(made.multiplier).all():
        raise ValueError(
            f"{node.name}: so large are the steps of what it reads that their product is infinite"
        )
    if made.curve is None and not isinstance(node.op, Mul | MeanPool | Activate):
        return
    numbers = np.append(made.multiplier.ravel(), made.slope)
    if not (numbers.min() >= LEAST_MULTIPLIER and numbers.max() <= MOST_MULTIPLIER):
        raise ValueError(
            f"{node.name}: a multiplier of {numbers.min():.3g} to {numbers.max():.3g} does not lie between "
            f"{LEAST_MULTIPLIER:.3g} and {MOST_MULTIPLIER:.3g}"
        )
