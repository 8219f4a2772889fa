"""Kernels of bytes as C text where bytes are widened and multiplied one input value after the other."""

from __future__ import annotations

from mobilenets.compile.int8_lanes import heads, tag_of
from mobilenets.compile.int8_quantities import BENT, signature
from mobilenets.compile.integers import Layer
from mobilenets.compile.isa import Isa
from mobilenets.compile.kernel import Tiling
from mobilenets.compile.step import Filter

EXTENSION = """\
typedef int32_t sums_{tag} __attribute__((vector_size({sums})));
typedef float floats_{tag} __attribute__((vector_size({sums})));
typedef int16_t halves_{tag} __attribute__((vector_size({halves})));
typedef uint8_t bytes_{tag} __attribute__((vector_size({lanes})));
typedef int8_t signed_{tag} __attribute__((vector_size({lanes})));
typedef sums_{tag} loose_sums_{tag} __attribute__((aligned(4), may_alias));
typedef floats_{tag} loose_floats_{tag} __attribute__((aligned(4), may_alias));
typedef bytes_{tag} loose_bytes_{tag} __attribute__((aligned(1), may_alias));
typedef signed_{tag} loose_signed_{tag} __attribute__((aligned(1), may_alias));
#define SUMS_{tag}(p) ((sums_{tag})*(const loose_sums_{tag} *)(p))
#define FLOATS_{tag}(p) ((floats_{tag})*(const loose_floats_{tag} *)(p))
#define LEVELS_{tag}(p) __builtin_convertvector(*(const loose_bytes_{tag} *)(p), halves_{tag})
#define GREATER_{tag}(a, b) (((a) & (bytes_{tag})((a) > (b))) | ((b) & ~(bytes_{tag})((a) > (b))))
#define BYTES_{tag}(p) ((bytes_{tag})*(const loose_bytes_{tag} *)(p))
#define WEIGHTS_{tag}(p) __builtin_convertvector(*(const loose_signed_{tag} *)(p), halves_{tag})
#define WIDE_{tag}(p) __builtin_convertvector(*(const loose_bytes_{tag} *)(p), sums_{tag})
#define TIMES_{tag}(w, a) (__builtin_convertvector(w, sums_{tag}) * (a))
#define EACH_{tag}(w, a) TIMES_{tag}(w, __builtin_convertvector(a, sums_{tag}))
#define SCALED_{tag}(s, m) (__builtin_convertvector(s, floats_{tag}) * (m))
#define PUT_{tag}(p, q) (*(loose_bytes_{tag} *)(p) = __builtin_convertvector(q, bytes_{tag}))
#define PUT_FLOATS_{tag}(p, v) (*(loose_floats_{tag} *)(p) = (v))
"""
SCALAR = """\
typedef int32_t sums_{tag};
typedef float floats_{tag};
typedef int32_t halves_{tag};
#define SUMS_{tag}(p) (*(const sums_{tag} *)(const void *)(p))
#define FLOATS_{tag}(p) (*(const floats_{tag} *)(const void *)(p))
#define LEVELS_{tag}(p) ((halves_{tag})*(p))
#define WEIGHTS_{tag}(p) ((halves_{tag})(int8_t)*(p))
#define WIDE_{tag}(p) ((sums_{tag})*(p))
#define TIMES_{tag}(w, a) ((w) * (a))
#define EACH_{tag}(w, a) ((w) * (a))
#define SCALED_{tag}(s, m) ((float)(s) * (m))
#define PUT_{tag}(p, q) (*(p) = (value)(q))
#define PUT_FLOATS_{tag}(p, v) (*(floats_{tag} *)(void *)(p) = (v))
"""
WHOLE = """\
#ifndef STAY
#define STAY __asm__ volatile("" ::: "memory") /* else loads are drawn ahead until registers are short */
#endif
{bent}
/* Numbers to quantities: cut, rounded half to even by adding 1.5 · 2^23, whose last bit weighs 1. */
static INLINE sums_{tag} whole_{tag}(floats_{tag} v, struct ending end)
{{
    v = cut_{tag}(bent_{tag}(v, end.curve, end.slope), (float)end.least, (float)end.most) + 12582912.0f;
    sums_{tag} q;
    __builtin_memcpy(&q, &v, sizeof q);
    return q + (end.zero - 0x4b400000);
}}
"""


def lanes(isa: Isa) -> str:
    """Types of as many sums as there are lanes, and of the bytes that they are made of and become."""
    count = isa.lanes
    names = {"tag": tag_of(isa, 4 * count), "lanes": count, "halves": 2 * count, "sums": 4 * count}
    text = f"/* {count} sums at a time, and their bytes */\n" + (EXTENSION if count > 1 else SCALAR) + WHOLE
    largest = isa.largest.format(a="v", b="low", vector="")
    smallest = isa.smallest.format(a="v", b="high", vector="")
    return text.format(**names, bent=BENT.format(**names, largest=largest, smallest=smallest))


def tile(isa: Isa, name: str, tiling: Tiling, layer: Layer, stores: str) -> str:
    """Pixels × vectors of a product, all sums in registers; see `float32` for the form."""
    pixels, wide, tag = range(tiling.pixels), range(tiling.wide), tag_of(isa, 4 * tiling.lanes)
    loads, past = heads(tiling, layer, tag)
    begin = "\n".join(f"    sums_{tag} " + ", ".join(f"c{i}_{j} = b{j}" for j in wide) + ";" for i in pixels)
    read = ", ".join(f"w{j} = WEIGHTS_{tag}(w + {j * tiling.lanes})" for j in wide)
    sums = "\n".join(
        f"                    s = p[AT({i}, a)]; "
        + " ".join(f"c{i}_{j} += TIMES_{tag}(w{j}, s);" for j in wide)
        for i in pixels
    )
    return f"""\
/* {tiling.pixels} pixels × {tiling.wide * tiling.lanes} channels: bias + a · w, window by window */
{signature(name, tiling, layer, "const int back, ")}
{loads}
{begin}
    w += {past} * panel - back; /* biases have four bytes, weights one */
    for (int y = 0; y < down; y++)
        for (int x = 0; x < across; x++) {{
            const value *p = a + y * below + x * beside;
            UNROLL_1
            for (int k = 0; k < run; k++) {{
                for (int t = 0; t < terms; t++) {{
                    const halves_{tag} {read};
                    int s;
{sums}
                    w += panel;
                }}
                p++;
            }}
            w += (run + 3) / 4 * 4 * terms * panel - run * terms * panel;
        }}
{stores}
}}
"""


def filters(isa: Isa, positions: int, step: Filter, terms: int) -> tuple[str, str]:
    """Name and text: `positions` neighbours of a row through a depthwise filter, vector by vector."""
    tag, kernel, stride, rows = tag_of(isa, 4 * isa.lanes), step.kernel, step.stride, range(positions)
    name = f"filter{kernel}s{stride}_{positions}{f'_t{terms}' * (terms > 1)}_{isa.name}"
    begin = ", ".join(f"c{x} = SUMS_{tag}(w + 4 * l)" for x in rows)
    sums = ""
    for across in range(kernel):
        for y in range(kernel):
            for term in range(terms):
                place = (across * kernel + y) * terms + term
                sums += f"            k = WEIGHTS_{tag}(w + singles + {place} * line + l);\n"
                for x in rows:
                    level = f"LEVELS_{tag}(in + {x * stride + across} * beside + {y} * below)"
                    sums += f"            c{x} += EACH_{tag}(k, {level});\n"
                sums += "            STAY;\n"
    end = "\n".join(
        f"            PUT_{tag}(out + {x} * pitch, whole_{tag}(SCALED_{tag}(c{x}, m), end));" for x in rows
    )
    text = f"""\
/* {positions} pixels of a row through {kernel}×{kernel} taps, each channel by itself */
static INLINE void {name}(const value *in, const value *w, value *out, int parts,
    const int below, const int beside, const int next, const int pitch, const int span,
    const int chunk, const int line, const int singles, const int turned, const struct ending end)
{{
    (void)next, (void)turned;
    for (int v = 0; v < parts; v++, w += chunk)
        for (int l = 0; l < span; l += {isa.lanes}, in += {isa.lanes}, out += {isa.lanes}) {{
            sums_{tag} {begin};
            halves_{tag} k;
{sums}            const floats_{tag} m = FLOATS_{tag}(w + 4 * (line + l));
{end}
        }}
}}
"""
    return name, text
