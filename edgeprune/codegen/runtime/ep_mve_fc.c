/* Fully connected layers for Helium (MVE): one patch, four outputs at a time. SPDX-License-Identifier: 0BSD */
#include "ep_mve_fc.h"

void ep_mve_fc(const ep_mve_fc_op *op, const ep_call *call) {
    const int8_t *const x[3] = {call->x, call->x, call->x};
    int8_t *const y[3] = {call->y, call->y, call->y};
    ep_mve_dot_pixels(x, y, 1, op->weight, op->inputs, op->outputs, op->bias, &op->scales, 0, call->scratch);
}
