/* A library that `mobilenets compile` built, by the functions of its header. */
#define _GNU_SOURCE
#include "turns.h"
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

struct output {
    const char *name, *dtype;
    int rank, shape[4];
    float scale;
    int zero;
};

static void *library, *net;
static const void *given;
static int (*run)(void *net, const void *input);
static const void *(*output_of)(const void *net, int index);
static const struct output *outputs;

/* A function of the library under its network's name; NULL where there is none. */
static void *found(const char *what)
{
    char name[160];
    const char *of = dlsym(library, "mobilenets_name");
    snprintf(name, sizeof name, "%s_%s", of ? of : "", what);
    return dlsym(library, name);
}

int engine_open(int threads, int int8, const void *input, size_t bytes, char **words)
{
    library = dlopen(words[0], RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return failed(words[0], dlerror());
    size_t (*arena_size)(int, int, int) = (size_t(*)(int, int, int))found("arena_size");
    int (*init)(void **, void *, size_t, const void *, int, int, int) =
        (int (*)(void **, void *, size_t, const void *, int, int, int))found("init");
    const struct output *(*listed)(void) = (const struct output *(*)(void))found("outputs");
    output_of = (const void *(*)(const void *, int))found("output");
    void *take_values = found("run_input"), *take_levels = found("run_levels");
    if (!arena_size || !init || !listed || !output_of || !take_values || !take_levels)
        return failed(words[0], "no compiled model, or one of another release");
    run = (int (*)(void *, const void *))(int8 ? take_levels : take_values);
    outputs = listed();
    given = input;
    (void)bytes;
    const size_t size = arena_size(1, 1, threads);
    void *arena = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (!size || arena == MAP_FAILED)
        return failed("arena", "cannot be had");
#if defined(MADV_HUGEPAGE)
    madvise(arena, size, MADV_HUGEPAGE);
#endif
    return init(&net, arena, size, NULL, 1, 1, threads) ? failed("init", "failed") : 0;
}

int engine_run(void)
{
    return run(net, given) ? failed("run", "failed") : 0;
}

const float *engine_output(size_t *count)
{
    *count = 1;
    for (int i = 0; i < outputs[0].rank; i++)
        *count *= (size_t)outputs[0].shape[i];
    return strcmp(outputs[0].dtype, "float32") ? NULL : output_of(net, 0);
}
