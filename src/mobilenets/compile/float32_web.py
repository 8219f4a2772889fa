"""Kernels of float32 for WebAssembly, which a browser compiles once more, as C text.

V8 keeps loads in the order of the program, and puts sums as late as it can: those of one accumulator after
the other where only the next turn of the loop asks for them. It has fifteen registers for vectors, and an
accumulator that finds none costs more than all the rest. So loads come in the order in which accumulators
take them, in C those of the last pixel first; and how often a loop runs is hidden: accumulators of one that
might not run at all meet others behind it, and what follows does not pull at them.
"""

from __future__ import annotations

from collections.abc import Iterable

from mobilenets.compile.isa import Isa


def tile(isa: Isa, pixels: int, wide: int, begun: tuple[tuple[str, str], str, str]) -> tuple[str, str]:
    """Name and text: `pixels` × `wide` vectors of a product of matrices, all sums in registers."""
    rows, columns = range(pixels), range(wide)

    def lines(texts: Iterable[str], indent: int) -> str:
        return "\n".join(" " * indent + text for text in texts)

    more, own, add = begun
    begin = lines(
        (
            f"vector_{isa.name} "
            + ", ".join(f"c{i}_{j} = b{j}{add.format(i=i, at=j * isa.lanes)}" for j in columns)
            + ";"
            for i in rows
        ),
        4,
    )
    sums = lines(
        (
            f"s = *(p + AT({i}, a)); " + " ".join(f"c{i}_{j} += s * w{j};" for j in columns)
            for i in reversed(rows)
        ),
        16,
    )
    read = ", ".join(f"w{j} = load_{isa.name}(q + {j * isa.lanes})" for j in columns)
    end = lines(
        (
            f"store_{isa.name}(c + AT({i}, c) + {j * isa.lanes}, clip_{isa.name}(c{i}_{j}, activation));"
            for i in rows
            for j in columns
        ),
        4,
    )
    name = f"tile_{pixels}x{wide}{own}_{isa.name}"
    text = f"""\
/* {pixels} pixels × {wide * isa.lanes} channels: activation(bias + a · w), window by window */
static INLINE void {name}(const value *a, const value *w, value *c{more[0]}, TILE_SIZES,
    const int activation{more[1]})
{{
    const vector_{isa.name} {", ".join(f"b{j} = load_{isa.name}(w + {j * isa.lanes})" for j in columns)};
{begin}
    w += panel;
    for (int y = 0; y < down; y++)
        for (int x = 0; x < across; x++) {{
            const char *from = (const char *)(a + y * below + x * beside), *to = from + run * 4;
            HIDE(to);
            UNROLL_1
            for (long k = 0; k != to - from; k += 4) {{
                const value *p = (const value *)(from + k), *q = (const value *)((const char *)w + k * panel);
                const vector_{isa.name} {read};
                float s;
{sums}
            }}
            w += run * panel;
        }}
{end}
}}
"""
    return name, text


def depthwise(isa: Isa, pixels: int) -> tuple[str, str]:
    """Name and text: `pixels` neighbours of a row through a depthwise filter, row by row of its window."""
    rows = range(pixels)
    sums = "\n".join(
        f"                c{i} += load_{isa.name}(p + (x + {i} * stride) * beside) * "
        f"load_{isa.name}(q + x * channels);"
        for i in reversed(rows)
    )
    end = "\n".join(
        f"        store_{isa.name}(out + {i} * pitch, clip_{isa.name}(c{i}, activation));" for i in rows
    )
    name = f"filter_{pixels}_{isa.name}"
    text = f"""\
/* {pixels} pixels of a row, each channel by itself */
static INLINE void {name}(const value *in, const value *w, value *out, int vectors,
    const int kernel, const int stride, const int below, const int beside, const int pitch,
    const int channels, const int activation)
{{
    for (int v = 0; v < vectors; v++) {{
        const vector_{isa.name} bias = load_{isa.name}(w);
        vector_{isa.name} {", ".join(f"c{i} = bias" for i in rows)};
        const value *p = in, *q = w + channels, *end = p + kernel * below;
        HIDE(end);
        UNROLL_1
        while (p != end) {{
            UNROLL_8
            for (int x = 0; x < kernel; x++) {{
{sums}
            }}
            p += below;
            q += kernel * channels;
        }}
{end}
        in += {isa.lanes};
        w += {isa.lanes};
        out += {isa.lanes};
    }}
}}
"""
    return name, text
