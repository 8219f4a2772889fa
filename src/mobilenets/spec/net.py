"""A network as data: named nodes, named outputs, and what follows from them (shapes, tensors)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, assert_never

from mobilenets.spec.op import (
    Activate,
    Add,
    Concat,
    Conv,
    Convolution,
    Dense,
    Depthwise,
    Joining,
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
    Windowed,
    sides,
    slid,
)

NAME = re.compile(r"\w+(\.\w+)*", re.ASCII)
MOST_INPUTS = 64

Decode = Literal["classes", "vector"]
"""How an output is read: `classes` are logits for a softmax over labels, a `vector` is taken as it is."""


@dataclass(frozen=True, slots=True)
class Node:
    """One operation under its name; `inputs` name earlier nodes, or `image` for the network's input.

    An `Add` and a `Concat` have two inputs or more, a `Mul` a map and a vector, every other operation one.
    """

    name: str
    op: Op
    inputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Output:
    """A value the network gives back: its public name, the node it comes from, the way to read it."""

    name: str
    node: str
    decode: Decode


@dataclass(frozen=True, slots=True)
class Net:
    """A directed graph of nodes in an order in which they can run.

    `width` and `rounding` record how the channels came about; the nodes hold the resolved numbers.
    Raises ValueError where the graph does not hold together.
    """

    name: str
    input: Shape
    nodes: tuple[Node, ...]
    outputs: tuple[Output, ...]
    width: float = 1.0
    rounding: str = "slim"

    def __post_init__(self) -> None:
        known = {node.name for node in self.nodes}
        for name in known:
            if not NAME.fullmatch(name):
                raise ValueError(
                    f"{self.name}: {name!r} is no node's name: letters, digits, _ and single dots"
                )
            parts = name.split(".")
            if inside := known & {".".join(parts[:depth]) for depth in range(1, len(parts))}:
                raise ValueError(
                    f"{self.name}: {name!r} lies inside {inside.pop()!r}; their tensors would mix"
                )
        shapes(self)
        public = [output.name for output in self.outputs]
        if len(set(public)) < len(public):
            raise ValueError(f"{self.name}: two outputs have one name, of {', '.join(public)}")
        for output in self.outputs:
            if output.node not in known:
                raise ValueError(
                    f"{self.name}: output {output.name!r} reads {output.node!r}, which is no node"
                )

    @property
    def resolution(self) -> int:
        """Input height in pixels (square inputs are the rule here)."""
        return self.input.height

    @property
    def called(self) -> str:
        """What people call it: "v1 0.5 at 128"."""
        return f"{self.name} {self.width:g} at {self.resolution}"

    def output(self, name: str) -> Output:
        """The output called `name`; KeyError with the names there are."""
        for output in self.outputs:
            if output.name == name:
                return output
        raise KeyError(f"{self.name}: no output {name!r}, it has {', '.join(o.name for o in self.outputs)}")


def shape_after(op: Op, inputs: Sequence[Shape]) -> Shape:
    """The shape that one operation makes of its inputs."""
    x = inputs[0]
    match op:
        case Conv():
            return Shape(*_slide(op, x), op.out)
        case Depthwise() | MaxPool() | MeanPool():
            return Shape(*_slide(op, x), x.channels)
        case Pointwise():
            return Shape(x.height, x.width, op.out)
        case Pool():
            return Shape(1, 1, x.channels)
        case Dense():
            return Shape(1, 1, op.out)
        case Concat():
            return Shape(x.height, x.width, sum(one.channels for one in inputs))
        case Slice():
            return Shape(x.height, x.width, op.end - op.begin)
        case Add() | Mul() | Shuffle() | Activate():
            return x
        case _:
            assert_never(op)


def _slide(op: Windowed, x: Shape) -> tuple[int, int]:
    tall, wide = sides(op)
    return slid(x.height, tall, op.stride, op.padding), slid(x.width, wide, op.stride, op.padding)


def shapes(net: Net) -> dict[str, Shape]:
    """The shape of every node's output, and of `image`, the input. ValueError where nodes don't fit."""
    known: dict[str, Shape] = {"image": net.input}
    if min(net.input) < 1:
        raise ValueError(f"{net.name}: input {tuple(net.input)} has an empty side")
    for node in net.nodes:
        if node.name in known:
            raise ValueError(f"{net.name}: two nodes are called {node.name!r}")
        wanted = _arity(node.op)
        if not wanted[0] <= len(node.inputs) <= wanted[1]:
            least = "one input" if wanted == (1, 1) else "two inputs" + " or more" * (wanted[1] > 2)
            raise ValueError(f"{net.name}: {node.name} takes {least}, not {len(node.inputs)}")
        for name in node.inputs:
            if name not in known:
                raise ValueError(f"{net.name}: {node.name} reads {name!r}, which does not come before it")
        inputs = [known[name] for name in node.inputs]
        if refused := _refused(node.op, inputs):
            listed = ", ".join(f"{name} is {tuple(known[name])}" for name in node.inputs)
            raise ValueError(f"{net.name}: {node.name} {refused}; {listed}")
        y = shape_after(node.op, inputs)
        if min(y) < 1:
            raise ValueError(f"{net.name}: {node.name} makes an empty map {tuple(y)} of {tuple(inputs[0])}")
        known[node.name] = y
    return known


def _arity(op: Op) -> tuple[int, int]:
    """How many inputs, at least and at most."""
    if isinstance(op, Mul):
        return 2, 2
    return (2, MOST_INPUTS) if isinstance(op, Joining) else (1, 1)


def _refused(op: Op, inputs: Sequence[Shape]) -> str:
    """What an operation wants of its inputs, where they are otherwise."""
    x, *others = inputs
    match op:
        case Dense() if (x.height, x.width) != (1, 1):
            return "wants a vector"
        case Conv(groups=groups) | Pointwise(groups=groups) if x.channels % groups or op.out % groups:
            return f"has {groups} groups, which its channels, {x.channels} to {op.out}, do not divide into"
        case Shuffle(groups=groups) if x.channels % groups:
            return f"deals out {groups} groups, which its channels do not divide into"
        case Slice() if not 0 <= op.begin < op.end <= x.channels:
            return f"takes channels {op.begin} to {op.end}, which are not there"
        case Add() if any(one != x for one in others):
            return "adds maps of one shape"
        case Mul() if others[0] != (1, 1, x.channels):
            return "multiplies a map and a vector of as many channels"
        case Concat() if any(one[:2] != x[:2] for one in others):
            return "joins maps of one height and width"
        case _:
            return ""


def needed(net: Net, names: Iterable[str]) -> tuple[Node, ...]:
    """The nodes that those called `names` are computed from, they among them, in their order."""
    wanted = set(names)
    for node in reversed(net.nodes):
        if node.name in wanted:
            wanted.update(node.inputs)
    return tuple(node for node in net.nodes if node.name in wanted)


def tensors(net: Net) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor the network owns, statistics of batch norms included.

    Convolutions are [out, in of a group, height, width], depthwise [channels, 1, height, width], dense
    [out, in]: PyTorch's order, so that a module's state dict carries the same names and shapes.
    """
    known = shapes(net)
    found: dict[str, tuple[int, ...]] = {}
    for node in net.nodes:
        x, y = known[node.inputs[0]], known[node.name]
        weight = weight_shape(node.op, x)
        if weight is None:
            continue
        found[f"{node.name}.weight"] = weight
        if isinstance(node.op, Linear) and node.op.bias:
            found[f"{node.name}.bias"] = (y.channels,)
        if isinstance(node.op, Convolution) and node.op.norm is not None:
            for part in NORM_TENSORS:
                found[f"{node.name}.norm.{part}"] = (y.channels,)
    return found


NORM_TENSORS = ("weight", "bias", "running_mean", "running_var")
"""A batch norm's tensors: the two it learns, then the two it measures."""


def weight_shape(op: Op, x: Shape) -> tuple[int, ...] | None:
    """Shape of the weight of `op` on an input `x`; None where it has none."""
    match op:
        case Conv():
            return (op.out, x.channels // op.groups, *sides(op))
        case Depthwise():
            return (x.channels, 1, op.kernel, op.kernel)
        case Pointwise():
            return (op.out, x.channels // op.groups, 1, 1)
        case Dense():
            return (op.out, x.channels)
        case _:
            return None


def at_resolution(net: Net, height: int, width: int | None = None) -> Net:
    """The same network on another input size; its weights stay as they are."""
    return replace(net, input=Shape(height, width or height, net.input.channels))
