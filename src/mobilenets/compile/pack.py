"""Weights in the order in which the compiled kernels read them, each stretch at a cache line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilenets.compile.step import Filter, Gated, Inverted, Product, Scores, Separable, Stem, Step, padded

LINE = 64
Tensor = NDArray[np.float32]
Weighted = Filter | Product | Scores
"""Layers that have weights."""


@dataclass(frozen=True, slots=True)
class Packed:
    """The weight file, and the byte at which each layer's begin."""

    values: bytes
    begins: Mapping[str, int]


def pack(program: Sequence[Step], laid_out: Callable[[Weighted], NDArray[Any]]) -> Packed:
    """The weights of a program in the order of its layers, each as `laid_out` gives them."""
    parts: list[bytes] = []
    begins: dict[str, int] = {}
    at = 0
    for layer in (layer for step in program for layer in layers_of(step)):
        values = laid_out(layer).tobytes()
        begins[layer.name] = at
        room = padded(len(values), LINE)
        parts += [values, bytes(room - len(values))]
        at += room
    return Packed(b"".join(parts), begins)


def floats(layer: Weighted, weights: Mapping[str, Tensor], room: int, panel: int) -> Tensor:
    """The weights of a layer in float32, for `room` outputs; see `panels` and `taps` for the order."""
    weight = np.asarray(weights[f"{layer.name}.weight"], np.float32)
    bias = weights.get(f"{layer.name}.bias", np.zeros(len(weight), np.float32))
    match layer:
        case Filter():
            return taps(weight, bias, room)
        case Product() if layer.source.packed == 2:
            return panels(in_pairs(weight[:, :, 0, 0]), bias, room, panel)
        case Product():
            return panels(weight, bias, room, panel)
        case Scores():
            return taps(weight, bias, room)


def widths(room: int, panel: int) -> list[int]:
    """The panels of a layer of so many channels, whole vectors: all of them full but for the last."""
    whole, rest = divmod(room, panel)
    return [panel] * whole + ([rest] if rest else [])


def panels(weight: Tensor, bias: Tensor, room: int, panel: int) -> Tensor:
    """A product's weights [out, in, kernel, kernel] (or [out, in]): for each panel its biases, then for each
    input value, in the order of a window in memory, a weight for each of its channels."""
    rows = weight.reshape(len(weight), -1) if weight.ndim == 2 else weight.transpose(0, 2, 3, 1)
    rows = rows.reshape(len(weight), -1)
    full = np.zeros((room, 1 + rows.shape[1]), np.float32)
    full[: len(rows), 0], full[: len(rows), 1:] = bias, rows
    made, at = [], 0
    for width in widths(room, panel):
        made.append(full[at : at + width].T.ravel())
        at += width
    return np.concatenate(made)


def in_pairs(weight: Tensor) -> Tensor:
    """Weights [out, in] in bfloat16, two inputs' to a value: [out, in / 2], bits and no numbers."""
    even = np.pad(weight, ((0, 0), (0, weight.shape[1] % 2)))
    bits = np.ascontiguousarray(even, np.float32).view(np.uint32)
    near = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16  # to even where it lies in the middle
    return (near[:, 0::2] | near[:, 1::2] << 16).view(np.float32)


def taps(weight: Tensor, bias: Tensor, room: int) -> Tensor:
    """A depthwise layer's weights [channels, 1, kernel, kernel], or a taught one's [channels, inputs]: all
    biases, then each tap's or input's weights."""
    channels = len(weight)
    full = np.zeros((1 + weight[0].size, room), np.float32)
    full[0, :channels], full[1:, :channels] = bias, weight.reshape(channels, -1).T
    return full.ravel()


def layers_of(step: Step) -> tuple[Weighted, ...]:
    """The layers of a step that have weights."""
    match step:
        case Stem() | Gated():
            return (step.product,)
        case Separable():
            return step.filter, step.product
        case Inverted():
            return step.wide, step.joint.filter, step.joint.product
        case Filter() | Product() | Scores():
            return (step,)
        case _:
            return ()
