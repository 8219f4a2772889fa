/* What kernels of bytes have in common. Each operation on floats rounds by itself, whatever the flags. */
#if defined(__clang__)
#pragma clang fp contract(off)
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off")
#endif
/* What numbers become: bent by a curve (1: hard swish, 2: hard sigmoid), cut and rounded to quantities less
 * their zero. Of `tame` ones packing does the cutting; bytes lie less `less`. */
struct ending {
    int least, most, zero, tame, less, curve;
    float slope;
};

/* What is added to a product: where pixels of the map lie and what its zero is there, the product's own bounds,
 * and a step of either in those of the sum, times 2^shift. */
struct addend {
    int pixel, row, zero, least, most, by, more, shift;
};

#if VECTORS
#if defined(__clang__)
#define SHUFFLE_64(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#define SHUFFLE_32(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#define SHUFFLE_16(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#define SPREAD_64(a, ...) __builtin_shufflevector(a, a, __VA_ARGS__)
#define SPREAD_32(a, ...) __builtin_shufflevector(a, a, __VA_ARGS__)
#define SPREAD_16(a, ...) __builtin_shufflevector(a, a, __VA_ARGS__)
#else
typedef uint8_t order_64 __attribute__((vector_size(64)));
typedef uint8_t order_32 __attribute__((vector_size(32)));
typedef uint8_t order_16 __attribute__((vector_size(16)));
#define SHUFFLE_64(a, b, ...) __builtin_shuffle(a, b, (order_64){__VA_ARGS__})
#define SHUFFLE_32(a, b, ...) __builtin_shuffle(a, b, (order_32){__VA_ARGS__})
#define SHUFFLE_16(a, b, ...) __builtin_shuffle(a, b, (order_16){__VA_ARGS__})
typedef int32_t places_64 __attribute__((vector_size(64)));
typedef int32_t places_32 __attribute__((vector_size(32)));
typedef int32_t places_16 __attribute__((vector_size(16)));
#define SPREAD_64(a, ...) __builtin_shuffle(a, (places_64){__VA_ARGS__})
#define SPREAD_32(a, ...) __builtin_shuffle(a, (places_32){__VA_ARGS__})
#define SPREAD_16(a, ...) __builtin_shuffle(a, (places_16){__VA_ARGS__})
#endif
typedef int32_t four_bytes __attribute__((aligned(1), may_alias));
#endif

static APART MAYBE int32_t total(const value *at, int count)
{
    int32_t sum = 0;
    for (int i = 0; i < count; i++)
        sum += at[i];
    return sum;
}
