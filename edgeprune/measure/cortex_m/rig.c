/* The emulation rig: what stands around the model's firmware on an emulated board. No part of the firmware.
 * SPDX-License-Identifier: 0BSD
 *
 * It runs the model `rig_request.count` times, on inputs and outputs that lie side by side in memory, and ends through
 * semihosting. QEMU starts it at its vector table; under Unicorn only `edgeprune_model_run` is called, and the rest makes
 * the linker keep what the model needs and drop everything else. All of it is in sections named .rig*,
 * which the size figures leave out. */
#include <stdint.h>

#include "model.h"

#define RIG(name) __attribute__((used, section(".rig_" name)))

/* Sizes for the one who fills the memory. */
RIG("rodata") const uint32_t rig_sizes[3] = {EDGEPRUNE_MODEL_INPUT_BYTES, EDGEPRUNE_MODEL_OUTPUT_BYTES,
                                             EDGEPRUNE_MODEL_ARENA_BYTES};

/* Written by the emulator before the start: where inputs, outputs and arena are, how many inferences to run, and which
 * memory to save at the end. */
typedef struct {
    const int8_t *input;
    int8_t *output;
    void *arena;
    uint32_t count;
    const void *saved;
    uint32_t saved_bytes;
} rig_request_t;

/* From the linker script. The rig has a stack of its own, so that the other one holds the model's traces only. */
extern const rig_request_t rig_request;
extern char rig_stack_bottom[], rig_stack_top[], rig_own_stack_top[];

/* From rig_calls.S. */
int rig_call(const int8_t *input, int8_t *output, void *arena, void *stack_top);
void rig_fault(void);

RIG("text") static int rig_ask_host(int operation, const void *arguments) {
    register int r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = arguments;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

/* Write memory to a file in the emulator's working folder: SYS_OPEN in mode "wb", SYS_WRITE, SYS_CLOSE. */
RIG("text") static void rig_save(const char *name, uint32_t name_bytes, const void *start, uint32_t bytes) {
    uint32_t open[3] = {(uint32_t)(uintptr_t)name, 5u, name_bytes};
    uint32_t file = (uint32_t)rig_ask_host(0x01, open);
    uint32_t write[3] = {file, (uint32_t)(uintptr_t)start, bytes};
    rig_ask_host(0x05, write);
    rig_ask_host(0x02, &file);
}

RIG("rodata") static const char rig_memory_name[] = "memory.out";
RIG("rodata") static const char rig_stack_name[] = "stack.out";
RIG("rodata") static const char rig_status_name[] = "status.out";

/* End with a report of three words: 0 or the exception's number, the address where it was, what the model answered. */
RIG("text") __attribute__((noreturn)) static void rig_end(uint32_t exception, uint32_t where, uint32_t answer) {
    uint32_t status[3] = {exception, where, answer};
    rig_save(rig_memory_name, sizeof rig_memory_name - 1, rig_request.saved, rig_request.saved_bytes);
    rig_save(rig_stack_name, sizeof rig_stack_name - 1, rig_stack_bottom, (uint32_t)(rig_stack_top - rig_stack_bottom));
    rig_save(rig_status_name, sizeof rig_status_name - 1, status, sizeof status);
    for (;;) {
        rig_ask_host(0x18, (const void *)0x20026u); /* SYS_EXIT, ADP_Stopped_ApplicationExit */
    }
}

RIG("text") void rig_start(void) {
#if defined(__ARM_FP) || defined(__ARM_FEATURE_MVE)
    *(volatile uint32_t *)0xE000ED88u |= 0xFu << 20; /* CPACR: full access to CP10 and CP11 */
    __asm__ volatile("dsb\n\tisb");
#endif
    uint32_t answer = 0;
    for (uint32_t i = 0; i < rig_request.count; i++) {
        answer |= (uint32_t)rig_call(rig_request.input + i * (uint32_t)EDGEPRUNE_MODEL_INPUT_BYTES,
                                     rig_request.output + i * (uint32_t)EDGEPRUNE_MODEL_OUTPUT_BYTES,
                                     rig_request.arena, rig_stack_top);
    }
    rig_end(0, 0, answer);
}

/* frame: what the core stacked, r0-r3, r12, lr, pc, xpsr. */
RIG("text") void rig_report_fault(const uint32_t *frame) {
    rig_end(*(volatile uint32_t *)0xE000ED04u & 0x1FFu, frame[6], 0); /* ICSR: the active exception */
}

RIG("vectors") void (*const rig_vectors[16])(void) = {
    (void (*)(void))rig_own_stack_top, rig_start, rig_fault, rig_fault, rig_fault, rig_fault, rig_fault, rig_fault,
    rig_fault, rig_fault, rig_fault, rig_fault, rig_fault, rig_fault, rig_fault, rig_fault,
};
