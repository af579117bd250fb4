/* Convolution with a kernel of 1, stride 1. SPDX-License-Identifier: 0BSD */
#ifndef EP_DSP_POINTWISE_H
#define EP_DSP_POINTWISE_H

#include "ep_dsp_dot.h"

typedef struct {
    ep_dsp_dot dot;
    int32_t columns;
    int32_t channels; /* input channels of a group */
    int32_t groups;
    int32_t x_stride;
    int32_t y_stride;
} ep_dsp_pointwise_op;

void ep_dsp_pointwise(const ep_dsp_pointwise_op *op, const ep_call *call);

#endif
