/* Convolution, any kernel, stride, dilation and groups, for Helium (MVE). SPDX-License-Identifier: 0BSD */
#ifndef EP_MVE_CONV_H
#define EP_MVE_CONV_H

#include "ep_mve_dot.h"

typedef struct {
    ep_mve_layer layer; /* of the first group; weights: output channels x kernel columns x kernel rows x input channels */
    int32_t x_rows;
    int32_t x_columns;
    int32_t x_stride;
    int32_t y_columns;
    int32_t y_stride;
    int32_t channels_in; /* of a group */
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
    int32_t line_columns; /* ep_mve_conv_lines: output columns whose patches are made at a time */
} ep_mve_conv_op;

/* Kernels of one pixel. */
void ep_mve_conv_points(const ep_mve_conv_op *op, const ep_call *call);

/* Series: kernels as wide as the map, no dilation, pixels side by side: patches inside lie in memory as they are.
 * scratch: sums (EP_MVE_TILE_BYTES), three patches. */
void ep_mve_conv_series(const ep_mve_conv_op *op, const ep_call *call);

/* Columns without dilation: the input rows of an output row are interleaved into a line, on which patches overlap.
 * scratch: sums, the line. */
void ep_mve_conv_lines(const ep_mve_conv_op *op, const ep_call *call);

/* Anything: patch by patch. scratch: sums, three patches. */
void ep_mve_conv_patches(const ep_mve_conv_op *op, const ep_call *call);

typedef ep_mve_conv_op ep_mve_conv_points_op;
typedef ep_mve_conv_op ep_mve_conv_series_op;
typedef ep_mve_conv_op ep_mve_conv_lines_op;
typedef ep_mve_conv_op ep_mve_conv_patches_op;

#endif
