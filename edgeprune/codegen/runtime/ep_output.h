/* From sums to stored outputs: what layers with weights share. SPDX-License-Identifier: 0BSD */
#ifndef EP_OUTPUT_H
#define EP_OUTPUT_H

#include "ep.h"

typedef struct {
    const int32_t *scale; /* pairs (multiplier, encoded shift) */
    int16_t scale_step;   /* 2: a pair per channel; 0: one for all */
    int16_t zero_point;
    int8_t act_min;
    int8_t act_max;
} ep_output;

/* Requantize and store `count` > 0 sums, those of channels `channel` and on. */
void ep_store_outputs(const ep_output *output, const uint32_t *sums, int32_t channel, int32_t count, int8_t *y);

#endif
