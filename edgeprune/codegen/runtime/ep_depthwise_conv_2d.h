/* Depthwise convolution, one filter per channel or several. SPDX-License-Identifier: 0BSD */
#ifndef EP_DEPTHWISE_CONV_2D_H
#define EP_DEPTHWISE_CONV_2D_H

#include "ep_output.h"

/* Taps of a window: rows of them. Padding is a rectangle over the same four bytes again and again: all its steps of x
 * are 0. */
typedef struct {
    const int8_t *x;      /* first tap, channel 0 */
    int32_t channel_step; /* 1, or 0 in the padding */
    int32_t x_step;       /* from a tap to the next in its row */
    int32_t x_skip;       /* from behind the last tap of a row to the first of the next */
    int32_t weight;       /* offset of the first tap's weights */
    int32_t weight_step;  /* as x_step */
    int32_t weight_skip;  /* as x_skip */
    int32_t rows;
    int32_t columns;
} ep_taps;

struct ep_depthwise_conv_2d_op;

/* The outputs of one position from the rectangles of its window. */
typedef void ep_depthwise_position(const struct ep_depthwise_conv_2d_op *op, const ep_taps *part, const ep_taps *end,
                                   int8_t *y);
ep_depthwise_position ep_depthwise_channels; /* one filter per channel */
ep_depthwise_position ep_depthwise_filters;  /* several */

typedef struct ep_depthwise_conv_2d_op {
    const int8_t *weight; /* [row][column][output channel] */
    const int32_t *bias;  /* per output channel, input zero point folded in */
    ep_output output;
    ep_depthwise_position *compute;
    int32_t x_rows;
    int16_t x_columns;
    int16_t y_columns;
    int16_t channels; /* of the output */
    int16_t filters;  /* per input channel */
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
