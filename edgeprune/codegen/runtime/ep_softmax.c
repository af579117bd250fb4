/* Softmax over the channels of each pixel, as TensorFlow Lite Micro computes it. SPDX-License-Identifier: 0BSD
 *
 * Fixed point as in gemmlowp: a number in Fn has n integer bits and 31 - n bits of fraction. */
#include "ep_softmax.h"
#include "ep_fixed_point.h"

/* 1 / (1 + a) in F0 for a in F0, 0 <= a < 1: three steps of Newton and Raphson. */
static int32_t invert_one_plus(int32_t a)
{
    const int32_t half = (int32_t)(((uint32_t)a + 0x80000000u) >> 1); /* (1 + a) / 2 in F0 */
    int32_t x = 1515870810 + ep_multiply_high(half, -1010580540);     /* 48/17 - 32/17 * half in F2 */
    EP_NO_UNROLL
    for (int32_t i = 0; i < 3; i++) {
        x += 4 * ep_multiply_high(x, ((int32_t)1 << 29) - ep_multiply_high(half, x));
    }
    return x >= (int32_t)1 << 30 ? INT32_MAX : 2 * x;
}

static void normalize(const ep_softmax_op *op, const int8_t *x, int8_t *y)
{
    int32_t largest = -128, sum = 0, shift = 35; /* 31 - 8 bits, and 12: the sum is in F12 */
    EP_NO_UNROLL
    for (int32_t i = 0; i < op->channels; i++) {
        largest = x[i] > largest ? x[i] : largest;
    }
    EP_NO_UNROLL
    for (int32_t i = 0; i < op->channels; i++) {
        const int32_t difference = largest - x[i];
        if (difference < op->count) {
            sum += ep_shift_right(op->powers[difference], 11, 0); /* to F12 */
        }
    }
    EP_NO_UNROLL
    while (sum < (int32_t)1 << 30) { /* the largest value alone adds 1 = 2^19 */
        sum *= 2;
        shift--;
    }
    shift--; /* the leading bit stands for 1 */
    const int32_t inverse = invert_one_plus((int32_t)((uint32_t)sum * 2 - 0x80000000u));
    EP_NO_UNROLL
    for (int32_t i = 0; i < op->channels; i++) {
        const int32_t difference = largest - x[i];
        int32_t value = -128;
        if (difference < op->count && shift < 32) { /* beyond 31 bits nothing is left */
            value = ep_shift_right(ep_multiply_high(op->powers[difference], inverse), shift - 1, -128);
        }
        y[i] = (int8_t)(value > 127 ? 127 : value);
    }
}

void ep_softmax(const ep_softmax_op *op, const ep_call *call)
{
    const int8_t *x = call->x + (call->y_first - call->x_first) * op->columns * op->x_stride;
    int8_t *y = call->y;
    EP_NO_UNROLL
    for (int32_t pixel = call->y_rows * op->columns; pixel > 0; pixel--) {
        normalize(op, x, y);
        x += op->x_stride;
        y += op->y_stride;
    }
}
