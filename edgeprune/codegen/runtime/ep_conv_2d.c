/* 2-D convolution with groups, strides and dilations. SPDX-License-Identifier: 0BSD
 *
 * A window that lies inside the map is read where it is, row by row; any other is gathered first, with zero points where
 * it reaches into the padding. */
#include "ep_conv_2d.h"
#include "ep_bytes.h"
#include "ep_window.h"

/* Gather the window of one group (its first channel: `offset`) whose first tap is at row `top`, column `left`. */
static EP_NOINLINE void gather(const ep_conv_2d_op *op, const ep_call *call, int32_t top, int32_t left, int32_t offset)
{
    int8_t *window = call->scratch;
    for (int32_t i = 0; i < op->kernel_rows; i++) {
        const int32_t row = top + i * op->dilation_rows;
        for (int32_t j = 0; j < op->kernel_columns; j++) {
            const int32_t column = left + j * op->dilation_columns;
            if (row >= 0 && row < op->x_rows && column >= 0 && column < op->x_columns) {
                const int32_t pixel = (row - call->x_first) * op->x_columns + column;
                ep_copy_bytes(window, call->x + pixel * op->x_stride + offset, op->channels);
            } else {
                ep_fill_bytes(window, op->x_zero_point, op->channels);
            }
            window += op->channels;
        }
    }
}

/* The same where the rows of a window touch one another: a line of bytes, cut off at the ends of the map. */
static EP_NOINLINE void gather_line(const ep_conv_2d_op *op, const ep_call *call, int32_t top, int32_t pitch)
{
    int8_t *window = call->scratch;
    const ep_span rows = ep_find_inside(top, 1, op->kernel_rows, op->x_rows);
    const int32_t before = rows.first * pitch, inside = (rows.end - rows.first) * pitch;
    ep_fill_bytes(window, op->x_zero_point, before);
    if (inside > 0) {
        ep_copy_bytes(window + before, call->x + (top + rows.first - call->x_first) * pitch, inside);
    }
    ep_fill_bytes(window + before + inside, op->x_zero_point, op->kernel_rows * pitch - before - inside);
}

void ep_conv_2d(const ep_conv_2d_op *op, const ep_call *call)
{
    const int32_t pitch = op->x_columns * op->x_stride;
    const int32_t length = op->kernel_columns * op->channels;
    const int32_t last_top = op->x_rows - 1 - (op->kernel_rows - 1) * op->dilation_rows;
    const int32_t last_left = op->x_columns - 1 - (op->kernel_columns - 1) * op->dilation_columns;
    const int32_t is_line = op->is_direct && op->dilation_rows == 1 && pitch == length;
    int8_t *y = call->y;
    for (int32_t row = call->y_first; row < call->y_first + call->y_rows; row++) {
        const int32_t top = row * op->stride_rows - op->pad_rows;
        const int32_t is_inside = op->is_direct && top >= 0 && top <= last_top;
        int32_t left = -op->pad_columns;
        for (int32_t column = 0; column < op->y_columns; column++) {
            if (is_inside && left >= 0 && left <= last_left) {
                const int8_t *x = call->x + (top - call->x_first) * pitch + left * op->x_stride;
                ep_compute_dense(&op->dense, x, pitch * op->dilation_rows, is_line ? 1 : op->kernel_rows,
                                 is_line ? op->kernel_rows * length : length, y);
            } else {
                ep_dense dense = op->dense;
                for (int32_t group = 0; group < op->groups; group++) {
                    if (is_line && left == 0) {
                        gather_line(op, call, top, pitch);
                    } else {
                        gather(op, call, top, left, group * op->channels);
                    }
                    ep_compute_dense(&dense, call->scratch, 0, 1, op->kernel_rows * length, y + group * dense.channels);
                    dense.weight += op->group_weight;
                    dense.bias += dense.channels;
                    dense.output.scale += dense.channels * dense.output.scale_step;
                }
            }
            left += op->stride_columns;
            y += op->y_stride;
        }
    }
}
