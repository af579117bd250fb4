/* What the kernels for cores with the DSP extension (Armv7E-M, Armv8-M) share. SPDX-License-Identifier: 0BSD
 *
 * Packed pairs (kernels/dsp_convolution_code.py): two values in a word, x0 + x1 * 2^21. */
#ifndef EP_DSP_H
#define EP_DSP_H

#include "ep.h"

/* The word of two values; unsigned, so that negative values may be shifted. */
static inline uint32_t ep_pack_pair(int32_t x0, int32_t x1)
{
    return (uint32_t)x0 + ((uint32_t)x1 << 21);
}

/* Sign-extended bytes 0 and 2 of a word as two int16. */
static inline uint32_t ep_extend_even(uint32_t bytes)
{
    uint32_t result;
    __asm__("sxtb16 %0, %1" : "=r"(result) : "r"(bytes));
    return result;
}

/* Sign-extended bytes 1 and 3 of a word as two int16. */
static inline uint32_t ep_extend_odd(uint32_t bytes)
{
    uint32_t result;
    __asm__("sxtb16 %0, %1, ror #8" : "=r"(result) : "r"(bytes));
    return result;
}

/* Four bytes at any address. */
static inline uint32_t ep_load_word(const int8_t *bytes)
{
    uint32_t word;
    __builtin_memcpy(&word, bytes, 4);
    return word;
}

#endif
