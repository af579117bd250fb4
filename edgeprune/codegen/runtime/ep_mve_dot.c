/* Dot products and requantization in Helium (MVE) assembly. SPDX-License-Identifier: 0BSD
 *
 * VMLADAVA adds 16 products of int8 to a register of even number. Three patches times two channels share their loads:
 * 5 loads and 6 VMLADAVA for 96 products. Loops end with LETP, which switches off the lanes beyond the last byte, so
 * that neither weights nor patches need padding. The assembly is the same for gcc and clang. */
#include "ep_mve_dot.h"

#define EP_ASM_FUNCTION(name)                                                                                          \
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
    "vadd.i32 q2, q2, r10\n"                                                                                           \
    "vmax.s32 q2, q2, q6\n"                                                                                            \
    "vmin.s32 q2, q2, q7\n"                                                                                            \
    "vstrb.32 q2, [r4], #4\n"
#define EP_ASM_SCALES_3                                                                                                \
    "vldrw.u32 q0, [r2], #16\n"                                                                                        \
    "vldrb.s32 q1, [r3], #4\n"
#define EP_ASM_SCALES_1                                                                                                \
    "vldrw.u32 q0, [r2]\n"                                                                                             \
    "add r2, r2, r5\n"                                                                                                 \
    "vldrb.s32 q1, [r3]\n"                                                                                             \
    "add r3, r3, r6\n"
#define EP_ASM_STEPS_3                                                                                                 \
    "add r8, r1, #256\n"                                                                                               \
    "add r9, r1, #512\n"
#define EP_ASM_STEPS_1 "ldrd r5, r6, [r0, #40]\n"
#define EP_ASM_REQUANTIZE(name, pixels, outputs)                                                                       \
    __asm__(EP_ASM_FUNCTION(name)                                                                                      \
            "push {r4-r10, lr}\n"                                                                                      \
            "vpush {d8-d15}\n"                                                                                         \
            "ldm r0, {r1, r2, r3, r4, r5, r6, r7, r10}\n"                                                              \
            "ldrd r8, r9, [r0, #32]\n"                                                                                 \
            "vdup.32 q6, r8\n"                                                                                         \
            "vdup.32 q7, r9\n"                                                                                         \
            EP_ASM_STEPS_##pixels                                                                                      \
            "dlstp.32 lr, r7\n"                                                                                        \
            "1:\n"                                                                                                     \
            EP_ASM_SCALES_##pixels outputs "letp lr, 1b\n"                                                             \
            "vpop {d8-d15}\n"                                                                                          \
            "pop {r4-r10, pc}\n" EP_ASM_END(name))

EP_ASM_REQUANTIZE(ep_mve_requantize_3_clamped, 3,
                  EP_ASM_OUTPUT("r1", "r4", "") EP_ASM_OUTPUT("r8", "r5", "") EP_ASM_OUTPUT("r9", "r6", ""));
EP_ASM_REQUANTIZE(ep_mve_requantize_3_right, 3,
                  EP_ASM_OUTPUT("r1", "r4", EP_ASM_TIES) EP_ASM_OUTPUT("r8", "r5", EP_ASM_TIES)
                      EP_ASM_OUTPUT("r9", "r6", EP_ASM_TIES));
EP_ASM_REQUANTIZE(ep_mve_requantize_1_clamped, 1, EP_ASM_OUTPUT("r1", "r4", ""));
EP_ASM_REQUANTIZE(ep_mve_requantize_1_right, 1, EP_ASM_OUTPUT("r1", "r4", EP_ASM_TIES));
EP_ASM_REQUANTIZE(ep_mve_requantize_1_any, 1, EP_ASM_OUTPUT_ANY);

static void requantize(ep_mve_outputs *outputs, int32_t pixels, int32_t form)
{
    if (form == EP_MVE_ANY) {
        int8_t *const y[3] = {outputs->y0, outputs->y1, outputs->y2};
        for (int32_t i = 0; i < pixels; i++) {
            outputs->y0 = y[i];
            ep_mve_requantize_1_any(outputs);
            outputs->sums += EP_MVE_TILE;
        }
        outputs->sums -= pixels * EP_MVE_TILE;
    } else if (form == EP_MVE_RIGHT) {
        (pixels == 1 ? ep_mve_requantize_1_right : ep_mve_requantize_3_right)(outputs);
    } else {
        (pixels == 1 ? ep_mve_requantize_1_clamped : ep_mve_requantize_3_clamped)(outputs);
    }
}

/* Sums of the channels of `dot`, `width` (2 or 4) at a time, all or but for a rest; the rest overlaps those before, or
 * stands alone, its weight counting for all `width`. */
static void sum_channels(void (*function)(const ep_mve_dot *), const ep_mve_dot *dot, int32_t channels, int32_t width)
{
    int32_t whole = channels & -width;
    if (whole) {
        function(dot);
    }
    if (whole == channels) {
        return;
    }
    ep_mve_dot rest = *dot;
    int32_t at = channels - width;
    if (at < 0) {
        at = 0;
        rest.weight_step = 0;
        function = width == 2 ? ep_mve_dot_3x2 : ep_mve_dot_1x4; /* a sliding one goes on to the next weights */
    }
    for (; at < channels; at++) {
        rest.weight = dot->weight + at * dot->weight_step;
        rest.bias = dot->bias + at;
        rest.sums = dot->sums + at;
        rest.sums_end = rest.sums + width;
        function(&rest);
        if (rest.weight_step) {
            return;
        }
    }
}

/* The channels of one tile, at most EP_MVE_TILE. */
static void run_tile(const ep_mve_layer *layer, const int8_t *x, int32_t x_step, int8_t *y, int32_t y_step,
                     int32_t pixels, int32_t *sums)
{
    int32_t channels = layer->channels;
    int32_t width = pixels == 1 ? 4 : 2;
    ep_mve_dot dot = {x,    x, x, layer->weight, layer->bias, sums, sums + (channels & -width), layer->length,
                      layer->length};
    ep_mve_outputs outputs = {sums,     layer->scales.multiplier, layer->scales.shift,   y, y, y,
                              channels, layer->scales.zero,       layer->scales.act_min, layer->scales.act_max,
                              16,       4};
    if (layer->scales.is_uniform) {
        outputs.multiplier_step = outputs.shift_step = 0;
    }
    int slides = layer->slide && x_step == layer->slide_step && ((uintptr_t)x & 3) == 0;
    while (pixels > 1) { /* two pixels: the second one twice */
        int32_t third = pixels == 2 ? 1 : 2;
        dot.x0 = x;
        dot.x1 = x + x_step;
        dot.x2 = x + third * x_step;
        sum_channels(slides && third == 2 ? layer->slide : ep_mve_dot_3x2, &dot, channels, 2);
        outputs.y0 = y;
        outputs.y1 = y + y_step;
        outputs.y2 = y + third * y_step;
        requantize(&outputs, third + 1, layer->scales.form);
        x += 3 * x_step;
        y += 3 * y_step;
        pixels -= third + 1;
    }
    if (pixels == 1) {
        dot.x0 = x;
        dot.sums_end = sums + (channels & -4);
        sum_channels(ep_mve_dot_1x4, &dot, channels, 4);
        outputs.y0 = y;
        requantize(&outputs, 1, layer->scales.form);
    }
}

static ep_mve_layer find_channels(const ep_mve_layer *layer, int32_t first, int32_t count)
{
    ep_mve_layer part = *layer;
    part.weight += first * layer->length;
    part.bias += first;
    if (!part.scales.is_uniform) {
        part.scales.multiplier += first;
        part.scales.shift += first;
    }
    part.channels = count;
    return part;
}

ep_mve_layer ep_mve_find_group(const ep_mve_layer *layer, int32_t group)
{
    return find_channels(layer, group * layer->channels, layer->channels);
}

void ep_mve_dot_run(const ep_mve_layer *layer, const int8_t *x, int32_t x_step, int8_t *y, int32_t y_step,
                    int32_t pixels, int32_t *sums)
{
    for (int32_t first = 0; first < layer->channels; first += EP_MVE_TILE) {
        int32_t count = layer->channels - first < EP_MVE_TILE ? layer->channels - first : EP_MVE_TILE;
        ep_mve_layer tile = find_channels(layer, first, count);
        run_tile(&tile, x, x_step, y + first, y_step, pixels, sums);
    }
}
