/* Four stored values at once, on cores with the DSP extension. SPDX-License-Identifier: 0BSD */
#ifndef EP_SELECT_H
#define EP_SELECT_H

#include "ep.h"

#ifdef __ARM_FEATURE_DSP

/* The larger of each two bytes: SSUB8 notes in which of them a >= b, SEL picks by that. */
static inline uint32_t ep_select_larger(uint32_t a, uint32_t b)
{
    uint32_t larger;
    __asm__("ssub8 %0, %1, %2\n\tsel %0, %1, %2" : "=&r"(larger) : "r"(a), "r"(b) : "cc");
    return larger;
}

static inline uint32_t ep_select_smaller(uint32_t a, uint32_t b)
{
    uint32_t smaller;
    __asm__("ssub8 %0, %1, %2\n\tsel %0, %2, %1" : "=&r"(smaller) : "r"(a), "r"(b) : "cc");
    return smaller;
}

/* Sums of bytes 0 and 2, and of bytes 1 and 3, in two halfwords each; exact for 256 bytes. */
static inline uint32_t ep_add_even(uint32_t sums, uint32_t bytes)
{
    uint32_t result;
    __asm__("sxtab16 %0, %1, %2" : "=r"(result) : "r"(sums), "r"(bytes));
    return result;
}

static inline uint32_t ep_add_odd(uint32_t sums, uint32_t bytes)
{
    uint32_t result;
    __asm__("sxtab16 %0, %1, %2, ror #8" : "=r"(result) : "r"(sums), "r"(bytes));
    return result;
}

/* A value in each byte. */
static inline uint32_t ep_spread(int32_t value)
{
    return (uint8_t)value * 0x01010101u;
}

#endif
#endif
