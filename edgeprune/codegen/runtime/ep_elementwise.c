/* Addition, subtraction, multiplication and PReLU of two operands with broadcasting. SPDX-License-Identifier: 0BSD */
#include "ep_elementwise.h"
#include "ep_fixed_point.h"

/* y[i] = f(a[i * a_step], b[i * b_step]) for i < count; op: the whole op. */
typedef void run_function(const void *op, const int8_t *a, int32_t a_step, const int8_t *b, int32_t b_step, int8_t *y,
                          int32_t count);

/* Apply `run` to the rows asked for, pixel by pixel, or in one run where there are no gaps. */
static void walk(const ep_operands *operands, const ep_call *call, const void *op, run_function *run)
{
    const int8_t *a_row = call->x + (call->y_first - call->x_first) * operands->a.row_step;
    const int8_t *b_row = operands->constant ? operands->constant + call->y_first * operands->b.row_step : call->x2;
    int8_t *y = call->y;
    int32_t rows = call->y_rows, columns = operands->columns, channels = operands->channels;
    if (operands->is_flat) {
        channels *= rows * columns;
        rows = columns = 1;
    }
    for (int32_t row = 0; row < rows; row++) {
        const int8_t *a = a_row, *b = b_row;
        for (int32_t column = 0; column < columns; column++) {
            run(op, a, operands->a.channel_step, b, operands->b.channel_step, y, channels);
            a += operands->a.column_step;
            b += operands->b.column_step;
            y += operands->y_stride;
        }
        a_row += operands->a.row_step;
        b_row += operands->b.row_step;
    }
}

static void run_add(const void *parameters, const int8_t *a, int32_t a_step, const int8_t *b, int32_t b_step,
                    int8_t *y, int32_t count)
{
    const ep_add_op *op = parameters;
    const int8_t *exact = op->is_swapped ? b : a;
    const int8_t *scaled = op->is_swapped ? a : b;
    const int32_t exact_step = op->is_swapped ? b_step : a_step;
    const int32_t scaled_step = op->is_swapped ? a_step : b_step;
    const int32_t exact_offset = -op->exact_zero_point * op->exact_factor;
    const int32_t scaled_offset = -op->scaled_zero_point * op->scaled_factor;
    for (; count > 0; count--) {
        const int32_t twice = *scaled * op->scaled_factor + scaled_offset;
        const int32_t term = ep_shift_right(ep_multiply_twice(twice, op->scaled_multiplier), op->scaled_shift, 0);
        const int32_t sum = *exact * op->exact_factor + exact_offset + term * op->scaled_sign;
        const int32_t value = ep_requantize(sum, op->multiplier, op->shift, op->zero_point);
        *y++ = (int8_t)ep_clamp_value(value, op->operands.act_min, op->operands.act_max);
        exact += exact_step;
        scaled += scaled_step;
    }
}

void ep_add(const ep_add_op *op, const ep_call *call)
{
    walk(&op->operands, call, op, run_add);
}

static void run_mul(const void *parameters, const int8_t *a, int32_t a_step, const int8_t *b, int32_t b_step,
                    int8_t *y, int32_t count)
{
    const ep_mul_op *op = parameters;
    for (; count > 0; count--) {
        const int32_t product = (*a - op->a_zero_point) * (*b - op->b_zero_point);
        const int32_t value = ep_requantize(product, op->multiplier, op->shift, op->zero_point);
        *y++ = (int8_t)ep_clamp_value(value, op->operands.act_min, op->operands.act_max);
        a += a_step;
        b += b_step;
    }
}

void ep_mul(const ep_mul_op *op, const ep_call *call)
{
    walk(&op->operands, call, op, run_mul);
}

static void run_prelu(const void *parameters, const int8_t *a, int32_t a_step, const int8_t *b, int32_t b_step,
                      int8_t *y, int32_t count)
{
    const ep_prelu_op *op = parameters;
    for (; count > 0; count--) {
        int32_t value = *a - op->a_zero_point;
        if (value >= 0) {
            value = ep_requantize(value, op->positive_multiplier, op->positive_shift, op->zero_point);
        } else {
            value *= *b - op->b_zero_point;
            value = ep_requantize(value, op->negative_multiplier, op->negative_shift, op->zero_point);
        }
        *y++ = (int8_t)ep_clamp_value(value, -128, 127);
        a += a_step;
        b += b_step;
    }
}

void ep_prelu(const ep_prelu_op *op, const ep_call *call)
{
    walk(&op->operands, call, op, run_prelu);
}
