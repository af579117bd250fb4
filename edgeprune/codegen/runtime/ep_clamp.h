/* Clamping stored values: relu and its kin where input and output share their quantization. SPDX-License-Identifier: 0BSD */
#ifndef EP_CLAMP_H
#define EP_CLAMP_H

#include "ep.h"

typedef struct {
    int32_t columns;
    int32_t channels;
    int32_t x_stride;
    int32_t y_stride;
    int8_t act_min;
    int8_t act_max;
} ep_clamp_op;

void ep_clamp(const ep_clamp_op *op, const ep_call *call);

#endif
