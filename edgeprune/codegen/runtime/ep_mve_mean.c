/* Reductions over rows and columns for Helium (MVE). SPDX-License-Identifier: 0BSD */
#include "ep_mve_mean.h"

/* sums[0..7] += up to 8 channels of `pixels` pixels; 256 of them fit an int16. */
static void add_pixels(int32_t *sums, const int8_t *x, int32_t stride, int32_t channels, int32_t pixels)
{
    __asm__ volatile("vctp.16 %[channels]\n"
                     "vmov.i16 q0, #0\n"
                     "wls lr, %[pixels], 2f\n"
                     "1:\n"
                     "vpst\n"
                     "vldrbt.s16 q1, [%[x]]\n"
                     "vadd.i16 q0, q0, q1\n"
                     "add %[x], %[stride]\n"
                     "le lr, 1b\n"
                     "2:\n"
                     "vld20.32 {q2, q3}, [%[sums]]\n"
                     "vld21.32 {q2, q3}, [%[sums]]\n"
                     "vmovlb.s16 q1, q0\n"
                     "vmovlt.s16 q0, q0\n"
                     "vadd.i32 q2, q2, q1\n"
                     "vadd.i32 q3, q3, q0\n"
                     "vst20.32 {q2, q3}, [%[sums]]\n"
                     "vst21.32 {q2, q3}, [%[sums]]\n"
                     : [x] "+l"(x)
                     : [sums] "r"(sums), [stride] "r"(stride), [channels] "r"(channels), [pixels] "r"(pixels)
                     : "q0", "q1", "q2", "q3", "lr", "memory");
}

/* Take in the rows asked for; 1 where they are the last. state: sums, a multiple of 8 of them. */
static int add_rows(const ep_mve_mean_op *op, const ep_call *call)
{
    int32_t *sums = call->state;
    const int8_t *x = call->x + (call->y_first - call->x_first) * op->columns * op->x_stride;
    if (call->y_first == 0) {
        EP_NO_UNROLL
        for (int32_t i = 0; i < ((op->channels + 7) & -8); i++) {
            sums[i] = 0;
        }
    }
    for (int32_t left = call->y_rows * op->columns; left > 0; left -= 256) {
        int32_t pixels = left < 256 ? left : 256;
        for (int32_t channel = 0; channel < op->channels; channel += 8) {
            int32_t count = op->channels - channel < 8 ? op->channels - channel : 8;
            add_pixels(sums + channel, x + channel, op->x_stride, count, pixels);
        }
        x += pixels * op->x_stride;
    }
    return call->y_first + call->y_rows == op->x_rows;
}

void ep_mve_mean(const ep_mve_mean_op *op, const ep_call *call)
{
    if (!add_rows(op, call)) {
        return;
    }
    const int32_t *sums = call->state;
    int8_t *y = call->y;
    int32_t count = op->channels;
    __asm__ volatile("ldrd r8, r9, [%[op], #36]\n" /* zero, act_min */
                     "ldr r10, [%[op], #44]\n"
                     "vdup.32 q2, r9\n"
                     "vdup.32 q3, r10\n"
                     "ldrd r9, r10, [%[op], #16]\n" /* bias, multiplier */
                     "wlstp.32 lr, %[count], 2f\n"
                     "1:\n"
                     "vldrw.u32 q0, [%[sums]], #16\n"
                     "vadd.i32 q0, q0, r9\n"
                     "vshl.s32 q0, %[left]\n"
                     "vqrdmulh.s32 q0, q0, r10\n"
                     "vshr.s32 q1, q0, #31\n"
                     "vmul.i32 q1, q1, %[ties]\n"
                     "vadd.i32 q0, q0, q1\n"
                     "vrshl.s32 q0, %[right]\n"
                     "vadd.i32 q0, q0, r8\n"
                     "vmax.s32 q0, q0, q2\n"
                     "vmin.s32 q0, q0, q3\n"
                     "vstrb.32 q0, [%[y]], #4\n"
                     "letp lr, 1b\n"
                     "2:\n"
                     : [sums] "+r"(sums), [y] "+l"(y)
                     : [op] "r"(op), [count] "r"(count), [left] "r"(op->left_shift), [right] "r"(op->right_shift),
                       [ties] "r"(op->rounds_ties)
                     : "q0", "q1", "q2", "q3", "r8", "r9", "r10", "lr", "memory");
}

void ep_mve_average(const ep_mve_mean_op *op, const ep_call *call)
{
    if (!add_rows(op, call)) {
        return;
    }
    const int32_t *sums = call->state;
    const int32_t count = op->x_rows * op->columns, half = count / 2;
    const int32_t act_min = op->act_min, act_max = op->act_max;
    EP_NO_UNROLL
    for (int8_t *y = call->y, *end = y + op->channels; y != end; y++) {
        int32_t value = *sums++;
        value = (value + (value < 0 ? -half : half)) / count; /* C truncates: ties away from zero */
        value = value < act_min ? act_min : value;
        *y = (int8_t)(value > act_max ? act_max : value);
    }
}
