/* Runs @name@ on a microcontroller that qemu-system-arm stands in for; weights lie in the program. Standard input
 * and output are the emulator's, by semihosting. Requests are those of harness.c, and two more: 3 asks for the
 * bytes of an arena for frames of width × height, 4 for the most of the stack that was ever used. */
#include "@name@.h"

enum request { RUN = 0, INPUT = 1, USE = 2, ARENA = 3, STACK = 4 };
enum { LARGEST = 1024, STACK_BYTES = 64 << 10, PAINT = 0x5a5a5a5a };
enum { SYS_OPEN = 1, SYS_WRITE = 5, SYS_READ = 6, SYS_EXIT = 24, READ_BINARY = 1, WRITE_BINARY = 5 };

int main(void);
static uint32_t stack[STACK_BYTES / 4];

static intptr_t asked(int operation, const void *with)
{
    register intptr_t r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = with;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

static void reset(void)
{
    *(volatile uint32_t *)0xe000ed88 |= 0xf << 20; /* the floating-point unit, off until asked for */
    __asm__ volatile("dsb\n\tisb");
    for (int i = 0; i < (int)(sizeof stack / 4) - 64; i++)
        ((volatile uint32_t *)stack)[i] = PAINT;
    main();
    asked(SYS_EXIT, (const void *)0x20026);
}

static void fault(void)
{
    asked(SYS_EXIT, (const void *)0x20023);
}

__attribute__((section(".vectors"), used)) static void *const vectors[] = {
    stack + sizeof stack / 4, (void *)reset, (void *)fault, (void *)fault, (void *)fault, (void *)fault, (void *)fault,
};

static int opened(const char *path, int mode)
{
    size_t length = 0;
    while (path[length])
        length++;
    const uintptr_t with[3] = {(uintptr_t)path, (uintptr_t)mode, length};
    return (int)asked(SYS_OPEN, with);
}

static int all(int file, void *to, size_t bytes)
{
    for (size_t left = bytes; left;) {
        const uintptr_t with[3] = {(uintptr_t)file, (uintptr_t)to + bytes - left, left};
        const intptr_t still = asked(SYS_READ, with);
        if (still < 0 || (size_t)still >= left)
            return 0;
        left = (size_t)still;
    }
    return 1;
}

static int put(int file, const void *from, size_t bytes)
{
    const uintptr_t with[3] = {(uintptr_t)file, (uintptr_t)from, bytes};
    return !asked(SYS_WRITE, with);
}

static int32_t used(void)
{
    int i = 0;
    while (((volatile uint32_t *)stack)[i] == PAINT)
        i++;
    return (int32_t)(sizeof stack) - 4 * i;
}

static int values_of(int output)
{
    int count = 1;
    for (int side = 0; side < @name@_outputs()[output].rank; side++)
        count *= @name@_outputs()[output].shape[side];
    return count;
}

int main(void)
{
    const int in = opened("/dev/stdin", READ_BINARY), out = opened("/dev/stdout", WRITE_BINARY);
    const size_t bytes = @name@_arena_size(LARGEST, LARGEST, 1);
    uint8_t *given = (uint8_t *)MEMORY + (bytes + 63) / 64 * 64;
    @name@_model *net;
    if (in < 0 || out < 0 || @name@_init(&net, (void *)MEMORY, bytes, NULL, LARGEST, LARGEST, 1))
        return 1;
    for (int32_t request[3], code; all(in, request, sizeof request);) {
        const size_t width = (size_t)request[1], height = (size_t)request[2];
        const size_t size = request[0] == RUN     ? width * height * 3
                            : request[0] == INPUT ? sizeof(float) * @NAME@_INPUT_WIDTH * @NAME@_INPUT_HEIGHT * 3
                            : request[0] == USE   ? width
                                                  : 0;
        if (!all(in, given, size))
            return 1;
        given[size] = 0;
        if (request[0] == RUN)
            code = @name@_run(net, given, request[1], request[2], 3 * (ptrdiff_t)width);
        else if (request[0] == INPUT)
            code = @name@_run_input(net, (const float *)(const void *)given);
        else if (request[0] == USE)
            code = @name@_use(net, (const char *)given);
        else
            code = request[0] == ARENA ? (int32_t)@name@_arena_size(request[1], request[2], 1) : used();
        if (!put(out, &code, sizeof code))
            return 1;
        for (int i = 0; !code && request[0] <= INPUT && i < @NAME@_OUTPUTS; i++)
            for (int j = 0, count = values_of(i); j < count; j++) {
                const float one = @name@_value(net, i, j);
                if (!put(out, &one, sizeof one))
                    return 1;
            }
    }
    return 0;
}
