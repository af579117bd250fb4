/* Softmax over the channels of each pixel. SPDX-License-Identifier: 0BSD */
#ifndef EP_SOFTMAX_H
#define EP_SOFTMAX_H

#include "ep.h"

typedef struct {
    const int32_t *powers; /* exp of differences of 0, 1, ... stored steps to the largest value, times 2^31 */
    int32_t count;         /* larger differences count as exp = 0 */
    int32_t columns;
    int32_t channels;
    int32_t x_stride;
    int32_t y_stride;
} ep_softmax_op;

void ep_softmax(const ep_softmax_op *op, const ep_call *call);

#endif
