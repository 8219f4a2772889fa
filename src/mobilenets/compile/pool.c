/* Threads that run the steps together. A thread has a part of each step of its own, and takes another's that has
 * not begun it: one that the system keeps from running holds up what it has begun, and nothing else. */
struct pool {
    struct system system;
    atomic_uint turn;   /* goes up by one with each picture */
    atomic_int ended;
    atomic_uint done;   /* parts, of all steps of all pictures */
    atomic_int asleep;  /* threads that wait for a picture */
    atomic_int resting; /* threads that wait for a part */
    atomic_uint begun[MOST_THREADS]; /* how many steps each part has begun */
    int64_t gain, alone_until;       /* nanoseconds: what threads save the caller; how long it does without them */
};

/* Threads that the system keeps from running cost their caller more than they save. Who was held up works alone for
 * so many times as long: whatever else a machine does, little is lost to it. */
#define ALONE 48
#define MOST_GAIN_NS 4000000  /* of one slice of another process: one is forgiven where all goes well */
#define MOST_ALONE_NS 200000000

static int take(struct state *net, int part, int step, unsigned number)
{
    struct pool *pool = net->pool;
    const step_function *steps = net->isa->steps;
    unsigned expected = number;
    if (!atomic_compare_exchange_strong(&pool->begun[part], &expected, number + 1))
        return 0;
    steps[step](net, part, net->parts);
    atomic_fetch_add(&pool->done, 1);
    if (atomic_load(&pool->resting))
        wake_all(&pool->system, &pool->done);
    return 1;
}

/* All steps of a picture; `number` is that of the first, counted from the first picture. Returns the nanoseconds for
 * which it had nothing to do while others ended what they had begun. */
static int64_t run_part(struct state *net, int part, unsigned number)
{
    struct pool *pool = net->pool;
    const unsigned parts = (unsigned)net->parts;
    int patience = PATIENCE;
    int64_t held = 0;
    for (int step = 0; step < STEPS; step++, number++) {
        take(net, part, step, number);
        unsigned done;
        int taken = 0;
        int64_t since = 0;
        for (int spins = 1; (int)((done = atomic_load(&pool->done)) - (number + 1) * parts) < 0; spins++) {
            PAUSE();
            if (spins % patience == 0)
                for (int other = 0; other < net->parts; other++)
                    taken |= take(net, other, step, number);
            if (spins == 3 * PATIENCE && !since)
                since = now_ns();
            if (spins > SPINS) {
                atomic_fetch_add(&pool->resting, 1);
                REST(&pool->system, part, &pool->done, done);
                atomic_fetch_sub(&pool->resting, 1);
                spins = 0;
            }
        }
        if (since)
            held += now_ns() - since;
        patience = taken ? 1 : PATIENCE; /* who was away a moment ago most likely still is */
    }
    return held;
}

/* What a thread does until the network ends. */
static void work(struct state *net, int part)
{
    struct pool *pool = net->pool;
    for (unsigned seen = 0;;) {
        unsigned turn;
        int spins = 0;
        while ((turn = atomic_load(&pool->turn)) == seen) {
            PAUSE();
            if (++spins > SPINS) {
                atomic_fetch_add(&pool->asleep, 1);
                sleep_while(&pool->system, &pool->turn, seen);
                atomic_fetch_sub(&pool->asleep, 1);
            }
        }
        if (atomic_load(&pool->ended))
            return;
        seen = turn;
        run_part(net, part, (turn - 1) * STEPS);
    }
}

static unsigned next_turn(struct pool *pool)
{
    const unsigned turn = atomic_fetch_add(&pool->turn, 1);
    if (atomic_load(&pool->asleep))
        wake_all(&pool->system, &pool->turn);
    return turn;
}

static void run_together(struct state *net, int64_t begun)
{
    struct pool *pool = net->pool;
    const int64_t held = run_part(net, 0, next_turn(pool) * STEPS), ended = now_ns();
    pool->gain += (ended - begun - held) / 2 - held;
    if (pool->gain > MOST_GAIN_NS)
        pool->gain = MOST_GAIN_NS;
    if (pool->gain < 0) {
        pool->gain = 0;
        pool->alone_until = ended + (held < MOST_ALONE_NS / ALONE ? held * ALONE : MOST_ALONE_NS);
    }
}

static void run_steps(struct state *net)
{
    const step_function *steps = net->isa->steps;
    if (net->parts > 1) {
        const int64_t now = now_ns(), left = net->pool->alone_until - now;
        if (left <= 0 || left > MOST_ALONE_NS) { /* more is left where the clock was set back */
            run_together(net, now);
            return;
        }
    }
    for (int i = 0; i < STEPS; i++)
        steps[i](net, 0, 1);
}

static int start_threads(struct state *net, int parts)
{
    struct pool *pool = net->pool;
    *pool = (struct pool){.turn = 0};
    net->parts = parts;
    return begin_threads(&pool->system, net, parts);
}

static void end_threads(struct state *net)
{
    atomic_store(&net->pool->ended, 1);
    next_turn(net->pool);
    join_threads(&net->pool->system);
}
