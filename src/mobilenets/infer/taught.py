"""A dense layer in float32 on a vector of bytes: a head that was taught where the bytes are made.

    x      = float32(byte − zero of a)
    sum    = (((w₀ · x₀) + w₁ · x₁) + w₂ · x₂) + …, for each class over the channels in their order
    result = sum · float32(step of a) + bias

Every product and sum in float32 rounds by itself, none is fused with the next: results are equal bit for bit
wherever they are computed, in JavaScript too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilenets.infer.scale import Scale
from mobilenets.spec.net import Net, Node, shapes, weight_shape
from mobilenets.spec.op import Dense


def is_taught(node: Node, tensors: Mapping[str, NDArray[Any]]) -> bool:
    """Whether a node of a quantised network has weights in float32."""
    weight = tensors.get(f"{node.name}.weight")
    return isinstance(node.op, Dense) and weight is not None and weight.dtype == np.float32


def wanted(net: Net, node: Node, scales: Mapping[str, Scale]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Type and shape of each of its tensors. Raises ValueError where such a layer cannot be."""
    told = f"{node.name}: weights in float32"
    if node.name in scales or any(node.name in other.inputs for other in net.nodes):
        raise ValueError(f"{told}, which only a network's last layer has, and it without a scale")
    if node.inputs[0] not in scales:
        raise ValueError(f"{told}, and it reads no bytes that have a scale")
    shape = weight_shape(node.op, shapes(net)[node.inputs[0]]) or ()
    return {f"{node.name}.weight": ("float32", shape), f"{node.name}.bias": ("float32", shape[:1])}


class TaughtLayer:
    """One such layer, ready to run in numpy."""

    def __init__(self, node: Node, tensors: Mapping[str, NDArray[Any]], scale: Scale) -> None:
        self._columns = np.ascontiguousarray(tensors[f"{node.name}.weight"].T)
        self._bias: NDArray[np.float32] = tensors[f"{node.name}.bias"]
        self._zero, self._step = np.float32(scale.zero), np.float32(scale.step)

    def __call__(self, *given: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits float32 [n, 1, 1, classes] of bytes [n, 1, 1, channels]."""
        x = given[0].reshape(len(given[0]), -1).astype(np.float32) - self._zero
        sums = np.zeros((len(x), len(self._bias)), np.float32)
        for column, values in zip(self._columns, x.T, strict=True):
            sums += values[:, None] * column
        return (sums * self._step + self._bias).reshape(len(x), 1, 1, -1)
