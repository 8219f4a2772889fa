/* Threads of the system: how one is started, and how one sleeps. */
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#if defined(__x86_64__)
#define PAUSE() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define PAUSE() __asm__ volatile("yield")
#else
#define PAUSE() ((void)0)
#endif
#define SPINS 2000    /* pauses, some tens of microseconds, before a waiting thread sleeps */
#define PATIENCE 30  /* pauses, some microseconds, before it takes what another has not begun */
#define REST(system, part, word, seen) sleep_while(system, word, seen)

/* Zero where the language has no such clock, as C99 asked for by name. */
static int64_t now_ns(void)
{
#ifdef TIME_UTC
    struct timespec now;
    timespec_get(&now, TIME_UTC);
    return now.tv_sec * (int64_t)1000000000 + now.tv_nsec;
#else
    return 0;
#endif
}

static void work(struct state *net, int part);

struct system {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    int threads;
    pthread_t thread[MOST_THREADS];
    struct part {
        struct state *net;
        int part;
    } part[MOST_THREADS];
};

static void *thread_main(void *given)
{
    const struct part *own = given;
    work(own->net, own->part);
    return NULL;
}

static int begin_threads(struct system *system, struct state *net, int parts)
{
    pthread_mutex_init(&system->lock, NULL);
    pthread_cond_init(&system->wake, NULL);
    for (int i = 1; i < parts; i++) {
        system->part[i] = (struct part){net, i};
        if (pthread_create(&system->thread[i], NULL, thread_main, &system->part[i]))
            return -1;
        system->threads = i;
    }
    return 0;
}

static void join_threads(struct system *system)
{
    for (int i = 1; i <= system->threads; i++)
        pthread_join(system->thread[i], NULL);
    pthread_cond_destroy(&system->wake);
    pthread_mutex_destroy(&system->lock);
}

static void sleep_while(struct system *system, atomic_uint *word, unsigned seen)
{
    pthread_mutex_lock(&system->lock);
    while (atomic_load(word) == seen)
        pthread_cond_wait(&system->wake, &system->lock);
    pthread_mutex_unlock(&system->lock);
}

static void wake_all(struct system *system, atomic_uint *word)
{
    (void)word;
    pthread_mutex_lock(&system->lock);
    pthread_cond_broadcast(&system->wake);
    pthread_mutex_unlock(&system->lock);
}
