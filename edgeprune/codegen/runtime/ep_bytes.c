/* Copying and filling bytes, by words where a core may access them at any address. SPDX-License-Identifier: 0BSD */
#include "ep_bytes.h"

void ep_copy_bytes(int8_t *to, const int8_t *from, int32_t count)
{
#ifdef __ARM_FEATURE_UNALIGNED
    EP_NO_UNROLL
    for (; count >= 8; count -= 8) {
        uint32_t first, second;
        __builtin_memcpy(&first, from, 4);
        __builtin_memcpy(&second, from + 4, 4);
        __builtin_memcpy(to, &first, 4);
        __builtin_memcpy(to + 4, &second, 4);
        from += 8;
        to += 8;
    }
#endif
    EP_NO_UNROLL
    for (; count > 0; count--) {
        *to++ = *from++;
    }
}

void ep_fill_bytes(int8_t *to, int32_t value, int32_t count)
{
#ifdef __ARM_FEATURE_UNALIGNED
    const uint32_t word = (uint8_t)value * 0x01010101u;
    EP_NO_UNROLL
    for (; count >= 4; count -= 4) {
        __builtin_memcpy(to, &word, 4);
        to += 4;
    }
#endif
    EP_NO_UNROLL
    for (; count > 0; count--) {
        *to++ = (int8_t)value;
    }
}
