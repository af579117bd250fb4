/* A function of one stored value as a table of its 256 results. SPDX-License-Identifier: 0BSD */
#ifndef EP_LOOKUP_H
#define EP_LOOKUP_H

#include "ep.h"

typedef struct {
    const int8_t *table; /* results of 0..127, then of -128..-1 */
    int32_t columns;
    int32_t channels;
    int32_t x_stride;
    int32_t y_stride;
} ep_lookup_op;

void ep_lookup(const ep_lookup_op *op, const ep_call *call);

#endif
