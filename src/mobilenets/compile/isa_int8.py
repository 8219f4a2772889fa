"""Instruction sets for bytes: their dot products, roundings and packings as C, and the families of them."""

from __future__ import annotations

from dataclasses import replace

from mobilenets.compile.isa import (
    AARCH64,
    ANDROID_ARM32,
    ANDROID_ARM64,
    ANY_ROUNDED,
    ARMV7,
    AVX2,
    AVX512,
    CORTEX_M,
    IOS_ARM64,
    PLAIN,
    RISCV64,
    RVV,
    SCALARS,
    SOFT,
    WASM,
    WASM_THREADS,
    X86,
    Isa,
)
from mobilenets.compile.isa_neon import NEON_BYTES, NEON_DOT_BYTES

X86_MOST = "(floats_{tag}){mm}_max_ps(({mf})({a}), ({mf})({b}))"
X86_LEAST = "(floats_{tag}){mm}_min_ps(({mf})({a}), ({mf})({b}))"
X86_VNNI = "    return (sums_{tag}){mm}_dpbusd_epi32(({mi})s, ({mi})a, ({mi})w);"
X86_PAIRS = "s + (sums_{tag}){mm}_madd_epi16(({mi})x, ({mi})y)"
X86_PACK = """\
    const {mi} left = {mm}_packs_epi32(({mi})a, ({mi})b), right = {mm}_packs_epi32(({mi})c, ({mi})d);
    bytes_{tag} q = (bytes_{tag}){mm}_packus_epi16(left, right);"""
X86_ROUNDED = "(sums_{tag}){mm}_cvtps_epi32(({mf})v)"
X86_MOST_BYTES = "(bytes_{tag}){mm}_max_epu8(({mi}){a}, ({mi}){b})"
X86_LEAST_BYTES = "(bytes_{tag}){mm}_min_epu8(({mi}){a}, ({mi}){b})"
X86_WIDE = "(sums_{tag}){mm}_cvtepu8_epi32({few})"
"""GCC takes bytes apart one by one where it is asked to convert a vector of them."""
SSE2_WIDE = "(sums_{tag})_mm_unpacklo_epi16(_mm_unpacklo_epi8({few}, {none}), {none})"
SSE2_BYTES = Isa(
    name="sse2",
    lanes=4,
    vectors=2,
    rows=4,
    columns=1,
    spare=True,
    quads=False,
    largest=X86_MOST,
    smallest=X86_LEAST,
    pairs=X86_PAIRS,
    pack=X86_PACK,
    rounded=X86_ROUNDED,
    saturates=True,
    most_bytes=X86_MOST_BYTES,
    least_bytes=X86_LEAST_BYTES,
    widened=SSE2_WIDE,
)
AVX2_BYTES = replace(
    SSE2_BYTES,
    name="avx2",
    lanes=8,
    spare=False,
    quads=True,
    enabled=AVX2.enabled,
    asked=AVX2.asked,
    widened=X86_WIDE,
)
AVX512_VNNI_BYTES = replace(
    SSE2_BYTES,
    name="avx512vnni",
    lanes=16,
    rows=14,
    columns=4,
    spare=False,
    quads=True,
    enabled=f"avx512vnni,{AVX512.enabled}",
    asked=f"{AVX512.asked} | VNNI",
    dot=X86_VNNI,
    widened=X86_WIDE,
)
NEON_32_BYTES = Isa(
    name="neon",
    lanes=4,
    vectors=2,
    rows=4,
    columns=1,
    largest="(floats_{tag})vmaxq_f32((float32x4_t)({a}), (float32x4_t)({b}))",
    smallest="(floats_{tag})vminq_f32((float32x4_t)({a}), (float32x4_t)({b}))",
    pairs="(sums_{tag})vpadalq_s16((int32x4_t)s, vmulq_s16((int16x8_t)x, (int16x8_t)y))",
    pack="""\
    const int16x8_t left = vcombine_s16(vqmovn_s32((int32x4_t)a), vqmovn_s32((int32x4_t)b));
    const int16x8_t right = vcombine_s16(vqmovn_s32((int32x4_t)c), vqmovn_s32((int32x4_t)d));
    bytes_{tag} q = (bytes_{tag})vcombine_u8(vqmovun_s16(left), vqmovun_s16(right));""",
    rounded=ANY_ROUNDED,
    most_bytes="(bytes_{tag})vmaxq_u8((uint8x16_t){a}, (uint8x16_t){b})",
    least_bytes="(bytes_{tag})vminq_u8((uint8x16_t){a}, (uint8x16_t){b})",
)
"""A 32-bit processor rounds halves to even by addition alone."""
SIMD128_BYTES = Isa(
    name="simd128",
    lanes=4,
    vectors=2,
    rows=4,
    columns=1,
    ahead=0,
    largest="(floats_{tag})wasm_f32x4_pmax((v128_t)({b}), (v128_t)({a}))",
    smallest="(floats_{tag})wasm_f32x4_pmin((v128_t)({b}), (v128_t)({a}))",
    web=True,
    pairs="(sums_{tag})wasm_i32x4_dot_i16x8((v128_t)x, (v128_t)y) + s",
    pack="""\
    const v128_t left = wasm_i16x8_narrow_i32x4((v128_t)a, (v128_t)b);
    const v128_t right = wasm_i16x8_narrow_i32x4((v128_t)c, (v128_t)d);
    bytes_{tag} q = (bytes_{tag})wasm_u8x16_narrow_i16x8(left, right);""",
    rounded="(sums_{tag})wasm_i32x4_trunc_sat_f32x4(wasm_f32x4_nearest((v128_t)v))",
    saturates=True,
    most_bytes="(bytes_{tag})wasm_u8x16_max((v128_t){a}, (v128_t){b})",
    least_bytes="(bytes_{tag})wasm_u8x16_min((v128_t){a}, (v128_t){b})",
)
SCALAR_BYTES = replace(SCALARS, rows=2, columns=1, ahead=0)
DSP_BYTES = replace(
    SCALAR_BYTES,
    name="dsp",
    vectors=2,
    dot="""\
    s = __smlad((int16x2_t)__uxtb16(a), __sxtb16((int8x4_t)w), s);
    return __smlad((int16x2_t)__uxtb16(a >> 8), __sxtb16((int8x4_t)(w >> 8)), s);""",
)
"""Of Cortex-M4 and M7: two products of 16 bits at a time."""
RVV_BYTES = replace(RVV, narrow=None, ahead=0, wide=True)
SCALAR_WIDE = replace(SCALAR_BYTES, rows=3, wide=True)

X86_BYTES = replace(X86, isas=(AVX512_VNNI_BYTES, AVX2_BYTES, SSE2_BYTES), line=64, least=8)
AARCH64_BYTES = replace(AARCH64, isas=(NEON_DOT_BYTES, NEON_BYTES), line=16, least=8, signed=True, taps=True)
ARMV7_BYTES = replace(ARMV7, isas=(NEON_32_BYTES,), line=16, halves=True)
WASM_BYTES = replace(WASM, isas=(SIMD128_BYTES,), line=16, halves=True)
WASM_THREADS_BYTES = replace(WASM_THREADS, isas=(SIMD128_BYTES,), line=16, halves=True)
PLAIN_BYTES = replace(PLAIN, isas=(SCALAR_BYTES,), line=16)
RISCV64_BYTES = replace(RISCV64, isas=(RVV_BYTES, SCALAR_WIDE), line=16, taps=True, singles=True)
CORTEX_M_BYTES = replace(CORTEX_M, isas=(DSP_BYTES,), includes=("arm_acle.h",), line=16)
ANDROID_ARM64_BYTES = replace(ANDROID_ARM64, isas=(NEON_BYTES,), line=16, least=8, signed=True, taps=True)
ANDROID_ARM32_BYTES = replace(
    ANDROID_ARM32, isas=(replace(NEON_32_BYTES, enabled=SOFT),), line=16, halves=True
)
IOS_ARM64_BYTES = replace(IOS_ARM64, isas=(NEON_BYTES,), line=16, least=8, signed=True, taps=True)
