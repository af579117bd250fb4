/* Convolution for Helium (MVE): three patches at a time, times all output channels. SPDX-License-Identifier: 0BSD
 *
 * A patch is what the kernel sees of a pixel, in the order of the weights. Where it lies in memory just so (1x1; the
 * steps of a series), it is read there; else, and at borders, it is gathered into scratch memory, with the zero point
 * for what lies outside. Gathering costs 2 instructions per 16 bytes, once for all output channels. */
#include "ep_mve_conv.h"

#include "ep_mve_bytes.h"

/* scratch: sums (EP_MVE_TILE_BYTES), then three patches. */

/* One row of a patch: kernel columns from input column `column` on. */
static int8_t *gather_row(const ep_mve_conv_op *op, int8_t *to, const int8_t *row, int32_t column) {
    int32_t channels = op->channels_in;
    if (op->dilation_columns == 1 && op->x_stride == channels) { /* one run of bytes */
        int32_t before = column < 0 ? -column : 0;
        int32_t end = column + op->kernel_columns;
        int32_t after = end > op->x_columns ? end - op->x_columns : 0;
        int32_t inside = op->kernel_columns - before - after;
        if (before) {
            to = ep_mve_fill(to, op->x_zero, before * channels);
        }
        to = ep_mve_copy(to, row + (column + before) * channels, inside * channels);
        return after ? ep_mve_fill(to, op->x_zero, after * channels) : to;
    }
    for (int32_t k = 0; k < op->kernel_columns; k++, column += op->dilation_columns) {
        if (column >= 0 && column < op->x_columns) {
            to = ep_mve_copy(to, row + column * op->x_stride, channels);
        } else {
            to = ep_mve_fill(to, op->x_zero, channels);
        }
    }
    return to;
}

/* The patch whose first tap is at (row, column) of the input; x points to row 0, though it may not be in memory. */
static const int8_t *find_patch(const ep_mve_conv_op *op, const int8_t *x, int32_t row, int32_t column, int8_t *to) {
    int32_t row_bytes = op->x_columns * op->x_stride;
    int32_t last_row = row + (op->kernel_rows - 1) * op->dilation_rows;
    int32_t last_column = column + (op->kernel_columns - 1) * op->dilation_columns;
    if (op->in_place && row >= 0 && column >= 0 && last_row < op->x_rows && last_column < op->x_columns) {
        return x + row * row_bytes + column * op->x_stride;
    }
    const int8_t *patch = to;
    for (; row <= last_row; row += op->dilation_rows) {
        if (row >= 0 && row < op->x_rows) {
            to = gather_row(op, to, x + row * row_bytes, column);
        } else {
            to = ep_mve_fill(to, op->x_zero, op->kernel_columns * op->channels_in);
        }
    }
    return patch;
}

void ep_mve_conv(const ep_mve_conv_op *op, const ep_call *call) {
    int32_t *sums = call->scratch;
    int8_t *patches = (int8_t *)call->scratch + EP_MVE_TILE_BYTES;
    int32_t length = op->kernel_rows * op->kernel_columns * op->channels_in;
    const int8_t *x = call->x - call->x_first * op->x_columns * op->x_stride;
    int8_t *y = call->y;
    int32_t pixels = call->y_rows * op->y_columns;
    int32_t row = call->y_first * op->stride_rows - op->pad_top;
    int32_t column = -op->pad_left;
    int32_t y_column = 0;
    while (pixels > 0) {
        int32_t count = pixels < 3 ? pixels : 3;
        int32_t rows[3], columns[3];
        int8_t *outputs[3];
        for (int32_t i = 0; i < 3; i++) {
            if (i >= count) { /* the last pixel once more */
                rows[i] = rows[i - 1];
                columns[i] = columns[i - 1];
                outputs[i] = outputs[i - 1];
                continue;
            }
            rows[i] = row;
            columns[i] = column;
            outputs[i] = y;
            y += op->y_stride;
            column += op->stride_columns;
            if (++y_column == op->y_columns) {
                y_column = 0;
                column = -op->pad_left;
                row += op->stride_rows;
            }
        }
        for (int32_t group = 0; group < op->groups; group++) {
            const int8_t *inputs[3];
            for (int32_t i = 0; i < 3; i++) {
                inputs[i] = i < count ? find_patch(op, x + group * op->channels_in, rows[i], columns[i],
                                                   patches + i * length)
                                      : inputs[i - 1];
            }
            int32_t channel = group * op->channels_out;
            int8_t *group_outputs[3] = {outputs[0] + channel, outputs[1] + channel, outputs[2] + channel};
            ep_mve_dot_pixels(inputs, group_outputs, count, op->weight + channel * length, length, op->channels_out,
                              op->bias + channel, &op->scales, channel, sums);
        }
        pixels -= count;
    }
}
