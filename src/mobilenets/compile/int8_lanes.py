"""Vectors of bytes and of sums as C text, and plain C where there are none."""

from __future__ import annotations

from collections.abc import Mapping

from mobilenets.compile.int8_quantities import BENT
from mobilenets.compile.integers import Layer
from mobilenets.compile.isa import Isa
from mobilenets.compile.kernel import Tiling

VECTORS = """\
/* {bytes} bytes at a time: sums of 32 bits, four bytes to each */
typedef int32_t sums_{tag} __attribute__((vector_size({bytes})));
typedef float floats_{tag} __attribute__((vector_size({bytes})));
typedef uint8_t bytes_{tag} __attribute__((vector_size({bytes})));
typedef uint16_t words_{tag} __attribute__((vector_size({bytes})));
typedef int16_t halves_{tag} __attribute__((vector_size({bytes})));
typedef uint8_t few_{tag} __attribute__((vector_size({quarter})));
typedef int8_t signed_few_{tag} __attribute__((vector_size({quarter})));
typedef sums_{tag} loose_sums_{tag} __attribute__((aligned(4), may_alias));
typedef floats_{tag} loose_floats_{tag} __attribute__((aligned(4), may_alias));
typedef bytes_{tag} loose_bytes_{tag} __attribute__((aligned(1), may_alias));
typedef uint8_t half_{tag} __attribute__((vector_size({half})));
typedef few_{tag} near_few_{tag} __attribute__((may_alias));
typedef few_{tag} loose_few_{tag} __attribute__((aligned(1), may_alias));
typedef half_{tag} near_half_{tag} __attribute__((may_alias));
typedef half_{tag} loose_half_{tag} __attribute__((aligned(1), may_alias));
#define SUMS_{tag}(p) ((sums_{tag})*(const loose_sums_{tag} *)(p))
#define FLOATS_{tag}(p) ((floats_{tag})*(const loose_floats_{tag} *)(p))
#define BYTES_{tag}(p) ((bytes_{tag})*(const loose_bytes_{tag} *)(p))
#define GREATER_{tag}(a, b) {greater}
#define FOUR_{tag}(p) ((bytes_{tag})((sums_{tag}){{0}} + *(const four_bytes *)(p)))
#define WIDE_{tag}(p) {widened}
#define WIDE_SIGNED_{tag}(p) \
    __builtin_convertvector((signed_few_{tag})*(const loose_few_{tag} *)(p), sums_{tag})
#define PUT_FLOATS_{tag}(p, v) (*(loose_floats_{tag} *)(p) = (v))
#define SCALED_{tag}(s, m) (__builtin_convertvector(s, floats_{tag}) * (m))

{products}
{bent}
/* Numbers to quantities: cut, rounded half to even. Where `tame`, packing does the cutting. */
static INLINE sums_{tag} whole_{tag}(floats_{tag} v, struct ending end)
{{
    v = bent_{tag}(v, end.curve, end.slope);
    if (!end.tame)
        v = cut_{tag}(v, (float)end.least, (float)end.most);
    return {rounded} + end.zero;
}}

/* Four vectors of quantities to bytes: four of the first, four of the second, and so on. */
static INLINE bytes_{tag} pack_{tag}(sums_{tag} a, sums_{tag} b, sums_{tag} c, sums_{tag} d,
                                     struct ending end)
{{
    const int least = end.tame ? end.zero + end.least : 0, most = end.tame ? end.zero + end.most : 255;
    const bytes_{tag} none = {{0}};
{pack}
    if (least > 0)
        q = {most_bytes};
    if (most < 255)
        q = {least_bytes};
    return q ^ (uint8_t)end.less;
}}

/* The same to where each vector's bytes, or those of each two, belong. */
static INLINE void put4_{tag}(value *p0, value *p1, value *p2, value *p3, bytes_{tag} packed)
{{
    const sums_{tag} q = SPREAD_{bytes}((sums_{tag})packed, {spread});
    *(loose_few_{tag} *)p0 = ((const near_few_{tag} *)&q)[0];
    *(loose_few_{tag} *)p1 = ((const near_few_{tag} *)&q)[1];
    *(loose_few_{tag} *)p2 = ((const near_few_{tag} *)&q)[2];
    *(loose_few_{tag} *)p3 = ((const near_few_{tag} *)&q)[3];
}}

static INLINE void put2_{tag}(value *p0, value *p1, bytes_{tag} packed)
{{
    const sums_{tag} q = SPREAD_{bytes}((sums_{tag})packed, {spread});
    *(loose_half_{tag} *)p0 = ((const near_half_{tag} *)&q)[0];
    *(loose_half_{tag} *)p1 = ((const near_half_{tag} *)&q)[1];
}}

static INLINE void put_{tag}(value *p, bytes_{tag} packed)
{{
    *(loose_bytes_{tag} *)p = (bytes_{tag})SPREAD_{bytes}((sums_{tag})packed, {spread});
}}

static INLINE void put1_{tag}(value *p, bytes_{tag} packed)
{{
    const sums_{tag} q = SPREAD_{bytes}((sums_{tag})packed, {spread});
    *(loose_few_{tag} *)p = ((const near_few_{tag} *)&q)[0];
}}

/* Rows of bytes to groups of four, one of each row; pairs within every sixteen bytes. */
#define LOW_{tag}(a, b) SHUFFLE_{bytes}(a, b, {low})
#define HIGH_{tag}(a, b) SHUFFLE_{bytes}(a, b, {high})
#define LOW2_{tag}(a, b) SHUFFLE_{bytes}(a, b, {low2})
#define HIGH2_{tag}(a, b) SHUFFLE_{bytes}(a, b, {high2})
"""
PAIRS = """\
#define EVEN_{tag}(a) ((halves_{tag})((words_{tag})(a) & 255))
#define ODD_{tag}(a) ((halves_{tag})((words_{tag})(a) >> 8))

/* sums + numbers of 16 bits · numbers of 16 bits, by pairs */
static INLINE sums_{tag} pairs_{tag}(sums_{tag} s, halves_{tag} x, halves_{tag} y)
{{
    return {pairs};
}}
"""
DOT = """
/* sums + bytes · signed bytes, by fours */
static INLINE sums_{tag} dot_{tag}(sums_{tag} s, bytes_{tag} a, bytes_{tag} w)
{{
{dot}
}}
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
#define PUT_FLOATS_{tag}(p, v) (*(floats_{tag} *)(void *)(p) = (v))
#define SCALED_{tag}(s, m) ((float)(s) * (m))
#define PUT_{tag}(p, q) (*(p) = (value)(q))

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
{dot}
}}

{bent}
/* A number to a quantity: cut, rounded half to even by adding 1.5 · 2^23, whose last bit weighs 1. */
static INLINE sums_{tag} whole_{tag}(floats_{tag} v, struct ending end)
{{
    v = cut_{tag}(bent_{tag}(v, end.curve, end.slope), (float)end.least, (float)end.most);
    return bits_{tag}(v + 12582912.0f) - 0x4b400000 + end.zero;
}}
"""

REGISTERS: Mapping[int, Mapping[str, str]] = {
    64: {"mm": "_mm512", "mf": "__m512", "mi": "__m512i", "few": "_mm_loadu_si128((const __m128i *)(p))"},
    32: {"mm": "_mm256", "mf": "__m256", "mi": "__m256i", "few": "_mm_loadl_epi64((const __m128i *)(p))"},
    16: {"mm": "_mm", "mf": "__m128", "mi": "__m128i", "few": "_mm_cvtsi32_si128(*(const four_bytes *)(p))"},
}
"""How x86 spells operations on vectors of so many bytes, and how it reads a quarter of one at p."""


def tag_of(isa: Isa, width: int) -> str:
    """What the names of an instruction set's types of so many bytes end in."""
    return f"{width}_{isa.name}"


def heads(tiling: Tiling, layer: Layer, tag: str) -> tuple[str, int]:
    """What reads a panel's biases b, multipliers m (and zeros z), and the bytes of them for each channel."""
    kinds = [("sums", "b"), ("floats", "m"), *[("sums", "z")] * layer.asymmetric]
    step = 4 * tiling.lanes
    loads = (
        f"    const {kind}_{tag} "
        + ", ".join(
            f"{letter}{j} = {kind.upper()}_{tag}(w + {4 * at} * panel + {j * step})"
            for j in range(tiling.wide)
        )
        + ";"
        for at, (kind, letter) in enumerate(kinds)
    )
    return "\n".join(loads), 4 * len(kinds)


def lanes(isa: Isa, width: int) -> str:
    """Types of so many bytes, and the operations on them whose spelling differs."""
    names = {"tag": tag_of(isa, width), "bytes": width, **REGISTERS.get(width, {})}
    bent = BENT.format(
        **names,
        largest=isa.largest.format(a="v", b="low", vector="", **names),
        smallest=isa.smallest.format(a="v", b="high", vector="", **names),
    )
    if isa.lanes == 1:
        return SINGLE.format(**names, dot=isa.dot, bent=bent)
    pairs = [(16 * lane, lane * 16 + width) for lane in range(width // 16)]

    def mixed(first: int, size: int) -> str:
        return ", ".join(
            str(start + first + i + j)
            for left, right in pairs
            for i in range(0, 8, size)
            for start in (left, right)
            for j in range(size)
        )

    quads = width // 16
    texts = {name: getattr(isa, name).format(**names) for name in ("dot", "pairs", "pack", "rounded", "kept")}
    parts = ((PAIRS, "pairs"), (DOT, "dot"), ("{kept}", "kept"))
    products = "".join(text.format(**names, **texts) for text, name in parts if texts[name])
    return VECTORS.format(
        **names,
        products=products,
        pack=texts["pack"],
        rounded=texts["rounded"],
        quarter=width // 4,
        half=width // 2,
        bent=bent,
        most_bytes=isa.most_bytes.format(a="q", b="(none + (uint8_t)least)", **names),
        least_bytes=isa.least_bytes.format(a="q", b="(none + (uint8_t)most)", **names),
        greater=isa.most_bytes.format(a="(a)", b="(b)", **names),
        widened=isa.widened.format(**names, none="_mm_setzero_si128()"),
        spread=", ".join(str(4 * lane + vector) for vector in range(4) for lane in range(quads)),
        low=mixed(0, 1),
        high=mixed(8, 1),
        low2=mixed(0, 2),
        high2=mixed(8, 2),
    )
