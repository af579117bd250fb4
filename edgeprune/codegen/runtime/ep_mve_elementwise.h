/* add, sub and mul for Helium (MVE). SPDX-License-Identifier: 0BSD */
#ifndef EP_MVE_ELEMENTWISE_H
#define EP_MVE_ELEMENTWISE_H

#include "ep.h"

typedef struct ep_mve_elementwise_op ep_mve_elementwise_op;

struct ep_mve_elementwise_op {
    /* read by generated assembly, in this order */
    int32_t minus_a_zero;
    int32_t minus_b_zero;
    int32_t a_multiplier;
    int32_t a_shift;
    int32_t b_multiplier;
    int32_t b_shift;
    int32_t multiplier;
    int32_t shift;
    int32_t zero;
    int32_t act_min;
    int32_t act_max;
    /* where the operands lie */
    void (*run)(const ep_mve_elementwise_op *op, const int8_t *a, const int8_t *b, int8_t *y, int32_t count);
    const int8_t *constant; /* operand b, or NULL: the call's x2 */
    int32_t columns;        /* 1, and all values of a row as channels, where nothing lies between pixels */
    int32_t channels;
    int32_t a_stride;
    int32_t b_stride; /* 0: one pixel for all */
    int32_t y_stride;
};

void ep_mve_elementwise(const ep_mve_elementwise_op *op, const ep_call *call);

#endif
