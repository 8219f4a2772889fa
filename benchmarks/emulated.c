/* A plugin for QEMU that counts the instructions a program executes, by the blocks they are translated in.
 * At the end each block's address, instructions and times go to the file that COUNTED names.
 * Declared here is what it uses of the plugins' interface, for QEMU's header is seldom installed with it. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

struct qemu_plugin_tb;
typedef uint64_t plugin_id;
typedef void (*translated)(plugin_id, struct qemu_plugin_tb *);
typedef void (*executed)(unsigned cpu, void *own);
typedef void (*ended)(plugin_id, void *own);
void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, translated);
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, executed, int flags, void *own);
void qemu_plugin_register_atexit_cb(plugin_id, ended, void *own);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *);

int qemu_plugin_version = INTERFACE;

struct block {
    unsigned long long at, instructions, times;
    struct block *next;
};
static struct block *blocks;

static void count(unsigned cpu, void *own)
{
    (void)cpu;
    ((struct block *)own)->times++;
}

static void begin(plugin_id id, struct qemu_plugin_tb *translation)
{
    (void)id;
    struct block *block = calloc(1, sizeof *block);
    if (!block)
        abort();
    block->at = qemu_plugin_tb_vaddr(translation);
    block->instructions = qemu_plugin_tb_n_insns(translation);
    block->next = blocks;
    blocks = block;
    qemu_plugin_register_vcpu_tb_exec_cb(translation, count, 0, block);
}

static void tell(plugin_id id, void *own)
{
    (void)id, (void)own;
    FILE *file = fopen(getenv("COUNTED"), "w");
    if (!file)
        abort();
    for (const struct block *block = blocks; block; block = block->next)
        fprintf(file, "%llu %llu %llu\n", block->at, block->instructions, block->times);
    fclose(file);
}

int qemu_plugin_install(plugin_id id, const void *about, int count_of_words, char **words)
{
    (void)about, (void)count_of_words, (void)words;
    if (!getenv("COUNTED"))
        return 1;
    qemu_plugin_register_vcpu_tb_trans_cb(id, begin);
    qemu_plugin_register_atexit_cb(id, tell, NULL);
    return 0;
}
