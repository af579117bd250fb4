/* Addition, subtraction, multiplication and PReLU of two operands with broadcasting. SPDX-License-Identifier: 0BSD */
#ifndef EP_ELEMENTWISE_H
#define EP_ELEMENTWISE_H

#include "ep.h"

/* How one operand is walked. A step of 0 repeats it along that axis. */
typedef struct {
    int32_t row_step;
    int16_t column_step;
    int8_t channel_step; /* 1 or 0 */
} ep_walk;

typedef struct {
    const int8_t *constant; /* the second operand; NULL: it is call->x2 */
    ep_walk a;              /* call->x */
    ep_walk b;              /* the second operand */
    int32_t columns;
    int32_t channels;
    int16_t y_stride;
    int8_t is_flat; /* rows follow one another without gaps, in both operands and the output */
    int8_t act_min;
    int8_t act_max;
} ep_operands;

/* One operand counts exactly, times exact_factor; the other is rescaled first. Twice the sum is what is added up, in
 * units of 1/2^20 of twice the larger scale, as in TensorFlow Lite Micro. */
typedef struct {
    ep_operands operands;
    int32_t exact_factor;  /* 2^20, or -2^20 */
    int32_t exact_offset;  /* - zero point * factor */
    int32_t scaled_factor; /* 2^21: (value - zero point) * 2^20, twice; 2^22 where the multiplier is halved */
    int32_t scaled_offset;
    int32_t scaled_multiplier;
    int32_t multiplier;
    int16_t zero_point;
    int8_t scaled_sign;  /* 1, or -1 */
    int8_t scaled_shift; /* encoded; not the general route */
    int8_t shift;        /* the same */
    int8_t is_swapped;   /* the second operand is the exact one */
} ep_add_op;

typedef struct {
    ep_operands operands;
    int32_t multiplier;
    int16_t a_zero_point;
    int16_t b_zero_point;
    int16_t zero_point;
    int8_t shift; /* encoded */
} ep_mul_op;

/* b is alpha. */
typedef struct {
    ep_operands operands;
    int32_t positive_multiplier;
    int32_t negative_multiplier;
    int16_t a_zero_point;
    int16_t b_zero_point;
    int16_t zero_point;
    int8_t positive_shift; /* encoded */
    int8_t negative_shift; /* encoded */
} ep_prelu_op;

void ep_add(const ep_add_op *op, const ep_call *call); /* and subtraction */
void ep_mul(const ep_mul_op *op, const ep_call *call);
void ep_prelu(const ep_prelu_op *op, const ep_call *call);

#endif
