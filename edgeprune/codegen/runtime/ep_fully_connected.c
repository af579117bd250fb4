/* Fully connected layer: a window as large as the input. SPDX-License-Identifier: 0BSD */
#include "ep_fully_connected.h"

void ep_fully_connected(const ep_fully_connected_op *op, const ep_call *call)
{
    ep_compute_dense(&op->dense, call->x, op->x_stride, op->pixels, op->channels, call->y);
}
