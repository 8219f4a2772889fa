/* @about@
 *
 * Give it memory and weights, then frames:
 *
 *     @name@_model *net;
 *     size_t bytes = @name@_arena_size(640, 480, 1);
 *     void *arena = aligned_alloc(64, bytes); // or any memory at a multiple of 64
 *     @name@_init(&net, arena, bytes, weights, 640, 480, 1);
 *     @name@_run(net, rgb, 640, 480, 640 * 3);
 *     const float *scores = @name@_output(net, 0);
 *
 * Nothing is allocated, printed or kept outside the arena. Networks that have arenas of their own run at the
 * same time; one network runs one frame at a time. Functions that can fail give 0 or one of the errors below.
 */
#ifndef @NAME@_H
#define @NAME@_H
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif

#define @NAME@_DIGEST "@digest@" /* of network, weights and preprocessing */
#define @NAME@_INPUT_WIDTH @width@
#define @NAME@_INPUT_HEIGHT @height@
#define @NAME@_WEIGHT_BYTES @weight_bytes@ /* of @name@.weights, aligned to 64 in memory */
#define @NAME@_OUTPUTS @outputs@
#define @NAME@_LABELS @labels@
#define @NAME@_MOST_THREADS @threads@

typedef struct @name@_model @name@_model;

enum @name@_error {
    @NAME@_OK = 0,
    @NAME@_NULL = -1,    /* a pointer that must not be NULL */
    @NAME@_FRAME = -2,   /* sides below 1 or above the arena's (32767 at most), or a stride below a row */
    @NAME@_ARENA = -3,   /* too small, or not at a multiple of 64 */
    @NAME@_THREADS = -4, /* fewer than 1, more than MOST_THREADS, or the system gave none */
    @NAME@_WEIGHTS = -5, /* not at a multiple of 64, or another model's */
    @NAME@_ISA = -6      /* an instruction set that is unknown, or that the processor lacks */
};

struct @name@_output {
    const char *name;
    const char *dtype; /* "float32" or "uint8" */
    int rank;
    int shape[4];
    float scale; /* of an integer output: value = scale * (integer - zero) */
    int zero;
    int stride[4]; /* values from one to the next: rows and pixels of a map lie apart */
};

/* Bytes of memory for frames up to this size and so many threads; 0 for sizes that cannot be. */
size_t @name@_arena_size(int max_width, int max_height, int threads);

/* Make a network in `arena` (at a multiple of 64). `weights` is what @name@.weights holds; NULL where they are
 * linked in. `arena` and `weights` stay in use until @name@_free. */
int @name@_init(@name@_model **net, void *arena, size_t arena_bytes, const void *weights, int max_width,
    int max_height, int threads);

/* End its threads. The memory is the caller's. */
void @name@_free(@name@_model *net);

/* Run on a frame of RGB bytes, rows `stride` bytes apart: part, resize and levels as the model was trained. */
int @name@_run(@name@_model *net, const uint8_t *rgb, int width, int height, ptrdiff_t stride);

/* Run on RGB bytes that are prepared, [INPUT_HEIGHT][INPUT_WIDTH][3]: nothing is cut or resized. */
int @name@_run_levels(@name@_model *net, const uint8_t *levels);

/* Run on an input that is prepared: float32 [INPUT_HEIGHT][INPUT_WIDTH][3], normalised. */
int @name@_run_input(@name@_model *net, const float *input);

/* What the outputs are, and the values of one after a run, there until the next; NULL for no such output. */
const struct @name@_output *@name@_outputs(void);
const void *@name@_output(const @name@_model *net, int index);

/* One value of an output as a number, whatever its dtype and strides; 0 for no such output or place. */
float @name@_value(const @name@_model *net, int index, int place);

/* The name of a class, UTF-8, in the order of the output `logits`; NULL for no such class. */
const char *@name@_label(int index);

/* From a point of the last frame to one of the input: x' = m[0] x + m[1] y + m[2], y' = m[3] x + m[4] y + m[5]. */
int @name@_transform(const @name@_model *net, float matrix[6]);

/* Run by another instruction set than the best that the processor has: @isas@. */
int @name@_use(@name@_model *net, const char *isa);

/* What this is, as JSON: network, preprocessing, digest, scores. */
const char *@name@_about(void);

#ifdef __cplusplus
}
#endif
#endif
