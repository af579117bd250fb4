/* Convolution with a kernel of 1, stride 1: the rows asked for are a run of pixels. SPDX-License-Identifier: 0BSD */
#include "ep_dsp_pointwise.h"

/* Pixels [0, count) of one group. */
static void multiply_pixels(const ep_dsp_pointwise_op *op, const ep_call *call, int32_t group, int32_t count)
{
    const int32_t tile = op->dot.tile;
    const int8_t *x = call->x + (call->y_first - call->x_first) * op->columns * op->x_stride + group * op->channels;
    int8_t *y = call->y + group * op->dot.channels;
    int8_t *spare = (int8_t *)call->scratch + tile * op->dot.steps * 8;
    int32_t x_stride = op->x_stride, y_stride = op->y_stride;
    for (int32_t left = count; left > 0;) {
        int32_t pairs = left >> 1;
        if (pairs > tile) {
            pairs = tile;
        } else if (pairs == 0) { /* a single pixel is computed with the one before it, or twice */
            pairs = 1;
            if (count > 1) {
                x -= x_stride;
                y -= y_stride;
            } else {
                x_stride = y_stride = 0;
            }
        }
        ep_dsp_widen_runs(x, x_stride, op->channels, call->scratch, pairs, 2 * x_stride);
        ep_dsp_multiply(&op->dot, group, call->scratch, pairs, y, y_stride, spare);
        x += 2 * pairs * x_stride;
        y += 2 * pairs * y_stride;
        left -= 2 * pairs;
    }
}

void ep_dsp_pointwise(const ep_dsp_pointwise_op *op, const ep_call *call)
{
    for (int32_t group = 0; group < op->groups; group++) {
        multiply_pixels(op, call, group, call->y_rows * op->columns);
    }
}
