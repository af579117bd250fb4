/* Convolution with packed pairs of values, for cores with the DSP extension. SPDX-License-Identifier: 0BSD
 *
 * The sliding axis is the columns, or the rows of a map with one column; the other one is the outer axis. The arithmetic
 * is told in edgeprune's kernels/dsp_convolution_code.py, which generates the inner loops. */
#ifndef EP_DSP_CONV_H
#define EP_DSP_CONV_H

#include "ep.h"

/* One output channel of `rows` rows of `outputs` (>= 1) outputs. x: packed lines; weight: packed pairs of all lines,
 * then twice the bias, multiplier, offset and shift; y_row_bytes: from the first output of a row to the next row's. */
typedef void ep_pairs_rows(const uint32_t *x, const uint32_t *weight, int8_t *y, int32_t outputs, int32_t rows,
                           int32_t y_row_bytes);

/* int8 weights of `lines` lines to packed pairs. */
typedef void ep_pairs_unpack(const int8_t *weight, uint32_t *words, int32_t lines);

/* Generated, as the above. `count` words of each channel of the pixels a and b and those that follow them; `step_bytes`
 * from a channel's words to the next's, `gap` bytes from the end of a pixel to the start of the next one to be taken. */
void ep_pack_pixels(const int8_t *a, const int8_t *b, uint32_t *words, int32_t step_bytes, int32_t channels,
                    int32_t count, int32_t gap);
/* `count` words of one channel, whose values are `step` bytes apart. */
void ep_pack_line(const int8_t *x, int32_t step, uint32_t *words, int32_t count);

typedef struct {
    ep_pairs_rows *run;
    ep_pairs_unpack *unpack; /* NULL: `weight` holds packed pairs and constants, ready for `run` */
    const void *weight;      /* of one channel after the other */
    const int32_t *scales;   /* with `unpack`: four constants per channel */
    int32_t weight_bytes;    /* of a channel */
    int32_t weight_lines;    /* of a channel */
    int32_t x_rows;
    int16_t line_words; /* of packed x: from a line to the next */
    int16_t tap_pairs;
    int16_t x_columns;
    int16_t y_columns;
    int16_t x_stride;
    int16_t y_stride;
    int16_t x_channels;
    int16_t y_channels;
    int16_t kernel_rows; /* along the outer axis */
    int16_t stride_rows;
    int16_t pad_rows;
    int16_t phases;   /* stride along the sliding axis */
    int16_t dilation; /* along the sliding axis */
    int16_t pad;      /* along the sliding axis */
    int16_t lead;     /* of a line's first word before the first tap: an odd number of taps is led by a zero */
    int16_t extent;   /* from an output's first tap to its last, both included */
    int16_t tile_rows;
    int16_t tile_outputs;
    int16_t saved_rows; /* to be kept from tile to tile, where y may lie in the memory of x */
    int16_t x_words;    /* offsets in the scratch: packed x, the padding's pixel, saved rows */
    int16_t pixel_words;
    int16_t saved_words;
    int8_t slides_on_rows;
    int8_t x_zero_point;
} ep_dsp_conv_op;

void ep_dsp_conv(const ep_dsp_conv_op *op, const ep_call *call);

#endif
