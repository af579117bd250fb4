/* Means, and the average over a whole map. SPDX-License-Identifier: 0BSD */
#ifndef EP_MEAN_H
#define EP_MEAN_H

#include "ep.h"

/* Over rows and columns, row by row: y_first and y_rows of a call count input rows. The sums lie in call->state (an
 * int32_t per channel) from the call with the first row to the call with the last, which writes the output. */
typedef struct {
    int32_t x_rows;
    int32_t columns;
    int16_t channels;
    int16_t x_stride;
    int16_t zero_point;
    int8_t act_min;
    int8_t act_max;
    int32_t bias; /* - input zero point * number of values */
    int32_t multiplier;
    int32_t shift; /* encoded */
} ep_map_op;

typedef ep_map_op ep_mean_map_op;
typedef ep_map_op ep_average_map_op; /* average_pool_2d over the whole map: no bias, divides */

void ep_mean_map(const ep_mean_map_op *op, const ep_call *call);
void ep_average_map(const ep_average_map_op *op, const ep_call *call);

/* Over any axes, the whole map in one call. The sum of a value at column c, channel k is number c * column_step +
 * k * channel_step. scratch: an int32_t per sum. */
typedef struct {
    int32_t rows;
    int32_t columns;
    int32_t channels;
    int32_t x_stride;
    int32_t column_step;
    int32_t channel_step;
    int32_t rows_per_sum; /* 1, or all where rows are reduced */
    int32_t y_pixels;     /* that are written at a time */
    int32_t y_channels;
    int32_t y_stride;
    int32_t bias; /* - input zero point * number of values */
    int32_t multiplier;
    int32_t shift; /* encoded */
    int32_t zero_point;
} ep_mean_op;

void ep_mean(const ep_mean_op *op, const ep_call *call);

#endif
