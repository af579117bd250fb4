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
    EP_NO_UNROLL
    for (; pixels > 0; pixels--) {
        const int8_t *from = x, *const end = x + channels;
        int8_t *to = y;
        EP_NO_UNROLL
        for (; end - from >= 4; from += 4) {
            to[0] = table[(uint8_t)from[0]];
            to[1] = table[(uint8_t)from[1]];
            to[2] = table[(uint8_t)from[2]];
            to[3] = table[(uint8_t)from[3]];
            to += 4;
        }
        EP_NO_UNROLL
        for (; from != end; from++) {
            *to++ = table[(uint8_t)*from];
        }
        x += op->x_stride;
        y += op->y_stride;
    }
}
