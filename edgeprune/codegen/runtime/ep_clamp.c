/* Clamping stored values: relu and its kin where input and output share their quantization. SPDX-License-Identifier: 0BSD
 */
#include "ep_clamp.h"
#include "ep_fixed_point.h"

void ep_clamp(const ep_clamp_op *op, const ep_call *call)
{
    const int32_t least = op->act_min, most = op->act_max;
    const int8_t *x = call->x + (call->y_first - call->x_first) * op->columns * op->x_stride;
    int8_t *y = call->y;
    int32_t pixels = call->y_rows * op->columns, channels = op->channels;
    if (op->x_stride == channels && op->y_stride == channels) { /* no gaps: one run */
        channels *= pixels;
        pixels = 1;
    }
    for (; pixels > 0; pixels--) {
        for (int32_t i = 0; i < channels; i++) {
            y[i] = (int8_t)ep_clamp_value(x[i], least, most);
        }
        x += op->x_stride;
        y += op->y_stride;
    }
}
