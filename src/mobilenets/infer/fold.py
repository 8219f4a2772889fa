"""Batch norm folded into the convolution before it: the same function, one node field less."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilenets.spec.net import Net, Node
from mobilenets.spec.op import Conv, Depthwise, Pointwise

Weights = Mapping[str, NDArray[np.float32]]
"""Tensors by the names and in the shapes of `spec.net.tensors`."""


def fold(net: Net, weights: Weights) -> tuple[Net, dict[str, NDArray[np.float32]]]:
    """`net` without its batch norms, and the weights that make it compute the same.

    w' = w · γ / √(σ² + ε) for each output channel, b' = (b − μ) · γ / √(σ² + ε) + β; computed in float64.
    A dead channel (σ² near nothing) is scaled like any other: ε keeps it finite.
    """
    folded: dict[str, NDArray[np.float32]] = {}
    nodes = []
    for node in net.nodes:
        places = (node.name, f"{node.name}.norm")
        own = {name: value for name, value in weights.items() if name.rpartition(".")[0] in places}
        if isinstance(node.op, Conv | Depthwise | Pointwise) and node.op.norm is not None:
            folded.update(_folded(node, own, node.op.norm.epsilon))
            nodes.append(replace(node, op=replace(node.op, norm=None, bias=True)))
        else:
            folded.update(own)
            nodes.append(node)
    return replace(net, nodes=tuple(nodes)), folded


def ungrouped(net: Net, weights: Mapping[str, NDArray[Any]]) -> tuple[Net, dict[str, NDArray[Any]]]:
    """`net` with every convolution in one group, and weights that are 0 where a channel was of another:
    in integers the zero of its own that a layer may have."""
    found, nodes = dict(weights), []
    for node in net.nodes:
        op = node.op
        if isinstance(op, Conv | Pointwise) and op.groups > 1:
            own = weights[f"{node.name}.weight"]
            outs, ins = op.out // op.groups, own.shape[1]
            wide = np.zeros((op.out, ins * op.groups, *own.shape[2:]), own.dtype)
            if (zero := weights.get(f"{node.name}.zero")) is not None:
                wide += zero.astype(own.dtype).reshape(-1, *(1,) * (own.ndim - 1))
            for group in range(op.groups):
                rows = slice(group * outs, (group + 1) * outs)
                wide[rows, group * ins : (group + 1) * ins] = own[rows]
            found[f"{node.name}.weight"] = wide
            op = replace(op, groups=1)
        nodes.append(replace(node, op=op))
    return replace(net, nodes=tuple(nodes)), found


def _folded(node: Node, own: Weights, epsilon: float) -> dict[str, NDArray[np.float32]]:
    weight = own[f"{node.name}.weight"].astype(np.float64)
    gamma, beta, mean, variance = (
        own[f"{node.name}.norm.{part}"].astype(np.float64)
        for part in ("weight", "bias", "running_mean", "running_var")
    )
    scale = gamma / np.sqrt(variance + epsilon)
    bias = own[f"{node.name}.bias"].astype(np.float64) if f"{node.name}.bias" in own else 0.0
    shaped = weight * scale.reshape(-1, *(1,) * (weight.ndim - 1))
    return {
        f"{node.name}.weight": shaped.astype(np.float32),
        f"{node.name}.bias": ((bias - mean) * scale + beta).astype(np.float32),
    }
