"""What the tables of the zoo are written with: channels as sources round them, and bodies node by node."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from mobilenets.spec.net import Net, Node, Output, shape_after
from mobilenets.spec.op import (
    Activation,
    BatchNorm,
    Conv,
    Convolution,
    Depthwise,
    Op,
    Padding,
    Pointwise,
    Pool,
    Shape,
)

PYTORCH_EPSILON = 1e-5
Rounding = Literal["slim", "keras", "divisible"]


def rounded(channels: float, width: float, rule: Rounding) -> int:
    """Channels times the width multiplier, rounded as the source of the weights rounds.

    `slim` truncates but keeps 8 (TensorFlow's slim/nets/mobilenet_v1.py), `keras` truncates
    (keras.applications.mobilenet), `divisible` goes to the nearest multiple of 8 that loses at most a tenth
    (timm, and the V2 paper's code).
    """
    scaled = channels * width
    match rule:
        case "slim":
            return max(int(scaled), 8)
        case "keras":
            return max(int(scaled), 1)
        case "divisible":
            near = max(8, int(scaled + 4) // 8 * 8)
            return near + 8 if near < 0.9 * scaled else near
    raise ValueError(f"unknown rounding rule {rule!r}; known: slim, keras, divisible")


def check(width: float, resolution: int, widths: str, resolutions: str) -> None:
    """Raises ValueError for a width or a resolution that can't be, with those that the papers use."""
    if not 0 < width <= 8:
        raise ValueError(f"width must lie in (0, 8], not {width}; the papers use {widths}")
    if not 1 <= resolution <= 4096:
        raise ValueError(
            f"resolution must lie in 1…4096 pixels, not {resolution}; the papers use {resolutions}"
        )


def as_pytorch(net: Net) -> Net:
    """The network as PyTorch's libraries build it: windows padded symmetrically, their norms' epsilon."""
    nodes = []
    for node in net.nodes:
        op = node.op
        if isinstance(op, Convolution) and op.norm is not None:
            op = replace(op, norm=BatchNorm(epsilon=PYTORCH_EPSILON))
        if isinstance(op, Conv | Depthwise):
            op = replace(op, padding="symmetric")
        nodes.append(replace(node, op=op))
    return replace(net, nodes=tuple(nodes))


class Builder:
    """A body, node by node: each reads the one before unless it is told what.

    What convolves has a batch norm of `epsilon`; without an `epsilon`, biases.
    """

    def __init__(self, resolution: int, *, epsilon: float | None, padding: Padding) -> None:
        self._image = Shape(resolution, resolution, 3)
        self._shapes = {"image": self._image}
        self._nodes: list[Node] = []
        self._norm = None if epsilon is None else BatchNorm(epsilon=epsilon)
        self._padding: Padding = padding
        self.last = "image"

    @property
    def shape(self) -> Shape:
        """Of what the next node reads."""
        return self._shapes[self.last]

    @property
    def channels(self) -> int:
        """Of what the next node reads."""
        return self.shape.channels

    def add(self, name: str, op: Op, *sources: str) -> str:
        """A node of any operation."""
        sources = sources or (self.last,)
        self._shapes[name] = shape_after(op, [self._shapes[source] for source in sources])
        self._nodes.append(Node(name, op, sources))
        self.last = name
        return name

    def conv(
        self,
        name: str,
        out: int,
        kernel: int = 3,
        stride: int = 1,
        activation: Activation = "none",
        *,
        padding: Padding | None = None,
        source: str = "",
        across: int | None = None,
        groups: int = 1,
    ) -> str:
        """A full convolution."""
        op = Conv(
            out=out,
            kernel=kernel,
            across=across,
            groups=groups,
            stride=stride,
            padding=padding or self._padding,
            norm=self._norm,
            bias=self._norm is None,
            activation=activation,
        )
        return self.add(name, op, *filter(None, [source]))

    def depthwise(
        self,
        name: str,
        kernel: int = 3,
        stride: int = 1,
        activation: Activation = "none",
        *,
        norm: bool = True,
    ) -> str:
        """A depthwise layer; without its `norm` it has no biases either."""
        own = self._norm if norm else None
        op = Depthwise(
            kernel=kernel,
            stride=stride,
            padding=self._padding,
            norm=own,
            bias=norm and own is None,
            activation=activation,
        )
        return self.add(name, op)

    def pointwise(
        self,
        name: str,
        out: int,
        activation: Activation = "none",
        *,
        source: str = "",
        norm: bool = True,
        groups: int = 1,
    ) -> str:
        """A pointwise layer; without its `norm` it has biases."""
        own = self._norm if norm else None
        op = Pointwise(out=out, groups=groups, norm=own, bias=own is None, activation=activation)
        return self.add(name, op, *filter(None, [source]))

    def body(self, name: str, width: float = 1.0, rounding: Rounding = "divisible") -> Net:
        """The net, whose features are the last node's, the mean of its map where that is one."""
        if self._shapes[self.last][:2] != (1, 1) or not any(
            isinstance(node.op, Pool) for node in self._nodes
        ):
            self.add("pool", Pool())
        return Net(
            name=name,
            input=self._image,
            nodes=tuple(self._nodes),
            outputs=(Output("features", self.last, "vector"),),
            width=width,
            rounding=rounding,
        )
