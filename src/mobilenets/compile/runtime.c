/* What every compiled network has in common: memory and threads. */
#define INLINE inline __attribute__((always_inline, unused))
#define APART __attribute__((noinline))
#define FETCH(p) __builtin_prefetch(p)
#define LEAST(a, b) ((a) < (b) ? (a) : (b))
#define SHARE(part, parts, count) ((count) * (part) / (parts))
#if defined(__clang__)
#define UNROLL_1 _Pragma("clang loop unroll(disable)")
#define UNROLL_2 _Pragma("clang loop unroll_count(2)")
#define UNROLL_8 _Pragma("clang loop unroll(full)")
#else
#define UNROLL_1 _Pragma("GCC unroll 1")
#define UNROLL_2 _Pragma("GCC unroll 2")
#define UNROLL_8 _Pragma("GCC unroll 8")
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
    const void *steps;
    int parts;
    int max_width, max_height;
    struct view view;
    struct axis across, down;
#if !INTEGER
    float levels[3][256];  /* what a level of each colour is to the network */
#endif
    int32_t *held, *sums;  /* which row of the frame lies in which line; a row of the resize */
    uint8_t *line, *made;
    int lines;
#if THREADS
    struct pool *pool;
#endif
};
typedef void (*step_function)(struct state *net, int part, int parts);

static APART __attribute__((unused)) void fill(value *at, int count, value with)
{
    for (int i = 0; i < count; i++)
        at[i] = with;
}

#if THREADS
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#if defined(__x86_64__)
#define PAUSE() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define PAUSE() __asm__ volatile("yield")
#else
#define PAUSE() ((void)0)
#endif
#define SPINS 4000 /* pauses, some tens of microseconds, before a waiting thread lets another run */

/* Threads that run the steps together and wait for one another after each. */
struct pool {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    atomic_int turn;    /* goes up by one with each picture; below zero the threads end */
    atomic_int arrived; /* threads at the barrier */
    atomic_int passed;  /* barriers behind us */
    atomic_int asleep;
    int threads;
    pthread_t thread[MOST_THREADS];
    struct part {
        struct state *net;
        int part;
    } part[MOST_THREADS];
};

static void barrier(struct pool *pool, int parts)
{
    const int before = atomic_load_explicit(&pool->passed, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&pool->arrived, 1, memory_order_acq_rel) == parts - 1) {
        atomic_store_explicit(&pool->arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&pool->passed, before + 1, memory_order_release);
        return;
    }
    for (int spins = 0; atomic_load_explicit(&pool->passed, memory_order_acquire) == before;) {
        PAUSE();
        if (++spins > SPINS) {
            sched_yield();
            spins = 0;
        }
    }
}

static void run_part(struct state *net, int part)
{
    const step_function *steps = net->steps;
    for (int i = 0; i < STEPS; i++) {
        steps[i](net, part, net->parts);
        if (net->parts > 1)
            barrier(net->pool, net->parts);
    }
}

static void *thread_main(void *given)
{
    const struct part own = *(struct part *)given;
    struct pool *pool = own.net->pool;
    for (int seen = 0;;) {
        int turn, spins = 0;
        while ((turn = atomic_load_explicit(&pool->turn, memory_order_acquire)) == seen) {
            PAUSE();
            if (++spins > SPINS) {
                pthread_mutex_lock(&pool->lock);
                atomic_fetch_add(&pool->asleep, 1);
                while (atomic_load(&pool->turn) == seen)
                    pthread_cond_wait(&pool->wake, &pool->lock);
                atomic_fetch_sub(&pool->asleep, 1);
                pthread_mutex_unlock(&pool->lock);
            }
        }
        if (turn < 0)
            return NULL;
        seen = turn;
        run_part(own.net, own.part);
    }
}

static void next_turn(struct pool *pool, int turn)
{
    atomic_store(&pool->turn, turn);
    if (atomic_load(&pool->asleep)) {
        pthread_mutex_lock(&pool->lock);
        pthread_cond_broadcast(&pool->wake);
        pthread_mutex_unlock(&pool->lock);
    }
}

static void run_steps(struct state *net)
{
    if (net->parts > 1) {
        const int turn = atomic_load(&net->pool->turn);
        next_turn(net->pool, turn == INT32_MAX ? 1 : turn + 1);
    }
    run_part(net, 0);
}

static int start_threads(struct state *net, int parts)
{
    struct pool *pool = net->pool;
    *pool = (struct pool){.turn = 0};
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->wake, NULL);
    net->parts = parts;
    for (int i = 1; i < parts; i++) {
        pool->part[i] = (struct part){net, i};
        if (pthread_create(&pool->thread[i], NULL, thread_main, &pool->part[i]))
            return -1;
        pool->threads = i;
    }
    return 0;
}

static void end_threads(struct state *net)
{
    struct pool *pool = net->pool;
    next_turn(pool, -1);
    for (int i = 1; i <= pool->threads; i++)
        pthread_join(pool->thread[i], NULL);
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->lock);
}
#else
static void run_steps(struct state *net)
{
    const step_function *steps = net->steps;
    for (int i = 0; i < STEPS; i++)
        steps[i](net, 0, 1);
}
#endif
