/* A function of one stored value as a table of its 256 results. SPDX-License-Identifier: 0BSD */
#include "ep_lookup.h"

void ep_lookup(const ep_lookup_op *op, const ep_call *call)
{
    const int8_t *table = op->table;
    const int8_t *x = call->x + (call->y_first - call->x_first) * op->columns * op->x_stride;
    int8_t *y = call->y;
    int32_t pixels = call->y_rows * op->columns, channels = op->channels;
    if (op->x_stride == channels && op->y_stride == channels) { /* no gaps: one run */
        channels *= pixels;
        pixels = 1;
    }
    for (; pixels > 0; pixels--) {
        int32_t i = 0;
        for (; i + 4 <= channels; i += 4) {
            y[i] = table[(uint8_t)x[i]];
            y[i + 1] = table[(uint8_t)x[i + 1]];
            y[i + 2] = table[(uint8_t)x[i + 2]];
            y[i + 3] = table[(uint8_t)x[i + 3]];
        }
        for (; i < channels; i++) {
            y[i] = table[(uint8_t)x[i]];
        }
        x += op->x_stride;
        y += op->y_stride;
    }
}
