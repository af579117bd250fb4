/* Depthwise convolution with packed pairs, for cores with the DSP extension. SPDX-License-Identifier: 0BSD
 *
 * The arithmetic is told in edgeprune's kernels/dsp_depthwise_code.py, which generates the inner loops. */
#ifndef EP_DSP_DEPTHWISE_H
#define EP_DSP_DEPTHWISE_H

#include "ep.h"

/* A line of four channels to be packed into four planes: words of padding (front), a pair of padding and a value (where
 * head is 1), pairs of values, a pair of a value and padding (where rest is odd), words of padding (back). */
typedef struct {
    const int8_t *x;
    uint32_t *words; /* of the first plane */
    int32_t step; /* bytes from a value to the next of its channel */
    int32_t front;
    int32_t head;
    int32_t quads; /* fours of values after the head */
    int32_t rest;  /* 0 to 3 values after them */
    int32_t back;
    int32_t padding; /* the stored value of padding */
    int32_t plane_bytes;
} ep_dsp_gather;

/* Channels to be computed from their planes. A line: `x` and `y` are at its last block, y_limit at its first; `rest`
 * outputs (0 to 5) are in the last block, which has `less` pairs (0 to 2) less than the others' three. From before a
 * line (a block of three pairs before the first) to the last block of the next output channel's line it is x_ahead and
 * y_ahead bytes. Planes: `x` and `y` are at the first row, y_limit behind the last. The generated code knows the order.
 */
typedef struct {
    const uint32_t *x; /* in the first plane */
    int8_t *y;         /* of output channel 0 */
    int8_t *y_limit;
    int32_t x_ahead; /* within the plane, where it has several output channels; else to the next plane */
    int32_t y_ahead;
    int32_t rest;
    int32_t less;
    int32_t plane_bytes;
    int32_t multiplier; /* output channels of a plane */
} ep_dsp_run;

/* Gather the channels from `channel` on. */
typedef void ep_dsp_gather_line(const ep_dsp_gather *gather, int32_t channel);

/* The same for maps of fewer than four channels (a word of four would reach beyond the end of the map), which have as
 * many planes. channel: how many there are, less four. */
void ep_dsp_gather_bytes(const ep_dsp_gather *gather, int32_t channel);

typedef void ep_dsp_gather_rows(const int8_t *x, uint32_t *words, int32_t rows);
/* `count` output channels from `output` on, the first one from the plane that is x_bytes behind the first. They are
 * those of whole planes, or of a part of one. */
typedef void ep_dsp_run_function(const ep_dsp_run *run, int32_t output, const uint32_t *record, int32_t count,
                                 int32_t x_bytes);

/* What both functions know of a layer. The generated code knows the order of the fields. */
typedef struct ep_dsp_channels {
    ep_dsp_run_function *run;
    /* Write the records of `count` output channels from `output` on; NULL where they lie in flash. */
    void (*records)(const struct ep_dsp_channels *op, int32_t output, uint32_t *record, int32_t count);
    const void *weight;   /* per channel: pairs of int8, or the whole record */
    const int32_t *scale; /* per channel: twice the bias, multiplier */
    const int8_t *shift;  /* per channel */
    int16_t x_channels;
    int16_t multiplier; /* output channels per input channel */
    int16_t x_stride;
    int16_t y_stride;
    int16_t plane_bytes;
    int16_t record_words;
    int16_t y_zero_point;
    int16_t span;       /* output channels of so many whole planes */
    int16_t span_bytes; /* of its planes */
    int16_t chunk;      /* output channels of a span computed by one call of `run` */
    int8_t x_zero_point;
    int8_t keeps_records;   /* whether there is room for the records of four planes */
    int8_t remakes_records; /* whether there is room for those of a chunk only; neither: they lie in flash */
} ep_dsp_channels;

/* Along the rows, column by column; kernels of one column. Behind the records the scratch holds, per phase of dilation
 * and stride, what is to be gathered and run (ep_dsp_gather, ep_dsp_run); then the planes. */
typedef struct {
    ep_dsp_channels channels;
    ep_dsp_gather_line *gather;
    int32_t x_rows;
    int16_t columns;
    int16_t kernel_rows;
    int16_t stride;
    int16_t dilation;
    int16_t pad;
    int16_t line_words;  /* from a phase of the stride to the next */
    int16_t tile_rows;   /* output rows that fit the planes */
    int16_t has_narrow;  /* whether there are blocks of less than three pairs */
} ep_dsp_depthwise_line_op;

void ep_dsp_depthwise_line(const ep_dsp_depthwise_line_op *op, const ep_call *call);

/* Along the columns. */
typedef struct ep_dsp_depthwise_plane_op {
    ep_dsp_channels channels;
    ep_dsp_gather_rows *gather; /* of four channels; NULL where there are fewer: then ep_dsp_gather_few */
    void (*gather_few)(const struct ep_dsp_depthwise_plane_op *op, const int8_t *x, uint32_t *words, int32_t rows);
    int32_t x_rows;
    int16_t x_columns;
    int16_t y_columns;
    int16_t kernel_columns;
    int16_t window_rows; /* x rows from the first of a window to the last */
    int16_t stride_rows;
    int16_t stride_columns;
    int16_t pad_columns;
    int16_t pad_rows;
    int16_t row_words;
    int16_t tile_rows;       /* output rows that fit the planes */
    int16_t phase_starts[3]; /* the first word of each phase of the stride in a row */
} ep_dsp_depthwise_plane_op;

void ep_dsp_gather_few(const ep_dsp_depthwise_plane_op *op, const int8_t *x, uint32_t *words, int32_t rows);

void ep_dsp_depthwise_plane(const ep_dsp_depthwise_plane_op *op, const ep_call *call);

#endif
