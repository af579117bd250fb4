/* Convolution, any kernel, stride, dilation and groups, for Helium (MVE). SPDX-License-Identifier: 0BSD */
#ifndef EP_MVE_CONV_H
#define EP_MVE_CONV_H

#include "ep_mve_dot.h"

typedef struct {
    const int8_t *weight; /* output channels x kernel rows x kernel columns x input channels of a group */
    const int32_t *bias;  /* with the input's zero point folded in; three more values are read, not used */
    ep_mve_scales scales;
    int32_t x_rows;
    int32_t x_columns;
    int32_t x_stride;
    int32_t y_columns;
    int32_t y_stride;
    int32_t channels_in; /* of a group */
    int32_t channels_out;
    int32_t groups;
    int32_t kernel_rows;
    int32_t kernel_columns;
    int32_t stride_rows;
    int32_t stride_columns;
    int32_t dilation_rows;
    int32_t dilation_columns;
    int32_t pad_top;
    int32_t pad_left;
    int32_t x_zero;
    int32_t in_place; /* a patch inside the map lies in memory as the weights do */
} ep_mve_conv_op;

void ep_mve_conv(const ep_mve_conv_op *op, const ep_call *call);

#endif
