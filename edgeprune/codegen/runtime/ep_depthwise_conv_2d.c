/* Depthwise convolution, one filter per channel or several. SPDX-License-Identifier: 0BSD
 *
 * A window is one rectangle of taps, or where it is at an edge of the map up to five: what lies inside, and four parts
 * in the padding, whose every value is the zero point. Four output channels are computed at a time: of four input channels
 * with one filter each, or of one input channel with four filters or more. */
#include "ep_depthwise_conv_2d.h"
#include "ep_window.h"
#ifdef __ARM_NEON
#include <arm_neon.h>
#endif

enum { MOST_RECTANGLES = 5 };

/* Add the products of a rectangle's taps to sums `from` for channels x, x + 1, ...: for four, or for one. */
static EP_NOINLINE void add_four(const ep_taps *taps, const int8_t *x, const int8_t *weight, const uint32_t *from,
                                    uint32_t *sums)
{
    const int32_t x_step = taps->x_step, step = taps->weight_step;
    uint32_t sum_0 = from[0], sum_1 = from[1], sum_2 = from[2], sum_3 = from[3];
    EP_NO_UNROLL
    for (int32_t i = taps->rows; i > 0; i--) {
        EP_NO_UNROLL
        for (int32_t j = taps->columns; j > 0; j--) {
            sum_0 += (uint32_t)(x[0] * weight[0]);
            sum_1 += (uint32_t)(x[1] * weight[1]);
            sum_2 += (uint32_t)(x[2] * weight[2]);
            sum_3 += (uint32_t)(x[3] * weight[3]);
            x += x_step;
            weight += step;
        }
        x += taps->x_skip;
        weight += taps->weight_skip;
    }
    sums[0] = sum_0, sums[1] = sum_1, sums[2] = sum_2, sums[3] = sum_3;
}

/* For four filters of one channel. */
static EP_NOINLINE void add_filters(const ep_taps *taps, const int8_t *x, const int8_t *weight, const uint32_t *from,
                                    uint32_t *sums)
{
    const int32_t x_step = taps->x_step, step = taps->weight_step;
    uint32_t sum_0 = from[0], sum_1 = from[1], sum_2 = from[2], sum_3 = from[3];
    EP_NO_UNROLL
    for (int32_t i = taps->rows; i > 0; i--) {
        EP_NO_UNROLL
        for (int32_t j = taps->columns; j > 0; j--) {
            const int32_t value = *x;
            sum_0 += (uint32_t)(value * weight[0]);
            sum_1 += (uint32_t)(value * weight[1]);
            sum_2 += (uint32_t)(value * weight[2]);
            sum_3 += (uint32_t)(value * weight[3]);
            x += x_step;
            weight += step;
        }
        x += taps->x_skip;
        weight += taps->weight_skip;
    }
    sums[0] = sum_0, sums[1] = sum_1, sums[2] = sum_2, sums[3] = sum_3;
}

static EP_NOINLINE void add_one(const ep_taps *taps, const int8_t *x, const int8_t *weight, const uint32_t *from,
                                   uint32_t *sums)
{
    const int32_t x_step = taps->x_step, step = taps->weight_step;
    uint32_t sum = *from;
    EP_NO_UNROLL
    for (int32_t i = taps->rows; i > 0; i--) {
        EP_NO_UNROLL
        for (int32_t j = taps->columns; j > 0; j--) {
            sum += (uint32_t)(*x * *weight);
            x += x_step;
            weight += step;
        }
        x += taps->x_skip;
        weight += taps->weight_skip;
    }
    *sums = sum;
}

/* How many channels of one filter each are computed at a time, and by what. */
#ifdef __ARM_NEON
enum { MOST_AT_ONCE = 8 };

static EP_NOINLINE void add_eight(const ep_taps *taps, const int8_t *x, const int8_t *weight, const uint32_t *from,
                                     uint32_t *sums)
{
    const int32_t x_step = taps->x_step, step = taps->weight_step;
    int32x4_t low = vreinterpretq_s32_u32(vld1q_u32(from)), high = vreinterpretq_s32_u32(vld1q_u32(from + 4));
    for (int32_t i = taps->rows; i > 0; i--) {
        for (int32_t j = taps->columns; j > 0; j--) {
            const int16x8_t products = vmull_s8(vld1_s8(x), vld1_s8(weight));
            low = vaddw_s16(low, vget_low_s16(products));
            high = vaddw_s16(high, vget_high_s16(products));
            x += x_step;
            weight += step;
        }
        x += taps->x_skip;
        weight += taps->weight_skip;
    }
    vst1q_u32(sums, vreinterpretq_u32_s32(low));
    vst1q_u32(sums + 4, vreinterpretq_u32_s32(high));
}

#define EP_CHOOSE_BLOCK(channels) ((channels) >= 8 ? 8 : (channels) >= 4 ? 4 : 1)
#define EP_CHOOSE_ADD(block) ((block) == 8 ? add_eight : (block) == 4 ? add_four : add_one)
#else
enum { MOST_AT_ONCE = 4 };
#define EP_CHOOSE_BLOCK(channels) ((channels) >= 4 ? 4 : 1)
#define EP_CHOOSE_ADD(block) ((block) == 4 ? add_four : add_one)
#endif

void ep_depthwise_channels(const ep_depthwise_conv_2d_op *op, const ep_taps *part, const ep_taps *end, int8_t *y)
{
    const int32_t channels = op->channels;
    const int32_t block = EP_CHOOSE_BLOCK(channels);
    EP_NO_UNROLL
    for (int32_t channel = 0; channel < channels; channel += block) {
        uint32_t sums[MOST_AT_ONCE];
        const uint32_t *from;
        if (channel + block > channels) {
            channel = channels - block; /* the last ones, some of them for the second time */
        }
        from = (const uint32_t *)op->bias + channel;
        EP_NO_UNROLL
        for (const ep_taps *taps = part; taps < end; taps++) {
            const int8_t *x = taps->x + channel * taps->channel_step;
            EP_CHOOSE_ADD(block)(taps, x, op->weight + channel + taps->weight, from, sums);
            from = sums;
        }
        ep_store_outputs(&op->output, sums, channel, block, y + channel);
    }
}

void ep_depthwise_filters(const ep_depthwise_conv_2d_op *op, const ep_taps *part, const ep_taps *end, int8_t *y)
{
    const int32_t filters = op->filters;
    const int32_t block = filters >= 4 ? 4 : 1;
    EP_NO_UNROLL
    for (int32_t channel = 0, x_channel = 0; channel < op->channels; channel += filters, x_channel++) {
        EP_NO_UNROLL
        for (int32_t first = 0; first < filters; first += block) {
            uint32_t sums[4];
            const int8_t *weight;
            const uint32_t *from;
            if (first + block > filters) {
                first = filters - block;
            }
            from = (const uint32_t *)op->bias + channel + first;
            weight = op->weight + channel + first;
            EP_NO_UNROLL
            for (const ep_taps *taps = part; taps < end; taps++) {
                const int8_t *x = taps->x + x_channel * taps->channel_step;
                (block == 4 ? add_filters : add_one)(taps, x, weight + taps->weight, from, sums);
                from = sums;
            }
            ep_store_outputs(&op->output, sums, channel + first, block, y + channel + first);
        }
    }
}

/* Append taps of rows `rows` and columns `columns` of a window, if there are any, as padding. */
static EP_NOINLINE ep_taps *append(const ep_depthwise_conv_2d_op *op, ep_taps *part, const int8_t *zeros,
                                     int32_t first_row, int32_t end_row, int32_t first_column, int32_t end_column)
{
    const int32_t rows = end_row - first_row, columns = end_column - first_column;
    if (rows > 0 && columns > 0) {
        const int32_t first = (first_row * op->kernel_columns + first_column) * op->channels;
        const int32_t skip = (op->kernel_columns - columns) * op->channels;
        const int32_t loops = skip ? rows : 1; /* whole rows of taps are one loop */
        *part++ = (ep_taps){zeros, 0, 0, 0, first, op->channels, skip, loops, skip ? columns : rows * columns};
    }
    return part;
}

/* Cut a window whose first tap is at row `top`, column `left` into rectangles; the end of the list. */
static EP_NOINLINE ep_taps *cut(const ep_depthwise_conv_2d_op *op, const ep_call *call, const int8_t *zeros,
                                  int32_t top, int32_t left, ep_taps *part)
{
    const ep_span rows = ep_find_inside(top, op->dilation_rows, op->kernel_rows, op->x_rows);
    const ep_span columns = ep_find_inside(left, op->dilation_columns, op->kernel_columns, op->x_columns);
    ep_taps *inside;
    part = append(op, part, zeros, 0, rows.first, 0, op->kernel_columns);
    part = append(op, part, zeros, rows.end, op->kernel_rows, 0, op->kernel_columns);
    part = append(op, part, zeros, rows.first, rows.end, 0, columns.first);
    part = append(op, part, zeros, rows.first, rows.end, columns.end, op->kernel_columns);
    inside = part;
    part = append(op, part, zeros, rows.first, rows.end, columns.first, columns.end);
    if (part != inside) {
        const int32_t pitch = op->x_columns * op->x_stride;
        const int32_t row = top + rows.first * op->dilation_rows - call->x_first;
        const int32_t column = left + columns.first * op->dilation_columns;
        inside->x = call->x + (row * pitch + column * op->x_stride);
        inside->channel_step = 1;
        if (op->kernel_columns == 1) { /* one loop */
            inside->x_step = op->dilation_rows * pitch;
        } else {
            inside->rows = rows.end - rows.first;
            inside->columns = columns.end - columns.first;
            inside->x_step = op->dilation_columns * op->x_stride;
            inside->x_skip = op->dilation_rows * pitch - inside->columns * inside->x_step;
        }
    }
    return part;
}

void ep_depthwise_conv_2d(const ep_depthwise_conv_2d_op *op, const ep_call *call)
{
    const int8_t zero = op->x_zero_point;
#ifdef __ARM_NEON
    const int8_t zeros[MOST_AT_ONCE] = {zero, zero, zero, zero, zero, zero, zero, zero};
#else
    const int8_t zeros[MOST_AT_ONCE] = {zero, zero, zero, zero};
#endif
    const int32_t last_left = op->x_columns - 1 - (op->kernel_columns - 1) * op->dilation_columns;
    ep_taps parts[MOST_RECTANGLES], *end = parts;
    int8_t *y = call->y;
    EP_NO_UNROLL
    for (int32_t row = call->y_first; row < call->y_first + call->y_rows; row++) {
        const int32_t top = row * op->stride_rows - op->pad_rows;
        int32_t left = -op->pad_columns, is_cut = 0;
        EP_NO_UNROLL
        for (int32_t column = 0; column < op->y_columns; column++) {
            const int32_t is_inside = left >= 0 && left <= last_left;
            if (is_cut && is_inside) { /* the window before it, moved */
                EP_NO_UNROLL
                for (ep_taps *part = parts; part < end; part++) {
                    part->x += part->channel_step * op->stride_columns * op->x_stride;
                }
            } else {
                end = cut(op, call, zeros, top, left, parts);
                is_cut = is_inside;
            }
            op->compute(op, parts, end, y);
            left += op->stride_columns;
            y += op->y_stride;
        }
    }
}
