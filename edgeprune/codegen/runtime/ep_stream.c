/* SPDX-License-Identifier: 0BSD */
#include "ep_stream.h"

int32_t ep_slide(int8_t *window, int32_t row_bytes, int32_t first, int32_t keep, int32_t made)
{
    if (keep <= first) {
        return first;
    }
    const int8_t *from = window + (keep - first) * row_bytes;
    int32_t bytes = (made - keep) * row_bytes;
#if defined(__ARM_FEATURE_UNALIGNED)
    for (; bytes >= 16; bytes -= 16, from += 16, window += 16) { /* downwards: what is read is not yet written */
        uint32_t a, b, c, d;
        __builtin_memcpy(&a, from, 4);
        __builtin_memcpy(&b, from + 4, 4);
        __builtin_memcpy(&c, from + 8, 4);
        __builtin_memcpy(&d, from + 12, 4);
        __builtin_memcpy(window, &a, 4);
        __builtin_memcpy(window + 4, &b, 4);
        __builtin_memcpy(window + 8, &c, 4);
        __builtin_memcpy(window + 12, &d, 4);
    }
#endif
    while (bytes-- > 0) {
        *window++ = *from++;
    }
    return keep;
}
