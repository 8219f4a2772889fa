"""Weights in the order in which the compiled kernels read them, each stretch at a cache line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mobilenets.compile.step import Filter, Mean, Product, Separable, Step, padded

LINE_FLOATS = 16
Tensor = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Packed:
    """All weights as one array and where each layer's begin, in floats."""

    values: Tensor
    begins: Mapping[str, int]


def pack(program: Sequence[Step], weights: Mapping[str, Tensor], lanes: int, panel: int) -> Packed:
    """The weight file of a program; see `panels` and `taps` for the order inside a layer."""
    parts: list[Tensor] = []
    begins: dict[str, int] = {}
    at = 0
    for layer in (layer for step in program for layer in _layers(step)):
        weight = np.asarray(weights[f"{layer.name}.weight"], np.float32)
        bias = weights.get(f"{layer.name}.bias", np.zeros(len(weight), np.float32))
        match layer:
            case Filter():
                values = taps(weight, bias, lanes)
            case Product():
                values = panels(weight, bias, lanes, panel)
        begins[layer.name] = at
        room = padded(values.size, LINE_FLOATS)
        parts += [values.ravel(), np.zeros(room - values.size, np.float32)]
        at += room
    return Packed(np.concatenate(parts), begins)


def widths(channels: int, lanes: int, panel: int) -> list[int]:
    """The panels of a layer: all of them full but for the last, which has whole vectors."""
    whole, rest = divmod(padded(channels, lanes), panel)
    return [panel] * whole + ([rest] if rest else [])


def panels(weight: Tensor, bias: Tensor, lanes: int, panel: int) -> Tensor:
    """A product's weights [out, in, kernel, kernel] (or [out, in]): for each panel its biases, then for each
    input value, in the order of a window in memory, a weight for each of its channels."""
    rows = weight.reshape(len(weight), -1) if weight.ndim == 2 else weight.transpose(0, 2, 3, 1)
    rows = rows.reshape(len(weight), -1)
    full = np.zeros((padded(len(rows), lanes), 1 + rows.shape[1]), np.float32)
    full[: len(rows), 0], full[: len(rows), 1:] = bias, rows
    made, at = [], 0
    for width in widths(len(rows), lanes, panel):
        made.append(full[at : at + width].T.ravel())
        at += width
    return np.concatenate(made)


def taps(weight: Tensor, bias: Tensor, lanes: int) -> Tensor:
    """A depthwise layer's weights [channels, 1, kernel, kernel]: all biases, then each tap's weights."""
    channels = len(weight)
    full = np.zeros((1 + weight[0].size, padded(channels, lanes)), np.float32)
    full[0, :channels], full[1:, :channels] = bias, weight.reshape(channels, -1).T
    return full.ravel()


def _layers(step: Step) -> tuple[Filter | Product, ...]:
    match step:
        case Separable():
            return step.filter, step.product
        case Mean():
            return ()
        case _:
            return (step,)
