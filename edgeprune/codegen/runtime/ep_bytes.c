/* Copying and filling bytes, by words where a core may load them from any address. SPDX-License-Identifier: 0BSD */
#include "ep_bytes.h"

void ep_copy_bytes(int8_t *to, const int8_t *from, int32_t count)
{
#ifdef __ARM_FEATURE_UNALIGNED
    for (; count >= 4; count -= 4) {
        uint32_t word;
        __builtin_memcpy(&word, from, 4);
        __builtin_memcpy(to, &word, 4);
        from += 4;
        to += 4;
    }
#endif
    for (; count > 0; count--) {
        *to++ = *from++;
    }
}

void ep_fill_bytes(int8_t *to, int32_t value, int32_t count)
{
    for (; count > 0; count--) {
        *to++ = (int8_t)value;
    }
}
