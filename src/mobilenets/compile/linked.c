#define OUTPUT @name@_output
#ifndef @NAME@_LINKED
#define LINKED_WEIGHTS NULL
#else /* weights within the library */
#if defined(__ELF__) /* the assembler reads the file */
__asm__(".pushsection .rodata\n.balign 64\n@name@_linked:\n.incbin \"@name@.weights\"\n.popsection\n");
extern const value @name@_linked[] __attribute__((visibility("hidden")));
#define LINKED_WEIGHTS @name@_linked
__attribute__((weak)) /* programs may have several networks */
#else
#pragma clang diagnostic ignored "-Wc23-extensions"
static const _Alignas(64) unsigned char linked[] = {
#embed "@name@.weights"
};
#define LINKED_WEIGHTS linked
#endif
extern const char mobilenets_name[];
const char mobilenets_name[] = "@name@"; /* by which a library's functions are found */
#endif
