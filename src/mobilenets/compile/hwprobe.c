/* Whether the processor has vectors (V 1.0), as the kernel of Linux 6.5 tells it: bits of older kernels mean drafts
 * too. An emulator that does not answer is tried, in a process of its own. */
#if defined(__linux__)
#include <sys/wait.h>
#include <unistd.h>
#endif

enum feature { VECTORS_1 = 1 };

static int features(void)
{
#if defined(__linux__)
    struct {
        int64_t key;
        uint64_t value;
    } asked = {4, 0}; /* RISCV_HWPROBE_KEY_IMA_EXT_0 */
    if (!syscall(258, &asked, 1ul, 0ul, (void *)0, 0u))
        return asked.key == 4 && asked.value & 4 ? VECTORS_1 : 0; /* RISCV_HWPROBE_IMA_V */
#if defined(TRY_VECTORS)
    int ended = -1;
    const pid_t child = fork();
    if (!child) {
        __asm__ volatile(".4byte 0xcd027057" ::: "memory"); /* vsetivli zero, 4, e32, m1, ta, ma */
        _exit(0);
    }
    return child > 0 && waitpid(child, &ended, 0) == child && !ended ? VECTORS_1 : 0;
#endif
#endif
    return 0;
}
