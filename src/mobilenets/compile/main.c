/* Classifies one raw frame:  cc -O2 main.c @name@.c -o example@libraries@
 *                            ./example frame.rgb WIDTH HEIGHT            (RGB bytes, row after row) */
#include "@name@.h"
#include <stdio.h>
#include <stdlib.h>
#if defined(_WIN32)
#include <malloc.h>
#define aligned_alloc(alignment, bytes) _aligned_malloc(bytes, alignment)
#define free _aligned_free
#endif

static void *held[3]; /* what malloc gave */

/* Memory at a multiple of 64. */
static void *room(size_t bytes)
{
    static int count;
    char *memory = held[count++] = malloc(bytes + 64);
    return memory ? memory + (64 - (uintptr_t)memory % 64) : NULL;
}

static void *read_file(const char *path, size_t bytes)
{
    FILE *file = fopen(path, "rb");
    void *memory = room(bytes);
    if (!file || !memory || fread(memory, 1, bytes, file) != bytes) {
        fprintf(stderr, "%s: cannot be read, or holds fewer than %zu bytes\n", path, bytes);
        exit(1);
    }
    fclose(file);
    return memory;
}

int main(int count, char **words)
{
    if (count != 4) {
        fprintf(stderr, "use: %s FRAME.rgb WIDTH HEIGHT\n", words[0]);
        return 2;
    }
    const int width = atoi(words[2]), height = atoi(words[3]);
    const size_t bytes = @name@_arena_size(width, height, 1);
    if (!bytes) {
        fprintf(stderr, "%s × %s is no size of a frame\n", words[2], words[3]);
        return 2;
    }
    void *weights = read_file("@name@.weights", @NAME@_WEIGHT_BYTES);
    uint8_t *frame = read_file(words[1], (size_t)width * height * 3);
    @name@_model *net;
    void *arena = room(bytes);
    int error = @name@_init(&net, arena, bytes, weights, width, height, 1);
    if (!error)
        error = @name@_run(net, frame, width, height, 3 * (ptrdiff_t)width);
    if (error) {
        fprintf(stderr, "error %d, see @name@.h\n", error);
        return 1;
    }
    const int *shape = @name@_outputs()[0].shape, classes = shape[0] * shape[1] * shape[2];
    for (int i = 0; !@NAME@_LABELS && i < classes; i++)
        printf("%g\n", @name@_value(net, 0, i));
    for (int place = 0, last = -1; place < 5 && place < @NAME@_LABELS; place++) {
        const float before = @name@_value(net, 0, last);
        int best = -1;
        for (int i = 0; i < @NAME@_LABELS; i++) {
            const float score = @name@_value(net, 0, i);
            if ((last < 0 || score < before || (score == before && i > last)) &&
                (best < 0 || score > @name@_value(net, 0, best)))
                best = i;
        }
        if (best < 0)
            break;
        printf("%9.4f  %s\n", @name@_value(net, 0, best), @name@_label(best));
        last = best;
    }
    @name@_free(net);
    for (int i = 0; i < 3; i++)
        free(held[i]);
    return 0;
}
