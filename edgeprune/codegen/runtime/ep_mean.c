/* Means, and the average over a whole map. SPDX-License-Identifier: 0BSD */
#include "ep_mean.h"
#include "ep_divide.h"
#include "ep_fixed_point.h"
#include "ep_select.h"

/* Add the rows asked for to the sums of channels; 1 where the last row is among them, so that the sums are complete. */
static int32_t add_rows(const ep_map_op *op, const ep_call *call)
{
    const int32_t pixels = call->y_rows * op->columns, stride = op->x_stride;
    const int8_t *map = call->x + (call->y_first - call->x_first) * op->columns * op->x_stride;
    int32_t *sums = call->state;
    int32_t channel = 0;
    if (call->y_first == 0) {
        EP_NO_UNROLL
        for (int32_t i = 0; i < op->channels; i++) {
            sums[i] = 0;
        }
    }
    EP_NO_UNROLL
    for (; channel + 4 <= op->channels; channel += 4) {
        int32_t sum_0 = sums[0], sum_1 = sums[1], sum_2 = sums[2], sum_3 = sums[3];
        const int8_t *x = map + channel;
        int32_t left = pixels;
#ifdef __ARM_FEATURE_DSP
        EP_NO_UNROLL
        while (left > 0) { /* as many at a time as sums of 16 bits hold */
            uint32_t even = 0, odd = 0;
            int32_t count = left < 256 ? left : 256;
            left -= count;
            EP_NO_UNROLL
            for (; count > 0; count--) {
                uint32_t values;
                __builtin_memcpy(&values, x, 4);
                even = ep_add_even(even, values);
                odd = ep_add_odd(odd, values);
                x += stride;
            }
            sum_0 += (int16_t)even;
            sum_1 += (int16_t)odd;
            sum_2 += (int32_t)even >> 16;
            sum_3 += (int32_t)odd >> 16;
        }
#else
        EP_NO_UNROLL
        for (; left > 0; left--) {
            sum_0 += x[0];
            sum_1 += x[1];
            sum_2 += x[2];
            sum_3 += x[3];
            x += stride;
        }
#endif
        sums[0] = sum_0, sums[1] = sum_1, sums[2] = sum_2, sums[3] = sum_3;
        sums += 4;
    }
    EP_NO_UNROLL
    for (; channel < op->channels; channel++) {
        const int8_t *x = map + channel;
        EP_NO_UNROLL
        for (int32_t pixel = pixels; pixel > 0; pixel--) {
            *sums += *x;
            x += op->x_stride;
        }
        sums++;
    }
    return call->y_first + call->y_rows == op->x_rows;
}

void ep_mean_map(const ep_mean_map_op *op, const ep_call *call)
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

void ep_average_map(const ep_average_map_op *op, const ep_call *call)
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

/* Write the outputs of complete sums. */
static int8_t *finish(const ep_mean_op *op, const int32_t *sums, int8_t *y)
{
    EP_NO_UNROLL
    for (int32_t pixel = 0; pixel < op->y_pixels; pixel++) {
        EP_NO_UNROLL
        for (int32_t i = 0; i < op->y_channels; i++) {
            const int32_t value = ep_requantize(*sums++ + op->bias, op->multiplier, op->shift, op->zero_point);
            y[i] = (int8_t)ep_clamp_value(value, -128, 127);
        }
        y += op->y_stride;
    }
    return y;
}

void ep_mean(const ep_mean_op *op, const ep_call *call)
{
    const int32_t count = op->y_pixels * op->y_channels;
    int32_t *const sums = call->scratch;
    const int8_t *pixel = call->x;
    int8_t *y = call->y;
    EP_NO_UNROLL
    for (int32_t row = 0; row < op->rows; row += op->rows_per_sum) {
        EP_NO_UNROLL
        for (int32_t i = 0; i < count; i++) {
            sums[i] = 0;
        }
        EP_NO_UNROLL
        for (int32_t i = 0; i < op->rows_per_sum; i++) {
            EP_NO_UNROLL
            for (int32_t column = 0; column < op->columns; column++) {
                int32_t *sum = sums + column * op->column_step;
                EP_NO_UNROLL
                for (int32_t channel = 0; channel < op->channels; channel++) {
                    *sum += pixel[channel];
                    sum += op->channel_step;
                }
                pixel += op->x_stride;
            }
        }
        y = finish(op, sums, y);
    }
}
