/* The worker of bench/worker.py without Python: one answer, then timed calls for the seconds of each line.
 * Arguments: threads, float32 or int8, the input's file, what the engine takes, and last `once` or `turns`. */
#define _GNU_SOURCE
#include "turns.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#if defined(__linux__)
#include <signal.h>
#include <sys/prctl.h>
#endif

#define WARM 8
#define LEAST_WARM 2
#define LEAST_CALLS 3
#define MOST_CALLS 100000

int failed(const char *what, const char *why)
{
    fprintf(stderr, "%s: %s\n", what, why);
    return 1;
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

void *content(const char *path, size_t *bytes)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        return NULL;
    fseek(file, 0, SEEK_END);
    *bytes = (size_t)ftell(file);
    rewind(file);
    void *data = aligned_alloc(64, (*bytes + 63) / 64 * 64);
    if (data && fread(data, 1, *bytes, file) != *bytes)
        data = NULL;
    fclose(file);
    return data;
}

/* The largest resident set of this program, in bytes; 0 where the system does not tell. */
static double peak_bytes(void)
{
    char line[256];
    double found = 0;
    FILE *file = fopen("/proc/self/status", "r");
    while (file && fgets(line, sizeof line, file))
        if (!strncmp(line, "VmHWM:", 6))
            found = 1024.0 * strtod(line + 6, NULL);
    if (file)
        fclose(file);
    return found;
}

static int tell(void)
{
    size_t count;
    const float *output = engine_output(&count);
    if (!output)
        return failed("output", "none");
    printf("\"first\"\n");
    fflush(stdout);
    printf("{\"answer\": [");
    for (size_t i = 0; i < count; i++)
        printf("%s%.9g", i ? ", " : "", output[i]);
    const double bytes = peak_bytes();
    if (bytes > 0)
        printf("], \"peak_rss_mb\": %.1f}\n", bytes / 1e6);
    else
        printf("], \"peak_rss_mb\": null}\n");
    fflush(stdout);
    return 0;
}

static int turn(double limit)
{
    static double taken[MOST_CALLS];
    size_t calls = 0;
    double begun = seconds();
    for (int i = 0; i < LEAST_WARM || seconds() - begun < limit / WARM; i++)
        if (engine_run())
            return 1;
    const double start = seconds();
    while (calls < LEAST_CALLS || (calls < MOST_CALLS && seconds() - start < limit)) {
        begun = seconds();
        if (engine_run())
            return 1;
        taken[calls++] = seconds() - begun;
    }
    for (size_t i = 0; i < calls; i++)
        printf("%s%.9f", i ? ", " : "[", taken[i]);
    printf("]\n");
    fflush(stdout);
    return 0;
}

int main(int count, char **words)
{
    char line[64];
    size_t bytes = 0;
    if (count < 6)
        return failed("arguments", "too few");
    const void *input = content(words[3], &bytes);
    if (!input)
        return failed(words[3], "cannot be read");
    if (engine_open(atoi(words[1]), !strcmp(words[2], "int8"), input, bytes, words + 4) || engine_run() || tell())
        return 1;
    if (!strcmp(words[count - 1], "once"))
        return 0;
#if defined(__linux__)
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* stopped, it would outlive its parent for ever */
#endif
    while (fgets(line, sizeof line, stdin)) {
        if (turn(strtod(line, NULL)))
            return 1;
    }
    return 0;
}
