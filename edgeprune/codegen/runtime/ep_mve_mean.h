/* Reductions over rows and columns for Helium (MVE). SPDX-License-Identifier: 0BSD */
#ifndef EP_MVE_MEAN_H
#define EP_MVE_MEAN_H

#include "ep.h"

typedef struct {
    int32_t x_rows;
    int32_t columns;
    int32_t channels;
    int32_t x_stride;
    int32_t bias; /* of ep_mve_mean: -(zero point) * number of pixels */
    int32_t multiplier;
    int32_t left_shift;
    int32_t right_shift; /* negative or 0 */
    int32_t rounds_ties; /* 1 where right_shift is negative, else 0 */
    int32_t zero;
    int32_t act_min;
    int32_t act_max;
} ep_mve_mean_op;

/* mean: the sum rescaled. */
void ep_mve_mean(const ep_mve_mean_op *op, const ep_call *call);

/* average_pool_2d over the whole map: the sum divided, ties away from zero. */
void ep_mve_average(const ep_mve_mean_op *op, const ep_call *call);
typedef ep_mve_mean_op ep_mve_average_op;

#endif
