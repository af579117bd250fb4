/* From sums to stored outputs. SPDX-License-Identifier: 0BSD */
#include "ep_output.h"
#include "ep_fixed_point.h"
#ifdef __ARM_NEON
#include <arm_neon.h>

/* Four outputs, or 0 where a shift is of the general kind. SQRDMULH is ep_multiply_twice, to the bit. */
static inline int32_t store_four(const ep_output *output, const uint32_t *sums, const int32_t *scale, int8_t *y)
{
    int32x4x2_t pairs = {{vdupq_n_s32(scale[0]), vdupq_n_s32(scale[1])}};
    int32x4_t values = vreinterpretq_s32_u32(vld1q_u32(sums));
    int32x2_t signs;
    int8x8_t bytes;
    int32_t word;
    if (output->scale_step != 0) {
        pairs = vld2q_s32(scale);
    }
    signs = vorr_s32(vget_low_s32(pairs.val[1]), vget_high_s32(pairs.val[1]));
    if ((vget_lane_s32(signs, 0) | vget_lane_s32(signs, 1)) < 0) {
        return 0;
    }
    values = vqrdmulhq_s32(values, pairs.val[0]);
    values = vshlq_s32(vaddq_s32(values, vshrq_n_s32(values, 31)), vnegq_s32(pairs.val[1])); /* ep_shift_right */
    values = vshrq_n_s32(vaddq_s32(values, vdupq_n_s32(2 * output->zero_point + 1)), 1);
    values = vminq_s32(vmaxq_s32(values, vdupq_n_s32(output->act_min)), vdupq_n_s32(output->act_max));
    bytes = vmovn_s16(vcombine_s16(vmovn_s32(values), vdup_n_s16(0)));
    word = vget_lane_s32(vreinterpret_s32_s8(bytes), 0);
    __builtin_memcpy(y, &word, 4);
    return 1;
}
#endif

void ep_store_outputs(const ep_output *output, const uint32_t *sums, int32_t channel, int32_t count, int8_t *y)
{
    const int32_t zero_point = output->zero_point, least = output->act_min, most = output->act_max;
    const int32_t step = output->scale_step;
    const int32_t *scale = output->scale + channel * step;
    const uint32_t *const end = sums + count;
#ifdef __ARM_NEON
    while (end - sums >= 4 && store_four(output, sums, scale, y)) {
        sums += 4;
        y += 4;
        scale += 4 * step;
    }
    if (sums == end) {
        return;
    }
#endif
    EP_NO_UNROLL
    do {
        const int32_t value = ep_requantize((int32_t)*sums++, scale[0], scale[1], zero_point);
        *y++ = (int8_t)ep_clamp_value(value, least, most);
        scale += step;
    } while (sums != end);
}
