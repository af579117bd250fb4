/* Fixed-point arithmetic: what is too long to be inline. SPDX-License-Identifier: 0BSD */
#include "ep_fixed_point.h"

int32_t ep_multiply_high(int32_t value, int32_t multiplier)
{
    return (int32_t)(((int64_t)value * multiplier + ((int64_t)1 << 30)) >> 31);
}

int32_t ep_multiply(int32_t value, int32_t multiplier, int32_t shift)
{
    if (shift > 0) {
        return ep_multiply_high((int32_t)((uint32_t)value << shift), multiplier);
    }
    value = ep_multiply_high(value, multiplier);
    return shift == 0 ? value : ep_shift_right(value, -shift - 1, 0);
}

#ifdef EP_NO_LONG_MULTIPLY
int32_t ep_multiply_twice(int32_t twice, int32_t multiplier)
{
    /* (a1 * 2^16 + a0) * (b1 * 2^16 + b0), where b1 < 2^15 because multiplier >= 0: no step overflows */
    const int32_t a1 = twice >> 16;
    const uint32_t a0 = (uint32_t)twice & 0xFFFF;
    const uint32_t b1 = (uint32_t)multiplier >> 16;
    const uint32_t b0 = (uint32_t)multiplier & 0xFFFF;
    const int32_t upper = a1 * (int32_t)b0 + (int32_t)((a0 * b0) >> 16); /* both from bit 16 on */
    const uint32_t lower = a0 * b1 + ((uint32_t)upper & 0xFFFF);
    return a1 * (int32_t)b1 + (upper >> 16) + (int32_t)((lower + 0x8000) >> 16);
}
#endif
