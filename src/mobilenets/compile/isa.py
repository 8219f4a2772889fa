"""Instruction sets as a table: how wide a vector is, how large a tile of a product, how C spells it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mobilenets.compile.step import Layout

EXTENSION = """\
typedef float vector_{name} __attribute__((vector_size({bytes})));
typedef float loose_{name} __attribute__((vector_size({bytes}), aligned(4), may_alias));
#define vector vector_{name}
#define load(p) ((vector)*(const loose_{name} *)(p))
#define store(p, v) (*(loose_{name} *)(p) = (v))
"""
"""Vectors as GCC and Clang spell them for any processor."""
SCALAR = """\
#define vector float
#define load(p) (*(p))
#define store(p, v) (*(p) = (v))
"""
"""Vectors of one float, for a compiler that has no others."""
ANY_ROUNDED = "(sums_{tag})(v + 12582912.0f) - 0x4b400000"
"""1.5 · 2^23 is added, whose last bit weighs 1: for numbers that are small already."""
ANY_DOT = """\
    const halves_{tag} y = (halves_{tag})w;
    s = pairs_{tag}(s, EVEN_{tag}(a), (halves_{tag})((words_{tag})w << 8) >> 8);
    return pairs_{tag}(s, ODD_{tag}(a), y >> 8);"""
"""A dot product of bytes from those of numbers of 16 bits, even and odd: no sum can saturate."""
PLAIN_DOT = """\
    for (int i = 0; i < 32; i += 8)
        s += (int)(a >> i & 255) * (int8_t)(w >> i & 255);
    return s;"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Isa:
    """One way to run the kernels.

    A tile is `rows` pixels × `vectors` vectors of `lanes` float32 channels, all of it held in registers with
    the weights of one step; `columns` pixels of a row are what a depthwise kernel holds. `enabled` is what
    the compiler is told (GCC's words), `asked` the features of the processor that it takes, in C. A turn of a
    product's inner loop takes `unroll` input values (1 or 2), and fetches weights `ahead` of them by so many.
    """

    name: str
    lanes: int
    vectors: int
    rows: int
    columns: int
    unroll: int = 2
    ahead: int = 40
    enabled: str = ""
    asked: str = "0"
    vector: str = EXTENSION
    """What a vector is and how one is read and written, as C over {name} and {bytes}."""
    largest: str
    smallest: str
    """Greater and lesser of two vectors of floats, as C over {a} and {b}."""
    dot: str = ANY_DOT
    pairs: str = ""
    pack: str = ""
    """What instruction sets differ in on bytes: sums and products of fours; of pairs of numbers of 16 bits,
    one from unsigned bytes, one from signed; packing. See `int8_lanes`."""
    rounded: str = ANY_ROUNDED
    """The whole numbers nearest to floats v."""
    saturates: bool = False
    """Whether `pack` cuts whole numbers to bytes, and `rounded` takes any."""
    most_bytes: str = "{a}"
    least_bytes: str = "{a}"
    """Greater and lesser of bytes {a} and a number {b}; needed where packing cuts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Instruction sets that run on one weight file: best first; the last needs nothing beyond its base.

    Weights lie in panels of `panel` output channels, as wide as the widest tile, or a whole part of it.
    """

    name: str
    isas: tuple[Isa, ...]
    includes: tuple[str, ...] = ()
    asking: str = ""
    """The C file that tells what a processor has; without one all has to be there."""
    line: int = 0
    """Of a family that computes with bytes, those of its widest vector; of one with float32, 0."""
    halves: bool = False
    """Whether weights of depthwise layers lie as numbers of 16 bits, even ones and odd ones apart."""
    least: int = 0
    """Channels to whose multiples they are padded, where that is not the widest vector."""
    scratch_bytes: int = 256 << 10
    """What rows between a depthwise layer and its pointwise may take: of a second cache, or of all RAM."""
    threads: tuple[str, ...] = ("pthreads.c", "pool.c")
    """The C files by which a network has threads of its own; none where it has not."""
    stand_ins: tuple[str, ...] = ()
    """The C files that stand in for a C library, where there is none."""
    example: tuple[str, str] = ("main.c", "main.c")
    glue: tuple[tuple[str, str], ...] = ()
    abi: str = ""
    """Entry points for another language, C as well, and what Android calls the processor."""
    harness: tuple[str, str] = ("harness.c", "harness.c")
    """What shows the use of the code, and what feeds it frames to verify it: a file of this package each, and
    its name where it is written; @name@ is the model's."""

    @property
    def layout(self) -> Layout:
        return Layout(1, self.line, self.line // max(8, self.lanes)) if self.line else Layout(4, self.lanes)

    @property
    def lanes(self) -> int:
        """Channels of a map are padded to a multiple of this."""
        return self.least or max(isa.lanes for isa in self.isas)

    @property
    def panel(self) -> int:
        return max(isa.lanes * isa.vectors for isa in self.isas)


AVX512 = Isa(
    name="avx512",
    lanes=16,
    vectors=2,
    rows=14,
    columns=8,
    enabled="avx512f,avx512bw,avx512dq,avx512vl,avx2,fma",
    asked="FMA | AVX2 | AVX512",
    largest="(vector)_mm512_max_ps((__m512)({a}), (__m512)({b}))",
    smallest="(vector)_mm512_min_ps((__m512)({a}), (__m512)({b}))",
)
AVX2 = Isa(
    name="avx2",
    lanes=8,
    vectors=2,
    rows=6,
    columns=4,
    enabled="avx2,fma",
    asked="FMA | AVX2",
    largest="(vector)_mm256_max_ps((__m256)({a}), (__m256)({b}))",
    smallest="(vector)_mm256_min_ps((__m256)({a}), (__m256)({b}))",
)
SSE2 = Isa(
    name="sse2",
    lanes=4,
    vectors=2,
    rows=4,
    columns=4,
    largest="(vector)_mm_max_ps((__m128)({a}), (__m128)({b}))",
    smallest="(vector)_mm_min_ps((__m128)({a}), (__m128)({b}))",
)
X86 = Family(
    name="x86-64",
    isas=(AVX512, AVX2, SSE2),
    includes=("immintrin.h",),
    asking="cpuid.c",
)

NEON = Isa(
    name="neon",
    lanes=4,
    vectors=3,
    rows=8,
    columns=8,
    largest="(vector)vmaxq_f32((float32x4_t)({a}), (float32x4_t)({b}))",
    smallest="(vector)vminq_f32((float32x4_t)({a}), (float32x4_t)({b}))",
)
AARCH64 = Family(
    name="aarch64",
    isas=(NEON,),
    includes=("arm_neon.h",),
    asking="hwcap.c",
)
NEON_32 = replace(NEON, vectors=2, rows=4, columns=4)
"""Of a 32-bit processor, which has half as many registers."""
ARMV7 = Family(name="armv7", isas=(NEON_32,), includes=("arm_neon.h",))
ANDROID_ARM64 = replace(
    AARCH64,
    name="android-arm64",
    asking="",
    threads=(),
    stand_ins=("freestanding.c",),
    example=("jni.kt", "@Name@.kt"),
    glue=(("jni.c", "@name@_jni.c"),),
    abi="arm64-v8a",
)
"""Without Android's C library, whose headers its kit alone has."""
IOS_ARM64 = replace(AARCH64, name="ios-arm64", asking="", threads=())

SIMD128 = Isa(
    name="simd128",
    lanes=4,
    vectors=2,
    rows=4,
    columns=4,
    unroll=1,
    ahead=0,
    largest="(vector)wasm_f32x4_pmax((v128_t)({b}), (v128_t)({a}))",
    smallest="(vector)wasm_f32x4_pmin((v128_t)({b}), (v128_t)({a}))",
)
WASM = Family(
    name="wasm",
    isas=(SIMD128,),
    includes=("wasm_simd128.h",),
    threads=(),
    stand_ins=("freestanding.c",),
    example=("loader.mjs", "@name@.mjs"),
    harness=("harness.mjs", "harness.mjs"),
)
WASM_THREADS = replace(WASM, name="wasm-threads", threads=("workers.c", "pool.c"))

SCALARS = Isa(
    name="plain",
    lanes=1,
    vectors=4,
    rows=4,
    columns=4,
    vector=SCALAR,
    largest="({a}) > ({b}) ? ({a}) : ({b})",
    smallest="({a}) < ({b}) ? ({a}) : ({b})",
    dot=PLAIN_DOT,
)
PLAIN = Family(name="c", isas=(SCALARS,), threads=())
CORTEX_M = replace(
    PLAIN,
    name="cortex-m",
    scratch_bytes=4 << 10,
    example=("firmware.c", "main.c"),
    harness=("board.c", "board.c"),
)
RISCV64 = replace(PLAIN, name="riscv64", threads=X86.threads)
