"""The operations a network is made of: a closed union of frozen data, matched with `match` elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

Activation = Literal["none", "relu", "relu6", "hswish", "hsigmoid", "swish", "sigmoid"]
"""`hsigmoid` is relu6(x + 3) / 6, `hswish` that times x (arXiv:1905.02244), `swish` sigmoid(x) times x."""
Padding = Literal["same", "symmetric", "valid", "ceil"]
"""`same` is TensorFlow's (the odd pixel goes below and right), `symmetric` pads kernel // 2 on every side,
`valid` nothing, `ceil` what a last window lacks that begins inside."""


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
    """A full convolution: every output channel sees every input channel, or those of its group.

    `kernel` rows high and as wide, or `across` wide.
    """

    out: int
    kernel: int = 3
    across: int | None = None
    groups: int = 1
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
    """A 1 × 1 convolution: channels mix, those of a group alone where there are several; pixels never do."""

    out: int
    groups: int = 1
    norm: BatchNorm | None = None
    bias: bool = False
    activation: Activation = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """The average over the whole map, a vector of its channels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MaxPool:
    """The greatest of each window, channel by channel; what lies outside the map never is."""

    kernel: int
    stride: int = 1
    padding: Padding = "same"


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanPool:
    """The mean of each window, channel by channel; what lies outside does not count (TensorFlow's)."""

    kernel: int
    stride: int = 1
    padding: Padding = "same"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dense:
    """A matrix on a vector."""

    out: int
    bias: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Add:
    """The sum of two or more maps of one shape, value by value."""

    activation: Activation = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mul:
    """A map times a vector, channel by channel: each channel's gate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Concat:
    """The channels of two or more maps of one height and width, one map's after the other's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shuffle:
    """Channels dealt out: the first of each group, then the second of each (arXiv:1707.01083)."""

    groups: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """The channels from `begin` to before `end`."""

    begin: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Activate:
    """An activation by itself, where none follows a convolution."""

    activation: Activation


Linear = Conv | Depthwise | Pointwise | Dense
"""What has weights."""
Convolution = Conv | Depthwise | Pointwise
"""What can have a batch norm, and an activation after it."""
Windowed = Conv | Depthwise | MaxPool | MeanPool
"""What slides over a map."""
Joining = Add | Mul | Concat
"""What has several inputs."""
Weightless = Pool | MaxPool | MeanPool | Joining | Shuffle | Slice | Activate
Op = Linear | Weightless


PLAIN: tuple[Activation, ...] = ("none", "relu", "relu6")


def sides(op: Windowed) -> tuple[int, int]:
    """Rows and columns of a window."""
    return op.kernel, op.kernel if not isinstance(op, Conv) or op.across is None else op.across


def pads(size: int, kernel: int, stride: int, padding: Padding) -> tuple[int, int]:
    """Rows (or columns) before and after an axis of `size` that windows reach over."""
    match padding:
        case "symmetric":
            return kernel // 2, kernel // 2
        case "valid":
            return 0, 0
        case "ceil":
            last = max(0, -(-(size - kernel) // stride) * stride)
            return 0, max(0, (last if last < size else last - stride) + kernel - size)
        case "same":
            pass
    out = -(-size // stride)
    total = max((out - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def slid(size: int, kernel: int, stride: int, padding: Padding) -> int:
    """How many places a kernel takes along an axis of `size`, padding included."""
    before, after = pads(size, kernel, stride, padding)
    return (size + before + after - kernel) // stride + 1


def around(op: Windowed, x: Shape) -> tuple[tuple[int, int], tuple[int, int]]:
    """`pads` of a map's rows and of its columns."""
    tall, wide = sides(op)
    return pads(x.height, tall, op.stride, op.padding), pads(x.width, wide, op.stride, op.padding)
