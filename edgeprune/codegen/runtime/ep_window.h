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
ep_span ep_find_inside(int32_t start, int32_t dilation, int32_t taps, int32_t size);

#endif
