"""From a weight file back to the tensors that it was packed of, as copies that any language can make."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilenets.compile.integers import HEAD, fours_bytes, groups
from mobilenets.compile.isa import Family
from mobilenets.compile.pack import layers_of, widths
from mobilenets.compile.source import passes
from mobilenets.compile.step import Filter, Product
from mobilenets.infer.artefact import Artefact

LINE = 16
"""Bytes of a vector where a depthwise layer's channels lie in their own order."""


@dataclass(frozen=True, slots=True)
class Copy:
    """Bytes of the weight file from `at` on that go to a tensor's from `to` on.

    For each combination of places along `axes` one byte: (how many, how far apart there, how far apart here).
    """

    at: int
    to: int
    axes: tuple[tuple[int, int, int], ...]

    def __call__(self, packed: NDArray[np.uint8], tensor: NDArray[np.uint8]) -> None:
        """Copy from bytes to bytes, both flat."""
        there, here = self.at, self.to
        places = [np.arange(count)[:, None] * (far, near) for count, far, near in self.axes]
        total = np.zeros((1, 2), np.int64)
        for own in places:
            total = (total[:, None] + own[None]).reshape(-1, 2)
        tensor[here + total[:, 1]] = packed[there + total[:, 0]]


def copies(model: Artefact, family: Family) -> tuple[dict[str, tuple[Copy, ...]], dict[str, NDArray[Any]]]:
    """The copies that make each tensor of a folded model from its packed weights, and the tensors that none
    make: what copies make is compared with them."""
    made, tensors = passes(model, family), model.weights
    packed = np.frombuffer(made.packed.values, np.uint8)
    found: dict[str, tuple[Copy, ...]] = {}
    layers = {layer.name: layer for step in made.program for layer in layers_of(step)}
    for name, tensor in tensors.items():
        layer, part = layers.get(name.rpartition(".")[0]), name.rpartition(".")[2]
        own: tuple[Copy, ...] = ()
        if isinstance(layer, Product | Filter):
            begin = made.packed.begins[layer.name]
            own = tuple(replace(one, at=begin + one.at) for one in _copies(layer, part, tensors, family))
        if own and _gives(own, packed, tensor):
            found[name] = own
    return found, {name: value for name, value in tensors.items() if name not in found}


def _gives(own: tuple[Copy, ...], packed: NDArray[np.uint8], tensor: NDArray[Any]) -> bool:
    made = np.zeros(tensor.nbytes, np.uint8)
    try:
        for one in own:
            one(packed, made)
    except IndexError:
        return False
    return made.tobytes() == np.ascontiguousarray(tensor).tobytes()


def _copies(
    layer: Product | Filter, part: str, tensors: Mapping[str, NDArray[Any]], family: Family
) -> Iterator[Copy]:
    tensor = tensors[f"{layer.name}.{part}"]
    match layer, part, tensor.dtype.name:
        case Product(), "weight", "int8":
            yield from _fours(layer, tensor.shape, family, asymmetric=f"{layer.name}.zero" in tensors)
        case Filter(), "weight", "int8" if family.line == LINE:
            yield from _columns(layer, len(tensor), family)
        case Product(), "weight" | "bias", "float32":
            yield from _rows(layer, part, tensor.shape, family)
        case Filter(), "weight" | "bias", "float32":
            room, taps = 4 * family.room(layer.target.shape.channels), layer.kernel**2
            if part == "bias":
                yield Copy(0, 0, ((4 * len(tensor), 1, 1),))
            else:
                yield Copy(room, 0, ((len(tensor), 4, 4 * taps), (taps, room, 4), (4, 1, 1)))


def _panels(channels: int, width: int, panel: int, each: int) -> Iterator[tuple[int, int, int, int]]:
    """Of whole panels and of the last: its place, how many there are, channels of one, those that count."""
    sizes = widths(width, panel)
    whole = min(sum(size == panel for size in sizes), channels // panel)
    if whole:
        yield 0, whole, panel, panel
    if channels > whole * panel:
        yield whole * panel * each, 1, sizes[whole], channels - whole * panel


def _fours(layer: Product, shape: tuple[int, ...], family: Family, *, asymmetric: bool) -> Iterator[Copy]:
    """Signed bytes of a product: panels of heads, then of fours of inputs of each channel."""
    count, kernel = shape[0], layer.kernel
    inputs = shape[1]
    if kernel > 1 and inputs % 4:
        return
    head, fours = HEAD + 4 * asymmetric, groups(layer.run)
    each = head + 4 * kernel * layer.across * fours
    room = -(-count // family.lanes) * family.lanes
    for place, (at, many, wide, real) in enumerate(_panels(count, room, family.panel, each)):
        first = 0 if place == 0 else count - real
        own = inputs * kernel**2
        axes = (many, wide * each, wide * own), (real, 4, own)
        stretch = wide * 4 * fours  # bytes of one
        column = stretch if layer.across > 1 else wide * inputs
        window = (kernel, stretch * layer.across, kernel), (kernel, column, 1)
        area = kernel**2
        if whole := inputs // 4:
            more = (*axes, *window, (whole, 4 * wide, 4 * area), (4, 1, area))
            yield Copy(at + head * wide, first * own, more)
        if rest := inputs % 4:
            begin = at + head * wide + 4 * wide * whole
            yield Copy(begin, first * own + 4 * whole, (*axes, (rest, 1, 1)))


def _columns(layer: Filter, channels: int, family: Family) -> Iterator[Copy]:
    """Signed bytes of a depthwise layer: chunks of heads, then of columns by fours of rows; see `taps`."""
    kernel, size = layer.kernel, 1 + family.halves
    area, each = kernel**2, fours_bytes(kernel, 1, LINE, family.halves) + _singles(layer, family)
    column = LINE * 4 * size * groups(kernel)
    for row in range(kernel):
        four, at = divmod(row, 4)
        if family.halves:  # even rows of four channels, then odd ones, in 16 bits
            place, block, channel = 16 * (at % 2) + 2 * (at // 2), 32, 4
        else:
            place, block, channel = at, 16, 4
        begin = 8 * LINE + four * LINE * 4 * size + place
        whole, blocks, rest = channels // LINE, channels % LINE // 4, channels % 4
        last = (kernel, column, 1)
        to = row * kernel
        done = 0
        for many, apart, count in ((whole, each, LINE), (blocks, block, 4), (rest, channel, 1)):
            if not many:
                continue
            inner = {LINE: ((4, block, 4 * area), (4, channel, area)), 4: ((4, channel, area),), 1: ()}[count]
            start = begin + done // LINE * each + done % LINE // 4 * block
            yield Copy(start, to + done * area, ((many, apart, count * area), *inner, last))
            done += many * count


def _singles(layer: Filter, family: Family) -> int:
    """Bytes that each chunk has behind its fours: single taps, where a family has them."""
    return layer.kernel**2 * family.line * family.taps


def _rows(layer: Product, part: str, shape: tuple[int, ...], family: Family) -> Iterator[Copy]:
    """Floats of a product: panels of biases, then of each input value's weights for all channels."""
    count, kernel = shape[0], layer.kernel
    inputs = shape[1] if part == "weight" else 0
    own = 4 * inputs * kernel**2
    total = layer.kernel * layer.across * layer.run
    for place, (at, many, wide, real) in enumerate(
        _panels(count, family.room(count), family.panel, 4 * (1 + total))
    ):
        first = 0 if place == 0 else count - real
        if part == "bias":
            yield Copy(at, 4 * first, ((many, 4 * wide * (1 + total), 4 * wide), (4 * real, 1, 1)))
            continue
        area = kernel**2
        window = (kernel, 4 * wide * kernel * inputs, 4 * kernel), (kernel, 4 * wide * inputs, 4)
        axes = (many, 4 * wide * (1 + total), wide * own), (real, 4, own), *window
        yield Copy(at + 4 * wide, first * own, (*axes, (inputs, 4 * wide, 4 * area), (4, 1, 1)))
