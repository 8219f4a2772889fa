/* What the processor has and the system saves, asked for here: compilers' own question is not always answered. */
#include <cpuid.h>

enum feature { FMA = 1, AVX2 = 2, AVX512 = 4, VNNI = 8, BFLOAT16 = 16 };

static int features(void)
{
    unsigned a = 0, b = 0, c = 0, d = 0, low = 0, high = 0;
    int found = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c >> 27 & 1))
        return 0;
    const int fma = c >> 12 & 1;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    if ((low & 0x6) != 0x6 || !__get_cpuid_count(7, 0, &a, &b, &c, &d))
        return 0;
    found |= (fma ? FMA : 0) | (b >> 5 & 1 ? AVX2 : 0);
    const unsigned wide = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31; /* F, DQ, BW, VL */
    if ((low & 0xe6) == 0xe6 && (b & wide) == wide)
        found |= AVX512 | (c >> 11 & 1 ? VNNI : 0);
    if (found & AVX512 && __get_cpuid_count(7, 1, &a, &b, &c, &d))
        found |= a >> 5 & 1 ? BFLOAT16 : 0;
    return found;
}
