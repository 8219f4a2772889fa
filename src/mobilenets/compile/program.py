"""From a network to its steps: which layers become one, and how many rows it takes at a time."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from mobilenets.compile.lacking import NOT_YET, refuse
from mobilenets.compile.step import (
    Filter,
    Gate,
    Gated,
    Inverted,
    Layout,
    Map,
    Mean,
    Moved,
    Product,
    Scores,
    Separable,
    Stem,
    Step,
    Sum,
    Window,
    made,
    small,
)
from mobilenets.spec.net import Net, Node, shapes
from mobilenets.spec.op import (
    Activate,
    Add,
    Concat,
    Conv,
    Dense,
    Depthwise,
    MaxPool,
    MeanPool,
    Mul,
    Op,
    Pointwise,
    Pool,
    Shape,
    Shuffle,
    Slice,
    around,
    pads,
)

LARGE, LARGE_ROWS = 4, 3
"""Scratches that a map takes at least which is never made whole; how many hold rows of it."""
WINDOW_BYTES = 20 << 10
"""What the input's rows for a block of the first layer may take of the first cache."""


def steps(
    net: Net,
    layout: Layout,
    scratch_bytes: int,
    floats: Collection[str] = (),
    large: float = LARGE,
    taught: Collection[str] = (),
) -> tuple[Map, tuple[Step, ...]]:
    """The image's levels and the steps of a folded network. Depthwise layers are joined to what follows them,
    and to what comes before where that makes a map of more than `large` scratches.

    The nodes of `floats` are float32 in a network whose values are bytes; those of `taught` have weights in
    float32 as well.
    """
    refuse(net)
    maps = _maps(net, layout, floats)
    readers = {name: [n for n in net.nodes if name in n.inputs] for name in maps}
    kept = {output.node for output in net.outputs}
    found: list[Step] = []
    joined: set[str] = set()

    def added(node: Node, product: Product) -> Product:
        """A product with the sum that alone reads it, where all else of that is there already."""
        match product.activation, readers[node.name]:
            case "none", [Node(name=name, op=Add() as op, inputs=(one, other))] if node.name not in kept:
                residual = other if one == node.name else one
                there = {"image", *(own.name for own in map(made, found))}
                if residual in there and maps[name].bytes == maps[residual].bytes:
                    joined.add(name)
                    own = replace(product, residual=maps[residual], activation=op.activation)
                    return replace(own, target=maps[name])
        return product

    for node in net.nodes:
        if node.name in joined:
            continue
        source, target = maps[node.inputs[0]], maps[node.name]
        after = readers[node.name]
        match node.op, [reader.op for reader in after]:
            case Add() | Activate() | Concat() | Slice() | Shuffle() as op, _:
                sources = tuple(maps[name] for name in node.inputs)
                if isinstance(op, Add | Activate):
                    found.append(Sum(node.name, sources, target, op.activation))
                else:
                    found.append(Moved(node.name, sources, target, op))
            case Pointwise() | Conv() as wide, [Depthwise() as middle] if (
                (source.name == "image" or isinstance(wide, Pointwise))
                and node.name not in kept
                and target.bytes * target.values > large * scratch_bytes
                and (ends := _chain(after[0], readers, kept, maps)) is not None
            ):
                end, project = ends
                three, room = (node.name, after[0].name, end.name), LARGE_ROWS * scratch_bytes
                chain = _inverted(three, (wide, middle, project), source, maps, layout, room)
                joined |= {*three[1:]}
                found.append(
                    replace(chain, joint=replace(chain.joint, product=added(end, chain.joint.product)))
                )
            case Mul(), [Pointwise() as then] if node.name not in kept and not small(target):
                gate, last = maps[node.inputs[1]], maps[after[0].name]
                gated = _gated(node.name, after[0].name, then, (source, gate), last, layout, scratch_bytes)
                joined.add(after[0].name)
                found.append(replace(gated, product=added(after[0], gated.product)))
            case Dense(), _ if node.name in taught:
                found.append(Scores(node.name, source, target))
            case Mul(), _:
                found.append(Gate(node.name, source, maps[node.inputs[1]], target))
            case MaxPool() | MeanPool() as op, _:
                (above, _), (beside, _) = around(op, source.shape)
                found.append(Window(node.name, source, target, op, above, beside))
            case Depthwise() as op, [Pointwise() as then] if node.name not in kept and not small(target):
                names, last = (node.name, after[0].name), maps[after[0].name]
                joint = _separable(names, op, then, source, last, layout, scratch_bytes)
                joined.add(after[0].name)
                found.append(replace(joint, product=added(after[0], joint.product)))
            case _:
                alone = _alone(node, source, target, scratch_bytes)
                if isinstance(alone, Product):
                    alone = _stem(node.op, alone, layout) if source.name == "image" else added(node, alone)
                found.append(alone)
    return maps["image"], tuple(found)


def _alone(node: Node, source: Map, target: Map, scratch_bytes: int) -> Step:
    rows = _rows(target, source.bytes * source.row, scratch_bytes)
    match node.op:
        case Conv() as op:
            lead = _lead(op, source)
            return Product(node.name, source, target, op.activation, rows, op.kernel, op.stride, lead)
        case Pointwise(activation=activation):
            return Product(node.name, source, target, activation, rows)
        case Dense():
            return Product(node.name, source, target, "none", rows)
        case Depthwise() as op:
            return Filter(node.name, source, target, op.activation, op.kernel, op.stride, _lead(op, source))
        case Pool():
            return Mean(node.name, source, target)
        case _:
            raise ValueError(f"{node.name}: {NOT_YET}")


def _stem(op: Op, product: Product, layout: Layout, rows: int | None = None) -> Stem:
    image, kernel, stride = product.source, product.kernel, product.stride
    padding = op.padding if isinstance(op, Conv) else "same"
    above, _ = pads(image.shape.height, kernel, stride, padding)
    left, right = pads(image.shape.width, kernel, stride, padding)
    row = layout.bytes * (left + image.shape.width + right) * image.pitch
    rows = rows or _rows(product.target, stride * row, WINDOW_BYTES - (kernel - stride) * row)
    seen = Shape((rows - 1) * stride + kernel, image.shape.width, image.shape.channels)
    window = Map("image.rows", seen, image.pitch, layout.bytes, left=left, right=right)
    return Stem(image, replace(product, source=window, rows=rows, lead=window.origin), above)


def _separable(
    names: tuple[str, str],
    op: Depthwise,
    then: Pointwise,
    source: Map,
    target: Map,
    layout: Layout,
    scratch_bytes: int,
) -> Separable:
    scratch = _scratch(names[0], source, target, layout, 1 + layout.halves, scratch_bytes)
    return Separable(
        filter=Filter(names[0], source, scratch, op.activation, op.kernel, op.stride, _lead(op, source)),
        product=Product(names[1], scratch, target, then.activation, scratch.shape.height),
    )


def _gated(
    name: str,
    last: str,
    then: Pointwise,
    sources: tuple[Map, Map],
    target: Map,
    layout: Layout,
    scratch_bytes: int,
) -> Gated:
    scratch = _scratch(name, sources[0], target, layout, 1, scratch_bytes)
    product = Product(last, scratch, target, then.activation, scratch.shape.height)
    return Gated(Gate(name, *sources, scratch), product)


def _scratch(name: str, source: Map, target: Map, layout: Layout, packed: int, room: int) -> Map:
    """Rows between two layers, as many as there is room for."""
    width, channels = target.shape.width, source.shape.channels
    pitch = layout.pitch(channels) // packed
    pitch += layout.line * (pitch >= layout.line)
    rows = _rows(target, layout.bytes * width * pitch, room)
    shape = Shape(rows, width, channels)
    return Map(f"{name}.rows", shape, pitch, layout.bytes, packed=packed, signed=layout.signed)


def _chain(
    depthwise: Node, readers: Mapping[str, Sequence[Node]], kept: Collection[str], maps: Mapping[str, Map]
) -> tuple[Node, Pointwise] | None:
    """The pointwise layer that alone reads a depthwise one which can be made by rows."""
    match readers[depthwise.name]:
        case [Node(op=Pointwise() as op) as end]:
            rows = depthwise.name not in kept and not small(maps[depthwise.name])
            return (end, op) if rows else None
    return None


def _inverted(
    names: tuple[str, str, str],
    ops: tuple[Pointwise | Conv, Depthwise, Pointwise],
    source: Map,
    maps: Mapping[str, Map],
    layout: Layout,
    scratch_bytes: int,
) -> Inverted:
    """A layer before what `_separable` joins, in blocks of as many rows as the scratch holds."""
    wide, op, last = ops
    whole, target = maps[names[0]], maps[names[2]]
    row = whole.bytes * whole.row
    joint = _separable((names[1], names[2]), op, last, whole, target, layout, scratch_bytes)
    one = replace(joint.filter.target, shape=joint.filter.target.shape._replace(height=1))
    rows = _rows(target, op.stride * row, scratch_bytes - (op.kernel - op.stride) * row)
    seen = (rows - 1) * op.stride + op.kernel
    band = replace(whole, shape=whole.shape._replace(height=seen), top=0, bottom=0)
    above, _ = pads(whole.shape.height, op.kernel, op.stride, op.padding)
    beside, _ = pads(whole.shape.width, op.kernel, op.stride, op.padding)
    expand = Product(names[0], source, band, wide.activation, 1)
    if isinstance(wide, Conv):
        expand = replace(expand, kernel=wide.kernel, stride=wide.stride)
    return Inverted(
        expand=_stem(wide, expand, layout, 1) if source.name == "image" else expand,
        joint=Separable(
            filter=replace(joint.filter, source=band, target=one, lead=beside * band.pitch),
            product=replace(joint.product, source=one, rows=1),
        ),
        rows=rows,
        above=above,
        height=whole.shape.height,
    )


def _lead(op: Conv | Depthwise, source: Map) -> int:
    above, _ = pads(source.shape.height, op.kernel, op.stride, op.padding)
    beside, _ = pads(source.shape.width, op.kernel, op.stride, op.padding)
    return above * source.row + beside * source.pitch


def _rows(target: Map, row_bytes: int, scratch_bytes: int) -> int:
    """As many rows as the scratch holds, in equal stretches: work for four threads, as much for each of two.

    Of a small map all: there threads share channels out.
    """
    height = target.shape.height
    if small(target):
        return height
    fitting = [
        r for r in range(1, height + 1) if height % r == 0 and (r == 1 or r * row_bytes <= scratch_bytes)
    ]
    twos = [r for r in fitting if (height // r) % 2 == 0]
    fours = [r for r in fitting if (height // r) % 4 == 0]
    return max(fours or [r for r in twos if height // r > 4] or twos or fitting)


def _maps(net: Net, layout: Layout, floats: Collection[str]) -> dict[str, Map]:
    """A map for the image and for every node, with the zeros that its readers want around it."""
    known = shapes(net)
    around: dict[str, list[int]] = {name: [0, 0, 0, 0] for name in known}
    for node in net.nodes:
        if isinstance(node.op, Conv | Depthwise) and node.inputs[0] != "image":
            x, op = known[node.inputs[0]], node.op
            rows = pads(x.height, op.kernel, op.stride, op.padding)
            columns = pads(x.width, op.kernel, op.stride, op.padding)
            wanted = (rows[0], columns[0], rows[1], columns[1])
            own = around[node.inputs[0]]
            own[:] = [max(a, b) for a, b in zip(own, wanted, strict=True)]
    packed = _packed(net) if layout.halves else set()
    shown = {"image", *floats, *(output.node for output in net.outputs)}
    found = {}
    for name, shape in known.items():
        pixels = shape.height * shape.width
        pitch = layout.apart(shape.channels) if pixels > 1 else layout.pitch(shape.channels)
        if name == "image":
            pitch = shape.channels
        numbers = 1 + (name in packed)
        top, left, bottom, right = around[name]
        bytes_, signed = 4 if name in floats else layout.bytes, layout.signed and name not in shown
        bytes_ = 1 if name == "image" else bytes_
        found[name] = Map(
            name, shape, pitch // numbers, bytes_, top, left, bottom, right, packed=numbers, signed=signed
        )
    return found


def _packed(net: Net) -> set[str]:
    """The depthwise layers that only products read."""
    kept = {output.node for output in net.outputs}
    others = {name for n in net.nodes if not isinstance(n.op, Pointwise) for name in n.inputs}
    return {n.name for n in net.nodes if isinstance(n.op, Depthwise)} - kept - others
