/* The two functions of the emulation rig (rig.c) that C cannot say. SPDX-License-Identifier: 0BSD */
    .syntax unified
    .thumb
    .section .rig_text, "ax", %progbits

/* int rig_call(input, output, arena, stack_top): edgeprune_model_run(input, output, arena) on a stack of its own. */
    .global rig_call
    .type rig_call, %function
rig_call:
    push {r4, lr}
    mov r4, sp
    mov sp, r3
    bl edgeprune_model_run
    mov sp, r4
    pop {r4, pc}
    .size rig_call, . - rig_call

/* Every exception's handler: what the core stacked is where sp points to. */
    .global rig_fault
    .type rig_fault, %function
rig_fault:
    mov r0, sp
    ldr r1, =rig_report_fault
    bx r1
    .ltorg
    .size rig_fault, . - rig_fault
