"""The operations a network is made of: a closed union of frozen data, matched with `match` elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

Activation = Literal["none", "relu", "relu6"]
Padding = Literal["same", "symmetric"]
"""`same` is TensorFlow's (the odd pixel goes below and right), `symmetric` pads kernel // 2 on every side."""


class Shape(NamedTuple):
    """A feature map, height × width × channels; a vector is 1 × 1 × channels."""

    height: int
    width: int
    channels: int

    @property
    def elements(self) -> int:
        return self.height * self.width * self.channels


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchNorm:
    """Normalisation by running statistics; folding removes it (arXiv:1502.03167)."""

    epsilon: float = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Conv:
    """A full convolution: every output channel sees every input channel."""

    out: int
    kernel: int = 3
    stride: int = 1
    padding: Padding = "same"
    norm: BatchNorm | None = None
    bias: bool = False
    activation: Activation = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Depthwise:
    """One kernel × kernel filter per channel; channels never mix."""

    kernel: int = 3
    stride: int = 1
    padding: Padding = "same"
    norm: BatchNorm | None = None
    bias: bool = False
    activation: Activation = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pointwise:
    """A 1 × 1 convolution: channels mix, pixels never do."""

    out: int
    norm: BatchNorm | None = None
    bias: bool = False
    activation: Activation = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """The average over the whole map, a vector of its channels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dense:
    """A matrix on a vector."""

    out: int
    bias: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Add:
    """The sum of two or more maps of one shape, value by value."""


Op = Conv | Depthwise | Pointwise | Pool | Dense | Add


def pads(size: int, kernel: int, stride: int, padding: Padding) -> tuple[int, int]:
    """Rows (or columns) of zeros before and after an axis of `size`."""
    if padding == "symmetric":
        return kernel // 2, kernel // 2
    out = -(-size // stride)
    total = max((out - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def slid(size: int, kernel: int, stride: int, padding: Padding) -> int:
    """How many places a kernel takes along an axis of `size`, padding included."""
    before, after = pads(size, kernel, stride, padding)
    return (size + before + after - kernel) // stride + 1
