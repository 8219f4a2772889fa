"""Kernels of bytes as C text: dot products of fours, depthwise layers by rows put side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mobilenets.compile import int8_neon, int8_wide
from mobilenets.compile.int8_depthwise import Depthwise
from mobilenets.compile.int8_lanes import heads, lanes, tag_of
from mobilenets.compile.integers import HEAD, Layer, chunk_bytes, fours_bytes, groups
from mobilenets.compile.isa import Family, Isa
from mobilenets.compile.kernel import Tiling, Use, counted, split
from mobilenets.compile.step import Filter, Gate, Map, Mean, Product, Sum, Window

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
        layer = self.layers[tiling.step.name]
        kind = "f" * (layer.rescale.zero is None) + "z" * layer.asymmetric
        kind += int8_neon.rest(tiling.step) if self.isa.kept else ""
        name = f"tile_{tiling.pixels}x{tiling.wide}{kind}_{tag_of(self.isa, 4 * tiling.lanes)}"
        stores = _stores(tiling, layer, tag_of(self.isa, 4 * tiling.lanes), self.isa)
        written = int8_neon.tile if self.isa.kept else int8_wide.tile if self.isa.wide else _tile
        text = written(self.isa, name, tiling, layer, stores)
        arguments, given = "const value *a, const value *w, value *c", "a, w, c"
        if layer.asymmetric:
            arguments, given = f"{arguments}, const int32_t *sums", f"{given}, sums"
        more = [self._turned(tiling.step.source), int(layer.steep)] if self.isa.kept else []
        more += [3 * tiling.at] if self.isa.wide else []
        sizes = (*tiling.sizes, layer.terms, *more, *self._cut(layer, tiling.step.target))
        return use((name, text), arguments, f"{given}, {', '.join(map(str, sizes))}")

    def share(self, step: Filter) -> tuple[int, int, int, int]:
        line = self.family.line
        return -(-step.target.shape.channels // line), line, line, self._chunk(step)

    def row(
        self, use: Use, step: Filter, places: tuple[str, str, str], parts: str | None, indent: int
    ) -> str:
        source, target, line = step.source, step.target, self.family.line
        room = self.family.layout.pitch(target.shape.channels)
        fits = not self.isa.wide and step.stride <= 2
        bytes_, together = self._fitting(room, target.shape.width if fits else 0)
        layer, pad, text, x = self.layers[step.name], " " * indent, "", 0
        runs = counted(split(target.shape.width // together, self.isa.columns))
        runs += [(1, 1)] if target.shape.width % together else []
        for positions, times in runs:
            if x + positions * together > target.shape.width:
                x = target.shape.width - together  # the last are made again with the first of the rest
            if self.isa.wide:
                kernel = int8_wide.filters(self.isa, positions, step, layer.terms)
            else:
                shape = (positions, together, step.kernel, step.stride, layer.terms)
                made = Depthwise(self.isa, bytes_, *shape, self.family.halves, self.family.signed)
                kernel = made.name, made.text()
            begins = fours_bytes(step.kernel, layer.terms, line, self.family.halves)
            sizes = (
                *(source.row, source.pitch, step.stride * together * source.pitch, together * target.pitch),
                *(min(room, line) if together == 1 else bytes_, self._chunk(step), line, begins),
                *(self._turned(source), *self._cut(layer, target)),
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
                f"{places[2]} + {move} * {target.pitch}, {parts or -(-room // line)});\n"
            )
            x += times * pixels
        return text

    def pixel(self, step: Sum | Gate | Window, sources: Sequence[str], indent: int) -> str:
        raise ValueError(f"{step.name}: a {type(step).__name__.lower()} of bytes cannot be compiled yet")

    def mean(self, step: Mean) -> str:
        source, lanes, rescale = step.source, self.isa.lanes, self.layers[step.name].rescale
        vectors = -(-source.shape.channels // lanes)
        height, width = source.shape.height, source.shape.width
        less = 0 if source.signed else self._less
        off = height * width * (self.layers[step.name].source_zero + less)
        wide = f"WIDE{'_SIGNED' * source.signed}_{tag_of(self.isa, 4 * lanes)}"
        tag = tag_of(self.isa, 4 * lanes)
        begun = f"{{0}};\n        sum -= {off}" if off else "{0}"
        made = f"PUT_FLOATS_{tag}(out + v * {4 * lanes}, SCALED_{tag}(sum, scale))"
        if rescale.zero is not None:
            least, most, zero, tame, less = self._cut(self.layers[step.name], step.target)
            packs = lanes > 1 and not self.isa.wide
            quantity = f"whole_{tag}(sum, scale, {least}, {most}, {zero}{f', {tame}' * packs})"
            made = f"out[v] = (value){quantity}"
            if self.isa.wide:
                made = f"PUT_{tag}(out + v * {lanes}, {quantity})"
            elif packs:
                bounds = f"{zero + least if tame else 0}, {zero + most if tame else 255}, {less}"
                made = f"const sums_{tag} q = {quantity};\n        "
                made += f"put1_{tag}(out + v * {lanes}, pack_{tag}(q, q, q, q, {bounds}))"
        return f"""\
    const floats_{tag} none = {{0}}, scale = none + {float(rescale.multiplier[0])!r}f;
    for (int v = SHARE(part, parts, {vectors}); v < SHARE(part + 1, parts, {vectors}); v++) {{
        sums_{tag} sum = {begun};
        UNROLL_1
        for (int y = 0; y < {height}; y++)
            UNROLL_1
            for (int x = 0; x < {width}; x++)
                sum += {wide}(in + y * {source.row} + x * {source.pitch} + v * {lanes});
        {made};
    }}
"""

    @property
    def _less(self) -> int:
        """What is taken off bytes before they are multiplied."""
        return 128 * self.family.signed

    def _turned(self, source: Map) -> int:
        """The bit in which a map's bytes differ from those that are multiplied."""
        return 0 if source.signed else self._less

    def _cut(self, layer: Layer, target: Map) -> tuple[int, int, int, int, int]:
        """Bounds, zero, whether packing does the cutting, and what bytes lie less, as kernels take them."""
        made = layer.rescale
        tame = int(layer.tame and self.isa.saturates)
        return made.least, made.most, made.zero or 0, tame, 128 * target.signed

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
static INLINE void {name}(const value *a, const value *w, value *c,
    {"const int32_t *sums, " * layer.asymmetric}TILE_SIZES,
    const int terms, const int least, const int most, const int zero, const int tame, const int less)
{{
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
    (void)least, (void)most, (void)zero, (void)tame, (void)less;
{stores}
}}
"""


def _stores(tiling: Tiling, layer: Layer, tag: str, isa: Isa) -> str:
    """The sums of a tile as bytes, four vectors at a time; or in float32 as they are."""
    wide, lanes = tiling.wide, tiling.lanes
    places = [(i, j) for i in range(tiling.pixels) for j in range(wide)]
    less = " - sums[{i}] * z{j}" if layer.asymmetric else ""
    ended = f"ENDED_{tag}(c{{i}}_{{j}})" if isa.kept else "c{i}_{j}"
    sums = {(i, j): (ended + less).format(i=i, j=j) for i, j in places}
    if layer.rescale.zero is None:
        return "\n".join(
            f"    PUT_FLOATS_{tag}(c + 4 * AT({i}, c) + {4 * j * lanes}, SCALED_{tag}({sums[i, j]}, m{j}));"
            for i, j in places
        )
    at = {(i, j): f"c + AT({i}, c) + {j * lanes}" for i, j in places}
    if isa.wide:
        return "\n".join(
            f"    PUT_{tag}({at[i, j]}, whole_{tag}({sums[i, j]}, m{j}, least, most, zero));"
            for i, j in places
        )
    if lanes == 1:
        return "\n".join(
            f"    *({at[i, j]}) = (value)whole_{tag}({sums[i, j]}, m{j}, least, most, zero);"
            for i, j in places
        )
    text = "    const int low = tame ? zero + least : 0, high = tame ? zero + most : 255;\n"
    whole = {(i, j): f"whole_{tag}({sums[i, j]}, m{j}, least, most, zero, tame)" for i, j in places}
    for first in range(0, len(places), 4):
        own = places[first : first + 4]
        if len(own) == 4:
            packed = f"pack_{tag}({', '.join(whole[one] for one in own)}, low, high, less)"
            ends = [at[one] for one in (own[::wide] if wide in (2, 4) else own)]
            text += f"    put{len(ends) if wide < 4 else ''}_{tag}({', '.join(ends)}, {packed});\n"
        else:
            for one in own:
                packed = f"pack_{tag}({', '.join([whole[one]] * 4)}, low, high, less)"
                text += f"    put1_{tag}({at[one]}, {packed});\n"
    return text.rstrip()
