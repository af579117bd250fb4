/* Averages of stored values without a division per value. SPDX-License-Identifier: 0BSD */
#ifndef EP_DIVIDE_H
#define EP_DIVIDE_H

#include "ep.h"

/* sum / count to nearest, ties away from zero, for |sum| <= 128 * count and count < 130,000; reciprocal: 2^24 / count.
 *
 * a = |sum| + count / 2 < 128.5 * count, so a * reciprocal < 2^32; the estimate is below a / count by less than
 * a / 2^24 < 1, so it is the quotient or one less. */
static inline int32_t ep_divide(int32_t sum, int32_t count, uint32_t reciprocal)
{
    const uint32_t a = (uint32_t)(sum < 0 ? -sum : sum) + ((uint32_t)count >> 1);
    uint32_t quotient = (a * reciprocal) >> 24;
    if (a - quotient * (uint32_t)count >= (uint32_t)count) {
        quotient++;
    }
    return sum < 0 ? -(int32_t)quotient : (int32_t)quotient;
}

#endif
