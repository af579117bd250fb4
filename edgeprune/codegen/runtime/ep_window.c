/* Sliding windows at the edges of a map. SPDX-License-Identifier: 0BSD */
#include "ep_window.h"

ep_span ep_find_inside(int32_t start, int32_t dilation, int32_t taps, int32_t size)
{
    ep_span span = {0, taps};
    int32_t last = start + (taps - 1) * dilation;
    EP_NO_UNROLL
    for (; span.first < taps && start < 0; start += dilation) {
        span.first++;
    }
    EP_NO_UNROLL
    for (; span.end > span.first && last >= size; last -= dilation) {
        span.end--;
    }
    return span;
}
