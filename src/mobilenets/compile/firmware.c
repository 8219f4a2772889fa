/* The best class of one frame on a microcontroller: compiled with lib@name@.a, whose weights lie in flash. The arena is
 * for frames of the input's size; for larger ones ask @name@_arena_size. Memory functions and what of arithmetic the
 * processor lacks come from the compiler's own library (libgcc, compiler-rt) and a C library's memcpy and memset. */
#include "@name@.h"

static _Alignas(64) uint8_t arena[@arena_bytes@];
static @name@_model *net;

/* 0, or one of the errors of @name@.h. */
int begin(void)
{
    return @name@_init(&net, arena, sizeof arena, NULL, @NAME@_INPUT_WIDTH, @NAME@_INPUT_HEIGHT, 1);
}

/* The class of a frame of RGB bytes [INPUT_HEIGHT][INPUT_WIDTH][3], or an error. */
int best(const uint8_t *rgb)
{
    const int error = @name@_run(net, rgb, @NAME@_INPUT_WIDTH, @NAME@_INPUT_HEIGHT, 3 * @NAME@_INPUT_WIDTH);
    int found = 0;
    for (int i = 1; i < @name@_outputs()[0].shape[0]; i++)
        if (@name@_value(net, 0, i) > @name@_value(net, 0, found))
            found = i;
    return error ? error : found;
}
