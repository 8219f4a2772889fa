"""Kernels of float32 as C text: one for each shape of a tile, its sizes constants where it is called."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mobilenets.compile import float32_web
from mobilenets.compile.isa import Family, Isa
from mobilenets.compile.kernel import Tiling, Use, counted, split
from mobilenets.compile.step import Filter, Map, Mean, Product, padded
from mobilenets.spec.op import Activation

FAR = 64
"""Input values from which on it pays to fetch weights ahead of their use."""

LEVEL: Mapping[Activation, int] = {"none": 0, "relu": 1, "relu6": 2}
VECTORS = """\
/* ---- {name}: vectors of {lanes} floats ---- */
{types}static INLINE vector clip_{name}(vector v, int activation)
{{
    const vector none = {{0}}, six = none + 6.0f;
    if (activation >= 1)
        v = {largest};
    if (activation >= 2)
        v = {smallest};
    return v;
}}
"""


@dataclass(frozen=True, slots=True)
class Floats:
    """Float32 on one instruction set: weights of a panel one after the other, activations as levels."""

    isa: Isa
    family: Family
    weight: int = 1
    end: str = "#undef vector\n#undef load\n#undef store\n"

    def vectors(self) -> str:
        isa = self.isa
        return VECTORS.format(
            name=isa.name,
            lanes=isa.lanes,
            types=isa.vector.format(name=isa.name, bytes=4 * isa.lanes),
            largest=isa.largest.format(a="v", b="none"),
            smallest=isa.smallest.format(a="v", b="six"),
        )

    def unit(self, made: Map) -> int:
        return 1

    def zero(self, made: Map) -> str:
        return "0"

    def panel(self, step: Product, width: int) -> int:
        return (1 + step.kernel * step.across * step.run) * width

    def before(self, step: Product, a: str, indent: int) -> str:
        return ""

    def tile(self, use: Use, tiling: Tiling) -> str:
        name = f"tile_{tiling.pixels}x{tiling.wide}_{self.isa.name}"
        text = (float32_web.tile if self.isa.web else _tile)(self.isa, tiling.pixels, tiling.wide)
        sizes = (*tiling.sizes, LEVEL[tiling.step.activation])
        arguments = "const value *a, const value *w, value *c"
        return use((name, text), arguments, f"a, w, c, {', '.join(map(str, sizes))}")

    def more(self, step: Product, pixel: str) -> str:
        return ""

    def share(self, step: Filter) -> tuple[int, int, int]:
        lanes = self.isa.lanes
        return padded(step.target.shape.channels, self.family.lanes) // lanes, lanes, lanes

    def row(
        self, use: Use, step: Filter, places: tuple[str, str, str], parts: str | None, indent: int
    ) -> str:
        isa, source, target = self.isa, step.source, step.target
        vectors = parts or padded(target.shape.channels, isa.lanes) // isa.lanes
        pad, text, x = " " * indent, "", 0
        depthwise = float32_web.depthwise if isa.web else _depthwise
        for pixels, times in counted(split(target.shape.width, isa.columns)):
            sizes = (
                *(step.kernel, step.stride, source.row, source.pitch, target.pitch),
                *(padded(source.shape.channels, self.family.lanes), LEVEL[step.activation]),
            )
            called = use(
                (f"filter_{pixels}_{isa.name}", depthwise(isa, pixels)),
                "const value *in, const value *w, value *out, int vectors",
                f"in, w, out, vectors, {', '.join(map(str, sizes))}",
            )
            move = f"(x + {x})" if x else "x"
            text += (
                f"{pad}for (int x = 0; x < {times * pixels}; x += {pixels})\n"
                f"{pad}    {called}({places[0]} + {move} * {step.stride * source.pitch}, {places[1]}, "
                f"{places[2]} + {move} * {target.pitch}, {vectors});\n"
            )
            x += times * pixels
        return text

    def mean(self, step: Mean) -> str:
        source, lanes = step.source, self.isa.lanes
        vectors = padded(source.shape.channels, lanes) // lanes
        height, width = source.shape.height, source.shape.width
        return f"""\
    for (int v = SHARE(part, parts, {vectors}); v < SHARE(part + 1, parts, {vectors}); v++) {{
        vector sum = {{0}};
        UNROLL_1
        for (int y = 0; y < {height}; y++)
            UNROLL_1
            for (int x = 0; x < {width}; x++)
                sum += load(in + y * {source.row} + x * {source.pitch} + v * {lanes});
        store(out + v * {lanes}, sum * {1 / (height * width)!r}f);
    }}
"""


def _tile(isa: Isa, pixels: int, wide: int) -> str:
    """`pixels` × `wide` vectors of a product of matrices, all sums in registers."""
    rows, columns = range(pixels), range(wide)

    def lines(texts: Iterable[str], indent: int) -> str:
        return "\n".join(" " * indent + text for text in texts)

    begin = lines((f"vector {_list(f'c{i}_{j} = b{j}' for j in columns)};" for i in rows), 4)
    sums = lines(
        (f"s = p[AT({i}, a)]; " + " ".join(f"c{i}_{j} += s * w{j};" for j in columns) for i in rows), 20
    )
    end = lines(
        (
            " ".join(
                f"store(c + AT({i}, c) + {j * isa.lanes}, clip_{isa.name}(c{i}_{j}, activation));"
                for j in columns
            )
            for i in rows
        ),
        4,
    )
    fetched = lines((f"FETCH(w + {isa.ahead} * panel + {j * isa.lanes});" for j in columns), 24)
    fetch = f"\n                if (run >= {FAR}) {{\n{fetched}\n                }}" if isa.ahead else ""
    return f"""\
/* {pixels} pixels × {wide * isa.lanes} channels: activation(bias + a · w), window by window */
static INLINE void tile_{pixels}x{wide}_{isa.name}(const value *a, const value *w, value *c, TILE_SIZES,
    const int activation)
{{
    const vector {_list(f"b{j} = load(w + {j * isa.lanes})" for j in columns)};
{begin}
    w += panel;
    for (int y = 0; y < down; y++)
        for (int x = 0; x < across; x++) {{
            const value *p = a + y * below + x * beside;
            UNROLL_{isa.unroll}
            for (int k = 0; k < run; k++) {{
                const vector {_list(f"w{j} = load(w + {j * isa.lanes})" for j in columns)};{fetch}
                {{
                    float s;
{sums}
                }}
                p++;
                w += panel;
            }}
        }}
{end}
}}
"""


def _depthwise(isa: Isa, pixels: int) -> str:
    """`pixels` neighbours of a row through a depthwise filter, vector by vector of channels."""
    rows = range(pixels)
    names = _list(f"c{i} = bias" for i in rows)
    sums = "\n".join(
        f"                c{i} += load(in + y * below + (x + {i} * stride) * beside) * weight;" for i in rows
    )
    end = "\n".join(f"        store(out + {i} * pitch, clip_{isa.name}(c{i}, activation));" for i in rows)
    return f"""\
/* {pixels} pixels of a row, each channel by itself */
static INLINE void filter_{pixels}_{isa.name}(const value *in, const value *w, value *out, int vectors,
    const int kernel, const int stride, const int below, const int beside, const int pitch,
    const int channels, const int activation)
{{
    for (int v = 0; v < vectors; v++) {{
        const vector bias = load(w);
        vector {names};
        UNROLL_8
        for (int y = 0; y < kernel; y++)
            UNROLL_8
            for (int x = 0; x < kernel; x++) {{
                const vector weight = load(w + (1 + y * kernel + x) * channels);
{sums}
            }}
{end}
        in += {isa.lanes};
        w += {isa.lanes};
        out += {isa.lanes};
    }}
}}
"""


def _list(names: Iterable[str]) -> str:
    return ", ".join(names)
