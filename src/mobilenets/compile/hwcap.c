/* What the processor has beyond its base, as the kernel of the system tells it, or elsewhere the compiler. */
#if defined(__linux__)
#include <sys/auxv.h>
#endif

enum feature { DOT = 1 };

static int features(void)
{
#if defined(__linux__)
    return getauxval(16) & 1ul << 20 ? DOT : 0; /* AT_HWCAP, HWCAP_ASIMDDP: older headers name neither */
#elif defined(__ARM_FEATURE_DOTPROD)
    return DOT;
#else
    return 0;
#endif
}
