/* Threads that JavaScript starts: each is a Worker with this module on the same memory. */
#include <stdatomic.h>

#define PAUSE() ((void)0)
#define SPINS 20000   /* some tens of microseconds before a waiting thread sleeps */
#define PATIENCE 1000 /* some microseconds before it takes what another has not begun */
#define SHORTLY_NS 100000
/* The caller has part 0. It may be a browser's main thread, which must not wait: it spins. */
#define REST(system, part, word, seen) ((part) ? rest(word, seen, SHORTLY_NS) : (void)(system))

/* WebAssembly has no clock, and a caller that spins was never asleep. */
static int64_t now_ns(void)
{
    return 0;
}

struct system {
    int parts;
};

static void work(struct state *net, int part);

/* Apart: with a wait within it V8's first compiler (Node 20) lets threads through a barrier too early. */
static APART void rest(atomic_uint *word, unsigned seen, int64_t most_ns)
{
    __builtin_wasm_memory_atomic_wait32((int *)word, (int)seen, most_ns);
}

/* Run a part of each picture until @name@_free: what a Worker calls. */
void @name@_work(@name@_model *net, int part)
{
    work((struct state *)net, part);
}

static int begin_threads(struct system *system, struct state *net, int parts)
{
    (void)net;
    system->parts = parts;
    return 0;
}

static void join_threads(struct system *system)
{
    (void)system;
}

static void sleep_while(struct system *system, atomic_uint *word, unsigned seen)
{
    (void)system;
    while (atomic_load(word) == seen)
        rest(word, seen, -1);
}

static void wake_all(struct system *system, atomic_uint *word)
{
    __builtin_wasm_memory_atomic_notify((int *)word, (unsigned)system->parts);
}
