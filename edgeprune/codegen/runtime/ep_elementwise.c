/* Addition, subtraction, multiplication and PReLU of two operands with broadcasting. SPDX-License-Identifier: 0BSD */
#include "ep_elementwise.h"
#include "ep_fixed_point.h"

/* y[i] = f(a[i], b[i]) for i < count, count > 0; op: the whole op. */
typedef void run_function(const void *op, const int8_t *a, const int8_t *b, int8_t *y, int32_t count);

/* The fused activation, where it lets less than int8 through: rare, for most outputs are quantized to its range. */
static void clamp_run(const ep_operands *operands, int8_t *y, int32_t count)
{
    const int32_t least = operands->act_min, most = operands->act_max;
    EP_NO_UNROLL
    for (; count > 0; count--) {
        *y = (int8_t)ep_clamp_value(*y, least, most);
        y++;
    }
}

/* Apply `run` to the channels of one pixel, one by one where an operand is repeated along them. */
static void walk_channels(const ep_operands *operands, const int8_t *a, const int8_t *b, int8_t *y, int32_t channels,
                          const void *op, run_function *run)
{
    const int32_t step = operands->a.channel_step & operands->b.channel_step ? channels : 1;
    EP_NO_UNROLL
    for (int32_t i = 0; i < channels; i += step) {
        run(op, a, b, y + i, step);
        a += operands->a.channel_step;
        b += operands->b.channel_step;
    }
}

/* Apply `run` to the rows asked for, pixel by pixel, or in one run where there are no gaps. */
static EP_NOINLINE void walk(const ep_operands *operands, const ep_call *call, const void *op, run_function *run)
{
    const int8_t *a_row = call->x + (call->y_first - call->x_first) * operands->a.row_step;
    const int8_t *b_row = operands->constant ? operands->constant + call->y_first * operands->b.row_step : call->x2;
    int8_t *y = call->y;
    int32_t rows = call->y_rows, columns = operands->columns, channels = operands->channels;
    if (operands->is_flat) {
        channels *= rows * columns;
        rows = columns = 1;
    }
    EP_NO_UNROLL
    for (int32_t row = 0; row < rows; row++) {
        const int8_t *a = a_row, *b = b_row;
        EP_NO_UNROLL
        for (int32_t column = 0; column < columns; column++) {
            walk_channels(operands, a, b, y, channels, op, run);
            if (operands->act_min > -128 || operands->act_max < 127) {
                clamp_run(operands, y, channels);
            }
            a += operands->a.column_step;
            b += operands->b.column_step;
            y += operands->y_stride;
        }
        a_row += operands->a.row_step;
        b_row += operands->b.row_step;
    }
}

static void run_add(const void *parameters, const int8_t *a, const int8_t *b, int8_t *y, int32_t count)
{
    const ep_add_op *op = parameters;
    const int8_t *exact = op->is_swapped ? b : a;
    const int8_t *scaled = op->is_swapped ? a : b;
    const int32_t exact_factor = op->exact_factor, exact_offset = op->exact_offset;
    const int32_t scaled_factor = op->scaled_factor, scaled_offset = op->scaled_offset;
    const int32_t scaled_multiplier = op->scaled_multiplier, scaled_shift = op->scaled_shift, sign = op->scaled_sign;
    const int32_t multiplier = op->multiplier, shift = op->shift, offset = 2 * op->zero_point + 1;
    const int8_t *const end = y + count;
    EP_NO_UNROLL
    do {
        int32_t value = ep_multiply_twice(*scaled++ * scaled_factor + scaled_offset, scaled_multiplier);
        value = (((value + (value >> 31)) >> scaled_shift) + 1) & ~1; /* twice the rescaled operand */
        value = value * sign + (*exact++ * exact_factor + exact_offset);
        value = ep_multiply_twice(value, multiplier);
        value = (((value + (value >> 31)) >> shift) + offset) >> 1;
        *y++ = (int8_t)ep_saturate(value);
    } while (y != end);
}

void ep_add(const ep_add_op *op, const ep_call *call)
{
    walk(&op->operands, call, op, run_add);
}

static void run_mul(const void *parameters, const int8_t *a, const int8_t *b, int8_t *y, int32_t count)
{
    const ep_mul_op *op = parameters;
    const int32_t a_zero_point = op->a_zero_point, b_zero_point = op->b_zero_point;
    const int32_t multiplier = op->multiplier, shift = op->shift, zero_point = op->zero_point;
    const int8_t *const end = y + count;
    EP_NO_UNROLL
    do {
        const int32_t product = (*a++ - a_zero_point) * (*b++ - b_zero_point);
        *y++ = (int8_t)ep_saturate(ep_requantize(product, multiplier, shift, zero_point));
    } while (y != end);
}

void ep_mul(const ep_mul_op *op, const ep_call *call)
{
    walk(&op->operands, call, op, run_mul);
}

static void run_prelu(const void *parameters, const int8_t *a, const int8_t *b, int8_t *y, int32_t count)
{
    const ep_prelu_op *op = parameters;
    const int8_t *const end = y + count;
    EP_NO_UNROLL
    do {
        int32_t value = *a++ - op->a_zero_point;
        int32_t multiplier = op->positive_multiplier, shift = op->positive_shift;
        if (value < 0) {
            value *= *b - op->b_zero_point;
            multiplier = op->negative_multiplier;
            shift = op->negative_shift;
        }
        b++;
        *y++ = (int8_t)ep_saturate(ep_requantize(value, multiplier, shift, op->zero_point));
    } while (y != end);
}

void ep_prelu(const ep_prelu_op *op, const ep_call *call)
{
    walk(&op->operands, call, op, run_prelu);
}
