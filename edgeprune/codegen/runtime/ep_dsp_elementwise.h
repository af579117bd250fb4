/* Addition, subtraction and multiplication on cores with the DSP extension. SPDX-License-Identifier: 0BSD */
#ifndef EP_DSP_ELEMENTWISE_H
#define EP_DSP_ELEMENTWISE_H

#include "ep.h"

/* Constants of the assembly (codegen/kernels/dsp_elementwise_code.py); it reads the members by their place. */
typedef struct {
    int32_t factors[5]; /* add: of a, of b, offset; mul: multiplier, offset, -zero point of a and of b (twice), shift */
    uint32_t act_min;   /* in each byte */
    uint32_t excess;    /* 255 - (act_max - act_min) in each byte */
} ep_dsp_factors;

typedef struct {
    /* y = f(a, b) for `count` values; y may be a or b */
    void (*run)(const ep_dsp_factors *factors, const int8_t *a, const int8_t *b, int8_t *y, int32_t count);
    ep_dsp_factors factors;
    const int8_t *constant; /* the second operand; NULL: it is call->x2 */
    int32_t columns;
    int32_t channels;
    int32_t a_stride; /* from pixel to pixel */
    int32_t b_stride; /* 0: one pixel for all */
    int32_t y_stride;
} ep_dsp_elementwise_op;

void ep_dsp_elementwise(const ep_dsp_elementwise_op *op, const ep_call *call);

#endif
