/* Pooling over windows for Helium (MVE). SPDX-License-Identifier: 0BSD */
#ifndef EP_MVE_POOL_H
#define EP_MVE_POOL_H

#include "ep.h"

typedef struct {
    int32_t x_rows;
    int32_t x_columns;
    int32_t x_stride;
    int32_t y_columns;
    int32_t y_stride;
    int32_t channels;
    int32_t kernel_rows;
    int32_t kernel_columns;
    int32_t stride_rows;
    int32_t stride_columns;
    int32_t pad_top;
    int32_t pad_left;
    int32_t act_min;
    int32_t act_max;
} ep_mve_pool_op;

void ep_mve_max_pool(const ep_mve_pool_op *op, const ep_call *call);

/* The average of what lies inside the map; at most 255 values. */
void ep_mve_average_pool(const ep_mve_pool_op *op, const ep_call *call);

typedef ep_mve_pool_op ep_mve_max_pool_op;
typedef ep_mve_pool_op ep_mve_average_pool_op;

#endif
