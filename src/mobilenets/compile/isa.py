"""Instruction sets as a table: how wide a vector is, how large a tile of a product, how C spells it."""

from __future__ import annotations

from dataclasses import dataclass

from mobilenets.compile.step import Layout

ANY_ROUNDED = "(sums_{tag})(v + 12582912.0f) - 0x4b400000"
"""1.5 · 2^23 is added, whose last bit weighs 1: for numbers that are small already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Isa:
    """One way to run the kernels.

    A tile is `rows` pixels × `vectors` vectors of `lanes` float32 channels, all of it held in registers with
    the weights of one step; `columns` pixels of a row are what a depthwise kernel holds. `enabled` is what
    the compiler is told (GCC's words), `asked` the features of the processor that it takes, in C.
    """

    name: str
    lanes: int
    vectors: int
    rows: int
    columns: int
    enabled: str = ""
    asked: str = "0"
    largest: str = ""
    smallest: str = ""
    """Greater and lesser of two vectors of floats, as C over {a} and {b}."""
    dot: str = ""
    pack: str = ""
    """Bodies of the functions on bytes that instruction sets differ in; see `int8_lanes.VECTORS`."""
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
    least: int = 0
    """Channels to whose multiples they are padded, where that is not the widest vector."""

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

X86_MOST = "(floats_{tag}){mm}_max_ps(({mf})({a}), ({mf})({b}))"
X86_LEAST = "(floats_{tag}){mm}_min_ps(({mf})({a}), ({mf})({b}))"
X86_VNNI = "    return (sums_{tag}){mm}_dpbusd_epi32(({mi})s, ({mi})a, ({mi})w);"
X86_PAIRS = """\
    /* even and odd bytes as numbers of 16 bits: no product of pairs can saturate */
    const {mi} low = {mm}_set1_epi16(255), x = ({mi})a, y = ({mi})w;
    const {mi} even = {mm}_madd_epi16({mm}_and_{si}(x, low), {mm}_srai_epi16({mm}_slli_epi16(y, 8), 8));
    const {mi} odd = {mm}_madd_epi16({mm}_srli_epi16(x, 8), {mm}_srai_epi16(y, 8));
    return s + (sums_{tag})even + (sums_{tag})odd;"""
X86_PACK = """\
    const {mi} left = {mm}_packs_epi32(({mi})a, ({mi})b), right = {mm}_packs_epi32(({mi})c, ({mi})d);
    bytes_{tag} q = (bytes_{tag}){mm}_packus_epi16(left, right);"""
X86_ROUNDED = "(sums_{tag}){mm}_cvtps_epi32(({mf})v)"
X86_MOST_BYTES = "(bytes_{tag}){mm}_max_epu8(({mi}){a}, {mm}_set1_epi8((char){b}))"
X86_LEAST_BYTES = "(bytes_{tag}){mm}_min_epu8(({mi}){a}, {mm}_set1_epi8((char){b}))"
AVX512_VNNI_BYTES = Isa(
    name="avx512vnni",
    lanes=16,
    vectors=2,
    rows=14,
    columns=4,
    enabled="avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma",
    asked="FMA | AVX2 | AVX512 | VNNI",
    largest=X86_MOST,
    smallest=X86_LEAST,
    dot=X86_VNNI,
    pack=X86_PACK,
    rounded=X86_ROUNDED,
    saturates=True,
    most_bytes=X86_MOST_BYTES,
    least_bytes=X86_LEAST_BYTES,
)
AVX2_BYTES = Isa(
    name="avx2",
    lanes=8,
    vectors=2,
    rows=4,
    columns=1,
    enabled="avx2,fma",
    asked="FMA | AVX2",
    largest=X86_MOST,
    smallest=X86_LEAST,
    dot=X86_PAIRS,
    pack=X86_PACK,
    rounded=X86_ROUNDED,
    saturates=True,
    most_bytes=X86_MOST_BYTES,
    least_bytes=X86_LEAST_BYTES,
)
SSE2_BYTES = Isa(
    name="sse2",
    lanes=4,
    vectors=2,
    rows=4,
    columns=1,
    largest=X86_MOST,
    smallest=X86_LEAST,
    dot=X86_PAIRS,
    pack=X86_PACK,
    rounded=X86_ROUNDED,
    saturates=True,
    most_bytes=X86_MOST_BYTES,
    least_bytes=X86_LEAST_BYTES,
)
X86_BYTES = Family(
    name="x86-64",
    isas=(AVX512_VNNI_BYTES, AVX2_BYTES, SSE2_BYTES),
    includes=("immintrin.h",),
    asking="cpuid.c",
    line=64,
    least=8,
)
SCALAR_BYTES = Isa(
    name="plain",
    lanes=1,
    vectors=4,
    rows=2,
    columns=1,
    largest="({a}) > ({b}) ? ({a}) : ({b})",
    smallest="({a}) < ({b}) ? ({a}) : ({b})",
)
PLAIN_BYTES = Family(name="c", isas=(SCALAR_BYTES,), line=16)
