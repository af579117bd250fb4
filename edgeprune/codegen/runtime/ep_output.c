/* From sums to stored outputs. SPDX-License-Identifier: 0BSD */
#include "ep_output.h"
#include "ep_fixed_point.h"

void ep_store_outputs(const ep_output *output, const uint32_t *sums, int32_t channel, int32_t count, int8_t *y)
{
    const int32_t zero_point = output->zero_point, least = output->act_min, most = output->act_max;
    const int32_t step = output->scale_step;
    const int32_t *scale = output->scale + channel * step;
    const uint32_t *const end = sums + count;
    EP_NO_UNROLL
    do {
        const int32_t value = ep_requantize((int32_t)*sums++, scale[0], scale[1], zero_point);
        *y++ = (int8_t)ep_clamp_value(value, least, most);
        scale += step;
    } while (sums != end);
}
