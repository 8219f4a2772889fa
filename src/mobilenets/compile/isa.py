"""Instruction sets as a table: how wide a vector is, how large a tile of a product, how C spells it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mobilenets.compile.step import Layout, padded

EXTENSION = """\
typedef float vector_{name} __attribute__((vector_size({bytes})));
typedef float loose_{name} __attribute__((vector_size({bytes}), aligned(4), may_alias));
#define load_{name}(p) ((vector_{name})*(const loose_{name} *)(p))
#define store_{name}(p, v) (*(loose_{name} *)(p) = (v))
"""
"""Vectors as GCC and Clang spell them for any processor."""
SCALAR = """\
typedef float vector_{name};
#define load_{name}(p) (*(p))
#define store_{name}(p, v) (*(p) = (v))
"""
"""Vectors of one float, for a compiler that has no others."""
LEAST_BYTES = 16
"""Of the narrowest vector of bytes that a depthwise kernel has."""
ANY_ROUNDED = "(sums_{tag})(v + 12582912.0f) - 0x4b400000"
"""1.5 · 2^23 is added, whose last bit weighs 1: for numbers that are small already."""
ANY_DOT = """\
    const halves_{tag} y = (halves_{tag})w;
    s = pairs_{tag}(s, EVEN_{tag}(a), (halves_{tag})((words_{tag})w << 8) >> 8);
    return pairs_{tag}(s, ODD_{tag}(a), y >> 8);"""
"""A dot product of bytes from those of numbers of 16 bits, even and odd: no sum can saturate."""
ANY_WIDE = "__builtin_convertvector(*(const loose_few_{tag} *)(p), sums_{tag})"
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
    narrow: Isa | None = None
    """The same with vectors half as wide, for layers of so few channels that no whole one is full."""
    unroll: int = 2
    ahead: int = 40
    spare: bool = False
    """Whether layers share the code of large kernels, for the few processors that have nothing better."""
    web: bool = False
    """Whether a browser compiles the code once more; see `float32_web`."""
    enabled: str = ""
    asked: str = "0"
    vector: str = EXTENSION
    """What a vector is and how one is read and written, as C over {name} and {bytes}."""
    largest: str
    smallest: str
    """Greater and lesser of two vectors of floats, as C over {a}, {b} and the type {vector}."""
    rectified: str = ""
    topped: str = ""
    """The same of a vector and noughts, and of one that is nowhere negative and another, as whole numbers of
    32 bits, whose order is that of the floats: units that multiply have no part in it. Empty for those."""
    halved: str = ""
    pairs_of_halves: str = ""
    """What writes a vector {v} to {p} as bfloat16; a sum {c} and the products of such pairs {s}, {w}."""
    dot: str = ANY_DOT
    pairs: str = ""
    pack: str = ""
    """What instruction sets differ in on bytes: sums and products of fours; of pairs of numbers of 16 bits,
    one from unsigned bytes, one from signed; packing. See `int8_lanes`."""
    kept: str = ""
    """What a product keeps for a vector of sums, and how it adds to it from sixteen bytes of a pixel in one
    register; see `int8_neon`. Where it is empty four bytes at a time are spread over a vector."""
    wide: bool = False
    """Whether bytes are widened and multiplied one input value after the other; see `int8_wide`."""
    by_tap: bool = False
    """Whether a depthwise kernel multiplies tap by tap, not rows that were put side by side."""
    rounded: str = ANY_ROUNDED
    """The whole numbers nearest to floats v."""
    saturates: bool = False
    """Whether `pack` cuts whole numbers to bytes, and `rounded` takes any."""
    quads: bool = True
    """Whether four numbers of 32 bits are multiplied by one instruction, and bytes put in any order."""
    most_bytes: str = "{a}"
    least_bytes: str = "{a}"
    """Greater and lesser of bytes {a} and {b}; needed where packing cuts."""
    widened: str = ANY_WIDE
    """As many bytes from p on as there are sums, as numbers of 32 bits."""

    def pixels(self, wide: int) -> int:
        """Those of a tile `wide` vectors wide: a narrow one has more where sixteen bytes of each are held."""
        return self.rows * (self.vectors // wide) if self.kept else self.rows


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
    signed: bool = False
    """Whether bytes are multiplied less 128, as signed ones, and lie so in maps that nobody else reads."""
    taps: bool = False
    """Whether weights of depthwise layers lie once more behind the fours, tap by tap."""
    singles: bool = False
    """Whether a product's weights lie one input value after the other, not by fours."""
    bfloat16: bool = False
    """Whether products of what depthwise layers make are of numbers in bfloat16, added up in float32."""
    least: int = 0
    """Channels to whose multiples they are padded, where that is not the widest vector."""
    scratch_bytes: int = 256 << 10
    """What rows between a depthwise layer and its pointwise may take: of a second cache, or of all RAM. See
    `program.LARGE_ROWS` for those of a map that is never whole."""
    tight: bool = False
    """Whether memory is scarcer than time."""
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
        if self.line:
            behind = LEAST_BYTES if self.line > LEAST_BYTES else 0
            return Layout(1, self.line, self.line // max(8, self.lanes), signed=self.signed, behind=behind)
        return Layout(4, self.lanes, 2 if self.isas[0].narrow else 1, self.bfloat16)

    @property
    def lanes(self) -> int:
        """Channels of a map are padded to a multiple of this."""
        return self.least or max(isa.lanes for isa in self.isas)

    def room(self, channels: int) -> int:
        """Outputs that a product with so many has, with those that fill its last vector."""
        return padded(channels, self.lanes) if self.line else self.layout.pitch(channels)

    @property
    def panel(self) -> int:
        return max(isa.lanes * isa.vectors for isa in self.isas)


AVX2 = Isa(
    name="avx2",
    lanes=8,
    vectors=2,
    rows=6,
    columns=4,
    enabled="avx2,fma",
    asked="FMA | AVX2",
    largest="({vector})_mm256_max_ps((__m256)({a}), (__m256)({b}))",
    smallest="({vector})_mm256_min_ps((__m256)({a}), (__m256)({b}))",
    rectified="({vector})_mm256_max_epi32((__m256i)({a}), (__m256i)({b}))",
    topped="({vector})_mm256_min_epi32((__m256i)({a}), (__m256i)({b}))",
)
AVX512 = Isa(
    name="avx512",
    lanes=16,
    vectors=2,
    rows=14,
    columns=8,
    narrow=replace(AVX2, name="avx512_half", rows=14, columns=8),
    enabled="avx512f,avx512bw,avx512dq,avx512vl,avx2,fma",
    asked="FMA | AVX2 | AVX512",
    largest="({vector})_mm512_max_ps((__m512)({a}), (__m512)({b}))",
    smallest="({vector})_mm512_min_ps((__m512)({a}), (__m512)({b}))",
    rectified="({vector})_mm512_max_epi32((__m512i)({a}), (__m512i)({b}))",
    topped="({vector})_mm512_min_epi32((__m512i)({a}), (__m512i)({b}))",
)
SSE2 = Isa(
    name="sse2",
    lanes=4,
    vectors=2,
    rows=4,
    columns=4,
    quads=False,
    largest="({vector})_mm_max_ps((__m128)({a}), (__m128)({b}))",
    smallest="({vector})_mm_min_ps((__m128)({a}), (__m128)({b}))",
)
X86 = Family(
    name="x86-64",
    isas=(AVX512, AVX2, SSE2),
    includes=("immintrin.h",),
    asking="cpuid.c",
)
X86_BFLOAT16 = Family(
    name="x86-64",
    isas=(
        replace(
            AVX512,
            name="avx512_bf16",
            narrow=None,
            enabled=f"{AVX512.enabled},avx512bf16",
            asked=f"{AVX512.asked} | BFLOAT16",
            halved="_mm256_storeu_si256((__m256i *)({p}), (__m256i)_mm512_cvtneps_pbh((__m512)({v})))",
            pairs_of_halves=(
                "({vector})_mm512_dpbf16_ps((__m512){c}, (__m512bh)_mm512_set1_ps({s}), (__m512bh){w})"
            ),
        ),
    ),
    includes=("immintrin.h",),
    asking="cpuid.c",
    bfloat16=True,
)
"""For a body whose outputs need not be those of float32 to the last digits; there is no code for others."""

NEON = Isa(
    name="neon",
    lanes=4,
    vectors=3,
    rows=8,
    columns=8,
    largest="({vector})vmaxq_f32((float32x4_t)({a}), (float32x4_t)({b}))",
    smallest="({vector})vminq_f32((float32x4_t)({a}), (float32x4_t)({b}))",
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
SOFT = "vfp2"
"""Where floats pass as integers the cross compiler takes this away, and vectors with it, unless asked."""
ANDROID_ARM32 = replace(
    ANDROID_ARM64,
    name="android-arm32",
    isas=(replace(NEON_32, enabled=SOFT),),
    includes=ARMV7.includes,
    abi="armeabi-v7a",
)
IOS_ARM64 = replace(AARCH64, name="ios-arm64", asking="", threads=())

SIMD128 = Isa(
    name="simd128",
    lanes=4,
    vectors=2,
    rows=5,
    columns=4,
    unroll=1,
    ahead=0,
    web=True,
    largest="({vector})wasm_f32x4_pmax((v128_t)({b}), (v128_t)({a}))",
    smallest="({vector})wasm_f32x4_pmin((v128_t)({b}), (v128_t)({a}))",
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
    quads=False,
    largest="({a}) > ({b}) ? ({a}) : ({b})",
    smallest="({a}) < ({b}) ? ({a}) : ({b})",
    dot=PLAIN_DOT,
)
PLAIN = Family(name="c", isas=(SCALARS,), threads=())
CORTEX_M = replace(
    PLAIN,
    name="cortex-m",
    scratch_bytes=4 << 10,
    tight=True,
    example=("firmware.c", "main.c"),
    harness=("board.c", "board.c"),
)
RVV_8 = Isa(
    name="rvv_half",
    lanes=8,
    vectors=1,
    rows=7,
    columns=4,
    largest="__builtin_elementwise_max({a}, {b})",
    smallest="__builtin_elementwise_min({a}, {b})",
)
RVV = replace(RVV_8, name="rvv", lanes=16, narrow=RVV_8, enabled="arch=+v", asked="VECTORS_1")
"""Four registers of 128 bits at a time, by one instruction; of longer ones a part."""
RISCV64 = replace(PLAIN, name="riscv64", isas=(RVV, SCALARS), asking="hwprobe.c", threads=X86.threads)
