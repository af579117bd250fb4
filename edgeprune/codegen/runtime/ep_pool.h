/* Maximum and average over windows; the padding takes no part. SPDX-License-Identifier: 0BSD */
#ifndef EP_POOL_H
#define EP_POOL_H

#include "ep.h"

typedef struct {
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
    int16_t pad_rows; /* before the first row */
    int16_t pad_columns;
    int8_t act_min;
    int8_t act_max;
} ep_pool_op;

typedef ep_pool_op ep_max_pool_2d_op;
typedef ep_pool_op ep_average_pool_2d_op;

void ep_max_pool_2d(const ep_max_pool_2d_op *op, const ep_call *call);
void ep_average_pool_2d(const ep_average_pool_2d_op *op, const ep_call *call);

#endif
