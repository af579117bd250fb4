/* Convolution for Helium (MVE): runs of patches times all output channels. SPDX-License-Identifier: 0BSD
 *
 * A patch is what the kernel sees of a pixel, in the order of the weights, with the input's zero point for what lies
 * outside the map. The four functions differ in how they come by patches; the fewer bytes are copied the better. */
#include "ep_mve_conv.h"

#include "ep_mve_bytes.h"

static int8_t *find_patches(const ep_call *call)
{
    return (int8_t *)call->scratch + EP_MVE_TILE_BYTES;
}

/* Row 0 of the input, though it may not be in memory. */
static const int8_t *find_map(const ep_mve_conv_op *op, const ep_call *call)
{
    return call->x - call->x_first * op->x_columns * op->x_stride;
}

void ep_mve_conv_points(const ep_mve_conv_op *op, const ep_call *call)
{
    const int8_t *map = find_map(op, call);
    int32_t columns = op->y_columns, rows = call->y_rows;
    if (op->stride_rows == 1 && op->stride_columns == 1) { /* all rows are one run */
        columns *= rows;
        rows = 1;
    }
    for (int32_t group = 0; group < op->groups; group++) {
        ep_mve_layer layer = ep_mve_find_group(&op->layer, group);
        const int8_t *x = map + call->y_first * op->stride_rows * op->x_columns * op->x_stride + group * op->channels_in;
        int8_t *y = call->y + group * layer.channels;
        for (int32_t row = 0; row < rows; row++) {
            ep_mve_dot_run(&layer, x, op->stride_columns * op->x_stride, y, op->y_stride, columns, call->scratch);
            x += op->stride_rows * op->x_columns * op->x_stride;
            y += columns * op->y_stride;
        }
    }
}

/* The patch whose first row is `row`. */
static void gather_rows(const ep_mve_conv_op *op, int8_t *to, const int8_t *map, int32_t row)
{
    int32_t row_bytes = op->x_columns * op->x_stride;
    int32_t before = row < 0 ? -row : 0;
    int32_t end = row + op->kernel_rows;
    int32_t after = end > op->x_rows ? end - op->x_rows : 0;
    to = ep_mve_fill(to, op->x_zero, before * row_bytes);
    to = ep_mve_copy(to, map + (row + before) * row_bytes, (op->kernel_rows - before - after) * row_bytes);
    ep_mve_fill(to, op->x_zero, after * row_bytes);
}

void ep_mve_conv_series(const ep_mve_conv_op *op, const ep_call *call)
{
    const int8_t *map = find_map(op, call);
    int8_t *patches = find_patches(call), *y = call->y;
    int32_t row_bytes = op->x_columns * op->x_stride, length = op->layer.length;
    int32_t row = call->y_first * op->stride_rows - op->pad_top;
    int32_t last = op->x_rows - op->kernel_rows; /* the last row with a patch inside the map */
    for (int32_t left = call->y_rows; left > 0;) {
        int32_t count = 0, step = op->stride_rows * row_bytes;
        const int8_t *x = map + row * row_bytes;
        if (row >= 0 && row <= last) {
            count = (last - row) / op->stride_rows + 1;
            count = count < left ? count : left;
        } else {
            x = patches;
            step = length;
            for (int32_t at = row; count < left && count < 3 && (at < 0 || at > last); at += op->stride_rows) {
                gather_rows(op, patches + count++ * length, map, at);
            }
        }
        ep_mve_dot_run(&op->layer, x, step, y, op->y_stride, count, call->scratch);
        left -= count;
        row += count * op->stride_rows;
        y += count * op->y_stride;
    }
}

/* One kernel row of a line: `columns` columns from input column `column` on, `step` bytes apart. row: NULL outside. */
static void gather_line(const ep_mve_conv_op *op, int8_t *to, int32_t step, const int8_t *row, int32_t column,
                        int32_t columns)
{
    int32_t channels = op->channels_in;
    int32_t before = column < 0 ? -column : 0;
    int32_t after = column + columns > op->x_columns ? column + columns - op->x_columns : 0;
    if (!row) {
        before = columns;
        after = 0;
    }
    to = ep_mve_fill_pixels(to, step, op->x_zero, channels, before);
    int32_t inside = columns - before - after;
    if (inside > 0) {
        to = ep_mve_copy_pixels(to, step, row + (column + before) * op->x_stride, op->x_stride, channels, inside);
    }
    ep_mve_fill_pixels(to, step, op->x_zero, channels, after);
}

void ep_mve_conv_lines(const ep_mve_conv_op *op, const ep_call *call)
{
    const int8_t *map = find_map(op, call);
    int8_t *line = find_patches(call);
    int32_t step = op->kernel_rows * op->channels_in; /* bytes of a column of the line */
    int32_t first_row = call->y_first * op->stride_rows - op->pad_top;
    int8_t *y = call->y;
    for (int32_t i = 0; i < call->y_rows; i++, first_row += op->stride_rows) {
        for (int32_t first = 0; first < op->y_columns; first += op->line_columns) {
            int32_t count = op->y_columns - first < op->line_columns ? op->y_columns - first : op->line_columns;
            int32_t columns = (count - 1) * op->stride_columns + op->kernel_columns;
            for (int32_t group = 0; group < op->groups; group++) {
                for (int32_t k = 0; k < op->kernel_rows; k++) {
                    int32_t row = first_row + k * op->dilation_rows;
                    int is_inside = row >= 0 && row < op->x_rows;
                    const int8_t *x = map + row * op->x_columns * op->x_stride + group * op->channels_in;
                    gather_line(op, line + k * op->channels_in, step, is_inside ? x : 0,
                                first * op->stride_columns - op->pad_left, columns);
                }
                ep_mve_layer layer = ep_mve_find_group(&op->layer, group);
                ep_mve_dot_run(&layer, line, op->stride_columns * step, y + group * layer.channels, op->y_stride, count,
                               call->scratch);
            }
            y += count * op->y_stride;
        }
    }
}

/* The patch whose first tap is at (row, column). */
static void gather_patch(const ep_mve_conv_op *op, int8_t *to, const int8_t *map, int32_t row, int32_t column)
{
    for (int32_t c = 0; c < op->kernel_columns; c++, column += op->dilation_columns) {
        int32_t tap_row = row;
        for (int32_t r = 0; r < op->kernel_rows; r++, tap_row += op->dilation_rows) {
            if (tap_row >= 0 && tap_row < op->x_rows && column >= 0 && column < op->x_columns) {
                to = ep_mve_copy(to, map + (tap_row * op->x_columns + column) * op->x_stride, op->channels_in);
            } else {
                to = ep_mve_fill(to, op->x_zero, op->channels_in);
            }
        }
    }
}

void ep_mve_conv_patches(const ep_mve_conv_op *op, const ep_call *call)
{
    const int8_t *map = find_map(op, call);
    int8_t *patches = find_patches(call), *y = call->y;
    int32_t row = call->y_first * op->stride_rows - op->pad_top, column = 0;
    for (int32_t left = call->y_rows * op->y_columns; left > 0;) {
        int32_t count = left < 3 ? left : 3;
        int32_t from_row = row, from_column = column;
        for (int32_t group = 0; group < op->groups; group++) {
            row = from_row;
            column = from_column;
            for (int32_t i = 0; i < count; i++) {
                gather_patch(op, patches + i * op->layer.length, map + group * op->channels_in, row,
                             column * op->stride_columns - op->pad_left);
                if (++column == op->y_columns) {
                    column = 0;
                    row += op->stride_rows;
                }
            }
            ep_mve_layer layer = ep_mve_find_group(&op->layer, group);
            ep_mve_dot_run(&layer, patches, op->layer.length, y + group * layer.channels, op->y_stride, count,
                           call->scratch);
        }
        left -= count;
        y += count * op->y_stride;
    }
}
