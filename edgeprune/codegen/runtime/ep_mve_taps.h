/* Depthwise convolution of 16 channels at a time for Helium (MVE). SPDX-License-Identifier: 0BSD */
#ifndef EP_MVE_TAPS_H
#define EP_MVE_TAPS_H

#include "ep.h"

/* Constants of a layer and a run of its pixels; read by generated assembly.
 * Channels come in blocks of 16; the last block overlaps the one before where their number is no multiple. */
typedef struct {
    const int8_t *weight;      /* blocks x 2 * pairs x 16 */
    const int32_t *bias;       /* blocks x 16 */
    const int32_t *multiplier; /* blocks x 16 */
    const int8_t *shift;       /* blocks x 16; to the right: negative */
    int32_t blocks;
    int32_t last_step; /* channels from the last block but one to the last */
    int32_t pairs;     /* of taps */
    int32_t zero;
    int32_t act_min;
    int32_t act_max;
    const int8_t *x; /* what the offsets count from */
    const int32_t *offsets; /* of the taps */
    int32_t x_step;
    int8_t *y;
    int32_t y_step;
    int32_t pixels;
} ep_mve_taps_run;

typedef struct {
    ep_mve_taps_run run; /* but for x, offsets, steps, y, pixels */
    void (*function)(const ep_mve_taps_run *run);
    const int32_t *offsets; /* of the taps of a window inside the map, from its first; an even number */
    int32_t x_rows;
    int32_t x_columns;
    int32_t x_stride;
    int32_t y_columns;
    int32_t y_stride;
    int32_t kernel_rows;
    int32_t kernel_columns;
    int32_t stride_rows;
    int32_t stride_columns;
    int32_t dilation_rows;
    int32_t dilation_columns;
    int32_t pad_top;
    int32_t pad_left;
    int32_t x_zero;
    int32_t channels;
} ep_mve_taps_op;

/* scratch: 2 * pairs addresses, then a pixel of zero points. */
void ep_mve_taps(const ep_mve_taps_op *op, const ep_call *call);

#endif
