/* The network that the program was linked with, for a board; its own word is the file of weights. */
#define _GNU_SOURCE
#include "model.h"
#include "turns.h"
#include <stdlib.h>
#include <sys/mman.h>

static model_model *net;
static const void *given;
static int (*run)(model_model *net, const void *input);
static float *values;
static size_t values_count = 1;

static int run_levels(model_model *own, const void *input)
{
    return model_run_levels(own, input);
}

static int run_values(model_model *own, const void *input)
{
    return model_run_input(own, input);
}

int engine_open(int threads, int int8, const void *input, size_t bytes, char **words)
{
    size_t read = 0;
    const void *weights = content(words[0], &read);
    if (!weights || read != MODEL_WEIGHT_BYTES)
        return failed(words[0], "cannot be read");
    if (bytes != (size_t)MODEL_INPUT_WIDTH * MODEL_INPUT_HEIGHT * 3 * (int8 ? 1 : sizeof(float)))
        return failed("input", "of another size");
    given = input;
    run = int8 ? run_levels : run_values;
    const size_t size = model_arena_size(1, 1, threads);
    void *arena = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (!size || arena == MAP_FAILED)
        return failed("arena", "cannot be had");
    madvise(arena, size, MADV_HUGEPAGE);
    for (int i = 0; i < model_outputs()[0].rank; i++)
        values_count *= (size_t)model_outputs()[0].shape[i];
    values = malloc(values_count * sizeof *values);
    if (!values || model_init(&net, arena, size, weights, 1, 1, threads))
        return failed("init", "failed");
    return 0;
}

int engine_run(void)
{
    return run(net, given) ? failed("run", "failed") : 0;
}

const float *engine_output(size_t *count)
{
    *count = values_count;
    for (size_t i = 0; i < values_count; i++)
        values[i] = model_value(net, 0, (int)i);
    return values;
}
