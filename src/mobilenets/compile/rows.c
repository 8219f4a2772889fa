/* ---- @isa@: frames ---- */
#if @quads@ && defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define QUADS_@isa@
typedef uint8_t bytes_@isa@ __attribute__((vector_size(16)));
typedef int32_t quad_@isa@ __attribute__((vector_size(16)));
#endif
#endif

/* One row of the frame at the width of the input. */
static void narrow_@isa@(const struct axis *axis, const uint8_t *row, uint8_t *out)
{
    const int places = axis->places, samples = axis->samples, most = axis->taps;
    int x = 0;
#ifdef QUADS_@isa@ /* a pixel as four numbers of 32 bits, of 16 bytes that are there */
    const bytes_@isa@ none = {0};
    const int32_t *begins = axis->first, *weight = axis->weight;
    for (; x < places - 1 && begins[x] + most + 5 <= samples; x++, weight += most) {
        const uint8_t *pixel = row + 3 * begins[x];
        quad_@isa@ sum = {1 << 21, 1 << 21, 1 << 21, 0};
        UNROLL_1
        for (int k = 0; k < most; k++) {
            bytes_@isa@ b;
            __builtin_memcpy(&b, pixel + 3 * k, 16);
            b = __builtin_shufflevector(b, none, 0, 16, 16, 16, 1, 16, 16, 16, 2, 16, 16, 16, 16, 16, 16, 16);
            sum += (quad_@isa@)b * weight[k];
        }
        sum >>= 22;
        sum &= ~(sum >> 31);
        sum |= (sum > 255) & 255;
        const bytes_@isa@ made = (bytes_@isa@)sum;
        const bytes_@isa@ packed =
            __builtin_shufflevector(made, none, 0, 4, 8, 12, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16);
        __builtin_memcpy(out + 3 * x, &packed, 4);
    }
#endif
    for (; x < places; x++) {
        const int32_t *weight = axis->weight + x * most;
        const int first = axis->first[x], taps = LEAST(most, samples - first);
        int32_t r = 1 << 21, g = 1 << 21, b = 1 << 21;
        for (int k = 0; k < taps; k++) {
            const uint8_t *pixel = row + 3 * (first + k);
            r += weight[k] * pixel[0];
            g += weight[k] * pixel[1];
            b += weight[k] * pixel[2];
        }
        out[3 * x] = level(r);
        out[3 * x + 1] = level(g);
        out[3 * x + 2] = level(b);
    }
}

/* Levels to the network's input. */
static INLINE void normal_@isa@(const struct state *net, const uint8_t *levels, value *out, int pixels)
{
#if INTEGER /* the first layer takes levels as they are */
    (void)net;
    for (int i = 0; i < 3 * pixels; i++)
        out[i] = levels[i];
#else
    int i = 0;
#if @divides@ /* sixteen pixels at once, which is quicker than to look them up */
    float means[48], stds[48];
    for (int j = 0; j < 48; j++) {
        means[j] = mean[j % 3];
        stds[j] = std[j % 3];
    }
    for (; i + 16 <= pixels; i += 16)
        for (int j = 0; j < 48; j++)
            out[3 * i + j] = ((float)levels[3 * i + j] - means[j]) / stds[j];
#endif
    levels += 3 * i;
    out += 3 * i;
    for (int left = pixels - i; left > 0; left--, levels += 3, out += 3)
        for (int c = 0; c < 3; c++)
            out[c] = net->levels[c][levels[c]];
#endif
}

/* Rows of the input, what stands for 0 around them: `count` from row `first` on, of which the first `kept` are the last
 * of those that lie there. */
static INLINE void input_@isa@(const struct state *net, value *out, int first, int count, int kept, int left, int right)
{
    const int row = 3 * (left + INPUT_WIDTH + right);
    for (int i = 0; i < kept * row; i++)
        out[i] = out[(count - kept) * row + i];
    out += kept * row;
    for (int y = first + kept; y < first + count; y++) {
        if (y < 0 || y >= INPUT_HEIGHT) {
            out = surround(out, left + INPUT_WIDTH + right);
            continue;
        }
        out = surround(out, left);
        if (net->input)
            for (int x = 0; x < INPUT_WIDTH * 3; x++)
                out[x] = prepared(net->input[y * INPUT_WIDTH * 3 + x], x % 3);
        else
            normal_@isa@(net, net->given + y * net->given_stride, out, INPUT_WIDTH);
        out = surround(out + 3 * INPUT_WIDTH, right);
    }
}

static void take_frame_@isa@(struct state *net, const uint8_t *rgb, int width, int height, ptrdiff_t stride)
{
    const struct view view = view_of(width, height);
    struct axis *across = &net->across, *down = &net->down;
    if (across->samples != view.width || across->places != view.wide)
        plan_axis(across, view.width, view.wide);
    if (down->samples != view.height || down->places != view.tall)
        plan_axis(down, view.height, view.tall);
    net->view = view;
    if (view.width == INPUT_WIDTH && view.height == INPUT_HEIGHT) {
        net->given = rgb + view.top * stride + 3 * view.left;
        net->given_stride = stride;
        return;
    }
    for (int i = 0; i < net->lines; i++)
        net->held[i] = -1;
    uint8_t *out = (uint8_t *)net->arena + IMAGE;
    net->given = out;
    net->given_stride = 3 * INPUT_WIDTH;
    for (int y = 0; y < INPUT_HEIGHT; y++) {
        const int own = y - view.above;
        if (own < 0 || own >= view.tall) {
            out = beside(out, INPUT_WIDTH);
            continue;
        }
        const int32_t *weight = down->weight + own * down->taps;
        const int first = down->first[own], taps = LEAST(down->taps, down->samples - first);
        for (int i = 0; i < 3 * view.wide; i++)
            net->sums[i] = 1 << 21;
        for (int k = 0; k < taps; k++) {
            const int row = first + k, place = row % net->lines;
            uint8_t *line = net->line + (size_t)place * 3 * INPUT_WIDTH;
            if (!weight[k])
                continue;
            if (net->held[place] != row) {
                narrow_@isa@(across, rgb + (view.top + row) * stride + 3 * view.left, line);
                net->held[place] = row;
            }
            for (int i = 0; i < 3 * view.wide; i++)
                net->sums[i] += weight[k] * line[i];
        }
        out = beside(out, view.beside);
        for (int i = 0; i < 3 * view.wide; i++)
            out[i] = level(net->sums[i]);
        out = beside(out + 3 * view.wide, INPUT_WIDTH - view.beside - view.wide);
    }
}
