/* The emulation rig: what stands around the model's firmware on an emulated board. No part of the firmware.
 * SPDX-License-Identifier: 0BSD
 *
 * It runs the model `rig_request.count` times, on inputs and outputs that lie side by side in memory, and ends through
 * semihosting. QEMU starts it at its vector table; under Unicorn only `edgeprune_model_run` is called and the rest is
 * there so that the linker keeps what the model needs and drops everything else. All of it is in sections named .rig*,
 * which the size figures leave out. */
#include <stdint.h>

#include "model.h"

#define RIG(name) __attribute__((used, section(".rig_" name)))

/* Sizes for the one who fills the memory. */
RIG("rodata") const uint32_t rig_sizes[3] = {EDGEPRUNE_MODEL_INPUT_BYTES, EDGEPRUNE_MODEL_OUTPUT_BYTES,
                                             EDGEPRUNE_MODEL_ARENA_BYTES};

/* Written by the emulator before the start: where inputs, outputs and arena are, and how many inferences to run. */
typedef struct {
    const int8_t *input;
    int8_t *output;
    void *arena;
    uint32_t count;
    uint32_t status; /* written by the rig: what the model answered, all runs ORed */
} rig_request_t;
extern volatile rig_request_t rig_request;           /* linker script */
extern char rig_stack_bottom[], rig_stack_top[]; /* linker script */

RIG("text") static int rig_ask_host(int operation, const void *arguments) {
    register int r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = arguments;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

/* Write memory to a file of the emulator's working folder: SYS_OPEN in mode "wb", SYS_WRITE, SYS_CLOSE. */
RIG("text") static void rig_save(const char *name, uint32_t name_bytes, const void *start, uint32_t bytes) {
    uint32_t open[3] = {(uint32_t)(uintptr_t)name, 5u, name_bytes};
    uint32_t file = (uint32_t)rig_ask_host(0x01, open);
    uint32_t write[3] = {file, (uint32_t)(uintptr_t)start, bytes};
    rig_ask_host(0x05, write);
    rig_ask_host(0x02, &file);
}

RIG("rodata") static const char rig_output_name[] = "output.bin";
RIG("rodata") static const char rig_arena_name[] = "stack.bin";

RIG("text") __attribute__((noinline, noreturn)) void rig_end(void) {
    rig_save(rig_output_name, sizeof rig_output_name - 1, (const void *)(uintptr_t)rig_request.output,
             rig_request.count * (uint32_t)EDGEPRUNE_MODEL_OUTPUT_BYTES);
    rig_save(rig_arena_name, sizeof rig_arena_name - 1, rig_stack_bottom, (uint32_t)(rig_stack_top - rig_stack_bottom));
    for (;;) {
        rig_ask_host(0x18, (const void *)(uintptr_t)(rig_request.status == 0 ? 0x20026u : 0x20023u)); /* SYS_EXIT */
    }
}

RIG("text") void rig_start(void) {
#if defined(__ARM_FP) || defined(__ARM_FEATURE_MVE)
    *(volatile uint32_t *)0xE000ED88u |= 0xFu << 20; /* CPACR: full access to CP10 and CP11 */
    __asm__ volatile("dsb\n\tisb");
#endif
    for (uint32_t i = 0; i < rig_request.count; i++) {
        rig_request.status |= (uint32_t)edgeprune_model_run(rig_request.input + i * (uint32_t)EDGEPRUNE_MODEL_INPUT_BYTES,
                                                            rig_request.output + i * (uint32_t)EDGEPRUNE_MODEL_OUTPUT_BYTES,
                                                            rig_request.arena);
    }
    rig_end();
}

/* A fault ends the run with a status of its own; the emulator's log says where it was. */
RIG("text") void rig_fault(void) {
    for (;;) {
        rig_ask_host(0x18, (const void *)0x20024u);
    }
}

RIG("vectors") void (*const rig_vectors[16])(void) = {
    (void (*)(void))rig_stack_top, rig_start, rig_fault, rig_fault, rig_fault, rig_fault, rig_fault, rig_fault,
    rig_fault, rig_fault, rig_fault, rig_fault, rig_fault, rig_fault, rig_fault, rig_fault,
};
