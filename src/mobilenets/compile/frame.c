/* From a frame of any size to the network's input: part, integer resize, levels to floats. */
static const float mean[3] = {@mean@}, std[3] = {@std@};
static const value zero_of[3] = {@zero@}; /* what stands for 0 around the image */

static int64_t floored(int64_t a, int64_t b)
{
    return a / b - (a % b < 0);
}

/* How many samples an output can depend on. */
static int taps_of(int samples, int places)
{
    const int64_t reach = 2 * (int64_t)(samples > places ? samples : places);
    const int64_t count = 2 * (reach / (2 * places)) + 3;
    return (int)LEAST(count, samples);
}

/* Leaves out the taps that weigh nothing in any output. */
static void tighten(struct axis *axis)
{
    int used = 1;
    for (int i = 0; i < axis->places * axis->taps; i++)
        if (axis->weight[i] && i % axis->taps >= used)
            used = i % axis->taps + 1;
    for (int i = 0; i < axis->places; i++)
        for (int k = 0; k < used; k++)
            axis->weight[i * used + k] = axis->weight[i * axis->taps + k];
    axis->taps = used;
}

/* An antialiased triangle in units of 2^-22, each weight the rounded exact fraction. */
static void plan_axis(struct axis *axis, int samples, int places)
{
    const int64_t reach = 2 * (int64_t)(samples > places ? samples : places);
    axis->samples = samples;
    axis->places = places;
    axis->taps = taps_of(samples, places);
    for (int i = 0; i < places; i++) {
        const int64_t centre = (2 * (int64_t)i + 1) * samples;
        int64_t first = -floored(reach - centre, 2 * places) - 1, total = 0;
        first = first < 0 ? 0 : LEAST(first, samples - 1);
        axis->first[i] = (int32_t)first;
        for (int pass = 0; pass < 2; pass++)
            for (int k = 0; k < axis->taps; k++) {
                const int64_t j = first + k;
                const int64_t away = (2 * j + 1) * places - centre;
                int64_t above = reach - (away < 0 ? -away : away);
                if (j >= samples || above < 0)
                    above = 0;
                if (pass == 0)
                    total += above;
                else
                    axis->weight[i * axis->taps + k] = (int32_t)(((above << 22) + total / 2) / total);
            }
    }
    tighten(axis);
}

static uint8_t level(int32_t sum)
{
    sum >>= 22;
    return (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}

/* Half up, in doubles, as the reference does it; `volatile` keeps the two operations apart. */
static int share_of(int side)
{
    volatile double part = side * FRACTION;
    const int whole = (int)(part + 0.5);
    return whole < 1 ? 1 : whole;
}

static int nearest_even(double side)
{
    const int below = (int)side;
    const double rest = side - below;
    return below + (rest > 0.5 || (rest == 0.5 && below % 2));
}

static struct view view_of(int width, int height)
{
    struct view view = {0, 0, height, width, 0, 0, INPUT_HEIGHT, INPUT_WIDTH};
    if (GEOMETRY == CROP) {
        const double aspect = (double)INPUT_HEIGHT / INPUT_WIDTH;
        const int tall = nearest_even(width * aspect), wide = nearest_even(height / aspect);
        view.height = share_of(LEAST(height, tall));
        view.width = share_of(LEAST(width, wide));
        view.top = (height - view.height) / 2;
        view.left = (width - view.width) / 2;
    }
    if (GEOMETRY == LETTERBOX) {
        const int64_t h = height, w = width;
        if (h * INPUT_WIDTH >= w * INPUT_HEIGHT)
            view.wide = (int)((2 * w * INPUT_HEIGHT + h) / (2 * h));
        else
            view.tall = (int)((2 * h * INPUT_WIDTH + w) / (2 * w));
        view.wide = view.wide < 1 ? 1 : view.wide;
        view.tall = view.tall < 1 ? 1 : view.tall;
        view.above = (INPUT_HEIGHT - view.tall) / 2;
        view.beside = (INPUT_WIDTH - view.wide) / 2;
    }
    return view;
}

static uint8_t *beside(uint8_t *out, int pixels)
{
    for (int i = 0; i < 3 * pixels; i++)
        out[i] = FILL;
    return out + 3 * pixels;
}

static value *surround(value *out, int pixels)
{
    for (int i = 0; i < 3 * pixels; i++)
        out[i] = zero_of[i % 3];
    return out + 3 * pixels;
}

/* A value of an input that is prepared. */
static INLINE value prepared(float given, int colour)
{
#if INTEGER
    const float found = given * std[colour] + mean[colour];
    return found > 0.0f ? (uint8_t)(LEAST(found, 255.0f) + 0.5f) : 0;
#else
    (void)colour;
    return given;
#endif
}
