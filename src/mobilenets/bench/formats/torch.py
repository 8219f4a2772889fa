"""A network as plain layers of torch, folded weights: up to its first output, or with all outputs.

The model floor's module cuts rows off where TensorFlow pads on one side only; XNNPACK through ExecuTorch 1.5
answers wrongly to that (a third of the largest value off), and rightly to zeros put before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import assert_never

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mobilenets.infer.artefact import Artefact
from mobilenets.infer.fold import fold
from mobilenets.model.module import weightless
from mobilenets.spec.net import Node, shapes
from mobilenets.spec.op import Activation, Conv, Dense, Depthwise, Pointwise, Pool, Shape, Weightless, sides
from mobilenets.spec.op import around as pads_around


class Other(nn.Module):
    """An operation without weights, of one map or of several."""

    def __init__(self, op: Weightless) -> None:
        super().__init__()
        self.op = op

    def forward(self, *maps: Tensor) -> Tensor:
        return weightless(self.op, maps)


class Graph(nn.Module):
    """Outputs by name, [n, channels] each, of float32 [n, 3, height, width]; what all have read goes."""

    def __init__(self, model: Artefact, names: Sequence[str]) -> None:
        super().__init__()
        net, weights = fold(model.net, model.weights)
        known, self._wanted = shapes(net), [net.output(name).node for name in names]
        last = max(index for index, node in enumerate(net.nodes) if node.name in self._wanted)
        self.nodes = net.nodes[: last + 1]
        self.parts = nn.ModuleList(_joined(_filled(node, known, weights)) for node in self.nodes)
        reader = {source: node.name for node in self.nodes for source in node.inputs}
        self._read = {
            node.name: [one for one in node.inputs if reader[one] == node.name and one not in self._wanted]
            for node in self.nodes
        }

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        values = {"image": image}
        for node, part in zip(self.nodes, self.parts, strict=True):
            values[node.name] = part(*(values[name] for name in node.inputs))
            for name in set(self._read[node.name]):
                del values[name]
        return tuple(values[name].flatten(1) for name in self._wanted)


class First(nn.Module):
    """The first output of a graph."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph

    def forward(self, image: Tensor) -> Tensor:
        found: Tensor = self.graph(image)[0]
        return found


def layers(model: Artefact) -> nn.Module:
    """The network up to its first output: its layers in a row where each follows the one before."""
    graph = Graph(model, [model.net.outputs[0].name])
    before = ["image", *(node.name for node in graph.nodes)]
    if all(node.inputs == (source,) for node, source in zip(graph.nodes, before, strict=False)):
        return nn.Sequential(*graph.parts).eval()
    return First(graph).eval()


def whole(model: Artefact) -> nn.Module:
    """The network with all its outputs, in its order."""
    return Graph(model, [output.name for output in model.net.outputs]).eval()


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
            rows, columns = pads_around(op, x)
            around = rows[0] if rows == columns and rows[0] == rows[1] else 0
            zeros: list[nn.Module] = [] if around else [nn.ZeroPad2d((*columns, *rows))]
            groups = x.channels if isinstance(op, Depthwise) else op.groups
            sizes = (x.channels, y.channels, sides(op), op.stride, around)
            return [*zeros, nn.Conv2d(*sizes, groups=groups, bias=op.bias), *_activation(op.activation)]
        case Pointwise():
            linear = nn.Conv2d(x.channels, op.out, 1, groups=op.groups, bias=op.bias)
            return [linear, *_activation(op.activation)]
        case Pool():
            return [nn.AdaptiveAvgPool2d(1)]
        case Dense():
            return [nn.Flatten(), nn.Linear(x.channels, op.out, bias=op.bias)]
        case _:
            return [Other(op)]


def _activation(activation: Activation) -> list[nn.Module]:
    match activation:
        case "none":
            return []
        case "relu":
            return [nn.ReLU()]
        case "relu6":
            return [nn.ReLU6()]
        case "hswish":
            return [nn.Hardswish()]
        case "hsigmoid":
            return [nn.Hardsigmoid()]
        case "swish":
            return [nn.SiLU()]
        case "sigmoid":
            return [nn.Sigmoid()]
        case _:
            assert_never(activation)
