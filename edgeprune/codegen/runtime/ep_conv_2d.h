/* 2-D convolution with groups, strides and dilations. SPDX-License-Identifier: 0BSD */
#ifndef EP_CONV_2D_H
#define EP_CONV_2D_H

#include "ep_dense.h"

typedef struct {
    ep_dense dense;       /* of the first group; the others follow */
    int32_t group_weight; /* bytes of weights of a group */
    int32_t x_rows;
    int16_t x_columns;
    int16_t y_columns;
    int16_t x_stride;
    int16_t y_stride;
    int16_t groups;
    int16_t channels; /* input channels of a group */
    int16_t kernel_rows;
    int16_t kernel_columns;
    int16_t stride_rows;
    int16_t stride_columns;
    int16_t dilation_rows;
    int16_t dilation_columns;
    int16_t pad_rows; /* before the first row */
    int16_t pad_columns;
    int8_t x_zero_point;
    int8_t is_direct; /* a row of a window that lies inside the map is one run of values: no need to gather it */
} ep_conv_2d_op;

/* scratch: kernel_rows * kernel_columns * channels bytes, unless is_direct and nothing is padded. */
void ep_conv_2d(const ep_conv_2d_op *op, const ep_call *call);

#endif
