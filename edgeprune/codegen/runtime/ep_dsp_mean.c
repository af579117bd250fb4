/* Sums over a map's rows and columns on cores with the DSP extension. SPDX-License-Identifier: 0BSD
 *
 * Four channels at a time: SXTAB16 adds two bytes of a word to two sums of 16 bits, which hold 256 values. */
#include "ep_dsp_mean.h"

#include "ep_divide.h"
#include "ep_dsp.h"
#include "ep_fixed_point.h"

enum { MOST_VALUES = 252 }; /* below 256, in fours */

/* Add bytes 0 and 2 (even) and bytes 1 and 3 (odd) of a word to pairs of int16. */
static inline void add_word(uint32_t word, uint32_t *even, uint32_t *odd)
{
    __asm__("sxtab16 %0, %0, %1" : "+r"(*even) : "r"(word));
    __asm__("sxtab16 %0, %0, %1, ror #8" : "+r"(*odd) : "r"(word));
}

/* The same for four pixels. third: 3 * stride. Four loads in a row are cheaper than four alone. */
static inline void add_pixels(const int8_t *x, int32_t stride, int32_t third, uint32_t *even, uint32_t *odd)
{
    uint32_t a, b, c, d;
    __asm__ volatile("ldr %2, [%6]\n\tldr %3, [%6, %7]\n\tldr %4, [%6, %7, lsl #1]\n\tldr %5, [%6, %8]\n\t"
                     "sxtab16 %0, %0, %2\n\tsxtab16 %1, %1, %2, ror #8\n\t"
                     "sxtab16 %0, %0, %3\n\tsxtab16 %1, %1, %3, ror #8\n\t"
                     "sxtab16 %0, %0, %4\n\tsxtab16 %1, %1, %4, ror #8\n\t"
                     "sxtab16 %0, %0, %5\n\tsxtab16 %1, %1, %5, ror #8"
                     : "+r"(*even), "+r"(*odd), "=&r"(a), "=&r"(b), "=&r"(c), "=&r"(d)
                     : "r"(x), "r"(stride), "r"(third)
                     : "memory");
}

/* Add four channels of `pixels` pixels to their sums. */
static void add_four(const int8_t *x, int32_t stride, int32_t pixels, int32_t *sums)
{
    const int32_t third = 3 * stride;
    while (pixels > 0) {
        int32_t count = pixels < MOST_VALUES ? pixels : MOST_VALUES;
        uint32_t even = 0, odd = 0;
        pixels -= count;
        EP_NO_UNROLL
        for (; count >= 4; count -= 4, x += 4 * stride) {
            add_pixels(x, stride, third, &even, &odd);
        }
        EP_NO_UNROLL
        for (; count > 0; count--, x += stride) {
            add_word(ep_load_word(x), &even, &odd);
        }
        sums[0] += (int16_t)even;
        sums[1] += (int16_t)odd;
        sums[2] += (int32_t)even >> 16;
        sums[3] += (int32_t)odd >> 16;
    }
}

/* Add the rows asked for to the sums of channels; 1 where the last row is among them, so that the sums are complete. */
static int32_t add_rows(const ep_map_op *op, const ep_call *call)
{
    const int32_t pixels = call->y_rows * op->columns, channels = op->channels;
    const int8_t *map = call->x + (call->y_first - call->x_first) * op->columns * op->x_stride;
    int32_t *sums = call->state;
    int32_t channel = 0;
    if (call->y_first == 0) {
        EP_NO_UNROLL
        for (int32_t i = 0; i < channels; i++) {
            sums[i] = 0;
        }
    }
    EP_NO_UNROLL
    for (; channel + 4 <= channels; channel += 4) {
        add_four(map + channel, op->x_stride, pixels, sums + channel);
    }
    EP_NO_UNROLL
    for (; channel < channels; channel++) {
        const int8_t *x = map + channel;
        int32_t sum = 0;
        EP_NO_UNROLL
        for (int32_t pixel = pixels; pixel > 0; pixel--, x += op->x_stride) {
            sum += *x;
        }
        sums[channel] += sum;
    }
    return call->y_first + call->y_rows == op->x_rows;
}

void ep_dsp_mean_map(const ep_dsp_mean_map_op *op, const ep_call *call)
{
    if (add_rows(op, call)) {
        const int32_t *sums = call->state;
        EP_NO_UNROLL
        for (int32_t i = 0; i < op->channels; i++) {
            const int32_t value = ep_requantize(sums[i] + op->bias, op->multiplier, op->shift, op->zero_point);
            call->y[i] = (int8_t)ep_clamp_value(value, op->act_min, op->act_max);
        }
    }
}

void ep_dsp_average_map(const ep_dsp_average_map_op *op, const ep_call *call)
{
    if (add_rows(op, call)) {
        const int32_t *sums = call->state;
        const int32_t count = op->x_rows * op->columns;
        const uint32_t reciprocal = ((uint32_t)1 << 24) / (uint32_t)count;
        EP_NO_UNROLL
        for (int32_t i = 0; i < op->channels; i++) {
            const int32_t value = ep_divide(sums[i], count, reciprocal);
            call->y[i] = (int8_t)ep_clamp_value(value, op->act_min, op->act_max);
        }
    }
}
