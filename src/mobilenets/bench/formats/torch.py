"""A network as plain layers of torch, folded weights: in a row up to its first output, or with all outputs.

The model floor's module cuts rows off where TensorFlow pads on one side only; XNNPACK through ExecuTorch 1.5
answers wrongly to that (a third of the largest value off), and rightly to zeros put before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_never

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mobilenets.infer.artefact import Artefact
from mobilenets.infer.fold import fold
from mobilenets.spec.net import Node, shapes
from mobilenets.spec.op import Activation, Conv, Dense, Depthwise, Pointwise, Pool, Shape, pads


def layers(model: Artefact) -> nn.Sequential:
    """The network up to its first output. Raises ValueError where nodes do not follow one another."""
    net, weights = fold(model.net, model.weights)
    known, last = shapes(net), net.outputs[0].node
    made: list[nn.Module] = []
    before = "image"
    for node in net.nodes:
        if node.inputs != (before,):
            raise ValueError(f"{node.name}: does not follow {before}, the node before it")
        made += _filled(node, known, weights)
        before = node.name
        if before == last:
            break
    return nn.Sequential(*made).eval()


class Whole(nn.Module):
    """All outputs in the network's order, [n, channels] each, of float32 [n, 3, height, width]."""

    def __init__(self, model: Artefact) -> None:
        super().__init__()
        self._net, weights = fold(model.net, model.weights)
        known = shapes(self._net)
        self._layers = nn.ModuleList(
            nn.Sequential(*_filled(node, known, weights)) for node in self._net.nodes
        ).eval()

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        values = {"image": image}
        for node, layers_of in zip(self._net.nodes, self._layers, strict=True):
            values[node.name] = layers_of(values[node.inputs[0]])
        return tuple(values[output.node].flatten(1) for output in self._net.outputs)


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
