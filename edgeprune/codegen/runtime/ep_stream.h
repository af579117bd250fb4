/* Row streaming: how far each step goes in a tick, and how windows slide. SPDX-License-Identifier: 0BSD */
#ifndef EP_STREAM_H
#define EP_STREAM_H

#include "ep.h"

static inline int32_t ep_least(int32_t a, int32_t b) { return a < b ? a : b; }
static inline int32_t ep_most(int32_t a, int32_t b) { return a > b ? a : b; }

/* The rows that must have been made by the end of a tick: all of them (cap) by the end of the last one. */
static inline int32_t ep_goal(int32_t tick, int32_t ticks, int32_t slope, int32_t offset, int32_t cap)
{
    if (tick == ticks - 1) {
        return cap;
    }
    return ep_most(0, ep_least(cap, slope * (tick + 1) + offset));
}

/* Drop the rows of a window before `keep`, and move those up to `made` to its start; returns the first row kept.
 * first: the row that the window begins with now. */
int32_t ep_slide(int8_t *window, int32_t row_bytes, int32_t first, int32_t keep, int32_t made);

#endif
