/* What an engine's file gives to turns.c; each function that can fail gives 0 where all went well. */
#include <stddef.h>

/* Make it ready to run on `input`, values of float32 or, for int8, of a byte; `words` are its own arguments. */
int engine_open(int threads, int int8, const void *input, size_t bytes, char **words);
int engine_run(void);

/* The values of the first output after a run. */
const float *engine_output(size_t *count);

/* A file's bytes, at a multiple of 64; NULL where it cannot be read. */
void *content(const char *path, size_t *bytes);

/* Say what went wrong, on stderr; gives 1. */
int failed(const char *what, const char *why);
