/* Fully connected layers for Helium (MVE): one patch, four outputs at a time. SPDX-License-Identifier: 0BSD */
#include "ep_mve_fc.h"

void ep_mve_fc(const ep_mve_fc_op *op, const ep_call *call)
{
    ep_mve_dot_run(&op->layer, call->x, 0, call->y, 0, 1, call->scratch);
}
