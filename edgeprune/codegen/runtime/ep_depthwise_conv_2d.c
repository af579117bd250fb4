/* Depthwise convolution, one filter per channel. SPDX-License-Identifier: 0BSD
 *
 * A window is cut into rectangles: the part inside the map, and where it is at an edge up to four parts in the padding,
 * whose every value is the zero point. Four channels of a window are computed at a time. */
#include "ep_depthwise_conv_2d.h"
#include "ep_fixed_point.h"
#include "ep_window.h"

/* A rectangle of taps. Padding is a rectangle over the same four bytes again and again: all its steps are 0. */
typedef struct {
    const int8_t *x;      /* first tap, channel 0 */
    int32_t channel_step; /* 1, or 0 in the padding */
    int32_t x_step;       /* from a tap to the next in its row */
    int32_t x_skip;       /* from behind the last tap of a row to the first of the next */
    int32_t weight;       /* offset of the first tap's weights */
    int32_t rows;
    int32_t columns;
} rectangle;

enum { MOST_RECTANGLES = 5 };

static void add_four(const rectangle *taps, const int8_t *x, const int8_t *weight, int32_t step, int32_t skip,
                     uint32_t *sums)
{
    uint32_t sum_0 = sums[0], sum_1 = sums[1], sum_2 = sums[2], sum_3 = sums[3];
    for (int32_t i = taps->rows; i > 0; i--) {
        for (int32_t j = taps->columns; j > 0; j--) {
            sum_0 += (uint32_t)(x[0] * weight[0]);
            sum_1 += (uint32_t)(x[1] * weight[1]);
            sum_2 += (uint32_t)(x[2] * weight[2]);
            sum_3 += (uint32_t)(x[3] * weight[3]);
            x += taps->x_step;
            weight += step;
        }
        x += taps->x_skip;
        weight += skip;
    }
    sums[0] = sum_0, sums[1] = sum_1, sums[2] = sum_2, sums[3] = sum_3;
}

static void add_one(const rectangle *taps, const int8_t *x, const int8_t *weight, int32_t step, int32_t skip,
                    uint32_t *sums)
{
    for (int32_t i = taps->rows; i > 0; i--) {
        for (int32_t j = taps->columns; j > 0; j--) {
            *sums += (uint32_t)(*x * *weight);
            x += taps->x_step;
            weight += step;
        }
        x += taps->x_skip;
        weight += skip;
    }
}

/* The outputs of one position from the rectangles of its window. */
static void compute(const ep_depthwise_conv_2d_op *op, const rectangle *part, const rectangle *end, int8_t *y)
{
    const int32_t channels = op->channels, step = op->scale_step;
    const int32_t block = channels >= 4 ? 4 : 1;
    for (int32_t channel = 0; channel < channels; channel += block) {
        uint32_t sums[4];
        if (channel + block > channels) {
            channel = channels - block; /* the last four again, some of them for the second time */
        }
        for (int32_t i = 0; i < block; i++) {
            sums[i] = (uint32_t)op->bias[channel + i];
        }
        for (const rectangle *taps = part; taps < end; taps++) {
            (block == 4 ? add_four : add_one)(taps, taps->x + channel * taps->channel_step,
                                              op->weight + taps->weight + channel, channels,
                                              (op->kernel_columns - taps->columns) * channels, sums);
        }
        for (int32_t i = 0; i < block; i++) {
            const int32_t *scale = op->scale + (channel + i) * step;
            const int32_t value = ep_requantize((int32_t)sums[i], scale[0], scale[1], op->y_zero_point);
            y[channel + i] = (int8_t)ep_clamp_value(value, op->act_min, op->act_max);
        }
    }
}

/* Taps of rows `rows` and columns `columns` of a window in the padding. */
static rectangle *add_padding(const ep_depthwise_conv_2d_op *op, rectangle *part, const int8_t *zeros, ep_span rows,
                              ep_span columns)
{
    if (rows.first < rows.end && columns.first < columns.end) {
        const int32_t first = (rows.first * op->kernel_columns + columns.first) * op->channels;
        *part++ = (rectangle){zeros, 0, 0, 0, first, rows.end - rows.first, columns.end - columns.first};
    }
    return part;
}

void ep_depthwise_conv_2d(const ep_depthwise_conv_2d_op *op, const ep_call *call)
{
    const int8_t zero = op->x_zero_point;
    const int8_t zeros[4] = {zero, zero, zero, zero};
    const int32_t pitch = op->x_columns * op->x_stride;
    const int32_t x_step = op->dilation_columns * op->x_stride;
    const ep_span all_columns = {0, op->kernel_columns};
    int8_t *y = call->y;
    for (int32_t row = call->y_first; row < call->y_first + call->y_rows; row++) {
        const int32_t top = row * op->stride_rows - op->pad_rows;
        const ep_span rows = ep_find_inside(top, op->dilation_rows, op->kernel_rows, op->x_rows);
        const ep_span above = {0, rows.first}, below = {rows.end, op->kernel_rows};
        const int32_t first_row = rows.first < rows.end ? top + rows.first * op->dilation_rows - call->x_first : 0;
        const int8_t *line = call->x + first_row * pitch;
        int32_t left = -op->pad_columns;
        for (int32_t column = 0; column < op->y_columns; column++) {
            const ep_span columns = ep_find_inside(left, op->dilation_columns, op->kernel_columns, op->x_columns);
            const ep_span before = {0, columns.first}, after = {columns.end, op->kernel_columns};
            rectangle parts[MOST_RECTANGLES], *part = parts;
            part = add_padding(op, part, zeros, above, all_columns);
            part = add_padding(op, part, zeros, below, all_columns);
            part = add_padding(op, part, zeros, rows, before);
            part = add_padding(op, part, zeros, rows, after);
            if (rows.first < rows.end && columns.first < columns.end) {
                part = add_padding(op, part, line + (left * op->x_stride + columns.first * x_step), rows, columns);
                part[-1].channel_step = 1;
                part[-1].x_step = x_step;
                part[-1].x_skip = op->dilation_rows * pitch - (columns.end - columns.first) * x_step;
                if (op->kernel_columns == 1) { /* one loop instead of two: a column of taps as a row */
                    part[-1].columns = part[-1].rows;
                    part[-1].rows = 1;
                    part[-1].x_step = op->dilation_rows * pitch;
                }
            }
            compute(op, parts, part, y);
            left += op->stride_columns;
            y += op->y_stride;
        }
    }
}
