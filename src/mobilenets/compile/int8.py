"""Kernels of bytes as C text: dot products of fours, depthwise layers by rows put side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mobilenets.compile import int8_neon, int8_wide
from mobilenets.compile.int8_depthwise import Depthwise
from mobilenets.compile.int8_lanes import heads, lanes, tag_of
from mobilenets.compile.int8_quantities import addend, ending, seen, signature, stores
from mobilenets.compile.int8_weightless import Weightless
from mobilenets.compile.integers import HEAD, Layer, chunk_bytes, fours_bytes, groups
from mobilenets.compile.isa import Family, Isa
from mobilenets.compile.kernel import Tiling, Use, counted, split
from mobilenets.compile.step import Filter, Gate, Map, Mean, Product, Scores, Sum, Window, padded

FAR = 256
"""Input values from which on it pays to fetch weights ahead of their use."""


@dataclass(frozen=True, slots=True)
class Bytes:
    """Bytes on one instruction set: weights by fours of inputs, sums of 32 bits, quantities again."""

    isa: Isa
    family: Family
    layers: Mapping[str, Layer]
    weight: int = 4
    end: str = ""

    def vectors(self) -> str:
        text = f"/* ---- {self.isa.name} ---- */\n"
        if self.isa.wide:
            return text + int8_wide.lanes(self.isa)
        text += "\n".join(lanes(self.isa, width) for width in self._widths)
        return text

    def unit(self, made: Map) -> int:
        return made.bytes

    def zero(self, made: Map) -> str:
        return str((self.layers[made.name].rescale.zero or 0) ^ 128 * made.signed)

    def panel(self, step: Product, width: int) -> int:
        layer = self.layers[step.name]
        stretches = step.kernel * step.across
        return width * (HEAD + 4 * layer.asymmetric + 4 * stretches * groups(step.run) * layer.terms)

    def before(self, step: Product, a: str, indent: int) -> str:
        if not self.layers[step.name].asymmetric:
            return ""
        pad, width = " " * indent, step.target.shape.width
        total = f"total_{tag_of(self.isa, 4 * self.isa.lanes)}" if step.source.signed else "total"
        less = f" - {step.run * self._less}" if self._less and not step.source.signed else ""
        return (
            f"{pad}int32_t *sums = (int32_t *)(net->arena + MAPS_BYTES + part * SCRATCH_BYTES + SUMS);\n"
            f"{pad}for (int r = 0; r < {step.rows}; r++)\n"
            f"{pad}    for (int x = 0; x < {width}; x++)\n"
            f"{pad}        sums[r * {width} + x] = {total}({a} + r * {step.source.row} + "
            f"x * {step.source.pitch}, {step.run}){less};\n"
        )

    def more(self, step: Product, pixel: str) -> str:
        return f", sums + {pixel}" if self.layers[step.name].asymmetric else ""

    def tile(self, use: Use, tiling: Tiling) -> str:
        step, layer = tiling.step, self.layers[tiling.step.name]
        tag, residual = tag_of(self.isa, 4 * tiling.lanes), step.residual
        kind = "f" * (layer.rescale.zero is None) + "z" * layer.asymmetric
        kind += int8_neon.rest(step) if self.isa.kept else ""
        kind += "" if residual is None else "_added" + "_signed" * residual.signed
        name = f"tile_{tiling.pixels}x{tiling.wide}{kind}_{tag}"
        written = int8_neon.tile if self.isa.kept else int8_wide.tile if self.isa.wide else _tile
        text = written(self.isa, name, tiling, layer, stores(tiling, layer, tag, self.isa))
        names = ["a", "w", "c", *["d"] * (residual is not None), *["sums"] * layer.asymmetric]
        arguments = ", ".join(f"const {'int32_t' if one == 'sums' else 'value'} *{one}" for one in names)
        more = [self._turned(step.source), int(layer.steep)] if self.isa.kept else []
        more += [3 * tiling.at] if self.isa.wide else []
        ends = [ending(self.layers[step.target.name], step.target, self.isa)]
        if residual is not None:
            ends.append(addend(step, self.layers, (tiling.pixels, tiling.width)))
        given = (*names, *tiling.sizes, layer.terms, *more, *ends)
        return use((name, text), arguments.replace("const value *c", "value *c"), ", ".join(map(str, given)))

    def share(self, step: Filter) -> tuple[int, int, int, int]:
        line = self.family.line
        return -(-step.target.shape.channels // line), line, line, self._chunk(step)

    def row(
        self,
        use: Use,
        step: Filter,
        places: tuple[str, str, str],
        parts: tuple[str, str] | None,
        indent: int,
    ) -> str:
        line, channels, pad = self.family.line, step.target.shape.channels, " " * indent
        units, behind = -(-channels // line), self.family.layout.pitch(channels) % line
        if units == 1 or not behind:
            return self._row(use, step, places, " - ".join(reversed(parts or (str(units),))), 0, indent)
        full, asked = units - 1, ""
        count = at = str(full)
        if parts:
            first, last = parts
            count, at = f"LEAST({last}, {full}) - {first}", f"({full} - {first})"
            asked = f"if ({last} > {full}) "
        apart = (line, self._chunk(step), line)
        ends = [f"{place} + {at} * {one}" for place, one in zip(places, apart, strict=True)]
        inner = self._row(use, step, ends, "1", behind, indent + 4)
        return f"{self._row(use, step, places, count, 0, indent)}{pad}{asked}{{\n{inner}{pad}}}\n"

    def _row(
        self, use: Use, step: Filter, places: Sequence[str], parts: str, behind: int, indent: int
    ) -> str:
        """The same for a number of lines, or for so many channels behind them."""
        source, target, line = step.source, step.target, self.family.line
        room = behind or self.family.layout.pitch(target.shape.channels)
        fits = not self.isa.wide and step.stride <= 2
        bytes_, together = self._fitting(room, target.shape.width if fits and not behind else 0)
        span = min(room, line) if together == 1 else bytes_
        layer, pad, text, x = self.layers[step.name], " " * indent, "", 0
        runs = counted(split(target.shape.width // together, self.isa.columns))
        runs += [(1, 1)] if target.shape.width % together else []
        for positions, times in runs:
            if x + positions * together > target.shape.width:
                x = target.shape.width - together  # the last are made again with the first of the rest
            if self.isa.wide:
                kernel = int8_wide.filters(self.isa, positions, step, layer.terms)
            else:
                stride = step.stride if positions * together > 1 else 1  # the next pixel is none of its own
                shape = (positions, together, step.kernel, stride, layer.terms)
                made = Depthwise(self.isa, bytes_, *shape, self.family.halves, self.family.signed)
                kernel = made.name, made.text()
            begins = fours_bytes(step.kernel, layer.terms, line, self.family.halves)
            sizes = (
                *(source.row, source.pitch, step.stride * together * source.pitch, together * target.pitch),
                *(span, self._chunk(step), line, begins),
                *(self._turned(source), ending(layer, target, self.isa)),
            )
            called = use(
                kernel,
                "const value *in, const value *w, value *out, int parts",
                f"in, w, out, parts, {', '.join(map(str, sizes))}",
            )
            move = f"(x + {x})" if x else "x"
            pixels = positions * together
            text += (
                f"{pad}for (int x = 0; x < {times * pixels}; x += {pixels})\n"
                f"{pad}    {called}({places[0]} + {move} * {step.stride * source.pitch}, {places[1]}, "
                f"{places[2]} + {move} * {target.pitch}, {parts});\n"
            )
            x += times * pixels
        return text

    def line(self, step: Sum | Gate | Window, sources: Sequence[str]) -> str:
        return Weightless(self.isa, self.family, self.layers).line(step, sources)

    def mean(self, step: Mean) -> str:
        return Weightless(self.isa, self.family, self.layers).mean(step)

    def scores(self, step: Scores) -> str:
        """Sums of a vector of classes, one input value after the other, as `infer.taught` has them."""
        layer, source, lanes, classes = (
            self.layers[step.name],
            step.source,
            self.isa.lanes,
            step.target.shape.channels,
        )
        tag, room = tag_of(self.isa, 4 * lanes), 4 * padded(classes, self.family.lanes)
        vectors, zero = -(-classes // lanes), seen(layer.inputs[0][1], source)
        number = f"({'(int8_t)' * source.signed}in[k] - {zero})"
        return f"""\
    for (int v = SHARE(part, parts, {vectors}); v < SHARE(part + 1, parts, {vectors}); v++) {{
        const value *row = w + v * {4 * lanes};
        const floats_{tag} bias = FLOATS_{tag}(row);
        floats_{tag} sum = {{0}};
        UNROLL_1
        for (int k = 0; k < {source.shape.channels}; k++) {{
            row += {room};
            sum += FLOATS_{tag}(row) * (float){number};
        }}
        PUT_FLOATS_{tag}(out + v * {4 * lanes}, sum * {float(layer.rescale.multiplier[0])!r}f + bias);
    }}
"""

    @property
    def _less(self) -> int:
        """What is taken off bytes before they are multiplied."""
        return 128 * self.family.signed

    def _turned(self, source: Map) -> int:
        """The bit in which a map's bytes differ from those that are multiplied."""
        return 0 if source.signed else self._less

    def _chunk(self, step: Filter) -> int:
        return chunk_bytes(step, self.layers[step.name], self.family)

    @property
    def _widths(self) -> list[int]:
        """Bytes of the vectors that there are, widest first."""
        return [width for width in (64, 32, 16) if width <= 4 * self.isa.lanes] or [4]

    def _fitting(self, room: int, width: int) -> tuple[int, int]:
        """Bytes of the vectors for a row of `width` pixels of `room` bytes, and pixels in one of them."""
        for bytes_ in self._widths:
            if bytes_ <= room or bytes_ // room <= width:
                return bytes_, max(1, bytes_ // room)
        return 16, 1


def _tile(isa: Isa, name: str, tiling: Tiling, layer: Layer, stores: str) -> str:
    """Pixels × vectors of a product, all sums in registers; see `float32` for the form."""
    pixels, wide, tag = range(tiling.pixels), range(tiling.wide), tag_of(isa, 4 * tiling.lanes)
    step = 4 * tiling.lanes
    begin = "\n".join(f"    sums_{tag} " + ", ".join(f"c{i}_{j} = b{j}" for j in wide) + ";" for i in pixels)
    sums = "\n".join(
        f"                    s = FOUR_{tag}(p + AT({i}, a)); "
        + " ".join(f"c{i}_{j} = dot_{tag}(c{i}_{j}, s, w{j});" for j in wide)
        for i in (reversed(pixels) if isa.web else pixels)
    )
    hidden, turns = "", "int k = 0; k < run; k += 4"
    if isa.web:  # as in float32_web
        hidden, turns = ", *end = p + (run + 3) / 4 * 4;\n            HIDE(end)", "; p != end;"
    fetched = "\n".join(
        f"                        FETCH(w + {4 * isa.ahead} * panel + {j * step});" for j in wide
    )
    fetch = (
        f"\n                    if (run >= {FAR}) {{\n{fetched}\n                    }}" if isa.ahead else ""
    )
    loads, past = heads(tiling, layer, tag)
    return f"""\
/* {tiling.pixels} pixels × {tiling.wide * tiling.lanes} channels: bias + a · w by fours, window by window */
{signature(name, tiling, layer)}
{loads}
{begin}
    w += {past} * panel;
    for (int y = 0; y < down; y++)
        for (int x = 0; x < across; x++) {{
            const value *p = a + y * below + x * beside{hidden};
            UNROLL_1
            for ({turns}) {{
                for (int t = 0; t < terms; t++) {{
                    const bytes_{tag} {", ".join(f"w{j} = BYTES_{tag}(w + {j * step})" for j in wide)};
                    bytes_{tag} s;{fetch}
{sums}
                    w += 4 * panel;
                }}
                p += 4;
            }}
        }}
{stores}
}}
"""
