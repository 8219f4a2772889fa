/* OpenVINO by its C interface; arguments are its library and the model. */
#include "turns.h"
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef int (*one)(void **);
typedef int (*two)(const void *, void **);
typedef int (*of_size)(const void *, size_t *);
typedef int (*compiling)(const void *, const char *, const char *, size_t, void **, ...);

static void *library, *request;
static int (*infer)(void *);
static two output_tensor, tensor_data;
static of_size tensor_bytes;

static void *function(const char *name)
{
    return dlsym(library, name);
}

int engine_open(int threads, int int8, const void *input, size_t bytes, char **words)
{
    static char number[16];
    void *core, *compiled, *tensor, *data;
    size_t room = 0;
    library = dlopen(words[0], RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return failed(words[0], dlerror());
    const one create = (one)(uintptr_t)function("ov_core_create");
    const compiling compile = (compiling)(uintptr_t)function("ov_core_compile_model_from_file");
    const two make_request = (two)(uintptr_t)function("ov_compiled_model_create_infer_request");
    const two input_tensor = (two)(uintptr_t)function("ov_infer_request_get_input_tensor");
    output_tensor = (two)(uintptr_t)function("ov_infer_request_get_output_tensor");
    tensor_data = (two)(uintptr_t)function("ov_tensor_data");
    tensor_bytes = (of_size)(uintptr_t)function("ov_tensor_get_byte_size");
    infer = (int (*)(void *))(uintptr_t)function("ov_infer_request_infer");
    if (!create || !compile || !make_request || !input_tensor || !output_tensor || !tensor_data || !tensor_bytes ||
        !infer)
        return failed(words[0], "lacks a function");
    snprintf(number, sizeof number, "%d", threads);
    if (create(&core))
        return failed("core", "cannot be made");
    /* What is not bytes in an int8 model may be bfloat16, as it is unless told otherwise; float32 may not. */
    if (compile(core, words[1], "CPU", int8 ? 6 : 8, &compiled, "PERFORMANCE_HINT", "LATENCY", "NUM_STREAMS", "1",
            "INFERENCE_NUM_THREADS", number, "INFERENCE_PRECISION_HINT", "f32"))
        return failed(words[1], "cannot be compiled");
    if (make_request(compiled, &request) || input_tensor(request, &tensor) || tensor_data(tensor, &data) ||
        tensor_bytes(tensor, &room) || room != bytes)
        return failed("input", "of another size");
    memcpy(data, input, bytes);
    return 0;
}

int engine_run(void)
{
    return infer(request) ? failed("run", "failed") : 0;
}

const float *engine_output(size_t *count)
{
    void *tensor, *data;
    if (output_tensor(request, &tensor) || tensor_data(tensor, &data) || tensor_bytes(tensor, count))
        return NULL;
    *count /= sizeof(float);
    return data;
}
