"""A network as data: named nodes, named outputs, and what follows from them (shapes, tensors)."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal, assert_never

from mobilenets.spec.op import Add, Conv, Dense, Depthwise, Op, Pointwise, Pool, Shape, slid

NAME = re.compile(r"\w+(\.\w+)*", re.ASCII)

Decode = Literal["classes", "vector"]
"""How an output is read: `classes` are logits for a softmax over labels, a `vector` is taken as it is."""


@dataclass(frozen=True, slots=True)
class Node:
    """One operation under its name; `inputs` name earlier nodes, or `image` for the network's input.

    An `Add` has two inputs or more, every other operation one.
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

    def output(self, name: str) -> Output:
        """The output called `name`; KeyError with the names there are."""
        for output in self.outputs:
            if output.name == name:
                return output
        raise KeyError(f"{self.name}: no output {name!r}, it has {', '.join(o.name for o in self.outputs)}")


def shape_after(op: Op, x: Shape) -> Shape:
    """The shape one operation makes of its input, or of each of its inputs where it has several."""
    match op:
        case Conv():
            return Shape(*_slide(op, x), op.out)
        case Depthwise():
            return Shape(*_slide(op, x), x.channels)
        case Pointwise():
            return Shape(x.height, x.width, op.out)
        case Pool():
            return Shape(1, 1, x.channels)
        case Dense():
            return Shape(1, 1, op.out)
        case Add():
            return x
        case _:
            assert_never(op)


def _slide(op: Conv | Depthwise, x: Shape) -> tuple[int, int]:
    return (
        slid(x.height, op.kernel, op.stride, op.padding),
        slid(x.width, op.kernel, op.stride, op.padding),
    )


def shapes(net: Net) -> dict[str, Shape]:
    """The shape of every node's output, and of `image`, the input. ValueError where nodes don't fit."""
    known: dict[str, Shape] = {"image": net.input}
    if min(net.input) < 1:
        raise ValueError(f"{net.name}: input {tuple(net.input)} has an empty side")
    for node in net.nodes:
        if node.name in known:
            raise ValueError(f"{net.name}: two nodes are called {node.name!r}")
        if isinstance(node.op, Add):
            if len(node.inputs) < 2:
                raise ValueError(f"{net.name}: {node.name} adds two inputs or more, not {len(node.inputs)}")
        elif len(node.inputs) != 1:
            raise ValueError(f"{net.name}: {node.name} takes one input, not {len(node.inputs)}")
        for name in node.inputs:
            if name not in known:
                raise ValueError(f"{net.name}: {node.name} reads {name!r}, which does not come before it")
        source = node.inputs[0]
        x = known[source]
        for name in node.inputs[1:]:
            if known[name] != x:
                raise ValueError(
                    f"{net.name}: {node.name} adds maps of one shape, "
                    f"{source} is {tuple(x)}, {name} {tuple(known[name])}"
                )
        if isinstance(node.op, Dense) and (x.height, x.width) != (1, 1):
            raise ValueError(f"{net.name}: {node.name} wants a vector, {source} is {tuple(x)}")
        y = shape_after(node.op, x)
        if min(y) < 1:
            raise ValueError(f"{net.name}: {node.name} makes an empty map {tuple(y)} of {tuple(x)}")
        known[node.name] = y
    return known


def tensors(net: Net) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor the network owns, statistics of batch norms included.

    Convolutions are [out, in, height, width], depthwise [channels, 1, height, width], dense [out, in]:
    PyTorch's order, so that a module's state dict carries the same names and shapes.
    """
    known = shapes(net)
    found: dict[str, tuple[int, ...]] = {}
    for node in net.nodes:
        x, y = known[node.inputs[0]], known[node.name]
        weight = weight_shape(node.op, x)
        if weight is None:
            continue
        found[f"{node.name}.weight"] = weight
        if not isinstance(node.op, Pool | Add) and node.op.bias:
            found[f"{node.name}.bias"] = (y.channels,)
        if isinstance(node.op, Conv | Depthwise | Pointwise) and node.op.norm is not None:
            for part in NORM_TENSORS:
                found[f"{node.name}.norm.{part}"] = (y.channels,)
    return found


NORM_TENSORS = ("weight", "bias", "running_mean", "running_var")
"""A batch norm's tensors: the two it learns, then the two it measures."""


def weight_shape(op: Op, x: Shape) -> tuple[int, ...] | None:
    """Shape of the weight of `op` on an input `x`; None where it has none."""
    match op:
        case Conv():
            return (op.out, x.channels, op.kernel, op.kernel)
        case Depthwise():
            return (x.channels, 1, op.kernel, op.kernel)
        case Pointwise():
            return (op.out, x.channels, 1, 1)
        case Dense():
            return (op.out, x.channels)
        case Pool() | Add():
            return None
        case _:
            assert_never(op)


def at_resolution(net: Net, height: int, width: int | None = None) -> Net:
    """The same network on another input size; its weights stay as they are."""
    return replace(net, input=Shape(height, width or height, net.input.channels))
