/* Maximum and average over windows; the padding takes no part. SPDX-License-Identifier: 0BSD
 *
 * Four channels at a time; the last four of a pixel may overlap those before. */
#include "ep_pool.h"
#include "ep_divide.h"
#include "ep_fixed_point.h"
#include "ep_window.h"

/* The part of a window that lies inside the map. */
typedef struct {
    const int8_t *x;
    int32_t rows;
    int32_t columns;
    int32_t row_skip; /* from behind the last pixel of a row to the first of the next */
} window;

typedef void pool_function(const ep_pool_op *op, const window *taps, int8_t *y);

/* Apply `pool` to the window of each output position asked for. */
static void slide(const ep_pool_op *op, const ep_call *call, pool_function *pool)
{
    const int32_t pitch = op->x_columns * op->x_stride;
    int8_t *y = call->y;
    for (int32_t row = call->y_first; row < call->y_first + call->y_rows; row++) {
        const int32_t top = row * op->stride_rows - op->pad_rows;
        const ep_span rows = ep_find_inside(top, 1, op->kernel_rows, op->x_rows);
        const int8_t *line = call->x + (top + rows.first - call->x_first) * pitch;
        int32_t left = -op->pad_columns;
        for (int32_t column = 0; column < op->y_columns; column++) {
            const ep_span columns = ep_find_inside(left, 1, op->kernel_columns, op->x_columns);
            window taps = {line + (left + columns.first) * op->x_stride, rows.end - rows.first,
                           columns.end - columns.first, 0};
            taps.row_skip = pitch - taps.columns * op->x_stride;
            pool(op, &taps, y);
            left += op->stride_columns;
            y += op->y_stride;
        }
    }
}

static inline int32_t find_larger(int32_t a, int32_t b)
{
    return a > b ? a : b;
}

static void find_maximum(const ep_pool_op *op, const window *taps, int8_t *y)
{
    const int32_t block = op->channels >= 4 ? 4 : 1;
    for (int32_t channel = 0; channel < op->channels; channel += block) {
        int32_t most[4] = {op->act_min, op->act_min, op->act_min, op->act_min};
        if (channel + block > op->channels) {
            channel = op->channels - block;
        }
        const int8_t *x = taps->x + channel;
        for (int32_t i = taps->rows; i > 0; i--) {
            for (int32_t j = taps->columns; j > 0; j--) {
                most[0] = find_larger(most[0], x[0]);
                if (block == 4) {
                    most[1] = find_larger(most[1], x[1]);
                    most[2] = find_larger(most[2], x[2]);
                    most[3] = find_larger(most[3], x[3]);
                }
                x += op->x_stride;
            }
            x += taps->row_skip;
        }
        for (int32_t i = 0; i < block; i++) {
            y[channel + i] = (int8_t)(most[i] > op->act_max ? op->act_max : most[i]);
        }
    }
}

void ep_max_pool_2d(const ep_max_pool_2d_op *op, const ep_call *call)
{
    slide(op, call, find_maximum);
}

static void find_average(const ep_pool_op *op, const window *taps, int8_t *y)
{
    const int32_t block = op->channels >= 4 ? 4 : 1;
    const int32_t count = taps->rows * taps->columns;
    const uint32_t reciprocal = ((uint32_t)1 << 24) / (uint32_t)count;
    for (int32_t channel = 0; channel < op->channels; channel += block) {
        int32_t sums[4] = {0, 0, 0, 0};
        if (channel + block > op->channels) {
            channel = op->channels - block;
        }
        const int8_t *x = taps->x + channel;
        for (int32_t i = taps->rows; i > 0; i--) {
            for (int32_t j = taps->columns; j > 0; j--) {
                sums[0] += x[0];
                if (block == 4) {
                    sums[1] += x[1];
                    sums[2] += x[2];
                    sums[3] += x[3];
                }
                x += op->x_stride;
            }
            x += taps->row_skip;
        }
        for (int32_t i = 0; i < block; i++) {
            y[channel + i] = (int8_t)ep_clamp_value(ep_divide(sums[i], count, reciprocal), op->act_min, op->act_max);
        }
    }
}

void ep_average_pool_2d(const ep_average_pool_2d_op *op, const ep_call *call)
{
    slide(op, call, find_average);
}
