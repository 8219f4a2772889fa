"""Exact counts of a network: multiply-accumulates, parameters and bytes, by layer and by kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

from mobilenets.spec.codec import op_name
from mobilenets.spec.net import NORM_TENSORS, Net, Node, shapes, weight_shape
from mobilenets.spec.op import Convolution, Linear, Shape

LEARNED_NORM = NORM_TENSORS[:2]


@dataclass(frozen=True, slots=True)
class Row:
    """One layer's cost. Bytes are float32: `bytes_read` is weights and inputs, `bytes_written` the output.

    `input` is the shape of the first input where there are several.
    """

    name: str
    kind: str
    input: Shape
    output: Shape
    macs: int
    params: int
    weights: int
    bytes_read: int
    bytes_written: int

    @property
    def values_read(self) -> int:
        """Of all its inputs together."""
        return self.bytes_read // 4 - self.params


@dataclass(frozen=True, slots=True)
class Share:
    """A kind's part of the whole."""

    macs: int
    params: int
    weights: int
    """Without biases and norms: what the paper's table 2 has shares of."""


@dataclass(frozen=True, slots=True)
class Cost:
    """A network's cost, the sum of its rows."""

    rows: tuple[Row, ...]
    activation_bytes: int

    @property
    def macs(self) -> int:
        return sum(row.macs for row in self.rows)

    @property
    def params(self) -> int:
        """Weights, biases and the two learned vectors of each batch norm; not its measured statistics."""
        return sum(row.params for row in self.rows)

    @property
    def float32_bytes(self) -> int:
        """Four bytes for each parameter."""
        return 4 * self.params

    @property
    def int8_bytes(self) -> int:
        """One byte for each weight, and a four-byte scale and a four-byte bias for each output channel."""
        return sum(row.weights + 8 * row.output.channels for row in self.rows if row.weights)

    @property
    def by_kind(self) -> dict[str, Share]:
        kinds = ("pointwise", "depthwise", "conv", "dense")
        return {kind: _share([row for row in self.rows if row.kind == kind]) for kind in kinds}


def cost(net: Net) -> Cost:
    """Count `net`, one picture at a time."""
    known = shapes(net)
    return Cost(tuple(_row(node, known) for node in net.nodes), _peak_bytes(net, known))


def macs(node: Node, x: Shape, y: Shape) -> int:
    """Multiply-accumulates of one node; padding counts, as in the papers (arXiv:1704.04861, eq. 2 to 5).

    What has no weights has none, sums (as in arXiv:1801.04381) and gates among it.
    """
    weight = weight_shape(node.op, x)
    return 0 if weight is None else y.height * y.width * prod(weight)


def separable_reduction(kernel: int, out: int) -> float:
    """A separable convolution's MACs over the full one's: 1/N + 1/k² (arXiv:1704.04861, section 3.1)."""
    return 1 / out + 1 / kernel**2


def _row(node: Node, known: dict[str, Shape]) -> Row:
    x, y = known[node.inputs[0]], known[node.name]
    shape = weight_shape(node.op, x)
    weights = 0 if shape is None else prod(shape)
    biases = y.channels if isinstance(node.op, Linear) and node.op.bias else 0
    normed = isinstance(node.op, Convolution) and node.op.norm is not None
    params = weights + biases + normed * y.channels * len(LEARNED_NORM)
    return Row(
        name=node.name,
        kind=op_name(node.op),
        input=x,
        output=y,
        macs=macs(node, x, y),
        params=params,
        weights=weights,
        bytes_read=4 * (sum(known[name].elements for name in node.inputs) + params),
        bytes_written=4 * y.elements,
    )


def _share(rows: Sequence[Row]) -> Share:
    return Share(
        macs=sum(row.macs for row in rows),
        params=sum(row.params for row in rows),
        weights=sum(row.weights for row in rows),
    )


def _peak_bytes(net: Net, known: dict[str, Shape]) -> int:
    """The most that maps alive together take at float32: a node's inputs, its output, what is read later."""
    kept = {output.node for output in net.outputs}
    last_use = {name: index for index, node in enumerate(net.nodes) for name in node.inputs}
    peak, alive = 0, {"image"}
    for index, node in enumerate(net.nodes):
        alive.add(node.name)
        peak = max(peak, sum(known[name].elements for name in alive))
        alive = {name for name in alive if last_use.get(name, -1) > index or name in kept}
    return 4 * peak


def as_json(counted: Cost, by_layer: bool = False) -> dict[str, Any]:
    """A cost as JSON values; sizes and activations in bytes."""
    told: dict[str, Any] = {
        "macs": counted.macs,
        "params": counted.params,
        "size_bytes": {"float32": counted.float32_bytes, "int8": counted.int8_bytes},
        "bytes_read": sum(row.bytes_read for row in counted.rows),
        "bytes_written": sum(row.bytes_written for row in counted.rows),
        "activation_bytes": counted.activation_bytes,
        "by_kind": {kind: asdict(share) for kind, share in counted.by_kind.items()},
    }
    if by_layer:
        told["layers"] = [asdict(row) for row in counted.rows]
    return told
