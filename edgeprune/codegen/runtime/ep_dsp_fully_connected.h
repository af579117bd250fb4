/* Fully connected layer on cores with the DSP extension. SPDX-License-Identifier: 0BSD */
#ifndef EP_DSP_FULLY_CONNECTED_H
#define EP_DSP_FULLY_CONNECTED_H

#include "ep.h"

/* What the assembly is told (codegen/kernels/dsp_dot_code.py); it reads the members by their place. */
typedef struct {
    int32_t multiplier; /* of all outputs, with offset and shift; or the stream holds them beside each bias */
    int32_t offset;
    int32_t shift;
    int8_t *y;
    int8_t *y_end;          /* a multiple of 4 after y */
    const void *x;          /* inputs as int16: of each four, 0 and 2, then 1 and 3; or as the int8 that they are */
    int32_t units;          /* of eight inputs */
    const uint32_t *stream; /* of each four outputs: weights, then constants */
    uint32_t act_min;       /* in each byte */
    uint32_t excess;        /* 255 - (act_max - act_min) in each byte */
} ep_dsp_vector_block;

typedef struct {
    void (*multiply)(const ep_dsp_vector_block *block);
    const uint32_t *stream;
    int32_t multiplier;
    int32_t offset;
    int32_t shift;
    int32_t constant_words; /* of each four outputs */
    int32_t inputs;
    int32_t outputs;
    int32_t reads_bytes; /* the inputs, a multiple of eight, are not widened before */
    uint32_t act_min;
    uint32_t excess;
} ep_dsp_fully_connected_op;

void ep_dsp_fully_connected(const ep_dsp_fully_connected_op *op, const ep_call *call);

#endif
