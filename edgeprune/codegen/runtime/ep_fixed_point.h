/* Fixed-point arithmetic of TensorFlow Lite Micro, to the bit (double rounding). SPDX-License-Identifier: 0BSD */
#ifndef EP_FIXED_POINT_H
#define EP_FIXED_POINT_H

#include "ep.h"

/* Cores without a 32 x 32 -> 64 bit multiplication put it together from 16-bit halves. */
#if defined(__ARM_ARCH_6M__) || defined(__ARM_ARCH_8M_BASE__)
#define EP_NO_LONG_MULTIPLY
#endif

/* An encoded shift of EP_GENERAL - s means TFLite's shift s, by ep_multiply; from 0 on: right by (shift + 1). */
#define EP_GENERAL (-64)

/* SaturatingRoundingDoublingHighMul: value * multiplier / 2^31, ties upwards; not for INT32_MIN * INT32_MIN. */
int32_t ep_multiply_high(int32_t value, int32_t multiplier);

/* MultiplyByQuantizedMultiplier for any shift: positive to the left (wrapping), negative to the right. */
int32_t ep_multiply(int32_t value, int32_t multiplier, int32_t shift);

/* The upper word of twice * multiplier, rounded: ep_multiply_high(twice / 2, multiplier), for multiplier >= 0. */
#ifdef EP_NO_LONG_MULTIPLY
int32_t ep_multiply_twice(int32_t twice, int32_t multiplier);
#else
static inline int32_t ep_multiply_twice(int32_t twice, int32_t multiplier)
{
    return (int32_t)(((int64_t)twice * multiplier + ((int64_t)1 << 31)) >> 32);
}
#endif

/* value / 2^(shift + 1) to nearest, ties away from zero, plus zero_point; 0 <= shift <= 30. */
static inline int32_t ep_shift_right(int32_t value, int32_t shift, int32_t zero_point)
{
    return (((value + (value >> 31)) >> shift) + 2 * zero_point + 1) >> 1;
}

/* From accumulator to stored value, not yet clamped; shift is encoded. Derivation: edgeprune/codegen/requantize.py. */
static inline int32_t ep_requantize(int32_t value, int32_t multiplier, int32_t shift, int32_t zero_point)
{
    if (EP_LIKELY(shift >= 0)) { /* |value| < 2^30 is known */
        return ep_shift_right(ep_multiply_twice(2 * value, multiplier), shift, zero_point);
    }
    return (int32_t)((uint32_t)ep_multiply(value, multiplier, EP_GENERAL - shift) + (uint32_t)zero_point);
}

/* To int8: constant bounds, which cores saturate to in one instruction. */
static inline int32_t ep_saturate(int32_t value)
{
    value = value < -128 ? -128 : value;
    return value > 127 ? 127 : value;
}

static inline int32_t ep_clamp_value(int32_t value, int32_t least, int32_t most)
{
    value = value < least ? least : value;
    return value > most ? most : value;
}

#endif
