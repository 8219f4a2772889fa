"""NEON for bytes, with and without dot products: what a product keeps, and how it adds to it, as C."""

from __future__ import annotations

from dataclasses import replace

from mobilenets.compile.isa import Isa

READ = r"""
/* As many bytes as there are left of a stretch, and what those of a pixel add up to */
#define EIGHT_{tag}(p) ((bytes_{tag})vcombine_u8(vld1_u8(p), vdup_n_u8(0)))
#define ALONE_{tag}(p) ((bytes_{tag})(sums_{tag}){{*(const four_bytes *)(p)}})

static INLINE int32_t total_{tag}(const value *at, const int count)
{{
    int32x4_t sums = vdupq_n_s32(0);
    int i = 0;
    for (; i + 16 <= count; i += 16)
        sums = vpadalq_s16(sums, vpaddlq_s8((int8x16_t)BYTES_{tag}(at + i)));
    if (i + 8 <= count) {{
        sums = vpadalq_s16(sums, vmovl_s8(vld1_s8((const int8_t *)at + i)));
        i += 8;
    }}
    int32_t sum = vaddvq_s32(sums);
    for (; i < count; i++)
        sum += (int8_t)at[i];
    return sum;
}}
"""
BY_TWOS = (
    READ
    + r"""
/* Of a vector's channels two sums each: from halves of a four, products of 8 bits, two added up in 16 */
typedef struct {{
    int32x4_t low, high;
}} kept_{tag};
#define FAN_{tag}(a, four) vreinterpretq_s8_s32(vdupq_laneq_s32((int32x4_t)(a), four))
#define ONE_{tag}(c, d, w, v, a, four, steep) \
    c = one_{tag}(c, (int8x16_t)(w), FAN_{tag}(a, four)); \
    d = one_{tag}(d, (int8x16_t)(v), FAN_{tag}(a, four))
#define TWO_{tag}(c, d, w0, v0, w1, v1, a, four, steep) \
    if (steep) {{ \
        ONE_{tag}(c, d, w0, v0, a, four, steep); \
        ONE_{tag}(c, d, w1, v1, a, four + 1, steep); \
    }} else \
        two_{tag}(&(c), &(d), (int8x16_t)(w0), (int8x16_t)(v0), (int8x16_t)(w1), (int8x16_t)(v1), \
                  FAN_{tag}(a, four), FAN_{tag}(a, four + 1))
#define BEGUN_{tag}(b) begun_{tag}((int32x4_t)(b))
#define ENDED_{tag}(c) ((sums_{tag})vpaddq_s32((c).low, (c).high))

static INLINE kept_{tag} begun_{tag}(int32x4_t b)
{{
    return (kept_{tag}){{vzip1q_s32(b, vdupq_n_s32(0)), vzip2q_s32(b, vdupq_n_s32(0))}};
}}

/* A four of a pixel, times weights of a vector of channels */
static INLINE kept_{tag} one_{tag}(kept_{tag} c, int8x16_t w, int8x16_t a)
{{
    c.low = vpadalq_s16(c.low, vmull_s8(vget_low_s8(w), vget_low_s8(a)));
    c.high = vpadalq_s16(c.high, vmull_high_s8(w, a));
    return c;
}}

/* Two of them, times weights of two vectors of channels. Where weights are `steep` 16 bits do not hold two
 * products. The order stalls nothing: compilers put off the last line until they spill. */
static INLINE void two_{tag}(kept_{tag} *c, kept_{tag} *d, int8x16_t w0, int8x16_t v0, int8x16_t w1,
                             int8x16_t v1, int8x16_t a, int8x16_t b)
{{
    int16x8_t p, q, r, s;
    __asm__ volatile("smull %4.8h, %8.8b, %12.8b\n\tsmull2 %5.8h, %8.16b, %12.16b\n\t"
                     "smull %6.8h, %9.8b, %12.8b\n\tsmull2 %7.8h, %9.16b, %12.16b\n\t"
                     "smlal %4.8h, %10.8b, %13.8b\n\tsmlal2 %5.8h, %10.16b, %13.16b\n\t"
                     "smlal %6.8h, %11.8b, %13.8b\n\tsmlal2 %7.8h, %11.16b, %13.16b\n\t"
                     "sadalp %0.4s, %4.8h\n\tsadalp %1.4s, %5.8h\n\t"
                     "sadalp %2.4s, %6.8h\n\tsadalp %3.4s, %7.8h"
                     : "+w"(c->low), "+w"(c->high), "+w"(d->low), "+w"(d->high), "=&w"(p), "=&w"(q),
                       "=&w"(r), "=&w"(s)
                     : "w"(w0), "w"(v0), "w"(w1), "w"(v1), "w"(a), "w"(b));
}}

/* Products of a depthwise layer, one tap of each channel or two */
typedef struct {{
    int16x8_t low, high;
}} taps_{tag};
#define TAP_{tag}(t, a, w) \
    t.low = vmull_s8(vget_low_s8((int8x16_t)(a)), vget_low_s8((int8x16_t)(w))); \
    t.high = vmull_high_s8((int8x16_t)(a), (int8x16_t)(w))
#define TAP_MORE_{tag}(t, a, w) \
    t.low = vmlal_s8(t.low, vget_low_s8((int8x16_t)(a)), vget_low_s8((int8x16_t)(w))); \
    t.high = vmlal_high_s8(t.high, (int8x16_t)(a), (int8x16_t)(w))
#define TAPS_{tag}(t, c0, c1, c2, c3) \
    c0 = (sums_{tag})vaddw_s16((int32x4_t)(c0), vget_low_s16(t.low)); \
    c1 = (sums_{tag})vaddw_high_s16((int32x4_t)(c1), t.low); \
    c2 = (sums_{tag})vaddw_s16((int32x4_t)(c2), vget_low_s16(t.high)); \
    c3 = (sums_{tag})vaddw_high_s16((int32x4_t)(c3), t.high)
"""
)
BY_FOURS = (
    READ
    + r"""
#define kept_{tag} sums_{tag}
#define FOUR_TIMES_{tag}(c, w, a, four) \
    c = (sums_{tag})vdotq_laneq_s32((int32x4_t)(c), (int8x16_t)(w), (int8x16_t)(a), four)
#define ONE_{tag}(c, d, w, v, a, four, steep) \
    FOUR_TIMES_{tag}(c, w, a, four); \
    FOUR_TIMES_{tag}(d, v, a, four)
#define TWO_{tag}(c, d, w0, v0, w1, v1, a, four, steep) \
    ONE_{tag}(c, d, w0, v0, a, four, 0); \
    ONE_{tag}(c, d, w1, v1, a, four + 1, 0)
#define BEGUN_{tag}(b) (b)
#define ENDED_{tag}(c) (c)
"""
)
NEON_BYTES = Isa(
    name="neon",
    lanes=4,
    vectors=4,
    rows=2,
    columns=2,
    largest="(floats_{tag})vmaxq_f32((float32x4_t)({a}), (float32x4_t)({b}))",
    smallest="(floats_{tag})vminq_f32((float32x4_t)({a}), (float32x4_t)({b}))",
    dot="",
    kept=BY_TWOS,
    by_tap=True,
    pack="""\
    const int16x8_t left = vcombine_s16(vqmovn_s32((int32x4_t)a), vqmovn_s32((int32x4_t)b));
    const int16x8_t right = vcombine_s16(vqmovn_s32((int32x4_t)c), vqmovn_s32((int32x4_t)d));
    bytes_{tag} q = (bytes_{tag})vcombine_u8(vqmovun_s16(left), vqmovun_s16(right));""",
    rounded="(sums_{tag})vcvtnq_s32_f32((float32x4_t)v)",
    saturates=True,
    most_bytes="(bytes_{tag})vmaxq_u8((uint8x16_t){a}, (uint8x16_t){b})",
    least_bytes="(bytes_{tag})vminq_u8((uint8x16_t){a}, (uint8x16_t){b})",
)
NEON_DOT_BYTES = replace(
    NEON_BYTES,
    name="neon_dot",
    vectors=2,
    rows=8,
    columns=3,
    enabled="arch=armv8.2-a+dotprod",
    asked="DOT",
    dot="    return (sums_{tag})vdotq_s32((int32x4_t)s, (int8x16_t)a, (int8x16_t)w);",
    kept=BY_FOURS,
    by_tap=False,
)
