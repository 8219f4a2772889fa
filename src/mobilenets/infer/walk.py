"""The numpy walk: what a network computes, node by node. Every other engine answers to it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any, assert_never

import numpy as np
from numpy.typing import NDArray

from mobilenets.infer.fold import Weights, fold
from mobilenets.spec.net import Net, Node, tensors
from mobilenets.spec.op import (
    Activate,
    Activation,
    Add,
    Concat,
    Conv,
    Dense,
    Depthwise,
    Linear,
    MaxPool,
    MeanPool,
    Mul,
    Pointwise,
    Pool,
    Shape,
    Shuffle,
    Slice,
    Weightless,
    Windowed,
    around,
    sides,
)

Map = NDArray[np.float32]
STRIPE_BYTES = 1 << 18
"""A depthwise layer runs in stripes of rows of about this size, so that nine passes stay in the cache."""


class Walk:
    """A network with its weights, ready to run: batch norms folded, weights laid out for numpy's products."""

    def __init__(self, net: Net, weights: Weights) -> None:
        """Raises ValueError that lists the tensors that are missing, extra or of another shape."""
        check(net, weights)
        self.net, folded = fold(net, weights)
        self._kernels = {
            node.name: laid_out(node, folded[f"{node.name}.weight"])
            for node in self.net.nodes
            if f"{node.name}.weight" in folded
        }
        self._biases = {
            node.name: folded[f"{node.name}.bias"] for node in self.net.nodes if f"{node.name}.bias" in folded
        }

    def __call__(self, x: Map, taps: Iterable[str] = ()) -> dict[str, Map]:
        """Outputs by name, and nodes by name where `taps` asks for them.

        `x` is float32 [n, height, width, channels], already normalised. Vectors come back as [n, channels].
        """
        if x.dtype != np.float32 or x.shape[1:] != tuple(self.net.input):
            raise ValueError(
                f"{self.net.name} takes float32 [n, {', '.join(map(str, self.net.input))}], "
                f"not {x.dtype} {list(x.shape)}"
            )
        wanted = set(taps)
        needed = wanted | {output.node for output in self.net.outputs}
        last_use = {name: i for i, node in enumerate(self.net.nodes) for name in node.inputs}
        values: dict[str, Map] = {"image": x}
        for index, node in enumerate(self.net.nodes):
            values[node.name] = self._run(node, [values[name] for name in node.inputs])
            for name in set(node.inputs):
                if name not in needed and last_use[name] == index:
                    del values[name]
        found = {output.name: flat(values[output.node]) for output in self.net.outputs}
        return found | {name: values[name] for name in wanted}

    def _run(self, node: Node, given: Sequence[Map]) -> Map:
        op = node.op
        if not isinstance(op, Linear):
            return weightless(op, given)
        y = linear(op, given[0], self._kernels[node.name])
        if node.name in self._biases:
            y += self._biases[node.name]
        return y if isinstance(op, Dense) else activated(y, op.activation)


def weightless(op: Weightless, given: Sequence[Map]) -> Map:
    """What an operation without weights makes of maps [n, height, width, channels]."""
    x = given[0]
    match op:
        case Add():
            return activated(added(given), op.activation)
        case Mul():
            return np.asarray(x * given[1])
        case Pool():
            return np.asarray(x.mean(axis=(1, 2), keepdims=True, dtype=np.float32))
        case Activate():
            return activated(x.copy(), op.activation)
        case MaxPool():
            return np.asarray(windows(x, op, -np.inf).max(axis=(-2, -1)))
        case MeanPool():
            inside = windows(np.ones((1, *x.shape[1:3], 1), np.float32), op).sum(axis=(-2, -1))
            return np.asarray(windows(x, op).sum(axis=(-2, -1)) / inside)
        case Concat() | Shuffle() | Slice():
            return moved(op, given)
        case _:
            assert_never(op)


def added(maps: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """The sum of maps of one shape, added up in their order."""
    return np.asarray(reduce(np.add, maps))


def moved(op: Concat | Shuffle | Slice, given: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Channels in other places, their values as they were."""
    match op:
        case Concat():
            return np.concatenate(given, axis=3)
        case Slice():
            return given[0][..., op.begin : op.end]
        case Shuffle():
            x = given[0]
            dealt = x.reshape(*x.shape[:3], op.groups, -1).swapaxes(3, 4)
            return np.ascontiguousarray(dealt).reshape(x.shape)
        case _:
            assert_never(op)


def linear(op: Linear, x: NDArray[Any], kernel: NDArray[Any]) -> NDArray[Any]:
    """The sums of a layer on [n, height, width, channels], without bias; `kernel` is `laid_out`."""
    match op:
        case Conv(groups=groups) | Pointwise(groups=groups) if groups > 1:
            alone = replace(op, out=op.out // groups, groups=1)
            parts = zip(np.split(x, groups, axis=3), np.split(kernel, groups, axis=1), strict=True)
            return np.concatenate([linear(alone, own, part) for own, part in parts], axis=3)
        case Dense() | Pointwise():
            return np.asarray((x.reshape(-1, x.shape[-1]) @ kernel).reshape(*x.shape[:3], -1))
        case Conv():
            return _conv(x, kernel, op)
        case Depthwise():
            return _depthwise(x, kernel, op)
        case _:
            assert_never(op)


def check(net: Net, weights: Weights) -> None:
    """Raises ValueError that lists every tensor missing, extra or of a wrong shape."""
    wanted = tensors(net)
    missing = sorted(set(wanted) - set(weights))
    extra = sorted(set(weights) - set(wanted))
    wrong = [
        f"{name} {list(weights[name].shape)} (want {list(shape)})"
        for name, shape in wanted.items()
        if name in weights and tuple(weights[name].shape) != shape
    ]
    if missing or extra or wrong:
        parts = (("missing", missing), ("extra", extra), ("wrong shape", wrong))
        raise ValueError(
            f"weights do not fit {net.name}: "
            + "; ".join(f"{what}: {', '.join(names)}" for what, names in parts if names)
        )


def laid_out(node: Node, weight: NDArray[Any]) -> NDArray[Any]:
    """A weight in the order in which numpy's products take it."""
    match node.op:
        case Conv():
            return np.ascontiguousarray(weight.transpose(2, 3, 1, 0).reshape(-1, weight.shape[0]))
        case Depthwise():
            return np.ascontiguousarray(weight[:, 0].transpose(1, 2, 0))
        case _:
            return np.ascontiguousarray(weight.reshape(weight.shape[0], -1).T)


def padded(x: NDArray[Any], op: Windowed, value: float = 0.0) -> NDArray[Any]:
    """A map with what stands around it where its layer reads, zeros unless told otherwise."""
    rows, columns = around(op, Shape(*x.shape[1:]))
    if rows == columns == (0, 0):
        return x
    return np.pad(x, ((0, 0), rows, columns, (0, 0)), constant_values=value)


def windows(x: NDArray[Any], op: Windowed, value: float = 0.0) -> NDArray[Any]:
    """A view [n, height, width, channels, rows, columns] of the windows of a layer."""
    found = np.lib.stride_tricks.sliding_window_view(padded(x, op, value), sides(op), axis=(1, 2))
    return found[:, :: op.stride, :: op.stride]


def _places(x: Map, op: Depthwise) -> tuple[int, int]:
    return (x.shape[1] - op.kernel) // op.stride + 1, (x.shape[2] - op.kernel) // op.stride + 1


def _conv(x: Map, kernel: Map, op: Conv) -> Map:
    strided = windows(x, op).transpose(0, 1, 2, 4, 5, 3)
    y = strided.reshape(-1, kernel.shape[0]) @ kernel
    return y.reshape(*strided.shape[:3], -1)


def _depthwise(x: Map, kernel: Map, op: Depthwise) -> Map:
    framed = padded(x, op)
    height, width = _places(framed, op)
    y = np.empty((x.shape[0], height, width, x.shape[3]), x.dtype)
    rows = max(1, STRIPE_BYTES // (4 * width * x.shape[3]))
    product = np.empty((min(rows, height), width, x.shape[3]), x.dtype)
    for picture in range(x.shape[0]):
        for top in range(0, height, rows):
            _stripe(framed[picture], kernel, op.stride, top, y[picture, top : top + rows], product)
    return y


def _stripe(framed: Map, kernel: Map, stride: int, top: int, y: Map, product: Map) -> None:
    tall, wide = y.shape[:2]
    product = product[:tall]
    for i in range(kernel.shape[0]):
        for j in range(kernel.shape[1]):
            first = top * stride + i
            part = framed[
                first : first + (tall - 1) * stride + 1 : stride, j : j + (wide - 1) * stride + 1 : stride
            ]
            if i == j == 0:
                np.multiply(part, kernel[i, j], out=y)
            else:
                np.multiply(part, kernel[i, j], out=product)
                y += product


def activated(y: Map, activation: Activation) -> Map:
    """A map after an activation; the map itself is overwritten."""
    match activation:
        case "none":
            return y
        case "relu":
            return np.maximum(y, 0, out=y)
        case "relu6":
            return np.clip(y, 0, 6, out=y)
        case "hsigmoid":
            y += np.float32(3)
            y = np.clip(y, 0, 6, out=y)
            y *= np.float32(1 / 6)
            return y
        case "hswish":
            y *= activated(y.copy(), "hsigmoid")
            return y
        case "sigmoid":
            return np.asarray(1 / (1 + np.exp(-y)), np.float32)
        case "swish":
            y *= activated(y.copy(), "sigmoid")
            return y
        case _:
            assert_never(activation)


def flat(value: NDArray[Any]) -> NDArray[Any]:
    """A vector as [n, channels]; a map as it is."""
    return value.reshape(value.shape[0], -1) if value.shape[1:3] == (1, 1) else value
