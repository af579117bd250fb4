/* Dot products and requantization in Helium (MVE) assembly. SPDX-License-Identifier: 0BSD
 *
 * VMLADAVA adds 16 products of int8 to a register of even number. Three patches times two channels share their loads:
 * 5 loads and 6 VMLADAVA for 96 products. Loops end with LETP, which switches off the lanes beyond the last byte, so
 * that neither weights nor patches need padding. The assembly is the same for gcc and clang. */
#include "ep_mve_dot.h"

#define EP_ASM_FUNCTION(name)                                                                                         \
    ".syntax unified\n.thumb\n.section .text." #name ",\"ax\",%progbits\n.balign 4\n.global " #name                    \
    "\n.type " #name ",%function\n.thumb_func\n" #name ":\n"
#define EP_ASM_END(name) ".size " #name ", . - " #name "\n.text\n"

/* r1, r3, r5: patches. r7, r9: weights of two channels. r12: bias. r11: sums. r0, r4, r8 and r2, r6, r10: accumulators.
 * On the stack: length rounded up to 16, weight_step - that, weight_step, length, end of the sums. */
__asm__(EP_ASM_FUNCTION(ep_mve_dot_3x2)
        "push {r4-r11, lr}\n"
        "ldm r0, {r1, r3, r5, r9, r12}\n"
        "ldr r11, [r0, #20]\n"
        "ldrd r8, r6, [r0, #24]\n"
        "ldr r4, [r0, #32]\n"
        "add r0, r6, #15\n"
        "bic r0, r0, #15\n"
        "sub r2, r4, r0\n"
        "push {r0, r2, r4, r6, r8}\n"
        "add r1, r1, r0\n"
        "add r3, r3, r0\n"
        "add r5, r5, r0\n"
        "sub r9, r9, r2\n"
        "sub r11, r11, #8\n"
        "sub r8, r8, #8\n"
        "str r8, [sp, #16]\n"
        "1:\n"
        "ldm sp, {r0, r2, r4, r6}\n"
        "sub r1, r1, r0\n"
        "sub r3, r3, r0\n"
        "sub r5, r5, r0\n"
        "add r7, r9, r2\n"
        "add r9, r7, r4\n"
        "dlstp.8 lr, r6\n"
        "ldrd r0, r2, [r12], #8\n"
        "mov r4, r0\n"
        "mov r6, r2\n"
        "mov r8, r0\n"
        "mov r10, r2\n"
        "2:\n"
        "vldrb.8 q0, [r7], #16\n"
        "vldrb.8 q1, [r1], #16\n"
        "vmladava.s8 r0, q0, q1\n"
        "vldrb.8 q2, [r3], #16\n"
        "vmladava.s8 r4, q0, q2\n"
        "vldrb.8 q3, [r5], #16\n"
        "vmladava.s8 r8, q0, q3\n"
        "vldrb.8 q0, [r9], #16\n"
        "vmladava.s8 r2, q0, q1\n"
        "vmladava.s8 r6, q0, q2\n"
        "vmladava.s8 r10, q0, q3\n"
        "letp lr, 2b\n"
        "strd r0, r2, [r11, #8]!\n"
        "strd r4, r6, [r11, #256]\n"
        "strd r8, r10, [r11, #512]\n"
        "ldr r0, [sp, #16]\n"
        "cmp r11, r0\n"
        "blo 1b\n"
        "add sp, sp, #20\n"
        "pop {r4-r11, pc}\n" EP_ASM_END(ep_mve_dot_3x2));

/* r8: patch. r1, r3, r5, r7: weights of four channels. r12: bias. r11: sums. r0, r2, r4, r6: accumulators. */
__asm__(EP_ASM_FUNCTION(ep_mve_dot_1x4)
        "push {r4-r11, lr}\n"
        "ldr r8, [r0]\n"
        "ldrd r7, r12, [r0, #12]\n"
        "ldrd r11, r9, [r0, #20]\n"
        "ldrd r6, r4, [r0, #28]\n"
        "add r0, r6, #15\n"
        "bic r0, r0, #15\n"
        "sub r2, r4, r0\n"
        "push {r0, r2, r4, r6}\n"
        "add r8, r8, r0\n"
        "sub r7, r7, r2\n"
        "1:\n"
        "ldm sp, {r0, r2, r4, r6}\n"
        "sub r8, r8, r0\n"
        "add r1, r7, r2\n"
        "add r3, r1, r4\n"
        "add r5, r3, r4\n"
        "add r7, r5, r4\n"
        "dlstp.8 lr, r6\n"
        "ldm r12!, {r0, r2, r4, r6}\n"
        "2:\n"
        "vldrb.8 q0, [r8], #16\n"
        "vldrb.8 q1, [r1], #16\n"
        "vmladava.s8 r0, q0, q1\n"
        "vldrb.8 q2, [r3], #16\n"
        "vmladava.s8 r2, q0, q2\n"
        "vldrb.8 q3, [r5], #16\n"
        "vmladava.s8 r4, q0, q3\n"
        "vldrb.8 q1, [r7], #16\n"
        "vmladava.s8 r6, q0, q1\n"
        "letp lr, 2b\n"
        "stmia r11!, {r0, r2, r4, r6}\n"
        "cmp r11, r9\n"
        "blo 1b\n"
        "add sp, sp, #16\n"
        "pop {r4-r11, pc}\n" EP_ASM_END(ep_mve_dot_1x4));

/* q0: multipliers. q1: shifts. q2, q3: sums and what is rounded off them. q6, q7: the activation's range.
 * VQRDMULH is SaturatingRoundingDoublingHighMul. VRSHL rounds ties upwards, RoundingDivideByPOT away from zero:
 * one less for negative values before the shift makes them equal. */
#define EP_ASM_OUTPUT(sums, y, ties)                                                                                   \
    "vldrw.u32 q2, [" sums "], #16\n"                                                                                  \
    "vqrdmulh.s32 q2, q2, q0\n" ties                                                                                   \
    "vrshl.s32 q2, q2, q1\n"                                                                                           \
    "vadd.i32 q2, q2, r10\n"                                                                                           \
    "vmax.s32 q2, q2, q6\n"                                                                                            \
    "vmin.s32 q2, q2, q7\n"                                                                                            \
    "vstrb.32 q2, [" y "], #4\n"
#define EP_ASM_TIES                                                                                                    \
    "vshr.s32 q3, q2, #31\n"                                                                                           \
    "vadd.i32 q2, q2, q3\n"
#define EP_ASM_OUTPUT_ANY                                                                                              \
    "vldrw.u32 q2, [r1], #16\n"                                                                                        \
    "vmov.i32 q4, #0\n"                                                                                                \
    "vmax.s32 q3, q1, q4\n"                                                                                            \
    "vshl.s32 q2, q2, q3\n"                                                                                            \
    "vqrdmulh.s32 q2, q2, q0\n"                                                                                        \
    "vmin.s32 q1, q1, q4\n"                                                                                            \
    "vand q3, q1, q2\n"                                                                                                \
    "vshr.s32 q3, q3, #31\n"                                                                                           \
    "vadd.i32 q2, q2, q3\n"                                                                                            \
    "vrshl.s32 q2, q2, q1\n"                                                                                           \
    "vqadd.s32 q2, q2, r10\n"                                                                                          \
    "vmax.s32 q2, q2, q6\n"                                                                                            \
    "vmin.s32 q2, q2, q7\n"                                                                                            \
    "vstrb.32 q2, [r4], #4\n"
#define EP_ASM_REQUANTIZE(name, outputs)                                                                               \
    __asm__(EP_ASM_FUNCTION(name)                                                                                      \
            "push {r4-r10, lr}\n"                                                                                      \
            "vpush {d8-d15}\n"                                                                                         \
            "ldm r0, {r1, r2, r3, r4, r5, r6, r7, r10}\n"                                                              \
            "ldrd r8, r9, [r0, #32]\n"                                                                                 \
            "vdup.32 q6, r8\n"                                                                                         \
            "vdup.32 q7, r9\n"                                                                                         \
            "add r8, r1, #256\n"                                                                                       \
            "add r9, r1, #512\n"                                                                                       \
            "dlstp.32 lr, r7\n"                                                                                        \
            "1:\n"                                                                                                     \
            "vldrw.u32 q0, [r2], #16\n"                                                                                \
            "vldrb.s32 q1, [r3], #4\n" outputs "letp lr, 1b\n"                                                         \
            "vpop {d8-d15}\n"                                                                                          \
            "pop {r4-r10, pc}\n" EP_ASM_END(name))

EP_ASM_REQUANTIZE(ep_mve_requantize_3_clamped,
                  EP_ASM_OUTPUT("r1", "r4", "") EP_ASM_OUTPUT("r8", "r5", "") EP_ASM_OUTPUT("r9", "r6", ""));
EP_ASM_REQUANTIZE(ep_mve_requantize_3_right,
                  EP_ASM_OUTPUT("r1", "r4", EP_ASM_TIES) EP_ASM_OUTPUT("r8", "r5", EP_ASM_TIES)
                      EP_ASM_OUTPUT("r9", "r6", EP_ASM_TIES));
EP_ASM_REQUANTIZE(ep_mve_requantize_1_clamped, EP_ASM_OUTPUT("r1", "r4", ""));
EP_ASM_REQUANTIZE(ep_mve_requantize_1_right, EP_ASM_OUTPUT("r1", "r4", EP_ASM_TIES));
EP_ASM_REQUANTIZE(ep_mve_requantize_1_any, EP_ASM_OUTPUT_ANY);

static void requantize(ep_mve_outputs *outputs, int32_t pixels, int32_t form) {
    if (form == EP_MVE_ANY) {
        ep_mve_requantize_1_any(outputs);
        if (pixels > 1) {
            outputs->sums += EP_MVE_TILE;
            outputs->y0 = outputs->y1;
            ep_mve_requantize_1_any(outputs);
        }
        if (pixels > 2) {
            outputs->sums += EP_MVE_TILE;
            outputs->y0 = outputs->y2;
            ep_mve_requantize_1_any(outputs);
        }
    } else if (form == EP_MVE_RIGHT) {
        (pixels == 1 ? ep_mve_requantize_1_right : ep_mve_requantize_3_right)(outputs);
    } else {
        (pixels == 1 ? ep_mve_requantize_1_clamped : ep_mve_requantize_3_clamped)(outputs);
    }
}

/* Sums for `channels` channels, `width` (2 or 4) at a time; the last ones overlap those before, or stand alone. */
static void sum_channels(void (*function)(const ep_mve_dot *), ep_mve_dot *dot, int32_t channels, int32_t width) {
    int32_t whole = channels & -width;
    const int8_t *weight = dot->weight;
    const int32_t *bias = dot->bias;
    int32_t *sums = dot->sums;
    if (whole) {
        dot->sums_end = sums + whole;
        function(dot);
    }
    if (whole == channels) {
        return;
    }
    if (whole) {
        int32_t first = channels - width;
        dot->weight = weight + first * dot->weight_step;
        dot->bias = bias + first;
        dot->sums = sums + first;
        dot->sums_end = dot->sums + width;
        function(dot);
        return;
    }
    int32_t step = dot->weight_step;
    dot->weight_step = 0;
    for (int32_t channel = 0; channel < channels; channel++) { /* the function's other channels are written over */
        dot->weight = weight + channel * step;
        dot->bias = bias + channel;
        dot->sums = sums + channel;
        dot->sums_end = dot->sums + width;
        function(dot);
    }
    dot->weight_step = step;
}

void ep_mve_dot_pixels(const int8_t *const x[3], int8_t *const y[3], int32_t pixels, const int8_t *weight,
                       int32_t length, int32_t channels, const int32_t *bias, const ep_mve_scales *scales,
                       int32_t first_channel, int32_t *sums) {
    for (int32_t first = 0; first < channels; first += EP_MVE_TILE) {
        int32_t count = channels - first < EP_MVE_TILE ? channels - first : EP_MVE_TILE;
        ep_mve_dot dot = {x[0], x[1], x[2], weight + first * length, bias + first, sums, sums, length, length};
        if (pixels == 1) {
            sum_channels(ep_mve_dot_1x4, &dot, count, 4);
        } else {
            sum_channels(ep_mve_dot_3x2, &dot, count, 2);
        }
        int32_t at = first_channel + first;
        ep_mve_outputs outputs = {sums,         scales->multiplier + at, scales->shift + at, y[0] + first,
                                  y[1] + first, y[2] + first,            count,              scales->zero,
                                  scales->act_min, scales->act_max};
        requantize(&outputs, pixels, scales->form);
    }
}
