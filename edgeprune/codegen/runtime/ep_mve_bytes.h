/* Copying and filling bytes, 16 at a time. SPDX-License-Identifier: 0BSD */
#ifndef EP_MVE_BYTES_H
#define EP_MVE_BYTES_H

#include "ep.h"

/* Answers the end of what was written. */
static inline int8_t *ep_mve_copy(int8_t *to, const int8_t *from, int32_t bytes) {
    int8_t *end = to + bytes;
    __asm__ volatile("wlstp.8 lr, %[bytes], 2f\n"
                     "1:\n"
                     "vldrb.8 q0, [%[from]], #16\n"
                     "vstrb.8 q0, [%[to]], #16\n"
                     "letp lr, 1b\n"
                     "2:\n"
                     : [from] "+r"(from), [to] "+r"(to)
                     : [bytes] "r"(bytes)
                     : "q0", "lr", "memory");
    return end;
}

static inline int8_t *ep_mve_fill(int8_t *to, int32_t value, int32_t bytes) {
    int8_t *end = to + bytes;
    __asm__ volatile("vdup.8 q0, %[value]\n"
                     "wlstp.8 lr, %[bytes], 2f\n"
                     "1:\n"
                     "vstrb.8 q0, [%[to]], #16\n"
                     "letp lr, 1b\n"
                     "2:\n"
                     : [to] "+r"(to)
                     : [value] "r"(value), [bytes] "r"(bytes)
                     : "q0", "lr", "memory");
    return end;
}

#endif
