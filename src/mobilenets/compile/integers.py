"""What kernels of bytes need of each layer of a quantised network, and the order in which they read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilenets.compile.isa import Family
from mobilenets.compile.pack import widths
from mobilenets.compile.step import Filter, Product, padded
from mobilenets.infer.integer import Rescale, centred, image_zero, rescale
from mobilenets.infer.scale import MOST, Scale
from mobilenets.infer.taught import is_taught
from mobilenets.spec.net import Net, Node, shapes
from mobilenets.spec.op import Dense, Linear, MeanPool, Mul, Pointwise, Pool, Shape
from mobilenets.spec.preprocess import Preprocess

HEAD = 8
"""Bytes a channel before a panel's weights: its bias and its multiplier."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A node in integers, and the maps that it reads with their zeros. `bias` has taken in what those add.

    `weights` are signed bytes. Where they have zeros of their own, a layer of one input pixel takes
    `zeros` · Σ inputs off its sums (`asymmetric`); one of more has its weights in `terms` bytes that add up.
    """

    rescale: Rescale
    inputs: tuple[tuple[str, int], ...]
    weights: tuple[NDArray[np.int8], ...] = ()
    bias: NDArray[np.int32] | None = None
    zeros: NDArray[np.int32] | None = None
    tame: bool = False
    """Whether no number that is to become a quantity can leave 32 bits."""

    @property
    def asymmetric(self) -> bool:
        return self.zeros is not None

    @property
    def terms(self) -> int:
        return len(self.weights)

    @property
    def steep(self) -> bool:
        """Whether two products with signed bytes, four inputs apart in one eight, may add up to 2^15."""
        least = [np.asarray(part, np.int16).reshape(len(part), -1) == -128 for part in self.weights]
        wide = [np.pad(part, ((0, 0), (0, -part.shape[1] % 8))).reshape(-1, 2, 4) for part in least]
        return any(bool(part.all(1).any()) for part in wide)


def layers(
    net: Net,
    tensors: Mapping[str, NDArray[Any]],
    scales: Mapping[str, Scale],
    pre: Preprocess,
    less: int = 0,
) -> dict[str, Layer]:
    """Every node of a quantised network, and the image; bytes are multiplied `less` a number."""
    zeros, known = np.array(image_zero(pre)) - less, shapes(net)
    found: dict[str, Layer] = {}
    for node in net.nodes:
        inputs = tuple((name, 0 if name == "image" else scales[name].zero) for name in node.inputs)
        source, source_zero = inputs[0]
        if is_taught(node, tensors):
            found[node.name] = Layer(Rescale(np.array([scales[source].step], np.float32), None), inputs)
            continue
        made = rescale(net, node, tensors, scales, known)
        if not isinstance(node.op, Linear):
            found[node.name] = Layer(made, inputs, tame=_tame(made, _largest(node, known[source])))
            continue
        weight = centred(node, tensors)
        flat = weight.reshape(*weight.shape[:2], -1).sum(2, dtype=np.int64)
        off = flat @ zeros if source == "image" else flat.sum(1) * (source_zero - less)
        bias = (tensors[f"{node.name}.bias"] - off).astype(np.int32)
        own = tensors.get(f"{node.name}.zero")
        if own is not None and isinstance(node.op, Pointwise | Dense):
            parts: tuple[NDArray[np.int8], ...] = (np.asarray(tensors[f"{node.name}.weight"], np.int8),)
            zeros_own: NDArray[np.int32] | None = np.asarray(own, np.int32)
        else:
            parts, zeros_own = _terms(weight), None
        most = MOST * np.abs(weight).reshape(len(weight), -1).sum(1, dtype=np.int64)
        most += np.abs(tensors[f"{node.name}.bias"].astype(np.int64))
        found[node.name] = Layer(made, inputs, parts, bias, zeros_own, _tame(made, most))
    return found


def _largest(node: Node, x: Shape) -> int:
    """What numbers of a node are at most before they are multiplied."""
    match node.op:
        case Pool():
            return MOST * x.height * x.width
        case MeanPool(kernel=kernel):
            return MOST * kernel**2
        case Mul():
            return MOST**2
        case _:
            return MOST * len(node.inputs)


def _tame(made: Rescale, most: NDArray[np.int64] | int) -> bool:
    """Whether numbers of `most` at most stay in 32 bits once they are multiplied and bent."""
    real, slope = float((most * made.multiplier.astype(np.float64)).max()), 6 * float(made.slope)
    return {None: real, "hsigmoid": slope, "hswish": slope * real}[made.curve] < 1 << 30


def _terms(weight: NDArray[np.int32]) -> tuple[NDArray[np.int8], ...]:
    """Whole numbers as sums of signed bytes, as few as they take."""
    parts = []
    while True:
        part = np.clip(weight, -127, 127)
        parts.append(part.astype(np.int8))
        weight = weight - part
        if not weight.any():
            return tuple(parts)


def groups(values: int) -> int:
    """Fours that hold so many values."""
    return -(-values // 4)


def fours_bytes(kernel: int, terms: int, line: int, halves: bool) -> int:
    """Of a depthwise layer's weights for `line` channels: biases, multipliers, taps by fours of a column."""
    return 4 * line * (2 + kernel * groups(kernel) * terms * (1 + halves))


def chunk_bytes(step: Filter, layer: Layer, family: Family) -> int:
    """All that a depthwise layer has for as many channels as are in a line."""
    singles = step.kernel**2 * layer.terms * family.line * family.taps
    return fours_bytes(step.kernel, layer.terms, family.line, family.halves) + singles


def panels(step: Product, layer: Layer, lanes: int, panel: int, singles: bool = False) -> NDArray[np.uint8]:
    """For each panel its biases, multipliers (and zeros), then for each four inputs of a window in memory
    the four weights of each channel; as `singles` for each input a weight of each channel."""
    count = len(layer.weights[0])
    full = padded(count, lanes)
    head = [_padded(layer.bias, full), _padded(layer.rescale.multiplier, full)]
    if layer.zeros is not None:
        head.append(_padded(layer.zeros, full))
    bytes_ = []
    for part in layer.weights:
        rows = part if part.ndim == 2 else part.transpose(0, 2, 3, 1)
        rows = rows.reshape(count, -1, step.run)
        wide = np.zeros((full, rows.shape[1], 4 * groups(step.run)), np.int8)
        wide[:count, :, : step.run] = rows
        bytes_.append(wide.reshape(full, -1, 4))
    values = np.stack(bytes_, axis=2)  # [channel, group, term, 4]
    order = (1, 3, 2, 0) if singles else (1, 2, 0, 3)
    made, at = [], 0
    for width in widths(full, panel):
        own = slice(at, at + width)
        made += [np.ascontiguousarray(part[own]).view(np.uint8).ravel() for part in head]
        made.append(np.ascontiguousarray(values[own].transpose(order)).view(np.uint8).ravel())
        at += width
    return np.concatenate(made)


def taps(step: Filter, layer: Layer, room: int, family: Family) -> NDArray[np.uint8]:
    """For each `line` channels biases, multipliers, then for each column of the window its rows by fours.

    Channels lie as vectors hold them after rows were put side by side: in four stretches, of which the first
    has the first four of every sixteen. A pixel of fewer channels than a line is there as often as it fits.
    As `halves` the even taps of a vector's fours come first, then the odd ones, both in 16 bits. Of a family
    with `taps` each tap of each column follows for all channels.
    """
    channels, kernel, line = len(layer.weights[0]), step.kernel, family.line
    full = padded(room, line)
    repeat = np.arange(full) % room
    known = np.where(repeat < channels, repeat, channels)  # one past the last: a channel of nothing
    order = np.arange(full).reshape(-1, line // 16, 4, 4).transpose(0, 2, 1, 3).reshape(-1, line)
    place = known[order]  # [chunk, channel of a line in stretches]
    heads = [_padded(value, channels + 1)[place] for value in (layer.bias, layer.rescale.multiplier)]
    columns = np.zeros((channels + 1, kernel, 4 * groups(kernel), layer.terms), np.int8)
    for term, part in enumerate(layer.weights):
        columns[:channels, :, :kernel, term] = part[:, 0].transpose(0, 2, 1)
    by_four = columns.reshape(channels + 1, kernel, groups(kernel), 4, layer.terms)
    values = by_four[place].transpose(0, 2, 3, 5, 1, 4)  # [chunk, column, group, term, channel, 4]
    if family.halves:
        apart = values.reshape(*values.shape[:4], 4, line // 4, 4).astype("<i2")
        values = np.stack((apart[..., 0::2], apart[..., 1::2]), axis=5)
    made = []
    for chunk in range(len(place)):
        made += [np.ascontiguousarray(head[chunk]).view(np.uint8).ravel() for head in heads]
        made.append(np.ascontiguousarray(values[chunk]).view(np.uint8).ravel())
        if family.taps:
            singles = columns[known.reshape(-1, line)[chunk], :, :kernel]
            made.append(np.ascontiguousarray(singles.transpose(1, 2, 3, 0)).view(np.uint8).ravel())
    return np.concatenate(made)


def _padded(values: NDArray[Any] | None, count: int) -> NDArray[Any]:
    if values is None:
        raise TypeError("a layer without biases")
    made = np.zeros(count, values.dtype)
    made[: len(values)] = values
    return made


def sums_bytes(products: Sequence[Product], known: Mapping[str, Layer]) -> int:
    """What each thread needs for the sums of the inputs of a block's pixels."""
    return max((4 * p.rows * p.target.shape.width for p in products if known[p.name].asymmetric), default=0)
