/* Fully connected layers for Helium (MVE). SPDX-License-Identifier: 0BSD */
#ifndef EP_MVE_FC_H
#define EP_MVE_FC_H

#include "ep_mve_dot.h"

typedef struct {
    const int8_t *weight; /* outputs x inputs */
    const int32_t *bias;  /* with the input's zero point folded in; three more values are read, not used */
    ep_mve_scales scales;
    int32_t inputs;
    int32_t outputs;
} ep_mve_fc_op;

void ep_mve_fc(const ep_mve_fc_op *op, const ep_call *call);

#endif
