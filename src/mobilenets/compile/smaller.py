"""The change that costs a network least and lets it fit a microcontroller."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from mobilenets.compile import integers, plan
from mobilenets.compile.isa import Family
from mobilenets.compile.pack import LINE, Weighted, layers_of
from mobilenets.compile.part import Part, arena_bytes
from mobilenets.compile.step import Filter, Product, Scores, padded
from mobilenets.compile.target import Target, family
from mobilenets.costs.count import cost
from mobilenets.infer.artefact import Artefact
from mobilenets.infer.taught import is_taught
from mobilenets.spec import zoo
from mobilenets.spec.head import HEAD, classify
from mobilenets.spec.net import Net, at_resolution, shapes
from mobilenets.spec.op import Conv, Depthwise, Op, Pointwise
from mobilenets.spec.preprocess import Preprocess

WIDTHS = (1.0, 0.75, 0.5, 0.25)
SIDE, LEAST_SIDE = 32, 96
STAMP_BYTES = 64
CODE_BYTES = 64 << 10
"""What is kept free for code that nobody has compiled yet."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What a network takes of a microcontroller: bytes of weights, and of RAM."""

    weight_bytes: int
    ram_bytes: int


def needs(
    net: Net, pre: Preprocess, chosen: Family, *, in_bytes: bool, taught: Collection[str] = ()
) -> Needs:
    """What the passes come to, from shapes alone; in bytes for weights without zeros of their own, but for
    the nodes of `taught`, whose weights are float32."""
    _, program, spans = plan.planned(_folded(net), chosen, taught, taught)
    layers = [layer for step in program for layer in layers_of(step)]
    weights = sum(padded(_layer_bytes(layer, chosen, in_bytes), LINE) for layer in layers)
    maps = plan.maps_bytes(spans) + plan.scratch_bytes(program)
    return Needs(weights + STAMP_BYTES, arena_bytes(pre, maps, integers=in_bytes))


def smaller(model: Artefact, target: Target, part: Part, code_bytes: int = CODE_BYTES) -> str:
    """How the network fits `part`, in words: in int8, at a smaller input, narrower; what keeps most of it.

    Of those that fit the one with most multiply-accumulates, float32 before int8.
    """
    best, told = 0, "nothing smaller of it does"
    taught = [node.name for node in model.net.nodes if is_taught(node, model.weights)]
    for net, dtype, change in _changes(model):
        macs = cost(net).macs
        if macs <= best:
            continue
        pre = replace(model.preprocess, height=net.input.height, width=net.input.width)
        found = needs(net, pre, family(target, dtype), in_bytes=dtype == "int8", taught=taught)
        if found.weight_bytes + code_bytes <= part.flash_bytes and found.ram_bytes <= part.ram_bytes:
            best, told = macs, f"it fits {change}"
    return told


def _changes(model: Artefact) -> Iterator[tuple[Net, str, str]]:
    """Every smaller network that is offered: itself, its type, the change in words."""
    net = model.net
    dtypes = ("int8",) if model.scales else ("float32", "int8")
    sides = [net.resolution, *range((net.resolution - 1) // SIDE * SIDE, LEAST_SIDE - 1, -SIDE)]
    for dtype in dtypes:
        for width, narrower in _widths(net):
            for side in sides:
                words = [
                    *(["in int8"] if dtype != model.dtype else []),
                    *([f"at {side} px"] if side != net.resolution else []),
                    *([f"at width {width:g}"] if width != net.width else []),
                ]
                if words:
                    made = narrower if side == net.resolution else at_resolution(narrower, side)
                    yield made, dtype, ", ".join(words)


def _widths(net: Net) -> list[tuple[float, Net]]:
    """A network and, where it is one of the zoo, those of smaller width."""
    found = [(net.width, net)]
    if net.name not in zoo.NETS:
        return found
    head = next((node for node in net.nodes if node.name == HEAD), None)
    for width in WIDTHS:
        if width < net.width:
            made = zoo.body(net.name, width, net.resolution)
            found.append((width, made if head is None else classify(made, shapes(net)[HEAD].channels)))
    return found


def _folded(net: Net) -> Net:
    """Without norms: each leaves a bias behind, and no size changes."""

    def bare(op: Op) -> Op:
        if isinstance(op, Conv | Depthwise | Pointwise) and op.norm is not None:
            return replace(op, norm=None, bias=True)
        return op

    return replace(net, nodes=tuple(replace(node, op=bare(node.op)) for node in net.nodes))


def _layer_bytes(layer: Weighted, chosen: Family, in_bytes: bool) -> int:
    channels, inputs = layer.target.shape.channels, layer.source.shape.channels
    if isinstance(layer, Scores):
        return 4 * padded(channels, chosen.lanes) * (1 + inputs)
    if in_bytes and isinstance(layer, Filter):
        lines = -(-chosen.layout.pitch(inputs) // chosen.line)
        fours = integers.fours_bytes(layer.kernel, 1, chosen.line, chosen.halves)
        return lines * (fours + layer.kernel**2 * chosen.line * chosen.taps)
    if in_bytes and isinstance(layer, Product):
        stretches = layer.kernel**2 * inputs // layer.run
        return padded(channels, chosen.lanes) * (integers.HEAD + stretches * 4 * integers.groups(layer.run))
    terms = layer.kernel**2 * (1 if isinstance(layer, Filter) else inputs)
    return 4 * chosen.room(channels) * (1 + terms)
