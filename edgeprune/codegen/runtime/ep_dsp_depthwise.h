/* Depthwise convolution with packed pairs, for cores with the DSP extension. SPDX-License-Identifier: 0BSD
 *
 * The arithmetic is told in edgeprune's kernels/dsp_depthwise_code.py, which generates the inner loops. */
#ifndef EP_DSP_DEPTHWISE_H
#define EP_DSP_DEPTHWISE_H

#include "ep.h"

/* Rows of four channels to be packed into four planes; each row is: a pair of padding and a value (where head is 1),
 * pairs of values, a pair of a value and padding (where rest is odd). */
typedef struct {
    const int8_t *x;
    uint32_t *words; /* of the first plane */
    int32_t step;    /* bytes from a value to the next of its channel */
    int32_t padding; /* the stored value of padding */
    int32_t head;
    int32_t quads; /* fours of values after the head */
    int32_t rest;  /* 0 to 3 values after them */
    int32_t rows;
    int32_t x_row_bytes;
    int32_t row_bytes; /* of the planes */
} ep_dsp_gather;

/* Channels to be computed from their planes; changed by the function. A line: `x` and `y` are at its last block, y_first
 * at its first, `rest` outputs (0 to 5) are in the last. A plane: `x` and `y` are at its first row, y_end behind the
 * last. */
typedef struct {
    const uint32_t *x;
    int8_t *y;
    const uint32_t *record;
    int8_t *y_limit; /* y_first, or y_end */
    int32_t channels;
    int32_t rest;
    int32_t plane_bytes;
    int32_t y_step; /* from a channel to the next */
} ep_dsp_run;

typedef void ep_dsp_gather_function(ep_dsp_gather *gather);
typedef void ep_dsp_run_function(ep_dsp_run *run);

/* What both functions know of a layer. */
typedef struct {
    ep_dsp_gather_function *gather;
    ep_dsp_run_function *run;
    const void *weight;         /* per channel: words of packed pairs, or pairs of int8 to make them of */
    const int32_t *scale;       /* per channel: twice the bias, multiplier */
    const int8_t *shift;        /* per channel */
    int16_t x_channels;
    int16_t multiplier;         /* output channels per input channel */
    int16_t x_stride;
    int16_t y_stride;
    int16_t plane_bytes;
    int16_t record_words;
    int16_t start_words;        /* of a record: where accumulators start */
    int16_t weight_words;
    int16_t y_zero_point;
    int8_t x_zero_point;
    int8_t is_packed;           /* the weights are */
    int8_t is_wide;
} ep_dsp_channels;

/* Along the rows, column by column; kernels of one column. */
typedef struct {
    ep_dsp_channels channels;
    int32_t x_rows;
    int16_t columns;
    int16_t kernel_rows;
    int16_t stride;
    int16_t dilation;
    int16_t pad;
    int16_t line_words;  /* from a phase of the stride to the next */
    int16_t tile_rows;   /* output rows of a phase of the dilation that fit the planes; even */
} ep_dsp_depthwise_line_op;

void ep_dsp_depthwise_line(const ep_dsp_depthwise_line_op *op, const ep_call *call);

/* Along the columns. A row of x is cut into phases of the stride; each has five numbers in `phases`: the first column
 * in the map, the word that it goes to, head, quads, rest. */
typedef struct {
    ep_dsp_channels channels;
    const int16_t *phases;
    int32_t x_rows;
    int16_t phase_count;
    int16_t x_columns;
    int16_t y_columns;
    int16_t window_rows; /* x rows from the first of a window to the last */
    int16_t stride_rows;
    int16_t stride_columns;
    int16_t pad_rows;
    int16_t row_words;
    int16_t tile_rows; /* output rows that fit the planes */
} ep_dsp_depthwise_plane_op;

void ep_dsp_depthwise_plane(const ep_dsp_depthwise_plane_op *op, const ep_call *call);

#endif
