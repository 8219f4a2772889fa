/* What @Name@.kt calls. JNI without its header: a function of it is a place in the table that `env` begins with.
 * Memory is Kotlin's, direct buffers; a network lies at the first multiple of 64 of its arena. */
#include "@name@.h"

enum { ADDRESS = 230, CAPACITY = 231, ALIGNED = 64 };
#define JNI(type, name) __attribute__((visibility("default"))) type Java_mobilenets_@Name@_##name
typedef void *(*address_function)(void *env, void *buffer);
typedef int64_t (*capacity_function)(void *env, void *buffer);

/* Where a direct buffer of at least so many bytes lies; NULL for others. */
static void *memory(void *env, void *buffer, int64_t bytes)
{
    void *const *table = *(void *const **)env;
    void *at = buffer ? ((address_function)table[ADDRESS])(env, buffer) : NULL;
    return at && bytes >= 0 && ((capacity_function)table[CAPACITY])(env, buffer) >= bytes ? at : NULL;
}

static void *aligned(void *at)
{
    return at ? (char *)at + (ALIGNED - (uintptr_t)at % ALIGNED) % ALIGNED : NULL;
}

JNI(int64_t, arenaSize)(void *env, void *self, int32_t width, int32_t height);
JNI(int64_t, arenaSize)(void *env, void *self, int32_t width, int32_t height)
{
    const size_t bytes = @name@_arena_size(width, height, 1);
    (void)env, (void)self;
    return bytes ? (int64_t)bytes + ALIGNED : 0;
}

JNI(int32_t, init)(void *env, void *self, void *arena, int32_t width, int32_t height);
JNI(int32_t, init)(void *env, void *self, void *arena, int32_t width, int32_t height)
{
    const size_t bytes = @name@_arena_size(width, height, 1);
    @name@_model *net;
    (void)self;
    return @name@_init(&net, aligned(memory(env, arena, (int64_t)bytes + ALIGNED)), bytes, NULL, width, height, 1);
}

JNI(int32_t, run)(void *env, void *self, void *arena, void *rgb, int32_t width, int32_t height, int32_t stride);
JNI(int32_t, run)(void *env, void *self, void *arena, void *rgb, int32_t width, int32_t height, int32_t stride)
{
    const int64_t bytes = ((int64_t)height - 1) * stride + 3 * (int64_t)width;
    (void)self;
    return @name@_run(aligned(memory(env, arena, 0)), memory(env, rgb, bytes), width, height, stride);
}

/* The values of an output, as floats; gives how many there are, 0 where they have no room. */
JNI(int32_t, values)(void *env, void *self, void *arena, int32_t output, void *into);
JNI(int32_t, values)(void *env, void *self, void *arena, int32_t output, void *into)
{
    const @name@_model *net = aligned(memory(env, arena, 0));
    int count = output >= 0 && output < @NAME@_OUTPUTS;
    for (int side = 0; count && side < @name@_outputs()[output].rank; side++)
        count *= @name@_outputs()[output].shape[side];
    float *to = memory(env, into, 4 * (int64_t)count);
    (void)self;
    for (int i = 0; to && i < count; i++)
        to[i] = @name@_value(net, output, i);
    return to ? count : 0;
}

/* The name of a class in UTF-8; gives its bytes, 0 where they have no room. */
JNI(int32_t, label)(void *env, void *self, int32_t index, void *into);
JNI(int32_t, label)(void *env, void *self, int32_t index, void *into)
{
    const char *given = @name@_label(index), *name = given ? given : "";
    int32_t bytes = 0;
    while (name[bytes])
        bytes++;
    char *to = memory(env, into, bytes);
    (void)self;
    for (int32_t i = 0; to && i < bytes; i++)
        to[i] = name[i];
    return to ? bytes : 0;
}
