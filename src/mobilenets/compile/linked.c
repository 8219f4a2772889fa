#define OUTPUT @name@_output
#ifdef @NAME@_LINKED /* weights within the library: the assembler reads the file */
__asm__(".pushsection .rodata\n.balign 64\n@name@_linked:\n.incbin \"@name@.weights\"\n.popsection\n");
extern const value @name@_linked[] __attribute__((visibility("hidden")));
#define LINKED_WEIGHTS @name@_linked
const char mobilenets_name[] = "@name@"; /* by which a library's functions are found */
#else
#define LINKED_WEIGHTS NULL
#endif
