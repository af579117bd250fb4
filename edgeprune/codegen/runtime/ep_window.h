/* Sliding windows at the edges of a map. SPDX-License-Identifier: 0BSD */
#ifndef EP_WINDOW_H
#define EP_WINDOW_H

#include "ep.h"

/* Taps first <= k < end of a window lie inside the map; those before and after lie in the padding. */
typedef struct {
    int32_t first;
    int32_t end;
} ep_span;

/* The taps, `dilation` apart from `start` on, that lie in 0 <= position < size along one axis. */
static inline ep_span ep_find_inside(int32_t start, int32_t dilation, int32_t taps, int32_t size)
{
    ep_span span = {0, taps};
    int32_t last = start + (taps - 1) * dilation;
    for (; span.first < taps && start < 0; start += dilation) {
        span.first++;
    }
    for (; span.end > span.first && last >= size; last -= dilation) {
        span.end--;
    }
    return span;
}

#endif
