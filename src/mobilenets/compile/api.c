/* The functions of @name@.h. */

#define ISAS ((int)(sizeof isas / sizeof isas[0]))

static int runs(int isa)
{
    return (features() & isas[isa].takes) == isas[isa].takes;
}

static int same(const char *a, const char *b)
{
    for (; *a && *a == *b; a++)
        b++;
    return *a == *b;
}

/* Whether weights are those that this code was written with: their digest is the last they hold. */
static int ours(const void *weights)
{
    const char *found = (const char *)weights + @NAME@_WEIGHT_BYTES - sizeof "@stamp@" + 1;
    for (int i = 0; i < (int)sizeof "@stamp@" - 1; i++)
        if (found[i] != "@stamp@"[i])
            return 0;
    return 1;
}

static size_t rounded(size_t bytes)
{
    return (bytes + 63) & ~(size_t)63;
}

static int sizes_can_be(int max_width, int max_height, int threads)
{
    return max_width >= 1 && max_height >= 1 && max_width <= 32767 && max_height <= 32767 && threads >= 1 &&
           threads <= MOST_THREADS;
}

/* Lays out the arena; gives the bytes it takes. Without `net` it only counts. */
static size_t laid_out(struct state *net, unsigned char *arena, int max_width, int max_height, int threads)
{
    const int wide = max_width / INPUT_WIDTH, tall = max_height / INPUT_HEIGHT;
    const int lines = LEAST(max_height, 4 * ((wide > tall ? wide : tall) + 1) + 3);
    const size_t across = 2 * (size_t)max_width + 5 * INPUT_WIDTH, down = 2 * (size_t)max_height + 5 * INPUT_HEIGHT;
    size_t at = rounded(sizeof(struct state));
    size_t begins[9];
    const size_t bytes[9] = {
#if THREADS
        sizeof(struct pool),
#else
        0,
#endif
        4 * INPUT_WIDTH, 4 * across, 4 * INPUT_HEIGHT, 4 * down, 4 * (size_t)lines, 4 * 3 * INPUT_WIDTH,
        3 * INPUT_WIDTH * (size_t)lines, MAPS_BYTES + (size_t)threads * SCRATCH_BYTES};
    for (int i = 0; i < 9; i++) {
        begins[i] = at;
        at += rounded(bytes[i]);
    }
    if (net) {
        net->across = (struct axis){0, 0, 0, (int32_t *)(arena + begins[1]), (int32_t *)(arena + begins[2])};
        net->down = (struct axis){0, 0, 0, (int32_t *)(arena + begins[3]), (int32_t *)(arena + begins[4])};
        net->held = (int32_t *)(arena + begins[5]);
        net->sums = (int32_t *)(arena + begins[6]);
        net->line = arena + begins[7];
        net->lines = lines;
        net->arena = (value *)(arena + begins[8]);
#if THREADS
        net->pool = (struct pool *)(arena + begins[0]);
#endif
    }
    return at;
}

size_t @name@_arena_size(int max_width, int max_height, int threads)
{
    return sizes_can_be(max_width, max_height, threads) ? laid_out(NULL, NULL, max_width, max_height, threads) : 0;
}

int @name@_init(@name@_model **made, void *arena, size_t arena_bytes, const void *weights, int max_width,
    int max_height, int threads)
{
    if (!weights)
        weights = LINKED_WEIGHTS;
    if (made)
        *made = NULL;
    if (!made || !arena || !weights)
        return @NAME@_NULL;
    if (threads < 1 || threads > MOST_THREADS)
        return @NAME@_THREADS;
    if (!sizes_can_be(max_width, max_height, threads))
        return @NAME@_FRAME;
    if ((uintptr_t)arena % 64 || arena_bytes < laid_out(NULL, NULL, max_width, max_height, threads))
        return @NAME@_ARENA;
    if ((uintptr_t)weights % 64 || !ours(weights))
        return @NAME@_WEIGHTS;
    struct state *net = arena;
    *net = (struct state){.weights = weights, .parts = 1, .max_width = max_width, .max_height = max_height};
    laid_out(net, arena, max_width, max_height, threads);
    for (int i = ISAS - 1; i >= 0; i--)
        if (runs(i))
            net->isa = isas + i;
    if (!net->isa)
        return @NAME@_ISA;
    net->view = view_of(INPUT_WIDTH, INPUT_HEIGHT);
#if INTEGER
    /* Four bytes are read at a time: what lies past a map is multiplied by 0, yet has to have been written. */
    for (size_t i = 0; i < MAPS_BYTES + (size_t)threads * SCRATCH_BYTES; i++)
        net->arena[i] = 0;
#else
    for (int c = 0; c < 3; c++)
        for (int i = 0; i < 256; i++)
            net->levels[c][i] = ((float)i - mean[c]) / std[c];
#endif
#if THREADS
    if (threads > 1 && start_threads(net, threads)) {
        end_threads(net);
        return @NAME@_THREADS;
    }
#endif
    *made = (@name@_model *)net;
    return @NAME@_OK;
}

void @name@_free(@name@_model *given)
{
    struct state *net = (struct state *)given;
#if THREADS
    if (net && net->parts > 1)
        end_threads(net);
#endif
    (void)net;
}

int @name@_run(@name@_model *given, const uint8_t *rgb, int width, int height, ptrdiff_t stride)
{
    struct state *net = (struct state *)given;
    if (!net || !rgb)
        return @NAME@_NULL;
    if (width < 1 || height < 1 || width > net->max_width || height > net->max_height ||
        stride < 3 * (ptrdiff_t)width)
        return @NAME@_FRAME;
    net->input = NULL;
    net->isa->take_frame(net, rgb, width, height, stride);
    run_steps(net);
    return @NAME@_OK;
}

int @name@_run_levels(@name@_model *given, const uint8_t *levels)
{
    struct state *net = (struct state *)given;
    if (!net || !levels)
        return @NAME@_NULL;
    net->view = (struct view){0, 0, INPUT_HEIGHT, INPUT_WIDTH, 0, 0, INPUT_HEIGHT, INPUT_WIDTH};
    net->given = levels;
    net->given_stride = 3 * INPUT_WIDTH;
    net->input = NULL;
    run_steps(net);
    return @NAME@_OK;
}

int @name@_run_input(@name@_model *given, const float *input)
{
    struct state *net = (struct state *)given;
    if (!net || !input)
        return @NAME@_NULL;
    net->input = input;
    net->view = (struct view){0, 0, INPUT_HEIGHT, INPUT_WIDTH, 0, 0, INPUT_HEIGHT, INPUT_WIDTH};
    run_steps(net);
    return @NAME@_OK;
}

const struct @name@_output *@name@_outputs(void)
{
    return outputs;
}

const void *@name@_output(const @name@_model *given, int index)
{
    const struct state *net = (const struct state *)given;
    return net && index >= 0 && index < @NAME@_OUTPUTS ? (const char *)net->arena + places[index] : NULL;
}

float @name@_value(const @name@_model *given, int index, int place)
{
    const void *values = @name@_output(given, index);
    if (!values || place < 0)
        return 0.0f;
    const struct OUTPUT *kind = &outputs[index];
    int at = 0;
    for (int side = kind->rank - 1; side >= 0; side--) {
        at += place % kind->shape[side] * kind->stride[side];
        place /= kind->shape[side];
    }
    if (place)
        return 0.0f;
    if (kind->dtype[0] == 'u')
        return kind->scale * (float)(((const uint8_t *)values)[at] - kind->zero);
    return ((const float *)values)[at];
}

const char *@name@_label(int index)
{
    return index >= 0 && index < @NAME@_LABELS ? labels + label_at[index] : NULL;
}

int @name@_transform(const @name@_model *given, float matrix[6])
{
    const struct state *net = (const struct state *)given;
    if (!net || !matrix)
        return @NAME@_NULL;
    const struct view *view = &net->view;
    const float across = (float)view->wide / (float)view->width, down = (float)view->tall / (float)view->height;
    const float found[6] = {across, 0.0f, (float)view->beside - across * (float)view->left, 0.0f, down,
        (float)view->above - down * (float)view->top};
    for (int i = 0; i < 6; i++)
        matrix[i] = found[i];
    return @NAME@_OK;
}

int @name@_use(@name@_model *given, const char *isa)
{
    struct state *net = (struct state *)given;
    if (!net || !isa)
        return @NAME@_NULL;
    for (int i = 0; i < ISAS; i++)
        if (runs(i) && same(isas[i].name, isa)) {
            net->isa = isas + i;
            return @NAME@_OK;
        }
    return @NAME@_ISA;
}

const char *@name@_about(void)
{
    return about;
}
