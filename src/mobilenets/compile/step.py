"""What a compiled network does, in order: maps in memory, and steps from one map to the next."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from mobilenets.compile.lacking import NOT_YET, refuse
from mobilenets.spec.net import Net, Node, shapes
from mobilenets.spec.op import (
    Activate,
    Activation,
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

ALIASED = 512
"""Pixels that lie a multiple of so many bytes apart fall into the same few sets of the first cache."""
SMALL = 64
"""Pixels of a map that is shared out by its channels, where its rows cannot be halved."""
WINDOW_BYTES = 20 << 10
"""What the input's rows for a block of the first layer may take of the first cache."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How the channels of a pixel lie: values of `bytes` each, room for whole vectors of `line` of them.

    Fewer than a line take a half or a quarter of one where `parts` is so many; those behind whole lines too,
    but `behind` at least, where that is not 0. With `halves` what a depthwise
    layer makes for a product lies as numbers of 16 bits, two to a value. As `signed` bytes lie less 128 in
    maps that nothing but the network reads.
    """

    bytes: int
    line: int
    parts: int = 1
    halves: bool = False
    signed: bool = False
    behind: int = 0

    def pitch(self, channels: int) -> int:
        """Values from one pixel to the next."""
        if self.behind and channels > self.line:
            rest = channels % self.line
            return channels - rest + (max(self.behind, self.pitch(rest)) if rest else 0)
        part = self.parts
        while part > 1 and channels * part > self.line:
            part //= 2
        return padded(channels, self.line // part)

    def apart(self, channels: int) -> int:
        """The same where there are many pixels: neighbours don't fall into the same sets of the cache."""
        pitch = self.pitch(channels)
        return pitch + self.line * (pitch * self.bytes % ALIASED == 0)


@dataclass(frozen=True, slots=True)
class Map:
    """A feature map as it lies in the arena: rows of pixels of `pitch` values, what stands for 0 around it.

    `channels` of a pixel mean something; up to `pitch` they stand for nothing. A value has `bytes` bytes and
    holds `packed` channels. Bytes of a `signed` map lie less 128.
    """

    name: str
    shape: Shape
    pitch: int
    bytes: int = 4
    top: int = 0
    left: int = 0
    bottom: int = 0
    right: int = 0
    packed: int = 1
    signed: bool = False

    @property
    def row(self) -> int:
        """Values from one row to the next."""
        return (self.left + self.shape.width + self.right) * self.pitch

    @property
    def origin(self) -> int:
        """Values from the map's start to its first pixel."""
        return self.top * self.row + self.left * self.pitch

    @property
    def values(self) -> int:
        return (self.top + self.shape.height + self.bottom) * self.row


@dataclass(frozen=True, slots=True)
class Product:
    """A convolution or a pointwise or dense layer: a product of matrices over stretches of a map's values.

    The window of the first output begins `lead` values before the map's first pixel; each further one lies
    `stride` pixels on. It has `kernel` × `across` stretches of `run` values. `rows` rows of outputs are made
    at a time, all their channels.
    """

    name: str
    source: Map
    target: Map
    activation: Activation
    rows: int
    kernel: int = 1
    stride: int = 1
    lead: int = 0
    residual: Map | None = None
    """What is added to its sums before the activation."""

    @property
    def across(self) -> int:
        """Where pixels lie without a gap a row of the window is one stretch."""
        return 1 if self.source.pitch == self.source.shape.channels else self.kernel

    @property
    def run(self) -> int:
        return -(-self.source.shape.channels // self.source.packed) * (self.kernel // self.across)


@dataclass(frozen=True, slots=True)
class Filter:
    """A depthwise layer; its first window begins `lead` values before the map's first pixel."""

    name: str
    source: Map
    target: Map
    activation: Activation
    kernel: int
    stride: int
    lead: int


@dataclass(frozen=True, slots=True)
class Stem:
    """A product of the image. What its rows see of the levels becomes numbers where it is multiplied.

    `product.source` holds that in a scratch of each thread, zeros beside it; the first row's window begins
    `above` rows before the image.
    """

    image: Map
    product: Product
    above: int


@dataclass(frozen=True, slots=True)
class Separable:
    """A depthwise layer whose rows go into the pointwise layer that follows while they are in the cache.

    `filter.target`, the product's source, holds `product.rows` rows in a scratch of each thread.
    """

    filter: Filter
    product: Product


@dataclass(frozen=True, slots=True)
class Mean:
    """The average over a map."""

    name: str
    source: Map
    target: Map


@dataclass(frozen=True, slots=True)
class Sum:
    """The sum of maps of one shape, where no product adds it up, or one map, and an activation."""

    name: str
    sources: tuple[Map, ...]
    target: Map
    activation: Activation


@dataclass(frozen=True, slots=True)
class Gate:
    """A map times a vector, channel by channel."""

    name: str
    source: Map
    gate: Map
    target: Map


@dataclass(frozen=True, slots=True)
class Window:
    """The greatest or the mean of windows; the first begins `above` rows, `beside` pixels before the map."""

    name: str
    source: Map
    target: Map
    op: MaxPool | MeanPool
    above: int
    beside: int


@dataclass(frozen=True, slots=True)
class Moved:
    """Channels in other places: of several maps, one's after the other's, of one map some, or dealt out."""

    name: str
    sources: tuple[Map, ...]
    target: Map
    op: Concat | Slice | Shuffle


Pixelwise = Sum | Gate | Window | Moved
"""Steps that make each pixel by itself."""
Step = Stem | Product | Filter | Separable | Mean | Pixelwise


def reads(step: Step) -> tuple[Map, ...]:
    """The maps that a step reads."""
    match step:
        case Stem():
            return step.image, *_residuals(step.product)
        case Separable():
            return step.filter.source, *_residuals(step.product)
        case Product():
            return step.source, *_residuals(step)
        case Sum() | Moved():
            return step.sources
        case Gate():
            return step.source, step.gate
        case _:
            return (step.source,)


def _residuals(product: Product) -> tuple[Map, ...]:
    return () if product.residual is None else (product.residual,)


def made(step: Step) -> Map:
    """The map that a step makes."""
    return step.product.target if isinstance(step, Stem | Separable) else step.target


def steps(
    net: Net, layout: Layout, scratch_bytes: int, floats: Collection[str] = ()
) -> tuple[Map, tuple[Step, ...]]:
    """The image's levels and the steps of a folded network, depthwise layers joined to what follows them.

    The nodes of `floats` are float32 in a network whose values are bytes.
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


def _stem(op: Op, product: Product, layout: Layout) -> Stem:
    image, kernel, stride = product.source, product.kernel, product.stride
    padding = op.padding if isinstance(op, Conv) else "same"
    above, _ = pads(image.shape.height, kernel, stride, padding)
    left, right = pads(image.shape.width, kernel, stride, padding)
    row = layout.bytes * (left + image.shape.width + right) * image.pitch
    rows = _rows(product.target, stride * row, WINDOW_BYTES - (kernel - stride) * row)
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
    width, channels = target.shape.width, source.shape.channels
    packed = 1 + layout.halves
    pitch = layout.pitch(channels) // packed
    pitch += layout.line * (pitch >= layout.line)
    rows = _rows(target, layout.bytes * width * pitch, scratch_bytes)
    scratch = Map(f"{names[0]}.rows", Shape(rows, width, channels), pitch, layout.bytes, packed=packed)
    scratch = replace(scratch, signed=layout.signed)
    return Separable(
        filter=Filter(names[0], source, scratch, op.activation, op.kernel, op.stride, _lead(op, source)),
        product=Product(names[1], scratch, target, then.activation, rows),
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


def small(target: Map) -> bool:
    """Whether threads share a map's channels out, not its rows, of which no two would have as many."""
    return target.shape.height % 2 == 1 and target.shape.height * target.shape.width <= SMALL


def padded(count: int, lanes: int) -> int:
    """The next multiple of `lanes`."""
    return -(-count // lanes) * lanes


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


def maps_of(image: Map, program: Sequence[Step]) -> list[Map]:
    """Every map of a program, in the order in which they are made."""
    return [image, *map(made, program)]
