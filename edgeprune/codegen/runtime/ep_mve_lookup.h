/* Functions of one stored value for Helium (MVE). SPDX-License-Identifier: 0BSD */
#ifndef EP_MVE_LOOKUP_H
#define EP_MVE_LOOKUP_H

#include "ep.h"

typedef struct {
    const int8_t *table; /* results for 0 to 127, then for -128 to -1; NULL: the values themselves */
    int32_t act_min;     /* without a table: the values are clamped */
    int32_t act_max;
    int32_t columns;
    int32_t channels;
    int32_t x_stride;
    int32_t y_stride;
} ep_mve_lookup_op;

void ep_mve_lookup(const ep_mve_lookup_op *op, const ep_call *call);

#endif
