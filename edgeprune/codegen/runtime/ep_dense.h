/* All output channels of one position from one window of inputs: what conv_2d and fully_connected share.
 * SPDX-License-Identifier: 0BSD */
#ifndef EP_DENSE_H
#define EP_DENSE_H

#include "ep_output.h"

typedef struct {
    const int8_t *weight; /* output channels by fours, interleaved: [channel / 4][tap][4]; then the rest: [tap] each */
    const int32_t *bias;  /* per channel, input zero point folded in */
    ep_output output;
    int32_t channels;
} ep_dense;

/* y[c] = requantize(bias[c] + sum of weight * x) for each channel c. The window is `segments` runs of `length` values,
 * `pitch` bytes apart. */
void ep_compute_dense(const ep_dense *dense, const int8_t *window, int32_t pitch, int32_t segments, int32_t length,
                      int8_t *y);

#endif
