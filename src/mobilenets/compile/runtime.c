/* What every compiled network has in common. */
#if defined(__GNUC__)
#define INLINE inline __attribute__((always_inline, unused))
#define APART __attribute__((noinline))
#define MAYBE __attribute__((unused))
#define FETCH(p) __builtin_prefetch(p)
#define HIDE(n) __asm__("" : "+r"(n)) /* what n is the compiler is not to know */
#else
#define INLINE inline
#define APART
#define MAYBE
#define FETCH(p) ((void)(p))
#endif
#define LEAST(a, b) ((a) < (b) ? (a) : (b))
#define SHARE(part, parts, count) ((count) * (part) / (parts))
#if defined(__clang__)
#define UNROLL_1 _Pragma("clang loop unroll(disable)")
#define UNROLL_2 _Pragma("clang loop unroll_count(2)")
#define UNROLL_8 _Pragma("clang loop unroll(full)")
#elif defined(__GNUC__)
#define UNROLL_1 _Pragma("GCC unroll 1")
#define UNROLL_2 _Pragma("GCC unroll 2")
#define UNROLL_8 _Pragma("GCC unroll 8")
#else
#define UNROLL_1
#define UNROLL_2
#define UNROLL_8
#endif

/* A window of `down` × `across` stretches of `run` values; outputs lie in rows of `width`. */
#define TILE_SIZES                                                                                  \
    const int down, const int below, const int across, const int beside, const int run,             \
        const int panel, const int width, const int pixel_a, const int row_a, const int pixel_c,    \
        const int row_c
#define AT(i, m) ((i) / width * row_##m + (i) % width * pixel_##m)

struct axis { /* outputs of one axis of a resize: the first sample of each, and `taps` weights */
    int samples, places, taps;
    int32_t *first;
    int32_t *weight;
};

struct view { /* the part of a frame that is read, and where it comes to lie in the input */
    int top, left, height, width;
    int above, beside, tall, wide;
};

struct state {
    const value *weights;
    value *arena;
    const struct isa *isa;
    int parts;
    int max_width, max_height;
    struct view view;
    const float *input;    /* values of the input's size, or else levels */
    const uint8_t *given;
    ptrdiff_t given_stride;
    struct axis across, down;
#if !INTEGER
    float levels[3][256];  /* what a level of each colour is to the network */
#endif
    int32_t *held, *sums;  /* which row of the frame lies in which line; a row of the resize */
    uint8_t *line;
    int lines;
#if THREADS
    struct pool *pool;
#endif
};
typedef void (*step_function)(struct state *net, int part, int parts);

struct isa { /* a way to run: what it takes of a processor, and what it does */
    const char *name;
    int takes;
    void (*take_frame)(struct state *net, const uint8_t *rgb, int width, int height, ptrdiff_t stride);
    const step_function *steps;
};

static APART MAYBE void fill(value *at, int count, value with)
{
    for (int i = 0; i < count; i++)
        at[i] = with;
}

#if !THREADS
static void run_steps(struct state *net)
{
    const step_function *steps = net->isa->steps;
    for (int i = 0; i < STEPS; i++)
        steps[i](net, 0, 1);
}
#endif
