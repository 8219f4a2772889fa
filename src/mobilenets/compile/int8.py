"""Kernels of bytes as C text: dot products of fours, depthwise layers by rows put side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mobilenets.compile.integers import HEAD, Layer, chunk_bytes, groups
from mobilenets.compile.isa import Family, Isa
from mobilenets.compile.kernel import Tiling, Use, counted, split
from mobilenets.compile.step import Filter, Map, Mean, Product

AHEAD = 40
"""Groups of four input values by which weights are fetched ahead of their use."""
FAR = 64
"""Groups from which on that pays."""

VECTORS = """\
/* {bytes} bytes at a time: sums of 32 bits, four bytes to each */
typedef int32_t sums_{tag} __attribute__((vector_size({bytes})));
typedef float floats_{tag} __attribute__((vector_size({bytes})));
typedef uint8_t bytes_{tag} __attribute__((vector_size({bytes})));
typedef uint8_t few_{tag} __attribute__((vector_size({few})));
typedef sums_{tag} loose_sums_{tag} __attribute__((aligned(4), may_alias));
typedef floats_{tag} loose_floats_{tag} __attribute__((aligned(4), may_alias));
typedef bytes_{tag} loose_bytes_{tag} __attribute__((aligned(1), may_alias));
typedef few_{tag} loose_few_{tag} __attribute__((aligned(1), may_alias));
#define SUMS_{tag}(p) ((sums_{tag})*(const loose_sums_{tag} *)(p))
#define FLOATS_{tag}(p) ((floats_{tag})*(const loose_floats_{tag} *)(p))
#define BYTES_{tag}(p) ((bytes_{tag})*(const loose_bytes_{tag} *)(p))

/* sums + bytes · signed bytes, by fours */
static INLINE sums_{tag} dot_{tag}(sums_{tag} s, bytes_{tag} a, bytes_{tag} w)
{{
{dot}
}}

/* Sums to quantities: scaled, cut, rounded half to even by adding 1.5 · 2^23, whose last bit weighs 1. Only
 * the lowest byte is one; `level` clears the others. */
static INLINE sums_{tag} low_level_{tag}(sums_{tag} s, floats_{tag} m, int least, int most, int zero)
{{
    const floats_{tag} none = {{0}}, low = none + (float)least, high = none + (float)most;
    floats_{tag} v = __builtin_convertvector(s, floats_{tag}) * m;
    v = {largest};
    v = {smallest};
    return (sums_{tag})(v + 12582912.0f) + zero;
}}

static INLINE sums_{tag} level_{tag}(sums_{tag} s, floats_{tag} m, int least, int most, int zero)
{{
    return low_level_{tag}(s, m, least, most, zero - 0x4b400000);
}}

/* Four vectors of quantities, in each sixteenth of which lie four channels, to bytes in order. */
static INLINE bytes_{tag} pack_{tag}(sums_{tag} a, sums_{tag} b, sums_{tag} c, sums_{tag} d)
{{
{pack}
}}

/* Rows of bytes to groups of four, one of each row; pairs within every sixteen bytes. */
#define LOW_{tag}(a, b) SHUFFLE_{bytes}(a, b, {low})
#define HIGH_{tag}(a, b) SHUFFLE_{bytes}(a, b, {high})
#define LOW2_{tag}(a, b) SHUFFLE_{bytes}(a, b, {low2})
#define HIGH2_{tag}(a, b) SHUFFLE_{bytes}(a, b, {high2})
"""


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
        text += "\n".join(self._width(width) for width in self._widths)
        return text

    def unit(self, made: Map) -> int:
        return made.bytes

    def zero(self, made: Map) -> str:
        return str(self.layers[made.name].rescale.zero or 0)

    def panel(self, step: Product, width: int) -> int:
        layer = self.layers[step.name]
        stretches = step.kernel * step.across
        return width * (HEAD + 4 * layer.asymmetric + 4 * stretches * groups(step.run) * layer.terms)

    def before(self, step: Product, a: str, indent: int) -> str:
        if not self.layers[step.name].asymmetric:
            return ""
        pad, width = " " * indent, step.target.shape.width
        return (
            f"{pad}int32_t *sums = (int32_t *)(net->arena + MAPS_BYTES + part * SCRATCH_BYTES + SUMS);\n"
            f"{pad}for (int r = 0; r < {step.rows}; r++)\n"
            f"{pad}    for (int x = 0; x < {width}; x++)\n"
            f"{pad}        sums[r * {width} + x] = total({a} + r * {step.source.row} + "
            f"x * {step.source.pitch}, {step.run});\n"
        )

    def more(self, step: Product, pixel: str) -> str:
        return f", sums + {pixel}" if self.layers[step.name].asymmetric else ""

    def tile(self, use: Use, tiling: Tiling) -> str:
        layer = self.layers[tiling.step.name]
        kind = "f" * (layer.rescale.zero is None) + "z" * layer.asymmetric
        name = f"tile_{tiling.pixels}x{tiling.wide}{kind}_{self.isa.name}"
        text = _tile(self.isa, name, tiling, layer)
        arguments, given = "const value *a, const value *w, value *c", "a, w, c"
        if layer.asymmetric:
            arguments, given = f"{arguments}, const int32_t *sums", f"{given}, sums"
        rescale = layer.rescale
        sizes = (*tiling.sizes, layer.terms, rescale.least, rescale.most, rescale.zero or 0)
        return use((name, text), arguments, f"{given}, {', '.join(map(str, sizes))}")

    def share(self, step: Filter) -> tuple[int, int, int]:
        line = self.family.line
        return -(-step.target.shape.channels // line), line, self._chunk(step)

    def row(
        self, use: Use, step: Filter, places: tuple[str, str, str], parts: str | None, indent: int
    ) -> str:
        source, target, line = step.source, step.target, self.family.line
        room = self.family.layout.pitch(target.shape.channels)
        bytes_, together = self._fitting(room, target.shape.width if step.stride <= 2 else 0)
        layer, pad, text, x = self.layers[step.name], " " * indent, "", 0
        runs = counted(split(target.shape.width // together, max(1, self.isa.columns)))
        runs += [(1, 1)] if target.shape.width % together else []
        for positions, times in runs:
            if x + positions * together > target.shape.width:
                x = target.shape.width - together  # the last are made again with the first of the rest
            kernel = Depthwise(self.isa, bytes_, positions, together, step.kernel, step.stride, layer.terms)
            rescale = layer.rescale
            sizes = (
                *(source.row, source.pitch, step.stride * together * source.pitch, together * target.pitch),
                *(min(room, line) if together == 1 else bytes_, self._chunk(step), line),
                *(rescale.least, rescale.most, rescale.zero or 0),
            )
            called = use(
                (kernel.name, kernel.text()),
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

    def mean(self, step: Mean) -> str:
        source, lanes, rescale = step.source, self.isa.lanes, self.layers[step.name].rescale
        vectors = -(-source.shape.channels // lanes)
        height, width = source.shape.height, source.shape.width
        off = height * width * self.layers[step.name].source_zero
        tag = self._tag(4 * lanes)
        begun = f"{{0}};\n        sum -= {off}" if off else "{0}"
        made = (
            f"low_level_{tag}(sum, scale, {rescale.least}, {rescale.most}, {rescale.zero})"
            if rescale.zero is not None
            else f"__builtin_convertvector(sum, floats_{tag}) * scale"
        )
        stored = (
            f"*(loose_few_{tag} *)(out + v * {lanes}) = __builtin_convertvector({made}, few_{tag})"
            if rescale.zero is not None
            else f"*(loose_floats_{tag} *)(out + v * {4 * lanes}) = {made}"
        )
        return f"""\
    const floats_{tag} none = {{0}}, scale = none + {float(rescale.multiplier[0])!r}f;
    for (int v = SHARE(part, parts, {vectors}); v < SHARE(part + 1, parts, {vectors}); v++) {{
        sums_{tag} sum = {begun};
        UNROLL_1
        for (int y = 0; y < {height}; y++)
            UNROLL_1
            for (int x = 0; x < {width}; x++) {{
                const value *at = in + y * {source.row} + x * {source.pitch} + v * {lanes};
                sum += __builtin_convertvector(*(const loose_few_{tag} *)at, sums_{tag});
            }}
        {stored};
    }}
"""

    def _chunk(self, step: Filter) -> int:
        return chunk_bytes(step.kernel, self.layers[step.name].terms, self.family.line)

    @property
    def _widths(self) -> list[int]:
        """Bytes of the vectors that there are, widest first."""
        return [width for width in (64, 32, 16) if width <= 4 * self.isa.lanes]

    def _fitting(self, room: int, width: int) -> tuple[int, int]:
        """Bytes of the vectors for a row of `width` pixels of `room` bytes, and pixels in one of them."""
        for bytes_ in self._widths:
            if bytes_ <= room:
                return bytes_, 1
            if bytes_ // room <= width:
                return bytes_, bytes_ // room
        return 16, 1

    def _tag(self, width: int) -> str:
        return f"{width}_{self.isa.name}"

    def _width(self, width: int) -> str:
        names = {"tag": self._tag(width), "bytes": width, **REGISTERS[width]}
        pairs = [(16 * lane, lane * 16 + width) for lane in range(width // 16)]

        def mixed(first: int, size: int) -> str:
            return ", ".join(
                str(start + first + i + j)
                for left, right in pairs
                for i in range(0, 8, size)
                for start in (left, right)
                for j in range(size)
            )

        isa = self.isa
        return VECTORS.format(
            **names,
            few=width // 4,
            dot=isa.dot.format(**names),
            pack=isa.pack.format(**names),
            largest=isa.largest.format(a="v", b="low", **names),
            smallest=isa.smallest.format(a="v", b="high", **names),
            low=mixed(0, 1),
            high=mixed(8, 1),
            low2=mixed(0, 2),
            high2=mixed(8, 2),
        )


REGISTERS: Mapping[int, Mapping[str, str]] = {
    64: {"mm": "_mm512", "mf": "__m512", "mi": "__m512i", "si": "si512"},
    32: {"mm": "_mm256", "mf": "__m256", "mi": "__m256i", "si": "si256"},
    16: {"mm": "_mm", "mf": "__m128", "mi": "__m128i", "si": "si128"},
}
"""How x86 spells operations on vectors of so many bytes."""


def _tile(isa: Isa, name: str, tiling: Tiling, layer: Layer) -> str:
    """Pixels × vectors of a product, all sums in registers; see `float32` for the form."""
    pixels, wide, tag = range(tiling.pixels), range(tiling.wide), f"{4 * isa.lanes}_{isa.name}"
    step = 4 * isa.lanes
    begin = "\n".join(f"    sums_{tag} " + ", ".join(f"c{i}_{j} = b{j}" for j in wide) + ";" for i in pixels)
    sums = "\n".join(
        f"                    s = FOUR(p + AT({i}, a)); "
        + " ".join(f"c{i}_{j} = dot_{tag}(c{i}_{j}, (bytes_{tag})(none + s), w{j});" for j in wide)
        for i in pixels
    )
    fetch = "\n".join(f"                        FETCH(w + {4 * AHEAD} * panel + {j * step});" for j in wide)
    less = [f"sums[{i}] * z" for i in pixels] if layer.asymmetric else []
    stores = "\n".join(
        "    " + " ".join(_stored(isa, i, j, tag, layer, f" - {less[i]}{j}" if less else "") for j in wide)
        for i in pixels
    )
    head = HEAD + 4 * layer.asymmetric
    return f"""\
/* {tiling.pixels} pixels × {tiling.wide * isa.lanes} channels: bias + a · w by fours, window by window */
static INLINE void {name}(const value *a, const value *w, value *c,
    {"const int32_t *sums, " * layer.asymmetric}TILE_SIZES,
    const int terms, const int least, const int most, const int zero)
{{
    const sums_{tag} none = {{0}}, {", ".join(f"b{j} = SUMS_{tag}(w + {j * step})" for j in wide)};
    const floats_{tag} {", ".join(f"m{j} = FLOATS_{tag}(w + 4 * panel + {j * step})" for j in wide)};
{_zeros(wide, tag, step) if layer.asymmetric else ""}{begin}
    w += {head} * panel;
    for (int y = 0; y < down; y++)
        for (int x = 0; x < across; x++) {{
            const value *p = a + y * below + x * beside;
            for (int k = 0; k < run; k += 4) {{
                for (int t = 0; t < terms; t++) {{
                    const bytes_{tag} {", ".join(f"w{j} = BYTES_{tag}(w + {j * step})" for j in wide)};
                    int32_t s;
                    if (run >= {4 * FAR}) {{
{fetch}
                    }}
{sums}
                    w += 4 * panel;
                }}
                p += 4;
            }}
        }}
    (void)least, (void)most, (void)zero;
{stores}
}}
"""


def _zeros(wide: range, tag: str, step: int) -> str:
    return (
        f"    const sums_{tag} "
        + ", ".join(f"z{j} = SUMS_{tag}(w + 8 * panel + {j * step})" for j in wide)
        + ";\n"
    )


def _stored(isa: Isa, i: int, j: int, tag: str, layer: Layer, less: str) -> str:
    if layer.rescale.zero is None:
        return (
            f"*(loose_floats_{tag} *)(c + 4 * AT({i}, c) + {j * 4 * isa.lanes}) = "
            f"__builtin_convertvector(c{i}_{j}{less}, floats_{tag}) * m{j};"
        )
    return (
        f"*(loose_few_{tag} *)(c + AT({i}, c) + {j * isa.lanes}) = "
        f"__builtin_convertvector(low_level_{tag}(c{i}_{j}{less}, m{j}, least, most, zero), few_{tag});"
    )


@dataclass(frozen=True, slots=True)
class Depthwise:
    """A depthwise kernel: `positions` vectors of a row, each of `together` pixels."""

    isa: Isa
    bytes: int
    positions: int
    together: int
    kernel: int
    stride: int
    terms: int

    @property
    def name(self) -> str:
        many = f"_by{self.together}" if self.together > 1 else ""
        more = f"_t{self.terms}" if self.terms > 1 else ""
        return f"filter{self.kernel}s{self.stride}_{self.positions}x{self.bytes}{many}{more}_{self.isa.name}"

    def text(self) -> str:
        tag, quads = f"{self.bytes}_{self.isa.name}", range(4)
        positions = range(self.positions)
        begin = "\n".join(
            "            sums_"
            + tag
            + " "
            + ", ".join(f"c{x}_{j} = SUMS_{tag}(w + {j} * line)" for j in quads)
            + ";"
            for x in positions
        )
        columns: dict[str, list[tuple[int, int]]] = {}
        for x in positions:
            for across in range(self.kernel):
                at = f"{x * self.stride + across} * beside"
                if self.together > 1:
                    at = f"{x} * next + {across} * beside"
                columns.setdefault(at, []).append((x, across))
        sums = "".join(self._column(tag, at, users) for at, users in columns.items())
        end = "\n".join(
            f"            *(loose_bytes_{tag} *)(out + {x} * pitch) = pack_{tag}("
            + ", ".join(f"level_{tag}(c{x}_{j}, m{j}, least, most, zero)" for j in quads)
            + ");"
            for x in positions
        )
        scales = ", ".join(f"m{j} = FLOATS_{tag}(w + {4 + j} * line)" for j in quads)
        pixels = f"{self.positions * self.together} pixels" + (
            f", {self.together} at a time" if self.together > 1 else ""
        )
        return f"""\
/* {pixels} of a row through {self.kernel}×{self.kernel} taps, each channel by itself */
static INLINE void {self.name}(const value *in, const value *w, value *out, int parts,
    const int below, const int beside, const int next, const int pitch, const int span,
    const int chunk, const int line, const int least, const int most, const int zero)
{{
    (void)next;
    for (int v = 0; v < parts; v++) {{
        for (int l = 0; l < span; l += {self.bytes}) {{
{begin}
{sums}            const floats_{tag} {scales};
{end}
            in += {self.bytes};
            out += {self.bytes};
            w += {self.bytes};
        }}
        w += chunk - span;
    }}
}}
"""

    def _column(self, tag: str, at: str, users: list[tuple[int, int]]) -> str:
        """One column of the window: its rows by fours, and every output that it adds to."""
        text = ""
        for group in range(groups(self.kernel)):
            rows = range(4 * group, min(4 * group + 4, self.kernel))
            text += "            {\n"
            for i in range(4):
                value = (
                    self._load(tag, f"in + {at} + {4 * group + i} * below")
                    if 4 * group + i in rows
                    else "{0}"
                )
                text += f"                const bytes_{tag} r{i} = {value};\n"
            text += (
                f"                const bytes_{tag} p = LOW_{tag}(r0, r1), q = HIGH_{tag}(r0, r1);\n"
                f"                const bytes_{tag} s = LOW_{tag}(r2, r3), t = HIGH_{tag}(r2, r3);\n"
                f"                const bytes_{tag} v0 = LOW2_{tag}(p, s), v1 = HIGH2_{tag}(p, s);\n"
                f"                const bytes_{tag} v2 = LOW2_{tag}(q, t), v3 = HIGH2_{tag}(q, t);\n"
            )
            for x, across in users:
                for term in range(self.terms):
                    place = (across * groups(self.kernel) + group) * self.terms + term
                    for j in range(4):
                        text += (
                            f"                c{x}_{j} = dot_{tag}(c{x}_{j}, v{j}, "
                            f"BYTES_{tag}(w + {8 + 4 * place + j} * line));\n"
                        )
            text += "            }\n"
        return text

    def _load(self, tag: str, at: str) -> str:
        if self.together == 1 or self.stride == 1:
            return f"BYTES_{tag}({at})"
        pixel = self.bytes // self.together
        order = ", ".join(
            str(self.stride * pixel * i + j) for i in range(self.together) for j in range(pixel)
        )
        return f"SHUFFLE_{self.bytes}(BYTES_{tag}({at}), BYTES_{tag}({at} + {self.bytes}), {order})"
