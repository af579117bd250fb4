/* Convolution as dot products over gathered patches: any kernel, stride, dilation, groups.
 * SPDX-License-Identifier: 0BSD */
#ifndef EP_DSP_PATCHES_H
#define EP_DSP_PATCHES_H

#include "ep_dsp_dot.h"

typedef struct {
    ep_dsp_dot dot;
    int32_t x_rows;
    int32_t x_columns;
    int32_t x_stride;
    int32_t x_pitch;  /* bytes from row to row */
    int32_t last_row; /* the last row and column at which a patch may begin to lie inside the map */
    int32_t last_column;
    int32_t y_columns;
    int32_t y_stride;
    int32_t groups;
    int32_t channels; /* input channels of a group */
    int16_t kernel_rows;
    int16_t runs;        /* of neighbouring columns in a kernel row ... */
    int16_t run_columns; /* ... and columns in each: their bytes lie side by side */
    int16_t stride_rows;
    int16_t stride_columns;
    int16_t dilation_rows;
    int16_t dilation_columns;
    int16_t pad_top;
    int16_t pad_left;
    int16_t x_zero_point;
} ep_dsp_patches_op;

void ep_dsp_patches(const ep_dsp_patches_op *op, const ep_call *call);

#endif
