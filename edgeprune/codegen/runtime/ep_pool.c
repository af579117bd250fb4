/* Maximum and average over windows; the padding takes no part. SPDX-License-Identifier: 0BSD
 *
 * Four channels at a time; the last four of a pixel may overlap those before. */
#include "ep_pool.h"
#include "ep_divide.h"
#include "ep_fixed_point.h"
#include "ep_select.h"
#include "ep_window.h"

/* The part of a window that lies inside the map. */
typedef struct {
    int32_t rows;
    int32_t columns;
    int32_t row_skip;    /* from behind the last pixel of a row to the first of the next */
    int32_t count;       /* rows * columns */
    uint32_t reciprocal; /* 2^24 / count */
} window;

/* Pool one window for channels x, x + 1, ...: for four, or for one. */
typedef void pool_function(const ep_pool_op *op, const window *taps, const int8_t *x, int8_t *y);

/* Apply `pool`, which takes `block` channels at a time, to the window of each output position asked for. */
static EP_NOINLINE void slide(const ep_pool_op *op, const ep_call *call, pool_function *pool, int32_t block)
{
    const int32_t pitch = op->x_columns * op->x_stride;
    int8_t *y = call->y;
    window taps = {0, 0, 0, 0, 0};
    EP_NO_UNROLL
    for (int32_t row = call->y_first; row < call->y_first + call->y_rows; row++) {
        const int32_t top = row * op->stride_rows - op->pad_rows;
        const ep_span rows = ep_find_inside(top, 1, op->kernel_rows, op->x_rows);
        const int8_t *line = call->x + (top + rows.first - call->x_first) * pitch;
        int32_t left = -op->pad_columns;
        EP_NO_UNROLL
        for (int32_t column = 0; column < op->y_columns; column++) {
            const ep_span columns = ep_find_inside(left, 1, op->kernel_columns, op->x_columns);
            const int8_t *const x = line + (left + columns.first) * op->x_stride;
            taps.rows = rows.end - rows.first;
            taps.columns = columns.end - columns.first;
            taps.row_skip = pitch - taps.columns * op->x_stride;
            if (taps.rows * taps.columns != taps.count) {
                taps.count = taps.rows * taps.columns;
                taps.reciprocal = ((uint32_t)1 << 24) / (uint32_t)taps.count;
            }
            EP_NO_UNROLL
            for (int32_t channel = 0; channel < op->channels; channel += block) {
                if (channel + block > op->channels) {
                    channel = op->channels - block; /* the last four, some of them for the second time */
                }
                pool(op, &taps, x + channel, y + channel);
            }
            left += op->stride_columns;
            y += op->y_stride;
        }
    }
}

/* The loop over the taps of a window: `step` at each, x pointing to it. */
#define EP_FOR_EACH_TAP(step)                         \
    EP_NO_UNROLL                                      \
    for (int32_t i = taps->rows; i > 0; i--) {        \
        EP_NO_UNROLL                                  \
        for (int32_t j = taps->columns; j > 0; j--) { \
            step;                                     \
            x += stride;                              \
        }                                             \
        x += taps->row_skip;                          \
    }

static inline int32_t find_larger(int32_t a, int32_t b)
{
    return a > b ? a : b;
}

#ifdef __ARM_FEATURE_DSP
static void find_maximum_of_four(const ep_pool_op *op, const window *taps, const int8_t *x, int8_t *y)
{
    const int32_t stride = op->x_stride;
    uint32_t most = ep_spread(op->act_min), values;
    EP_FOR_EACH_TAP((__builtin_memcpy(&values, x, 4), most = ep_select_larger(most, values)))
    most = ep_select_smaller(most, ep_spread(op->act_max));
    __builtin_memcpy(y, &most, 4);
}
#else
static void find_maximum_of_four(const ep_pool_op *op, const window *taps, const int8_t *x, int8_t *y)
{
    const int32_t stride = op->x_stride, highest = op->act_max;
    int32_t most_0 = op->act_min, most_1 = most_0, most_2 = most_0, most_3 = most_0;
    EP_FOR_EACH_TAP((most_0 = find_larger(most_0, x[0]), most_1 = find_larger(most_1, x[1]),
                     most_2 = find_larger(most_2, x[2]), most_3 = find_larger(most_3, x[3])))
    y[0] = (int8_t)(most_0 > highest ? highest : most_0);
    y[1] = (int8_t)(most_1 > highest ? highest : most_1);
    y[2] = (int8_t)(most_2 > highest ? highest : most_2);
    y[3] = (int8_t)(most_3 > highest ? highest : most_3);
}
#endif

static void find_maximum(const ep_pool_op *op, const window *taps, const int8_t *x, int8_t *y)
{
    const int32_t stride = op->x_stride;
    int32_t most = op->act_min;
    EP_FOR_EACH_TAP(most = find_larger(most, *x))
    *y = (int8_t)(most > op->act_max ? op->act_max : most);
}

void ep_max_pool_2d(const ep_max_pool_2d_op *op, const ep_call *call)
{
    const int32_t is_wide = op->channels >= 4;
    slide(op, call, is_wide ? find_maximum_of_four : find_maximum, is_wide ? 4 : 1);
}

static EP_NOINLINE int8_t divide(const ep_pool_op *op, const window *taps, int32_t sum)
{
    return (int8_t)ep_clamp_value(ep_divide(sum, taps->count, taps->reciprocal), op->act_min, op->act_max);
}

static void find_average_of_four(const ep_pool_op *op, const window *taps, const int8_t *x, int8_t *y)
{
    const int32_t stride = op->x_stride;
    int32_t sum_0 = 0, sum_1 = 0, sum_2 = 0, sum_3 = 0;
    EP_FOR_EACH_TAP((sum_0 += x[0], sum_1 += x[1], sum_2 += x[2], sum_3 += x[3]))
    y[0] = divide(op, taps, sum_0);
    y[1] = divide(op, taps, sum_1);
    y[2] = divide(op, taps, sum_2);
    y[3] = divide(op, taps, sum_3);
}

static void find_average(const ep_pool_op *op, const window *taps, const int8_t *x, int8_t *y)
{
    const int32_t stride = op->x_stride;
    int32_t sum = 0;
    EP_FOR_EACH_TAP(sum += *x)
    *y = divide(op, taps, sum);
}

void ep_average_pool_2d(const ep_average_pool_2d_op *op, const ep_call *call)
{
    const int32_t is_wide = op->channels >= 4;
    slide(op, call, is_wide ? find_average_of_four : find_average, is_wide ? 4 : 1);
}
