/* Threads that run the steps together and wait for one another after each. */
struct pool {
    struct system system;
    atomic_int turn;    /* goes up by one with each picture; below zero the threads end */
    atomic_int arrived; /* threads at the barrier */
    atomic_int passed;  /* barriers behind us */
    atomic_int asleep;
};

static void barrier(struct pool *pool, int part, int parts)
{
    const int before = atomic_load_explicit(&pool->passed, memory_order_relaxed);
    (void)part;
    if (atomic_fetch_add_explicit(&pool->arrived, 1, memory_order_acq_rel) == parts - 1) {
        atomic_store_explicit(&pool->arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&pool->passed, before + 1, memory_order_release);
        return;
    }
    for (int spins = 0; atomic_load_explicit(&pool->passed, memory_order_acquire) == before;) {
        PAUSE();
        if (++spins > SPINS) {
            LET_OTHERS_RUN(part, &pool->passed, before);
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
            barrier(net->pool, part, net->parts);
    }
}

/* What a thread does until the network ends. */
static void work(struct state *net, int part)
{
    struct pool *pool = net->pool;
    for (int seen = 0;;) {
        int turn, spins = 0;
        while ((turn = atomic_load_explicit(&pool->turn, memory_order_acquire)) == seen) {
            PAUSE();
            if (++spins > SPINS) {
                atomic_fetch_add(&pool->asleep, 1);
                sleep_while(&pool->system, &pool->turn, seen);
                atomic_fetch_sub(&pool->asleep, 1);
            }
        }
        if (turn < 0)
            return;
        seen = turn;
        run_part(net, part);
    }
}

static void next_turn(struct pool *pool, int turn)
{
    atomic_store(&pool->turn, turn);
    if (atomic_load(&pool->asleep))
        wake_all(&pool->system, &pool->turn);
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
    net->parts = parts;
    return begin_threads(&pool->system, net, parts);
}

static void end_threads(struct state *net)
{
    next_turn(net->pool, -1);
    join_threads(&net->pool->system);
}
