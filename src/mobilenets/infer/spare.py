"""Channels that never fire put to use: copies of the channels whose rounding costs most.

Batch norm leaves dead channels behind, most of them early, where a map has few and half a step is felt to the
end. Before and after a depthwise layer they can hold copies of another channel, each rounded at another
fraction of a step; the pointwise layer that follows takes their mean. In float32 nothing changes; in bytes k
copies have a step of 1 / k.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from mobilenets.infer.calibrate import Spread
from mobilenets.infer.fold import Weights
from mobilenets.spec.net import Net, Node, shapes
from mobilenets.spec.op import (
    PLAIN,
    Activate,
    Add,
    Concat,
    Conv,
    Convolution,
    Dense,
    Depthwise,
    MaxPool,
    MeanPool,
    Mul,
    Pointwise,
    Pool,
    Shape,
    Shuffle,
    Slice,
)


@dataclass(frozen=True, slots=True)
class Copies:
    """Of the channels before and after one depthwise layer: `of` whom each is a copy, itself for most.

    `share` is the part of its channel that each stands for, `offset` what is added to it in steps.
    """

    of: NDArray[np.int64]
    share: NDArray[np.float64]
    offset: NDArray[np.float64]


def copies(net: Net, weights: Weights, spreads: Mapping[str, Spread]) -> dict[str, Copies]:
    """Copies by the depthwise layer that makes them, of a folded network.

    Dead is a channel of its result that no calibration picture wakes.
    """
    gains = noise_gains(net, weights, spreads)
    found: dict[str, Copies] = {}
    for before, node, after in zip(net.nodes, net.nodes[1:], net.nodes[2:], strict=False):
        if not (
            isinstance(before.op, Conv | Pointwise)
            and isinstance(node.op, Depthwise)
            and isinstance(after.op, Pointwise)
            and before.op.groups == after.op.groups == 1
            and {before.op.activation, node.op.activation} <= set(PLAIN)
            and node.inputs == (before.name,)
            and after.inputs == (node.name,)
            and _readers(net, before.name) == _readers(net, node.name) == 1
        ):
            continue
        dead = (spreads[node.name].most <= 0) & (spreads[node.name].least >= 0)
        if not dead.any() or dead.all():
            continue
        cost = sum(
            gains[name] * spreads[name].most.astype(np.float64) ** 2 for name in (before.name, node.name)
        )
        found[node.name] = _spread_out(np.where(dead, 0, cost), np.flatnonzero(dead))
    return found


def noise_gains(net: Net, weights: Weights, spreads: Mapping[str, Spread]) -> dict[str, NDArray[np.float64]]:
    """How much of a small random error in each channel of each map, squared, arrives at the outputs.

    Errors are taken for independent; an activation passes them where it neither holds at 0 nor at its top.
    """
    known = shapes(net)
    found = {"image": np.zeros(known["image"].channels)}
    found |= {node.name: np.zeros(known[node.name].channels) for node in net.nodes}
    for output in net.outputs:
        found[output.node] += 1
    for node in reversed(net.nodes):
        passed = found[node.name]
        if isinstance(node.op, Convolution | Add | Activate) and node.op.activation != "none":
            passed = passed * spreads[node.name].between
            if node.op.activation == "hsigmoid":
                passed = passed / 36
        for name, part in zip(node.inputs, _passed_on(node, passed, known, weights, spreads), strict=True):
            found[name] += part
    return found


def _passed_on(
    node: Node,
    passed: NDArray[np.float64],
    known: Mapping[str, Shape],
    weights: Weights,
    spreads: Mapping[str, Spread],
) -> list[NDArray[np.float64]]:
    """Of the errors that a node's result passes on, what comes from each of its inputs."""
    op, x, y = node.op, known[node.inputs[0]], known[node.name]
    windows = (y.height * y.width) / (x.height * x.width)
    match op:
        case Add():
            return [passed] * len(node.inputs)
        case Mul():
            values, gate = (spreads[name].squares for name in node.inputs)
            return [passed * gate, passed * values * (x.height * x.width)]
        case Concat():
            ends = np.cumsum([known[name].channels for name in node.inputs])
            return np.split(passed, ends[:-1])
        case Slice():
            return [np.pad(passed, (op.begin, x.channels - op.end))]
        case Shuffle():
            return [passed.reshape(-1, op.groups).T.ravel()]
        case Activate():
            return [passed]
        case Pool():
            return [passed / (x.height * x.width)]
        case MaxPool():
            return [passed * windows]
        case MeanPool():
            return [passed * windows / op.kernel**2]
        case Conv() | Depthwise() | Pointwise() | Dense():
            weight = weights[f"{node.name}.weight"].astype(np.float64)
            squares = (weight.reshape(*weight.shape[:2], -1) ** 2).sum(2)
            if isinstance(op, Depthwise):
                return [squares[:, 0] * passed]
            groups = 1 if isinstance(op, Dense) else op.groups
            parts = zip(np.split(passed, groups), np.split(squares, groups), strict=True)
            return [np.concatenate([own @ part for own, part in parts])]
        case _:
            assert_never(op)


def _readers(net: Net, name: str) -> int:
    """Who reads a map, the outside world counted in."""
    return sum(name in node.inputs for node in net.nodes) + sum(name == o.node for o in net.outputs)


def _spread_out(cost: NDArray[np.float64], dead: NDArray[np.int64]) -> Copies:
    """Each dead channel in turn to the one that costs most, k copies of which cost a k-th part squared."""
    of, number = np.arange(len(cost)), np.ones(len(cost))
    for channel in dead:
        dearest = int((cost / number**2).argmax())
        of[channel] = dearest
        number[dearest] += 1
    offset = np.zeros(len(cost))
    for channel in np.unique(of[dead]):
        group = np.flatnonzero(of == channel)
        offset[group] = (np.arange(len(group)) - (len(group) - 1) / 2) / len(group)
    return Copies(of, 1 / number[of], offset)
