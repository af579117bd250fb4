/* Dot products of int8 on cores with the DSP extension: pairs of pixels times quads of channels.
 * SPDX-License-Identifier: 0BSD
 *
 * The functions behind the pointers are generated assembly (codegen/kernels/dsp_dot_code.py). */
#ifndef EP_DSP_DOT_H
#define EP_DSP_DOT_H

#include "ep.h"

/* What the assembly is told. The assembly reads the members by their place. */
typedef struct {
    int8_t *y;              /* the first pixel's outputs */
    int32_t y_stride;       /* from a pixel to the next; 0: both pixels of the (one) pair are the same */
    int32_t quad_bytes;     /* channels to compute: a multiple of 4 */
    const uint32_t *x;      /* activations by ep_dsp_widen_runs */
    const uint32_t *stream; /* of each quad: its weights step by step; bias, multiplier, offset, shift of each channel */
    int32_t steps;          /* pairs of inputs */
    int32_t pairs;          /* of pixels */
    uint32_t act_min;       /* in each byte */
    uint32_t excess;        /* 255 - (act_max - act_min) in each byte */
} ep_dsp_block;

/* The channels of a layer (of one group of it). */
typedef struct {
    void (*multiply)(const ep_dsp_block *block);
    const uint32_t *stream;
    int32_t group_words; /* from a group's stream to the next */
    int32_t steps;
    int32_t channels; /* output channels of a group */
    int32_t tile;     /* pairs of pixels at a time */
    uint32_t act_min;
    uint32_t excess;
} ep_dsp_dot;

/* Generated assembly: `words` words of 4 bytes of two pixels, `offset` bytes apart, widened to int16 and interleaved: of
 * each word bytes 0 and 2 of both pixels, then 1 and 3 of both; `runs` times, x moving on by `step` bytes. Returns the
 * end of `to`. */
uint32_t *ep_dsp_widen_words(const int8_t *x, int32_t offset, int32_t words, uint32_t *to, int32_t runs, int32_t step);

/* The same for runs of any number of bytes; their order is that of dsp_dot.order_inputs. (count + 1) / 2 * 2 words are
 * written per run. */
uint32_t *ep_dsp_widen_runs(const int8_t *x, int32_t offset, int32_t count, uint32_t *to, int32_t runs, int32_t step);

/* All channels of a group for widened pixels. spare: 8 bytes per pair, used where there are fewer than 4 channels. */
void ep_dsp_multiply(const ep_dsp_dot *op, int32_t group, const uint32_t *x, int32_t pairs, int8_t *y,
                     int32_t y_stride, int8_t *spare);

#endif
