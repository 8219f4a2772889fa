/* Batch norm of a map [rows, channels] and the activation behind it in one go, and what goes back through both.
 * Numbers of a map are float32 or, with `half`, bfloat16. Few channels are taken several rows to a line, so that
 * a line is long; sums are of 64 lines in float32 and of those in double. */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 64, LINE = 256, ARRAYS = 6 };
/* In the order of `model.fused.KINDS`. */
enum activation { NONE, RELU, RELU6, HSWISH };

typedef uint16_t half_t;

static inline float up_half(half_t value) {
    uint32_t bits = (uint32_t)value << 16;
    float found;
    memcpy(&found, &bits, sizeof found);
    return found;
}

static inline half_t down_half(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint32_t even = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
    return (half_t)(value != value ? 0x7fc0u : even);
}

static inline float up_float(float value) { return value; }
static inline float down_float(float value) { return value; }

static inline float active(float z, enum activation kind) {
    float six;
    switch (kind) {
    case RELU: return z < 0 ? 0 : z;
    case RELU6: return z < 0 ? 0 : z > 6 ? 6 : z;
    case HSWISH:
        six = z + 3;
        six = six < 0 ? 0 : six > 6 ? 6 : six;
        return z * six * (1 / 6.f);
    default: return z;
    }
}

static inline float slope(float g, float z, enum activation kind) {
    switch (kind) {
    case RELU: return z <= 0 ? 0 : g;
    case RELU6: return z <= 0 || z >= 6 ? 0 : g;
    case HSWISH: return z <= -3 ? 0 : z >= 3 ? g : g * (z * (1 / 3.f) + 0.5f);
    default: return g;
    }
}

/* Per channel, and again for each row of a line: what sums gather, and what the numbers of a map meet. */
struct work {
    ptrdiff_t channels, width, all;
    float *sum, *product, *middle, *scale, *shift, *slant;
    double *total, *products;
};

static int made(struct work *own, ptrdiff_t rows, ptrdiff_t channels) {
    own->channels = channels;
    own->width = channels * (channels < LINE ? LINE / channels : 1);
    own->all = rows * channels;
    own->total = calloc((size_t)channels, 2 * sizeof(double));
    own->sum = malloc((size_t)own->width * ARRAYS * sizeof(float));
    own->products = own->total + channels;
    own->product = own->sum + own->width;
    own->middle = own->product + own->width;
    own->scale = own->middle + own->width;
    own->shift = own->scale + own->width;
    own->slant = own->shift + own->width;
    return own->total && own->sum;
}

static void done(struct work *own) {
    free(own->total);
    free(own->sum);
}

static void spread(const struct work *own, float *values) {
    for (ptrdiff_t i = own->channels; i < own->width; i++) values[i] = values[i - own->channels];
}

static void gathered(struct work *own) {
    for (ptrdiff_t i = 0, c = 0; i < own->width; i++) {
        own->total[c] += own->sum[i];
        own->products[c] += own->product[i];
        c = c + 1 == own->channels ? 0 : c + 1;
    }
    memset(own->sum, 0, 2 * (size_t)own->width * sizeof(float));
}

#define LINES(body)                                                                                                    \
    for (ptrdiff_t first = 0, line = 1; first < all; first += width, line++) {                                         \
        ptrdiff_t count = all - first < width ? all - first : width;                                                   \
        body                                                                                                           \
    }

#define SUMS(T, up)                                                                                                    \
    LINES(const T *restrict from = (const T *)x + first;                                                            \
          for (ptrdiff_t i = 0; i < count; i++) {                                                                      \
              float value = up(from[i]) - middle[i];                                                                   \
              sum[i] += value;                                                                                         \
              product[i] += value * value;                                                                             \
          }                                                                                                            \
          if (line % BLOCK == 0) gathered(&own);)

#define FORWARD(T, up, down, kind)                                                                                     \
    LINES(const T *restrict from = (const T *)x + first; T *restrict to = (T *)y + first;                           \
          for (ptrdiff_t i = 0; i < count; i++) to[i] = down(active(up(from[i]) * scale[i] + shift[i], kind));)

#define BACK_SUMS(T, up, kind)                                                                                         \
    LINES(const T *restrict from = (const T *)x + first; const T *restrict given = (const T *)g + first;            \
          for (ptrdiff_t i = 0; i < count; i++) {                                                                      \
              float value = up(from[i]);                                                                               \
              float back = slope(up(given[i]), value * scale[i] + shift[i], kind);                                     \
              sum[i] += back;                                                                                          \
              product[i] += back * (value - middle[i]);                                                                \
          }                                                                                                            \
          if (line % BLOCK == 0) gathered(&own);)

#define BACK(T, up, down, kind)                                                                                        \
    LINES(const T *restrict from = (const T *)x + first; const T *restrict given = (const T *)g + first;            \
          T *restrict to = (T *)gx + first;                                                                            \
          for (ptrdiff_t i = 0; i < count; i++) {                                                                      \
              float value = up(from[i]);                                                                               \
              float back = slope(up(given[i]), value * scale[i] + shift[i], kind);                                     \
              to[i] = down(scale[i] * back + slant[i] * (value - middle[i]) + sum[i]);                                 \
          })

#define EACH_KIND(DO, ...)                                                                                             \
    switch (kind) {                                                                                                    \
    case RELU: DO(__VA_ARGS__, RELU) break;                                                                            \
    case RELU6: DO(__VA_ARGS__, RELU6) break;                                                                          \
    case HSWISH: DO(__VA_ARGS__, HSWISH) break;                                                                        \
    default: DO(__VA_ARGS__, NONE)                                                                                     \
    }

/* mean and variance [channels] of the batch, and y, from x, gain and bias [channels]. 0, or -1 without memory. */
int norm_forward(const void *x, void *y, ptrdiff_t rows, ptrdiff_t channels, int half, int kind, float epsilon,
                 const float *gain, const float *bias, float *mean, float *variance) {
    struct work own;
    if (!made(&own, rows, channels)) {
        done(&own);
        return -1;
    }
    const ptrdiff_t width = own.width, all = own.all;
    float *restrict sum = own.sum, *restrict product = own.product, *restrict middle = own.middle;
    float *restrict scale = own.scale, *restrict shift = own.shift;
    memset(sum, 0, 2 * (size_t)width * sizeof(float));
    for (ptrdiff_t c = 0; c < channels; c++) middle[c] = half ? up_half(((const half_t *)x)[c]) : ((const float *)x)[c];
    spread(&own, middle);
    if (half) {
        SUMS(half_t, up_half)
    } else {
        SUMS(float, up_float)
    }
    gathered(&own);
    for (ptrdiff_t c = 0; c < channels; c++) {
        double apart = own.total[c] / (double)rows, wide = own.products[c] / (double)rows - apart * apart;
        mean[c] = (float)(middle[c] + apart);
        variance[c] = (float)(wide < 0 ? 0 : wide);
        scale[c] = gain[c] / sqrtf(variance[c] + epsilon);
        shift[c] = bias[c] - mean[c] * scale[c];
    }
    spread(&own, scale);
    spread(&own, shift);
    if (half) {
        EACH_KIND(FORWARD, half_t, up_half, down_half)
    } else {
        EACH_KIND(FORWARD, float, up_float, down_float)
    }
    done(&own);
    return 0;
}

/* What the gradient g of y gives to x, gain and bias, with mean and variance as `norm_forward` gave them. */
int norm_backward(const void *x, const void *g, void *gx, ptrdiff_t rows, ptrdiff_t channels, int half, int kind,
                  float epsilon, const float *gain, const float *bias, const float *mean, const float *variance,
                  float *ggain, float *gbias) {
    struct work own;
    if (!made(&own, rows, channels)) {
        done(&own);
        return -1;
    }
    const ptrdiff_t width = own.width, all = own.all;
    float *restrict sum = own.sum, *restrict product = own.product, *restrict middle = own.middle;
    float *restrict scale = own.scale, *restrict shift = own.shift, *restrict slant = own.slant;
    memset(sum, 0, 2 * (size_t)width * sizeof(float));
    for (ptrdiff_t c = 0; c < channels; c++) {
        middle[c] = mean[c];
        scale[c] = gain[c] / sqrtf(variance[c] + epsilon);
        shift[c] = bias[c] - mean[c] * scale[c];
    }
    spread(&own, middle);
    spread(&own, scale);
    spread(&own, shift);
    if (half) {
        EACH_KIND(BACK_SUMS, half_t, up_half)
    } else {
        EACH_KIND(BACK_SUMS, float, up_float)
    }
    gathered(&own);
    for (ptrdiff_t c = 0; c < channels; c++) {
        float root = 1 / sqrtf(variance[c] + epsilon);
        ggain[c] = (float)own.products[c] * root;
        gbias[c] = (float)own.total[c];
        slant[c] = -scale[c] * root * ggain[c] / (float)rows;
        sum[c] = -scale[c] * gbias[c] / (float)rows;
    }
    spread(&own, slant);
    spread(&own, sum);
    if (half) {
        EACH_KIND(BACK, half_t, up_half, down_half)
    } else {
        EACH_KIND(BACK, float, up_float, down_float)
    }
    done(&own);
    return 0;
}
