"""The kernels as C text: one for each shape of a tile, its sizes constants where it is called."""

from __future__ import annotations

from collections.abc import Iterable

from mobilenets.compile.isa import Isa

FAR = 64
"""Input values from which on it pays to fetch weights ahead of their use."""

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


def vectors(isa: Isa) -> str:
    """Types and the few operations whose spelling differs."""
    return VECTORS.format(
        name=isa.name,
        lanes=isa.lanes,
        types=isa.vector.format(name=isa.name, bytes=4 * isa.lanes),
        largest=isa.largest.format(a="v", b="none"),
        smallest=isa.smallest.format(a="v", b="six"),
    )


def tile(isa: Isa, pixels: int, wide: int) -> str:
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
static INLINE void tile_{pixels}x{wide}_{isa.name}(const float *a, const float *w, float *c, TILE_SIZES)
{{
    const vector {_list(f"b{j} = load(w + {j * isa.lanes})" for j in columns)};
{begin}
    w += panel;
    for (int y = 0; y < down; y++)
        for (int x = 0; x < across; x++) {{
            const float *p = a + y * below + x * beside;
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


def depthwise(isa: Isa, pixels: int) -> str:
    """`pixels` neighbours of a row through a depthwise filter, vector by vector of channels."""
    rows = range(pixels)
    names = _list(f"c{i} = bias" for i in rows)
    sums = "\n".join(
        f"                c{i} += load(in + y * below + (x + {i} * stride) * beside) * weight;" for i in rows
    )
    end = "\n".join(f"        store(out + {i} * pitch, clip_{isa.name}(c{i}, activation));" for i in rows)
    return f"""\
/* {pixels} pixels of a row, each channel by itself */
static INLINE void filter_{pixels}_{isa.name}(const float *in, const float *w, float *out, int vectors,
                                              FILTER_SIZES)
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
