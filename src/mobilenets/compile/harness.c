/* Runs @name@ on what comes by standard input, for a machine that cannot load its library:
 *     program @name@.weights THREADS
 * A request is three int32 (kind, width, height) and its bytes: 0 a frame, 1 a prepared input, 2 the name of an
 * instruction set, `width` long. The answer is an error code and, where that is 0, every output's floats. */
#include "@name@.h"
#include <stdio.h>
#include <stdlib.h>
#if defined(_WIN32)
#include <fcntl.h>
#include <io.h>
#include <malloc.h>
#define aligned_alloc(alignment, bytes) _aligned_malloc(bytes, alignment)
#define free _aligned_free
#endif

enum request { RUN = 0, INPUT = 1, USE = 2 };
enum { LARGEST = 32767 };

static void *room(size_t bytes)
{
    void *memory = aligned_alloc(64, (bytes + 63) / 64 * 64 + 64);
    if (!memory)
        exit(3);
    return memory;
}

static int all(void *to, size_t bytes)
{
    return fread(to, 1, bytes, stdin) == bytes;
}

static int answered(@name@_model *net, const int32_t request[3])
{
    const size_t width = (size_t)request[1], height = (size_t)request[2];
    const size_t bytes = request[0] == RUN     ? width * height * 3
                         : request[0] == INPUT ? sizeof(float) * @NAME@_INPUT_WIDTH * @NAME@_INPUT_HEIGHT * 3
                                               : width;
    char *given = room(bytes);
    int32_t code = 0;
    if (!all(given, bytes))
        return 0;
    given[bytes] = 0;
    if (request[0] == RUN)
        code = @name@_run(net, (const uint8_t *)given, request[1], request[2], 3 * (ptrdiff_t)width);
    else if (request[0] == INPUT)
        code = @name@_run_input(net, (const float *)(const void *)given);
    else
        code = @name@_use(net, given);
    free(given);
    fwrite(&code, sizeof code, 1, stdout);
    for (int i = 0; !code && request[0] != USE && i < @NAME@_OUTPUTS; i++) {
        const int *shape = @name@_outputs()[i].shape;
        for (int j = 0; j < shape[0] * shape[1] * shape[2]; j++) {
            const float one = @name@_value(net, i, j);
            fwrite(&one, sizeof one, 1, stdout);
        }
    }
    return !fflush(stdout);
}

int main(int count, char **words)
{
#if defined(_WIN32)
    _setmode(_fileno(stdin), _O_BINARY);
    _setmode(_fileno(stdout), _O_BINARY);
#endif
    FILE *file = count == 3 ? fopen(words[1], "rb") : NULL;
    void *weights = room(@NAME@_WEIGHT_BYTES);
    if (!file || fread(weights, 1, @NAME@_WEIGHT_BYTES, file) != @NAME@_WEIGHT_BYTES)
        return 2;
    fclose(file);
    const int threads = atoi(words[2]);
    const size_t bytes = @name@_arena_size(LARGEST, LARGEST, threads);
    void *arena = room(bytes);
    @name@_model *net;
    if (@name@_init(&net, arena, bytes, weights, LARGEST, LARGEST, threads))
        return 4;
    int32_t request[3];
    while (all(request, sizeof request) && answered(net, request))
        ;
    @name@_free(net);
    free(arena);
    free(weights);
    return 0;
}
