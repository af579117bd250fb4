/* Copying and filling bytes, 16 at a time. SPDX-License-Identifier: 0BSD */
#ifndef EP_MVE_BYTES_H
#define EP_MVE_BYTES_H

#include "ep.h"

/* Answers the end of what was written. */
static inline int8_t *ep_mve_copy(int8_t *to, const int8_t *from, int32_t bytes)
{
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

static inline int8_t *ep_mve_fill(int8_t *to, int32_t value, int32_t bytes)
{
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

/* Pixels of `channels` bytes, to_step bytes apart, from pixels from_step apart. Answers the end: to + count * to_step. */
static inline int8_t *ep_mve_copy_pixels(int8_t *to, int32_t to_step, const int8_t *from, int32_t from_step,
                                         int32_t channels, int32_t count)
{
    if (channels > 16) {
        for (; count > 0; count--, to += to_step, from += from_step) {
            ep_mve_copy(to, from, channels);
        }
        return to;
    }
    __asm__ volatile("vctp.8 %[channels]\n"
                     "wls lr, %[count], 2f\n"
                     "1:\n"
                     "vpstt\n"
                     "vldrbt.8 q0, [%[from]]\n"
                     "vstrbt.8 q0, [%[to]]\n"
                     "add %[from], %[from_step]\n"
                     "add %[to], %[to_step]\n"
                     "le lr, 1b\n"
                     "2:\n"
                     : [from] "+r"(from), [to] "+r"(to)
                     : [channels] "r"(channels), [count] "r"(count), [from_step] "r"(from_step), [to_step] "r"(to_step)
                     : "q0", "lr", "memory");
    return to;
}

static inline int8_t *ep_mve_fill_pixels(int8_t *to, int32_t step, int32_t value, int32_t channels, int32_t count)
{
    for (; count > 0; count--, to += step) {
        ep_mve_fill(to, value, channels);
    }
    return to;
}

#endif
