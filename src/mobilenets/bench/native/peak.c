/* Multiply-adds that stay in registers: the most that float32 and bytes can reach on this machine. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#if defined(__AVX512F__)
#define BYTES 64
#elif defined(__AVX__)
#define BYTES 32
#else
#define BYTES 16
#endif

typedef float floats __attribute__((vector_size(BYTES)));
typedef int32_t ints __attribute__((vector_size(BYTES)));

/* DOT adds products of bytes to sums of 32 bits by the best instruction there is; PRODUCTS is how many. */
#if defined(__AVX512VNNI__)
#define DOT(sum, a, b) (ints)_mm512_dpbusd_epi32((__m512i)(sum), (__m512i)(a), (__m512i)(b))
#define PRODUCTS 64
#elif defined(__AVX512BW__)
#define PAIRS(a, b) _mm512_maddubs_epi16((__m512i)(a), (__m512i)(b))
#define DOT(sum, a, b) (sum) + (ints)_mm512_madd_epi16(PAIRS(a, b), _mm512_set1_epi16(1))
#define PRODUCTS 64
#elif defined(__AVXVNNI__)
#define DOT(sum, a, b) (ints)_mm256_dpbusd_avx_epi32((__m256i)(sum), (__m256i)(a), (__m256i)(b))
#define PRODUCTS 32
#elif defined(__AVX2__)
#define PAIRS(a, b) _mm256_maddubs_epi16((__m256i)(a), (__m256i)(b))
#define DOT(sum, a, b) (sum) + (ints)_mm256_madd_epi16(PAIRS(a, b), _mm256_set1_epi16(1))
#define PRODUCTS 32
#elif defined(__ARM_FEATURE_DOTPROD)
#define DOT(sum, a, b) (ints)vdotq_s32((int32x4_t)(sum), (int8x16_t)(a), (int8x16_t)(b))
#define PRODUCTS 16
#elif defined(__ARM_NEON)
#define PAIRS(a, b) vmull_s8(vget_low_s8((int8x16_t)(a)), vget_low_s8((int8x16_t)(b)))
#define DOT(sum, a, b) (ints)vpadalq_s16((int32x4_t)(sum), PAIRS(a, b))
#define PRODUCTS 8
#else
#define DOT(sum, a, b) (sum) + (a) * (b)
#define PRODUCTS (BYTES / 4)
#endif
#define FMA(sum, a, b) (sum) + (a) * (b)

/* Sums that do not wait for one another: more than an instruction takes, times those that go at once. */
#if defined(__AVX512F__) || defined(__aarch64__)
#define CHAINS 24
#define EACH(m) TWELVE(m) m(12) m(13) m(14) m(15) m(16) m(17) m(18) m(19) m(20) m(21) m(22) m(23)
#else
#define CHAINS 12
#define EACH(m) TWELVE(m)
#endif
#define TWELVE(m) m(0) m(1) m(2) m(3) m(4) m(5) m(6) m(7) m(8) m(9) m(10) m(11)

/* Keeps the compiler from knowing a value, and so from doing once what is to be done each time. */
#if defined(__x86_64__) || defined(__i386__)
#define OPAQUE(v) __asm__ volatile("" : "+x"(v));
#elif defined(__aarch64__)
#define OPAQUE(v) __asm__ volatile("" : "+w"(v));
#else
#define OPAQUE(v) __asm__ volatile("" : "+m"(v));
#endif

#define SUM(i) sum##i = {0},
#define UNKNOWN(i) OPAQUE(sum##i)
#define ADD(i) sum##i = FMA(sum##i, a, b);
#define ADD_BYTES(i) sum##i = DOT(sum##i, a, b);
#define WORK(name, type, step)                                                                              \
    static void name(long rounds)                                                                           \
    {                                                                                                       \
        type EACH(SUM) a = {0}, b = {0};                                                                    \
        EACH(UNKNOWN) /* equal sums would be taken for one */                                               \
        for (long i = 0; i < rounds; i++) {                                                                 \
            OPAQUE(a)                                                                                       \
            OPAQUE(b)                                                                                       \
            EACH(step)                                                                                      \
        }                                                                                                   \
        EACH(UNKNOWN)                                                                                       \
    }
WORK(work_float32, floats, ADD)
WORK(work_int8, ints, ADD_BYTES)

/* Helpers wait for the next turn by spinning: nothing but the work is to be seen in a call's time. */
static atomic_int turn, done, helpers;
static void (*work_now)(long rounds);
static long rounds_now;

static void *helper(void *unused)
{
    (void)unused;
    for (int seen = 0;;) {
        while (atomic_load(&turn) == seen)
            ;
        seen++;
        work_now(rounds_now);
        atomic_fetch_add(&done, 1);
    }
    return 0;
}

/* Work of so many rounds by as many threads as the first call asked for; the operations that was. */
static double peak(void (*work)(long rounds), double operations, int threads, long rounds)
{
    pthread_t thread;
    while (atomic_load(&helpers) < threads - 1) {
        if (pthread_create(&thread, 0, helper, 0))
            return 0;
        pthread_detach(thread);
        atomic_fetch_add(&helpers, 1);
    }
    work_now = work;
    rounds_now = rounds;
    atomic_store(&done, 0);
    atomic_fetch_add(&turn, 1);
    work(rounds);
    while (atomic_load(&done) < atomic_load(&helpers))
        ;
    return operations * CHAINS * (double)rounds * (1 + atomic_load(&helpers));
}

/* Two operations for a multiply-add. */
double peak_float32(int threads, long rounds)
{
    return peak(work_float32, 2.0 * BYTES / 4, threads, rounds);
}

double peak_int8(int threads, long rounds)
{
    return peak(work_int8, 2.0 * PRODUCTS, threads, rounds);
}
