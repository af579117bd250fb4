/* Depthwise convolution of 16 channels at a time for Helium (MVE). SPDX-License-Identifier: 0BSD
 *
 * A window is a table of where its taps lie. All windows inside the map share one table of offsets; one that reaches
 * over the border has a table of addresses, some of which are those of a pixel of zero points. */
#include "ep_mve_taps.h"

#include "ep_mve_bytes.h"

/* Addresses of the taps of the window at (row, column), as offsets from NULL. */
static void find_taps(const ep_mve_taps_op *op, int32_t *taps, const int8_t *map, int32_t row, int32_t column,
                      const int8_t *outside)
{
    const int32_t *end = taps + 2 * op->run.pairs;
    for (int32_t r = 0; r < op->kernel_rows; r++, row += op->dilation_rows) {
        int is_inside = row >= 0 && row < op->x_rows;
        int32_t at = column;
        for (int32_t c = 0; c < op->kernel_columns; c++, at += op->dilation_columns) {
            const int8_t *x = map + (row * op->x_columns + at) * op->x_stride;
            *taps++ = (int32_t)(is_inside && at >= 0 && at < op->x_columns ? x : outside);
        }
    }
    if (taps != end) { /* a tap without weight makes the pairs whole */
        *taps = (int32_t)outside;
    }
}

void ep_mve_taps(const ep_mve_taps_op *op, const ep_call *call)
{
    const int8_t *map = call->x - call->x_first * op->x_columns * op->x_stride; /* row 0, in memory or not */
    int32_t *taps = call->scratch;
    int8_t *outside = (int8_t *)(taps + 2 * op->run.pairs);
    int32_t last_row = op->x_rows - 1 - (op->kernel_rows - 1) * op->dilation_rows;
    int32_t last_column = op->x_columns - 1 - (op->kernel_columns - 1) * op->dilation_columns;
    int is_series = op->y_columns == 1;
    ep_mve_taps_run run = op->run;
    ep_mve_fill(outside, op->x_zero, op->channels);
    run.x_step = is_series ? op->stride_rows * op->x_columns * op->x_stride : op->stride_columns * op->x_stride;
    run.y_step = op->y_stride;
    run.y = call->y;
    int32_t row = call->y_first * op->stride_rows - op->pad_top;
    int32_t column = -op->pad_left, y_column = 0;
    for (int32_t left = call->y_rows * op->y_columns; left > 0; left -= run.pixels) {
        run.pixels = 1;
        if (row >= 0 && row <= last_row && column >= 0 && column <= last_column) {
            int32_t reach = is_series ? (last_row - row) / op->stride_rows : (last_column - column) / op->stride_columns;
            int32_t most = is_series ? left : op->y_columns - y_column;
            run.pixels = reach + 1 < most ? reach + 1 : most;
            run.x = map + (row * op->x_columns + column) * op->x_stride;
            run.offsets = op->offsets;
        } else {
            find_taps(op, taps, map, row, column, outside);
            run.x = 0;
            run.offsets = taps;
        }
        op->function(&run);
        run.y += run.pixels * run.y_step;
        if (is_series) {
            row += run.pixels * op->stride_rows;
            continue;
        }
        column += run.pixels * op->stride_columns;
        y_column += run.pixels;
        if (y_column == op->y_columns) {
            y_column = 0;
            column = -op->pad_left;
            row += op->stride_rows;
        }
    }
}
