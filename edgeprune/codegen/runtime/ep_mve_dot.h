/* Dot products and requantization in Helium (MVE) assembly. SPDX-License-Identifier: 0BSD */
#ifndef EP_MVE_DOT_H
#define EP_MVE_DOT_H

#include "ep.h"

/* Accumulators are made for this many output channels at a time, for up to three pixels, in scratch memory. */
#define EP_MVE_TILE 64
#define EP_MVE_TILE_BYTES (3 * EP_MVE_TILE * 4)

/* How accumulators become outputs, per output channel. */
typedef struct {
    const int32_t *multiplier;
    const int8_t *shift; /* TFLite's: negative shifts go right */
    int32_t zero;        /* of the output */
    int32_t act_min;
    int32_t act_max;
    int32_t form;       /* EP_MVE_CLAMPED, ... */
    int32_t is_uniform; /* four equal multipliers and shifts stand for all channels: single patches only */
} ep_mve_scales;

#define EP_MVE_CLAMPED 0 /* right shifts only, and the activation clamps at the zero point: negative ties don't matter */
#define EP_MVE_RIGHT 1   /* right shifts only */
#define EP_MVE_ANY 2     /* left shifts, or none, too */

/* Dot products of patches with the weights of consecutive output channels. */
typedef struct {
    const int8_t *x0; /* patches of `length` bytes */
    const int8_t *x1;
    const int8_t *x2;
    const int8_t *weight;  /* of the first channel */
    const int32_t *bias;   /* of the first channel */
    int32_t *sums;         /* where those of the first patch go; those of the others EP_MVE_TILE further each */
    int32_t *sums_end;     /* sums + number of channels */
    int32_t length;        /* bytes of a patch, and of the weights of a channel */
    int32_t weight_step;   /* bytes between two channels' weights */
} ep_mve_dot;

/* Three patches, channels two at a time: the number of channels must be even. */
void ep_mve_dot_3x2(const ep_mve_dot *dot);

/* One patch (x0), channels four at a time: their number must be a multiple of four. */
void ep_mve_dot_1x4(const ep_mve_dot *dot);

/* The sums of some channels and what becomes of them. */
typedef struct {
    const int32_t *sums;
    const int32_t *multiplier;
    const int8_t *shift;
    int8_t *y0;
    int8_t *y1; /* for a second and third pixel, whose sums lie EP_MVE_TILE further each */
    int8_t *y2;
    int32_t channels;
    int32_t zero;
    int32_t act_min;
    int32_t act_max;
    int32_t multiplier_step; /* bytes to the next four channels' multipliers and shifts: 16 and 4, or 0 and 0 */
    int32_t shift_step;      /* (single pixels; three take 16 and 4) */
} ep_mve_outputs;

void ep_mve_requantize_3_clamped(const ep_mve_outputs *outputs);
void ep_mve_requantize_3_right(const ep_mve_outputs *outputs);
void ep_mve_requantize_1_clamped(const ep_mve_outputs *outputs);
void ep_mve_requantize_1_right(const ep_mve_outputs *outputs);
void ep_mve_requantize_1_any(const ep_mve_outputs *outputs);

/* A layer made of dot products: weights and constants of consecutive output channels. */
typedef struct {
    const int8_t *weight; /* channels x length */
    const int32_t *bias;  /* with the input's zero point folded in; three more values are read, not used */
    ep_mve_scales scales;
    int32_t length;   /* bytes of a patch */
    int32_t channels; /* outputs of a pixel */
    /* Generated: as ep_mve_dot_3x2, for aligned patches that begin slide_step bytes apart, one on the other; or NULL. */
    void (*slide)(const ep_mve_dot *dot);
    int32_t slide_step;
} ep_mve_layer;

/* All channels of a run of pixels: patches lie x_step bytes apart, outputs y_step. sums: EP_MVE_TILE_BYTES. */
void ep_mve_dot_run(const ep_mve_layer *layer, const int8_t *x, int32_t x_step, int8_t *y, int32_t y_step,
                    int32_t pixels, int32_t *sums);

/* The layer that a group of channels is by itself. */
ep_mve_layer ep_mve_find_group(const ep_mve_layer *layer, int32_t group);

#endif
