/* Fully connected layer. SPDX-License-Identifier: 0BSD */
#ifndef EP_FULLY_CONNECTED_H
#define EP_FULLY_CONNECTED_H

#include "ep_dense.h"

typedef struct {
    ep_dense dense;
    int32_t pixels;   /* the input is so many pixels */
    int32_t channels; /* of so many channels */
    int32_t x_stride;
} ep_fully_connected_op;

void ep_fully_connected(const ep_fully_connected_op *op, const ep_call *call);

#endif
