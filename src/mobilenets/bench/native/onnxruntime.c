/* ONNX Runtime by its C interface: a table of functions whose order no version changes; arguments are its
 * library and the model. */
#include "turns.h"
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>

/* Places in the table OrtApi of version 1. */
enum {
    GET_ERROR_MESSAGE = 2,
    CREATE_ENV = 3,
    CREATE_SESSION = 7,
    RUN = 9,
    CREATE_SESSION_OPTIONS = 10,
    SET_EXECUTION_MODE = 13,
    SET_OPTIMIZATION_LEVEL = 23,
    SET_INTRA_OP_THREADS = 24,
    SET_INTER_OP_THREADS = 25,
    CREATE_TENSOR_WITH_DATA = 49,
    GET_TENSOR_DATA = 51,
    GET_SHAPE_COUNT = 64,
    GET_TENSOR_SHAPE = 65,
    CREATE_CPU_MEMORY = 69
};
enum { VERSION = 1, ERRORS_ONLY = 3, SEQUENTIAL = 0, OPTIMISED_ALREADY = 0, FLOATS = 1, BYTES = 2, ARENA = 1, DEFAULT = 0 };

struct base {
    const void *const *(*api)(uint32_t version);
    const char *(*version)(void);
};

static const void *const *api;
static void *session, *input_value, *output_value;
static const char *const input_name = "image", *const output_name = "output";
typedef void *status;
typedef status (*run_function)(void *, const void *, const char *const *, const void *const *, size_t,
    const char *const *, size_t, void **);

/* The function at a place of the table. */
#define CALL(place, ...) ((status(*)(__VA_ARGS__))(uintptr_t)api[place])

static int wrong(const char *what, status found)
{
    if (!found)
        return 0;
    return failed(what, ((const char *(*)(const void *))(uintptr_t)api[GET_ERROR_MESSAGE])(found));
}

/* Sides of a picture of so many values, which is square. */
static int64_t side(int64_t pixels)
{
    int64_t found = 1;
    while (found * found < pixels)
        found++;
    return found;
}

int engine_open(int threads, int int8, const void *input, size_t bytes, char **words)
{
    void *library = dlopen(words[0], RTLD_NOW | RTLD_LOCAL), *env, *options, *memory;
    if (!library)
        return failed(words[0], dlerror());
    const struct base *(*get_base)(void) = (const struct base *(*)(void))(uintptr_t)dlsym(library, "OrtGetApiBase");
    if (!get_base || !(api = get_base()->api(VERSION)))
        return failed(words[0], "gives no interface");
    const int64_t edge = side((int64_t)bytes / (int8 ? 3 : 12)), shape[4] = {1, 3, edge, edge};
    return wrong("environment", CALL(CREATE_ENV, int, const char *, void **)(ERRORS_ONLY, "bench", &env)) ||
           wrong("options", CALL(CREATE_SESSION_OPTIONS, void **)(&options)) ||
           wrong("mode", CALL(SET_EXECUTION_MODE, void *, int)(options, SEQUENTIAL)) ||
           wrong("level", CALL(SET_OPTIMIZATION_LEVEL, void *, int)(options, OPTIMISED_ALREADY)) ||
           wrong("threads", CALL(SET_INTRA_OP_THREADS, void *, int)(options, threads)) ||
           wrong("threads", CALL(SET_INTER_OP_THREADS, void *, int)(options, 1)) ||
           wrong("session", CALL(CREATE_SESSION, void *, const char *, const void *, void **)(
                                env, words[1], options, &session)) ||
           wrong("memory", CALL(CREATE_CPU_MEMORY, int, int, void **)(ARENA, DEFAULT, &memory)) ||
           wrong("input", CALL(CREATE_TENSOR_WITH_DATA, const void *, void *, size_t, const int64_t *, size_t, int,
                              void **)(memory, (void *)(uintptr_t)input, bytes, shape, 4, int8 ? BYTES : FLOATS, &input_value));
}

/* The first run makes the output; those that follow write into it. */
int engine_run(void)
{
    const void *const inputs[1] = {input_value};
    const char *const from[1] = {input_name}, *const to[1] = {output_name};
    const run_function run = (run_function)(uintptr_t)api[RUN];
    return wrong("run", run(session, NULL, from, inputs, 1, to, 1, &output_value));
}

const float *engine_output(size_t *count)
{
    void *shape, *data;
    if (wrong("shape", CALL(GET_TENSOR_SHAPE, const void *, void **)(output_value, &shape)) ||
        wrong("count", CALL(GET_SHAPE_COUNT, const void *, size_t *)(shape, count)) ||
        wrong("data", CALL(GET_TENSOR_DATA, void *, void **)(output_value, &data)))
        return NULL;
    return data;
}
