/* What compilers call by themselves, where there is no C library. */
#include <stddef.h>

#define BUILT_IN __attribute__((visibility("hidden"), used, no_builtin("memcpy", "memset")))

BUILT_IN void *memcpy(void *restrict to, const void *restrict from, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        ((unsigned char *)to)[i] = ((const unsigned char *)from)[i];
    return to;
}

BUILT_IN void *memset(void *to, int value, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        ((unsigned char *)to)[i] = (unsigned char)value;
    return to;
}
