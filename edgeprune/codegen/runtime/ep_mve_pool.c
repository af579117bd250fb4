/* Pooling over windows for Helium (MVE): 16 channels, or 8 sums, at a time. SPDX-License-Identifier: 0BSD */
#include "ep_mve_pool.h"

#include <arm_mve.h>

/* What of a window lies inside the map. */
typedef struct {
    const int8_t *x;
    int32_t rows;
    int32_t columns;
} window;

typedef void (*finish)(const ep_mve_pool_op *op, const window *inside, int8_t *y);

static void pool(const ep_mve_pool_op *op, const ep_call *call, finish function) {
    const int8_t *map = call->x - call->x_first * op->x_columns * op->x_stride;
    int8_t *y = call->y;
    for (int32_t i = 0; i < call->y_rows; i++) {
        int32_t row = (call->y_first + i) * op->stride_rows - op->pad_top;
        int32_t first_row = row < 0 ? 0 : row;
        int32_t end_row = row + op->kernel_rows < op->x_rows ? row + op->kernel_rows : op->x_rows;
        int32_t column = -op->pad_left;
        for (int32_t j = 0; j < op->y_columns; j++, column += op->stride_columns) {
            int32_t first = column < 0 ? 0 : column;
            int32_t end = column + op->kernel_columns < op->x_columns ? column + op->kernel_columns : op->x_columns;
            window inside = {map + (first_row * op->x_columns + first) * op->x_stride, end_row - first_row, end - first};
            function(op, &inside, y);
            y += op->y_stride;
        }
    }
}

static void find_maximum(const ep_mve_pool_op *op, const window *inside, int8_t *y) {
    int32_t row_bytes = op->x_columns * op->x_stride;
    for (int32_t channel = 0; channel < op->channels; channel += 16) {
        mve_pred16_t lanes = vctp8q((uint32_t)(op->channels - channel));
        const int8_t *row = inside->x + channel;
        int8x16_t most = vdupq_n_s8((int8_t)op->act_min);
        for (int32_t i = 0; i < inside->rows; i++, row += row_bytes) {
            const int8_t *x = row;
            for (int32_t j = 0; j < inside->columns; j++, x += op->x_stride) {
                most = vmaxq_s8(most, vldrbq_z_s8(x, lanes));
            }
        }
        vstrbq_p_s8(y + channel, vminq_s8(most, vdupq_n_s8((int8_t)op->act_max)), lanes);
    }
}

void ep_mve_max_pool(const ep_mve_pool_op *op, const ep_call *call) {
    pool(op, call, find_maximum);
}

static void find_average(const ep_mve_pool_op *op, const window *inside, int8_t *y) {
    int32_t row_bytes = op->x_columns * op->x_stride;
    int32_t count = inside->rows * inside->columns, half = count / 2;
    for (int32_t channel = 0; channel < op->channels; channel += 8) {
        int32_t left = op->channels - channel;
        mve_pred16_t lanes = vctp16q((uint32_t)left);
        const int8_t *row = inside->x + channel;
        int16x8_t sum = vdupq_n_s16(0);
        for (int32_t i = 0; i < inside->rows; i++, row += row_bytes) {
            const int8_t *x = row;
            for (int32_t j = 0; j < inside->columns; j++, x += op->x_stride) {
                sum = vaddq_s16(sum, vldrbq_z_s16(x, lanes));
            }
        }
        int16_t sums[8];
        vst1q_s16(sums, sum);
        for (int32_t i = 0; i < 8 && i < left; i++) {
            int32_t value = (sums[i] + (sums[i] < 0 ? -half : half)) / count; /* C truncates: ties away from zero */
            value = value < op->act_min ? op->act_min : value;
            y[channel + i] = (int8_t)(value > op->act_max ? op->act_max : value);
        }
    }
}

void ep_mve_average_pool(const ep_mve_pool_op *op, const ep_call *call) {
    pool(op, call, find_average);
}
