/* Clamping stored values: relu and its kin where input and output share their quantization. SPDX-License-Identifier: 0BSD
 */
#include "ep_clamp.h"
#include "ep_fixed_point.h"
#include "ep_select.h"

void ep_clamp(const ep_clamp_op *op, const ep_call *call)
{
    const int8_t *x = call->x + (call->y_first - call->x_first) * op->columns * op->x_stride;
    int8_t *y = call->y;
    const int32_t least = op->act_min, most = op->act_max;
    int32_t pixels = call->y_rows * op->columns, channels = op->channels;
    if (op->x_stride == channels && op->y_stride == channels) { /* no gaps: one run */
        channels *= pixels;
        pixels = 1;
    }
    EP_NO_UNROLL
    for (; pixels > 0; pixels--) {
        int32_t i = 0;
#ifdef __ARM_FEATURE_DSP
        EP_NO_UNROLL
        for (; i + 4 <= channels; i += 4) {
            uint32_t values;
            __builtin_memcpy(&values, x + i, 4);
            values = ep_select_smaller(ep_select_larger(values, ep_spread(least)), ep_spread(most));
            __builtin_memcpy(y + i, &values, 4);
        }
#endif
        EP_NO_UNROLL
        for (; i < channels; i++) {
            y[i] = (int8_t)ep_clamp_value(x[i], least, most);
        }
        x += op->x_stride;
        y += op->y_stride;
    }
}
