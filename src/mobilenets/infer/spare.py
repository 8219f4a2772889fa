"""Channels that never fire put to use: copies of the channels whose rounding costs most.

Batch norm leaves dead channels behind, most of them early, where a map has few and half a step is felt to the
end. Before and after a depthwise layer they can hold copies of another channel, each rounded at another
fraction of a step; the pointwise layer that follows takes their mean. In float32 nothing changes; in bytes k
copies have a step of 1 / k.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mobilenets.infer.calibrate import Spread
from mobilenets.infer.fold import Weights
from mobilenets.spec.net import Net, shapes
from mobilenets.spec.op import Add, Conv, Convolution, Depthwise, Pointwise, Pool


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
            and node.inputs == (before.name,)
            and after.inputs == (node.name,)
            and _readers(net, before.name) == _readers(net, node.name) == 1
        ):
            continue
        dead = spreads[node.name].most <= 0
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
        if isinstance(node.op, Add):
            for name in node.inputs:
                found[name] += found[node.name]
            continue
        source = node.inputs[0]
        if isinstance(node.op, Pool):
            found[source] += found[node.name] / (known[source].height * known[source].width)
            continue
        weight = weights[f"{node.name}.weight"].astype(np.float64)
        squares = (weight.reshape(*weight.shape[:2], -1) ** 2).sum(2)
        passed = found[node.name]
        if isinstance(node.op, Convolution) and node.op.activation != "none":
            passed = passed * spreads[node.name].between
        found[source] += squares[:, 0] * passed if isinstance(node.op, Depthwise) else passed @ squares
    return found


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
