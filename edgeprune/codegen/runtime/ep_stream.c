/* SPDX-License-Identifier: 0BSD */
#include "ep_stream.h"

int32_t ep_slide(int8_t *window, int32_t row_bytes, int32_t first, int32_t keep, int32_t made)
{
    if (keep <= first) {
        return first;
    }
    const int8_t *from = window + (keep - first) * row_bytes;
    int32_t bytes = (made - keep) * row_bytes;
#if defined(__ARM_ARCH_ISA_THUMB) && __ARM_ARCH_ISA_THUMB >= 2
    if ((((uintptr_t)from | (uintptr_t)window) & 3u) == 0) {
        for (; bytes >= 32; bytes -= 32) { /* downwards: what is read is not yet written */
            __asm__ volatile("ldmia %0!, {r3, r4, r5, r6, r8, r9, r10, r12}\n\t"
                             "stmia %1!, {r3, r4, r5, r6, r8, r9, r10, r12}"
                             : "+r"(from), "+r"(window)
                             :
                             : "r3", "r4", "r5", "r6", "r8", "r9", "r10", "r12", "memory");
        }
    }
#endif
    EP_NO_UNROLL
    for (; bytes >= 4; bytes -= 4, from += 4, window += 4) { /* bytes where a core cannot load words at any address */
        uint32_t word;
        __builtin_memcpy(&word, from, 4);
        __builtin_memcpy(window, &word, 4);
    }
    EP_NO_UNROLL
    while (bytes-- > 0) {
        *window++ = *from++;
    }
    return keep;
}
