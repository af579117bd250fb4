/* Depthwise convolution, any kernel, stride, dilation and multiplier, for Helium (MVE). SPDX-License-Identifier: 0BSD */
#ifndef EP_MVE_DEPTHWISE_H
#define EP_MVE_DEPTHWISE_H

#include "ep_mve_dot.h"

/* A run of outputs of one channel, out of a line of one channel's inputs; read by generated assembly. */
typedef struct {
    const int8_t *line;   /* output i sees the bytes from line + i * step on; step is the function's */
    const int8_t *weight; /* so many as the function says */
    int32_t count;        /* of outputs */
    int8_t *y;
    int32_t y_step; /* bytes from one output to the next */
    int32_t bias;
    int32_t multiplier;
    int32_t shift; /* to the right: negative or 0 */
    int32_t zero;
    int32_t act_min;
    int32_t act_max;
    int32_t left_shift;
    int32_t rounds_ties; /* 1 where shift is negative, else 0 */
} ep_mve_line;

/* One axis of the map. */
typedef struct {
    int32_t size;   /* of the input */
    int32_t x_step; /* bytes from one position to the next */
    int32_t y_step;
    int32_t kernel;
    int32_t stride;
    int32_t dilation;
    int32_t pad;
} ep_mve_axis;

typedef struct {
    const int8_t *weight; /* output channels x slide.kernel x cross.kernel */
    const int32_t *bias;  /* with the input's zero point folded in */
    ep_mve_scales scales;
    void (*run)(const ep_mve_line *line);
    ep_mve_axis slide; /* the axis along which lines run */
    ep_mve_axis cross; /* the other one */
    int32_t slides_rows;
    int32_t y_columns;
    int32_t channels; /* of the input */
    int32_t depth_multiplier;
    int32_t x_zero;
    int32_t phases; /* dilation / gcd(dilation, stride) of the slide axis */
    int32_t step;   /* positions of a line from one output to the next: stride / gcd */
    int32_t tile;   /* outputs that are made of one line; scratch: the line */
} ep_mve_depthwise_op;

void ep_mve_depthwise(const ep_mve_depthwise_op *op, const ep_call *call);

#endif
