"""What the emitter asks of the kernels of a type of values: their text, and how it is called."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from mobilenets.compile.isa import Isa
from mobilenets.compile.step import Filter, Gate, Map, Mean, Product, Scores, Sum, Window

Use = Callable[[tuple[str, str], str, str], str]
"""From a kernel's name and text, its arguments and what constants it is given, the function to call."""


@dataclass(frozen=True, slots=True)
class Tiling:
    """A tile of a product: pixels, in rows of `width`, × `wide` vectors of `lanes` channels of a panel, from
    its channel `at` on."""

    step: Product
    pixels: int
    width: int
    wide: int
    lanes: int
    at: int
    panel: int

    @property
    def sizes(self) -> tuple[int, ...]:
        """What TILE_SIZES names, in its order."""
        step, source, target = self.step, self.step.source, self.step.target
        one_row = self.pixels == self.width
        window = (step.kernel, source.row, step.across, source.pitch) if step.kernel > 1 else (1, 0, 1, 0)
        return (
            *(*window, step.run, self.panel, self.width, step.stride * source.pitch),
            *(0 if one_row else step.stride * source.row, target.pitch, 0 if one_row else target.row),
        )


class Kernels(Protocol):
    """Kernels of one type of values on one instruction set."""

    @property
    def isa(self) -> Isa: ...

    @property
    def weight(self) -> int:
        """Values by which one channel of a panel lies apart from the next."""
        ...

    @property
    def end(self) -> str:
        """What closes the section."""
        ...

    def vectors(self) -> str:
        """Types, and the operations whose spelling differs."""
        ...

    def unit(self, made: Map) -> int:
        """Values of the arena to one of a map."""
        ...

    def zero(self, made: Map) -> str:
        """What stands for 0 around a map."""
        ...

    def panel(self, step: Product, width: int) -> int:
        """Values from one panel of so many channels to the next."""
        ...

    def before(self, step: Product, a: str, indent: int) -> str:
        """What has to be known of a block's inputs before it is multiplied."""
        ...

    def tile(self, use: Use, tiling: Tiling) -> str:
        """The function of a tile."""
        ...

    def more(self, step: Product, pixel: str) -> str:
        """Further arguments of a tile that begins at a pixel of its block."""
        ...

    def share(self, step: Filter) -> tuple[int, int, int, int]:
        """Parts of a depthwise layer's channels for threads to share; values of one: read, made, weights."""
        ...

    def row(
        self,
        use: Use,
        step: Filter,
        places: tuple[str, str, str],
        parts: tuple[str, str] | None,
        indent: int,
    ) -> str:
        """One row of a depthwise layer: input, weights and output, and from which part to before which; the
        places are those of the first. All where nothing is told."""
        ...

    def line(self, step: Sum | Gate | Window, sources: Sequence[str]) -> str:
        """The row `y` of a step, of maps from `sources` on to `out`."""
        ...

    def mean(self, step: Mean) -> str:
        """The body of a mean over a map, from `in` to `out`."""
        ...

    def scores(self, step: Scores) -> str:
        """The body of a dense layer in floats on bytes, from `in` to `out`, with its weights at `w`."""
        ...


def split(count: int, most: int) -> list[int]:
    """`count` in as few parts of at most `most` as it takes, as even as can be, larger ones first."""
    parts = -(-count // most)
    size, rest = divmod(count, parts)
    return [size + 1] * rest + [size] * (parts - rest)


def counted(parts: Sequence[int]) -> list[tuple[int, int]]:
    """Each size, and how many there are of it."""
    return [(size, parts.count(size)) for size in dict.fromkeys(parts)]


def inside_window(step: Window) -> str:
    """C that finds the rows and columns of the window at `x`, `y` that lie inside the map."""
    op, (height, width, _) = step.op, step.source.shape
    return f"""\
const int high = y * {op.stride} - {step.above}, low = x * {op.stride} - {step.beside};
const int top = high < 0 ? 0 : high, left = low < 0 ? 0 : low;
const int bottom = LEAST(high + {op.kernel}, {height});
const int right = LEAST(low + {op.kernel}, {width});
"""
