/* Fully connected layers for Helium (MVE). SPDX-License-Identifier: 0BSD */
#ifndef EP_MVE_FC_H
#define EP_MVE_FC_H

#include "ep_mve_dot.h"

typedef struct {
    ep_mve_layer layer; /* its length: the inputs; its channels: the outputs */
} ep_mve_fc_op;

void ep_mve_fc(const ep_mve_fc_op *op, const ep_call *call);

#endif
