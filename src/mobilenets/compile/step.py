"""What a compiled network does, in order: maps in memory, and steps from one map to the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mobilenets.spec.op import Activation, Concat, MaxPool, MeanPool, Shape, Shuffle, Slice

ALIASED = 512
"""Pixels that lie a multiple of so many bytes apart fall into the same few sets of the first cache."""
SMALL = 64
"""Pixels of a map that is shared out by its channels, where its rows cannot be halved."""


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
class Inverted:
    """A pointwise layer, or the image's first, and the two that make rows of what it makes: its map, too
    large for a cache, is never whole.

    The target of `expand`, what the depthwise layer reads, holds the rows of its windows for a block of rows
    in a scratch of each thread, zeros beside them; the first window begins `above` rows before the map, which
    would have `height`. A row of it is made at a time.
    """

    expand: Product | Stem
    joint: Separable
    rows: int
    above: int
    height: int

    @property
    def wide(self) -> Product:
        """What makes the map that is never whole."""
        return self.expand.product if isinstance(self.expand, Stem) else self.expand


@dataclass(frozen=True, slots=True)
class Mean:
    """The average over a map."""

    name: str
    source: Map
    target: Map


@dataclass(frozen=True, slots=True)
class Scores:
    """A dense layer in float32 on bytes: a head that was taught; see `infer.taught`."""

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
class Gated:
    """A gate whose rows go into the pointwise layer that follows while they are in the cache.

    `gate.target`, the product's source, holds `product.rows` rows in a scratch of each thread.
    """

    gate: Gate
    product: Product


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
Step = Stem | Product | Filter | Separable | Inverted | Gated | Mean | Scores | Pixelwise


def reads(step: Step) -> tuple[Map, ...]:
    """The maps that a step reads."""
    match step:
        case Stem():
            return step.image, *_residuals(step.product)
        case Separable():
            return step.filter.source, *_residuals(step.product)
        case Inverted():
            return *reads(step.expand), *_residuals(step.joint.product)
        case Gated():
            return *reads(step.gate), *_residuals(step.product)
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
    if isinstance(step, Inverted):
        return step.joint.product.target
    return step.product.target if isinstance(step, Stem | Separable | Gated) else step.target


def small(target: Map) -> bool:
    """Whether threads share a map's channels out, not its rows, of which no two would have as many."""
    return target.shape.height % 2 == 1 and target.shape.height * target.shape.width <= SMALL


def padded(count: int, lanes: int) -> int:
    """The next multiple of `lanes`."""
    return -(-count // lanes) * lanes


def maps_of(image: Map, program: Sequence[Step]) -> list[Map]:
    """Every map of a program, in the order in which they are made."""
    return [image, *map(made, program)]
