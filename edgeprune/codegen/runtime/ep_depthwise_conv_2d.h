/* Depthwise convolution, one filter per channel. SPDX-License-Identifier: 0BSD */
#ifndef EP_DEPTHWISE_CONV_2D_H
#define EP_DEPTHWISE_CONV_2D_H

#include "ep_output.h"

typedef struct {
    const int8_t *weight; /* [row][column][channel] */
    const int32_t *bias;  /* per channel, input zero point folded in */
    ep_output output;
    int32_t x_rows;
    int16_t x_columns;
    int16_t y_columns;
    int16_t channels;
    int16_t x_stride;
    int16_t y_stride;
    int16_t kernel_rows;
    int16_t kernel_columns;
    int16_t stride_rows;
    int16_t stride_columns;
    int16_t dilation_rows;
    int16_t dilation_columns;
    int16_t pad_rows; /* before the first row */
    int16_t pad_columns;
    int8_t x_zero_point;
} ep_depthwise_conv_2d_op;

void ep_depthwise_conv_2d(const ep_depthwise_conv_2d_op *op, const ep_call *call);

#endif
