"""Kernels of float32 as C text: one for each shape of a tile, its sizes constants where it is called."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from textwrap import indent

from mobilenets.compile import float32_web
from mobilenets.compile.isa import Family, Isa
from mobilenets.compile.kernel import Tiling, Use, counted, inside_window, split
from mobilenets.compile.step import Filter, Gate, Map, Mean, Product, Scores, Sum, Window, padded
from mobilenets.spec.op import Activation, MaxPool

FAR = 64
"""Input values from which on it pays to fetch weights ahead of their use."""

LEVEL: Mapping[Activation, int] = {"none": 0, "relu": 1, "relu6": 2, "hswish": 3, "hsigmoid": 4}
VECTORS = """\
/* ---- {name}: vectors of {lanes} floats ---- */
{types}static INLINE vector_{name} clip_{name}(vector_{name} v, int activation)
{{
    const vector_{name} none = {{0}}, six = none + 6.0f;
    if (activation == 1 || activation == 2)
        v = {rectified};
    if (activation == 2)
        v = {topped};
    if (activation >= 3) {{
        const vector_{name} x = v;
        v = x + 3.0f;
        v = {rectified};
        v = {topped};
        v *= 1.0f / 6.0f;
        if (activation == 3)
            v *= x;
    }}
    return v;
}}
"""


@dataclass(frozen=True, slots=True)
class Floats:
    """Float32 on one instruction set: weights of a panel one after the other, activations as levels."""

    isa: Isa
    family: Family
    weight: int = 1
    end: str = ""

    def vectors(self) -> str:
        return "".join(map(_vectors, filter(None, (self.isa, self.isa.narrow))))

    def unit(self, made: Map) -> int:
        return 1

    def zero(self, made: Map) -> str:
        return "0"

    def panel(self, step: Product, width: int) -> int:
        return (1 + step.kernel * step.across * step.run) * width

    def before(self, step: Product, a: str, indent: int) -> str:
        return ""

    def tile(self, use: Use, tiling: Tiling) -> str:
        isa, arguments = self._of(tiling.step.target), "const value *a, const value *w, value *c"
        given, residual = "a, w, c", tiling.step.residual
        sizes = (*tiling.sizes, LEVEL[tiling.step.activation])
        if residual is not None:
            arguments, given = f"{arguments}, const value *d", f"{given}, d"
            sizes += residual.pitch, 0 if tiling.pixels == tiling.width else residual.row
        if isa.web:
            kernel = float32_web.tile(isa, tiling.pixels, tiling.wide, begun(isa, residual))
        else:
            kernel = _tile(isa, tiling, tiling.step.source.packed == 2)
        return use(kernel, arguments, f"{given}, {', '.join(map(str, sizes))}")

    def more(self, step: Product, pixel: str) -> str:
        return ""

    def share(self, step: Filter) -> tuple[int, int, int, int]:
        lanes = self._of(step.target).lanes
        units = self._room(step.target) // lanes
        return units, lanes, lanes // step.target.packed, lanes

    def row(
        self,
        use: Use,
        step: Filter,
        places: tuple[str, str, str],
        parts: tuple[str, str] | None,
        indent: int,
    ) -> str:
        isa, source, target = self._of(step.target), step.source, step.target
        vectors = padded(target.shape.channels, isa.lanes) // isa.lanes
        taken = f"{parts[1]} - {parts[0]}" if parts else vectors
        pad, text, x = " " * indent, "", 0
        for pixels, times in counted(split(target.shape.width, isa.columns)):
            sizes = (
                *(step.kernel, step.stride, source.row, source.pitch, target.pitch),
                *(self._room(source), LEVEL[step.activation]),
            )
            called = use(
                float32_web.depthwise(isa, pixels)
                if isa.web
                else _depthwise(isa, pixels, target.packed == 2),
                "const value *in, const value *w, value *out, int vectors",
                f"in, w, out, vectors, {', '.join(map(str, sizes))}",
            )
            move = f"(x + {x})" if x else "x"
            text += (
                f"{pad}for (int x = 0; x < {times * pixels}; x += {pixels})\n"
                f"{pad}    {called}({places[0]} + {move} * {step.stride * source.pitch}, {places[1]}, "
                f"{places[2]} + {move} * {target.pitch}, {taken});\n"
            )
            x += times * pixels
        return text

    def line(self, step: Sum | Gate | Window, sources: Sequence[str]) -> str:
        isa, target = self._of(step.target), step.target
        vectors = padded(target.shape.channels, isa.lanes) // isa.lanes
        at = f"out + y * {target.row} + x * {target.pitch} + v * {isa.lanes}"

        def load(name: str, one: Map, y: str = "y", x: str = "x") -> str:
            return f"load_{isa.name}({name} + {y} * {one.row} + {x} * {one.pitch} + v * {isa.lanes})"

        before = ""
        match step:
            case Sum():
                values = " + ".join(map(load, sources, step.sources))
                made = f"store_{isa.name}({at}, clip_{isa.name}({values}, {LEVEL[step.activation]}));\n"
            case Gate():
                gate = f"load_{isa.name}({sources[1]} + v * {isa.lanes})"
                made = f"store_{isa.name}({at}, {load(sources[0], step.source)} * {gate});\n"
            case Window():
                before, made = inside_window(step), self._window(step, sources[0], load, at)
        return f"""\
for (int x = 0; x < {target.shape.width}; x++) {{
{indent(before, "    ")}    for (int v = 0; v < {vectors}; v++) {{
{indent(made, "        ")}    }}
}}
"""

    def _window(self, step: Window, name: str, load: Callable[..., str], at: str) -> str:
        isa, first = self._of(step.target), load(name, step.source, "top", "left")
        vector = f"vector_{isa.name}"
        begun, more = f"{first} * 0", "s += w"
        end = "s * (1.0f / ((bottom - top) * (right - left)))"
        if isinstance(step.op, MaxPool):
            begun, more, end = first, f"s = {isa.largest.format(a='s', b='w', vector=vector)}", "s"
        return f"""\
{vector} s = {begun};
for (int i = top; i < bottom; i++)
    for (int j = left; j < right; j++) {{
        const {vector} w = {load(name, step.source, "i", "j")};
        {more};
    }}
store_{isa.name}({at}, {end});
"""

    def mean(self, step: Mean) -> str:
        source, isa = step.source, self._of(step.source)
        lanes = isa.lanes
        vectors = padded(source.shape.channels, lanes) // lanes
        height, width = source.shape.height, source.shape.width
        return f"""\
    for (int v = SHARE(part, parts, {vectors}); v < SHARE(part + 1, parts, {vectors}); v++) {{
        vector_{isa.name} sum = {{0}};
        UNROLL_1
        for (int y = 0; y < {height}; y++)
            UNROLL_1
            for (int x = 0; x < {width}; x++)
                sum += load_{isa.name}(in + y * {source.row} + x * {source.pitch} + v * {lanes});
        store_{isa.name}(out + v * {lanes}, sum * {1 / (height * width)!r}f);
    }}
"""

    def scores(self, step: Scores) -> str:
        raise TypeError(f"{step.name}: bytes are read by no layer of a network in float32")

    def _room(self, made: Map) -> int:
        """Channels of a map with those that fill its last vector."""
        return self.family.layout.pitch(made.shape.channels)

    def _of(self, made: Map) -> Isa:
        """The vectors that a map's channels fill."""
        narrow = self.isa.narrow
        return narrow if narrow and self._room(made) <= narrow.lanes else self.isa


def _vectors(isa: Isa) -> str:
    """Types, and the operations whose spelling differs."""
    vector = f"vector_{isa.name}"
    return VECTORS.format(
        name=isa.name,
        lanes=isa.lanes,
        types=isa.vector.format(name=isa.name, bytes=4 * isa.lanes),
        rectified=(isa.rectified or isa.largest).format(a="v", b="none", vector=vector),
        topped=(isa.topped or isa.smallest).format(a="v", b="six", vector=vector),
    )


def _tile(isa: Isa, tiling: Tiling, halves: bool) -> tuple[str, str]:
    """Name and text: `pixels` × `wide` vectors of a product of matrices, all sums in registers.

    With `halves` a value of `a` and one of `w` are two numbers of bfloat16 each.
    """
    pixels, wide, residual = tiling.pixels, tiling.wide, tiling.step.residual
    more, own, add = begun(isa, residual)
    name = f"tile_{pixels}x{wide}{'_halves' * halves}{own}_{isa.name}"
    multiplied = "{c} = " + isa.pairs_of_halves if halves else "{c} += {s} * {w}"
    rows, columns = range(pixels), range(wide)

    def lines(texts: Iterable[str], indent: int) -> str:
        return "\n".join(" " * indent + text for text in texts)

    begin = lines(
        (
            f"vector_{isa.name} "
            + _list(f"c{i}_{j} = b{j}{add.format(i=i, at=j * isa.lanes)}" for j in columns)
            + ";"
            for i in rows
        ),
        4,
    )
    sums = lines(
        (
            f"s = p[AT({i}, a)]; "
            + " ".join(
                multiplied.format(c=f"c{i}_{j}", s="s", w=f"w{j}", vector=f"vector_{isa.name}") + ";"
                for j in columns
            )
            for i in rows
        ),
        20,
    )
    end = lines(
        (
            " ".join(
                f"store_{isa.name}(c + AT({i}, c) + {j * isa.lanes}, clip_{isa.name}(c{i}_{j}, activation));"
                for j in columns
            )
            for i in rows
        ),
        4,
    )
    read = _list(f"w{j} = load_{isa.name}(w + {j * isa.lanes})" for j in columns)
    fetched = lines((f"FETCH(w + {isa.ahead} * panel + {j * isa.lanes});" for j in columns), 24)
    fetch = f"\n                if (run >= {FAR}) {{\n{fetched}\n                }}" if isa.ahead else ""
    text = f"""\
/* {pixels} pixels × {wide * isa.lanes} channels: activation(bias + a · w), window by window */
static INLINE void {name}(const value *a, const value *w, value *c{more[0]}, TILE_SIZES,
    const int activation{more[1]})
{{
    const vector_{isa.name} {_list(f"b{j} = load_{isa.name}(w + {j * isa.lanes})" for j in columns)};
{begin}
    w += panel;
    for (int y = 0; y < down; y++)
        for (int x = 0; x < across; x++) {{
            const value *p = a + y * below + x * beside;
            UNROLL_{isa.unroll}
            for (int k = 0; k < run; k++) {{
                const vector_{isa.name} {read};{fetch}
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
    return name, text


def begun(isa: Isa, residual: Map | None) -> tuple[tuple[str, str], str, str]:
    """How a tile begins with what is added to it: further arguments, its name's part, what biases get."""
    if residual is None:
        return ("", ""), "", ""
    sizes = ", const int pixel_d, const int row_d"
    return (", const value *d", sizes), "_added", f" + load_{isa.name}(d + AT({{i}}, d) + {{at}})"


def _depthwise(isa: Isa, pixels: int, halves: bool) -> tuple[str, str]:
    """Name and text: `pixels` neighbours of a row through a depthwise filter, vector by vector."""
    name = f"filter_{pixels}{'_halves' * halves}_{isa.name}"
    store = isa.halved if halves else f"store_{isa.name}({{p}}, {{v}})"
    rows = range(pixels)
    names = _list(f"c{i} = bias" for i in rows)
    sums = "\n".join(
        f"                c{i} += load_{isa.name}(in + y * below + (x + {i} * stride) * beside) * weight;"
        for i in rows
    )
    kept = [store.format(p=f"out + {i} * pitch", v=f"clip_{isa.name}(c{i}, activation)") for i in rows]
    end = "\n".join(f"        {text};" for text in kept)
    text = f"""\
/* {pixels} pixels of a row, each channel by itself */
static INLINE void {name}(const value *in, const value *w, value *out, int vectors,
    const int kernel, const int stride, const int below, const int beside, const int pitch,
    const int channels, const int activation)
{{
    for (int v = 0; v < vectors; v++) {{
        const vector_{isa.name} bias = load_{isa.name}(w);
        vector_{isa.name} {names};
        UNROLL_8
        for (int y = 0; y < kernel; y++)
            UNROLL_8
            for (int x = 0; x < kernel; x++) {{
                const vector_{isa.name} weight = load_{isa.name}(w + (1 + y * kernel + x) * channels);
{sums}
            }}
{end}
        in += {isa.lanes};
        w += {isa.lanes};
        out += {isa.lanes // (1 + halves)};
    }}
}}
"""
    return name, text


def _list(names: Iterable[str]) -> str:
    return ", ".join(names)
