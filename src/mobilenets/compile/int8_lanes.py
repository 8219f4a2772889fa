"""Vectors of bytes and of sums as C text, and plain C where there are none."""

from __future__ import annotations

from collections.abc import Mapping

from mobilenets.compile.isa import ANY_PUT, Isa

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
#define FOUR_{tag}(p) ((bytes_{tag})((sums_{tag}){{0}} + *(const four_bytes *)(p)))
#define WIDE_{tag}(p) __builtin_convertvector(*(const loose_few_{tag} *)(p), sums_{tag})
#define PUT_FLOATS_{tag}(p, v) (*(loose_floats_{tag} *)(p) = (v))
#define SCALED_{tag}(s, m) (__builtin_convertvector(s, floats_{tag}) * (m))
#define BITS_{tag}(v) ((sums_{tag})(v))

/* sums + bytes · signed bytes, by fours */
static INLINE sums_{tag} dot_{tag}(sums_{tag} s, bytes_{tag} a, bytes_{tag} w)
{{
{dot}
}}

/* The lowest byte of each sum, stored. */
static INLINE void put_{tag}(value *p, sums_{tag} q)
{{
{put}
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
SINGLE = """\
/* one sum at a time: plain C */
typedef int32_t sums_{tag};
typedef float floats_{tag};
typedef uint32_t bytes_{tag};
#define SUMS_{tag}(p) (*(const sums_{tag} *)(const void *)(p))
#define FLOATS_{tag}(p) (*(const floats_{tag} *)(const void *)(p))
#define BYTES_{tag}(p) four_{tag}(p)
#define FOUR_{tag}(p) four_{tag}(p)
#define WIDE_{tag}(p) ((sums_{tag}) * (p))
#define put_{tag}(p, q) (*(p) = (value)(q))
#define PUT_FLOATS_{tag}(p, v) (*(floats_{tag} *)(void *)(p) = (v))
#define SCALED_{tag}(s, m) ((float)(s) * (m))
#define BITS_{tag}(v) bits_{tag}(v)

static INLINE bytes_{tag} four_{tag}(const value *p)
{{
    return p[0] | (bytes_{tag})p[1] << 8 | (bytes_{tag})p[2] << 16 | (bytes_{tag})p[3] << 24;
}}

static INLINE sums_{tag} bits_{tag}(float v)
{{
    const union {{
        float value;
        int32_t bits;
    }} both = {{v}};
    return both.bits;
}}

/* sum + bytes · signed bytes */
static INLINE sums_{tag} dot_{tag}(sums_{tag} s, bytes_{tag} a, bytes_{tag} w)
{{
    for (int i = 0; i < 32; i += 8)
        s += (int)(a >> i & 255) * (int8_t)(w >> i & 255);
    return s;
}}
"""
LEVELS = """\
/* Sums to quantities: scaled, cut, rounded half to even by adding 1.5 · 2^23, whose last bit weighs 1. Only
 * the lowest byte is one; `level` clears the others. */
static INLINE sums_{tag} low_level_{tag}(sums_{tag} s, floats_{tag} m, int least, int most, int zero)
{{
    const floats_{tag} none = {{0}}, low = none + (float)least, high = none + (float)most;
    floats_{tag} v = SCALED_{tag}(s, m);
    v = {largest};
    v = {smallest};
    return BITS_{tag}(v + 12582912.0f) + zero;
}}

static INLINE sums_{tag} level_{tag}(sums_{tag} s, floats_{tag} m, int least, int most, int zero)
{{
    return low_level_{tag}(s, m, least, most, zero - 0x4b400000);
}}
"""


REGISTERS: Mapping[int, Mapping[str, str]] = {
    64: {"mm": "_mm512", "mf": "__m512", "mi": "__m512i", "si": "si512"},
    32: {"mm": "_mm256", "mf": "__m256", "mi": "__m256i", "si": "si256"},
    16: {"mm": "_mm", "mf": "__m128", "mi": "__m128i", "si": "si128"},
}
"""How x86 spells operations on vectors of so many bytes."""


def tag_of(isa: Isa, width: int) -> str:
    """What the names of an instruction set's types of so many bytes end in."""
    return f"{width}_{isa.name}"


def lanes(isa: Isa, width: int) -> str:
    """Types of so many bytes, and the operations on them whose spelling differs."""
    names = {"tag": tag_of(isa, width), "bytes": width, **REGISTERS.get(width, {})}
    levels = LEVELS.format(
        **names,
        largest=isa.largest.format(a="v", b="low", **names),
        smallest=isa.smallest.format(a="v", b="high", **names),
    )
    if isa.lanes == 1:
        return f"{SINGLE.format(**names)}\n{levels}"
    pairs = [(16 * lane, lane * 16 + width) for lane in range(width // 16)]

    def mixed(first: int, size: int) -> str:
        return ", ".join(
            str(start + first + i + j)
            for left, right in pairs
            for i in range(0, 8, size)
            for start in (left, right)
            for j in range(size)
        )

    vectors = VECTORS.format(
        **names,
        few=width // 4,
        dot=isa.dot.format(**names),
        pack=isa.pack.format(**names),
        put=(isa.put if width == 4 * isa.lanes else ANY_PUT).format(**names),
        low=mixed(0, 1),
        high=mixed(8, 1),
        low2=mixed(0, 2),
        high2=mixed(8, 2),
    )
    return f"{vectors}\n{levels}"
