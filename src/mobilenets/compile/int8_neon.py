"""Products of bytes as C text for NEON: sixteen bytes of a pixel in a register, taken four at a time."""

from __future__ import annotations

from mobilenets.compile.int8_lanes import heads, tag_of
from mobilenets.compile.int8_quantities import signature
from mobilenets.compile.integers import Layer, groups
from mobilenets.compile.isa import Isa
from mobilenets.compile.kernel import Tiling
from mobilenets.compile.step import Product

FAR = 256
"""Input values from which on it pays to fetch weights ahead of their use."""
LOADED = ("", "ALONE", "EIGHT", "BYTES", "BYTES")
"""What reads so many fours of bytes; for three of them a fourth is touched."""


def rest(step: Product) -> str:
    """What the name of a tile ends in that takes a few fours when all sixteens of a stretch are done."""
    return f"_and{groups(step.run) % 4}" if groups(step.run) % 4 else ""


def tile(isa: Isa, name: str, tiling: Tiling, layer: Layer, stores: str) -> str:
    """Pixels × vectors of a product, all sums in registers: a stretch by sixteens, then what is left."""
    tag, wide, channels = tag_of(isa, 4 * tiling.lanes), range(tiling.wide), tiling.wide * tiling.lanes
    loads, past = heads(tiling, layer, tag)
    begin = "\n".join(
        f"    kept_{tag} " + ", ".join(f"c{i}_{j} = BEGUN_{tag}(b{j})" for j in wide) + ";"
        for i in range(tiling.pixels)
    )
    left = groups(tiling.step.run) % 4
    last = f"            {{\n{_turn(isa, tiling, tag, left)}            }}\n" if left else ""
    return f"""\
/* {tiling.pixels} pixels × {channels} channels: bias + a · w by sixteens, window by window */
{signature(name, tiling, layer, "const int turned, const int steep, ")}
{loads}
{begin}
    w += {past} * panel;
    for (int y = 0; y < down; y++)
        for (int x = 0; x < across; x++) {{
            const value *p = a + y * below + x * beside;
            UNROLL_1
            for (int k = 0; k < (run + 3) / 16; k++) {{
{_turn(isa, tiling, tag, 4)}            }}
{last}        }}
    (void)steep;
{stores}
}}
"""


def _turn(isa: Isa, tiling: Tiling, tag: str, fours: int) -> str:
    """So many fours of every pixel, times their weights, on all sums."""
    pad = " " * 16
    text = "".join(
        f"{pad}const bytes_{tag} a{i} = {LOADED[fours]}_{tag}(p + AT({i}, a)) ^ (uint8_t)turned;\n"
        for i in range(tiling.pixels)
    )
    if fours == 4 and isa.ahead:
        text += (
            f"{pad}if (run >= {FAR})\n{pad}    for (int at = 0; at < 16 * panel; at += 64)\n"
            f"{pad}        FETCH(w + {4 * isa.ahead} * panel + at);\n"
        )
    text += f"{pad}for (int t = 0; t < terms; t++) {{\n"
    for first in range(0, fours, 2):
        for j in range(0, tiling.wide, 2):
            text += _added(tiling, tag, range(first, min(first + 2, fours)), range(j, j + 2))
    text += f"{pad}    w += 4 * panel;\n{pad}}}\n"
    text += f"{pad}w += {fours - 1} * terms * 4 * panel;\n" if fours > 1 else ""
    return f"{text}{pad}p += {4 * fours};\n"


def _added(tiling: Tiling, tag: str, fours: range, vectors: range) -> str:
    """One or two fours of every pixel on two vectors of sums each."""
    text, pad = "", " " * 20
    for four in fours:
        at = "w" + f" + {four} * terms * 4 * panel" * (four > 0)
        held = (f"w{four}_{j} = BYTES_{tag}({at} + {4 * tiling.lanes * j})" for j in vectors)
        text += f"{pad}const bytes_{tag} {', '.join(held)};\n"
    weights = ", ".join(f"w{four}_{j}" for four in fours for j in vectors)
    for i in range(tiling.pixels):
        sums = ", ".join(f"c{i}_{j}" for j in vectors)
        text += f"{pad}{('ONE', 'TWO')[len(fours) - 1]}_{tag}({sums}, {weights}, a{i}, {fours[0]}, steep);\n"
    return text
