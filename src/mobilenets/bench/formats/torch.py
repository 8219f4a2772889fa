"""A network as plain layers of torch, folded weights: up to its first output, or with all outputs.

The model floor's module cuts rows off where TensorFlow pads on one side only; XNNPACK through ExecuTorch 1.5
answers wrongly to that (a third of the largest value off), and rightly to zeros put before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import assert_never

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mobilenets.infer.artefact import Artefact
from mobilenets.infer.fold import fold
from mobilenets.spec.net import Node, shapes
from mobilenets.spec.op import Activation, Add, Conv, Dense, Depthwise, Pointwise, Pool, Shape, pads


class Sum(nn.Module):
    """The sum of maps of one shape."""

    def forward(self, *maps: Tensor) -> Tensor:
        return reduce(torch.add, maps)


class Graph(nn.Module):
    """Layers that read one another's maps: `sources` has the numbers of each one's inputs, 0 is the image."""

    def __init__(self, parts: Sequence[nn.Module], sources: Sequence[tuple[int, ...]]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self._sources = sources
        self._last_use = {source: step for step, own in enumerate(sources) for source in own}

    def forward(self, x: Tensor) -> Tensor:
        values = {0: x}
        for step, (part, own) in enumerate(zip(self.parts, self._sources, strict=True)):
            values[step + 1] = part(*(values[source] for source in own))
            for source in set(own):
                if self._last_use[source] == step:
                    del values[source]
        return values[len(self.parts)]


def layers(model: Artefact) -> nn.Module:
    """The network up to its first output: its layers in a row where each follows the one before."""
    net, weights = fold(model.net, model.weights)
    known, last = shapes(net), net.outputs[0].node
    parts: list[list[nn.Module]] = []
    number = {"image": 0}
    sources: list[tuple[int, ...]] = []
    for node in net.nodes:
        parts.append(_filled(node, known, weights))
        sources.append(tuple(number[name] for name in node.inputs))
        number[node.name] = len(parts)
        if node.name == last:
            break
    if all(own == (step,) for step, own in enumerate(sources)):
        return nn.Sequential(*(layer for own in parts for layer in own)).eval()
    return Graph([_joined(own) for own in parts], sources).eval()


class Whole(nn.Module):
    """All outputs in the network's order, [n, channels] each, of float32 [n, 3, height, width]."""

    def __init__(self, model: Artefact) -> None:
        super().__init__()
        self._net, weights = fold(model.net, model.weights)
        known = shapes(self._net)
        self._parts = nn.ModuleList(_joined(_filled(node, known, weights)) for node in self._net.nodes).eval()

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        values = {"image": image}
        for node, part in zip(self._net.nodes, self._parts, strict=True):
            values[node.name] = part(*(values[name] for name in node.inputs))
        return tuple(values[output.node].flatten(1) for output in self._net.outputs)


def _joined(own: list[nn.Module]) -> nn.Module:
    return nn.Sequential(*own) if len(own) > 1 else own[0]


def _filled(
    node: Node, known: Mapping[str, Shape], weights: Mapping[str, NDArray[np.float32]]
) -> list[nn.Module]:
    own = _layers(node, known[node.inputs[0]], known[node.name])
    for layer in own:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.weight.data = torch.from_numpy(weights[f"{node.name}.weight"])
            if layer.bias is not None:
                layer.bias.data = torch.from_numpy(weights[f"{node.name}.bias"])
    return own


def _layers(node: Node, x: Shape, y: Shape) -> list[nn.Module]:
    op = node.op
    match op:
        case Conv() | Depthwise():
            rows, columns = (pads(side, op.kernel, op.stride, op.padding) for side in x[:2])
            around = rows[0] if rows == columns and rows[0] == rows[1] else 0
            zeros: list[nn.Module] = [] if around else [nn.ZeroPad2d((*columns, *rows))]
            groups = x.channels if isinstance(op, Depthwise) else 1
            sizes = (x.channels, y.channels, op.kernel, op.stride, around)
            return [*zeros, nn.Conv2d(*sizes, groups=groups, bias=op.bias), *_activation(op.activation)]
        case Pointwise():
            return [nn.Conv2d(x.channels, op.out, 1, bias=op.bias), *_activation(op.activation)]
        case Pool():
            return [nn.AdaptiveAvgPool2d(1)]
        case Dense():
            return [nn.Flatten(), nn.Linear(x.channels, op.out, bias=op.bias)]
        case Add():
            return [Sum()]
        case _:
            assert_never(op)


def _activation(activation: Activation) -> list[nn.Module]:
    match activation:
        case "none":
            return []
        case "relu":
            return [nn.ReLU()]
        case "relu6":
            return [nn.ReLU6()]
        case _:
            assert_never(activation)
