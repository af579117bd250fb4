/* Convolution with packed pairs: see ep_dsp_conv.h. SPDX-License-Identifier: 0BSD
 *
 * The output is computed a tile at a time: the tile's input is packed into the scratch, then each output channel runs
 * through the whole tile, so that its weights are unpacked once per tile. */
#include "ep_dsp_conv.h"

#include "ep_bytes.h"

enum { PAIRS = 3, BLOCK_OUTPUTS = 2 * PAIRS };

/* A piece of the output, and where its operands lie. Positions along the sliding axis are `dilation` apart in x. */
typedef struct {
    const int8_t *x; /* at outer row 0, position 0: for arithmetic on addresses only where these are not in memory */
    int8_t *y;       /* of the tile's first output */
    int32_t x_row_bytes;
    int32_t y_row_bytes;
    int32_t x_first_row; /* the outer row that the tile's first line is taken from; may lie in the padding */
    int32_t x_first;     /* the position along the sliding axis of the first value of phase 0; likewise */
    int32_t x_begin;     /* the positions that the outputs need and that exist; others may not be in memory */
    int32_t x_end;
    const int8_t *saved; /* rows of x before `saved_end`, or NULL; as x, for arithmetic only */
    int32_t is_in_place;
    int32_t saved_end;   /* along the axis that tiles follow one another on */
    int32_t rows;        /* output rows */
    int32_t outputs;     /* of each row */
} tile;

/* The pixel at a position of the outer row `row`, or of padding. */
static const int8_t *find_pixel(const ep_dsp_conv_op *op, const tile *t, const int8_t *row, const int8_t *padding,
                                int32_t position)
{
    if (row == NULL || position < t->x_begin || position >= t->x_end) {
        return padding;
    }
    if (op->slides_on_rows && position < t->saved_end) {
        row = t->saved;
    }
    return row + position * op->x_stride;
}

/* One phase of the outer row `row`, or of padding, where it is NULL; a channel's words lie side by side. */
static void pack_phase(const ep_dsp_conv_op *op, const tile *t, const int8_t *row, const int8_t *padding,
                       int32_t position, uint32_t *words)
{
    const int32_t spacing = op->phases * op->dilation, step = op->line_words * op->phases;
    const int32_t width = t->outputs / BLOCK_OUTPUTS * PAIRS + PAIRS + op->tap_pairs - 1;
    const int32_t begin = op->slides_on_rows && t->saved_end > t->x_begin ? t->saved_end : t->x_begin;
    const int32_t channels = op->x_channels, gap = 2 * spacing * op->x_stride - channels;
    for (int32_t i = 0, count; i < width; i += count, position += 2 * spacing * count) {
        count = 1;
        if (row == NULL || position < begin || position + spacing >= t->x_end) {
            ep_pack_pixels(find_pixel(op, t, row, padding, position),
                           find_pixel(op, t, row, padding, position + spacing), words + i, 4 * step, channels, 1, 0);
            continue;
        }
        count = (t->x_end - position + spacing - 1) / (2 * spacing);
        count = count < width - i ? count : width - i;
        const int8_t *x = row + position * op->x_stride;
        if (channels >= 4) {
            ep_pack_pixels(x, x + spacing * op->x_stride, words + i, 4 * step, channels, count, gap);
        } else {
            for (int32_t channel = 0; channel < channels; channel++) {
                ep_pack_line(x + channel, spacing * op->x_stride, words + channel * step + i, count);
            }
        }
    }
}

static void pack_tile(const ep_dsp_conv_op *op, const tile *t, const int8_t *padding, uint32_t *words)
{
    const int32_t outer_rows = op->slides_on_rows ? 1 : op->x_rows;
    const int32_t rows = (t->rows - 1) * op->stride_rows + op->kernel_rows;
    for (int32_t i = 0; i < rows; i++, words += op->line_words * op->phases * op->x_channels) {
        int32_t row = t->x_first_row + i;
        const int8_t *x = row >= 0 && row < outer_rows ? t->x + row * t->x_row_bytes : NULL;
        if (x != NULL && !op->slides_on_rows && row < t->saved_end) {
            x = t->saved + row * t->x_row_bytes;
        }
        for (int32_t phase = 0; phase < op->phases; phase++) {
            pack_phase(op, t, x, padding, t->x_first + phase, words + phase * op->line_words);
        }
    }
}

/* Where y may lie in the memory of x: keep the last rows that this tile overwrites and the next one needs. A row is one
 * step along the axis that tiles follow one another on. */
static void save_rows(const ep_dsp_conv_op *op, tile *t, int32_t first, int32_t rows, uint32_t *scratch)
{
    const int32_t kept = op->saved_rows, end = first + rows;
    int8_t *saved = (int8_t *)(scratch + op->saved_words);
    const int8_t *x = t->x + (end - kept) * t->x_row_bytes;
    ep_copy_bytes(saved, x, kept * t->x_row_bytes);
    t->saved = saved - (end - kept) * t->x_row_bytes;
    t->saved_end = end;
}

static void run_tile(const ep_dsp_conv_op *op, tile *t, uint32_t *scratch)
{
    uint32_t *x_words = scratch + op->x_words;
    pack_tile(op, t, (const int8_t *)(scratch + op->pixel_words), x_words);
    if (t->is_in_place) {
        if (op->slides_on_rows) {
            save_rows(op, t, t->x_first + op->lead + op->pad, t->outputs, scratch);
        } else {
            save_rows(op, t, t->x_first_row + op->pad_rows, t->rows, scratch);
        }
    }
    const int8_t *weight = op->weight;
    const int32_t *scales = op->scales;
    for (int32_t channel = 0; channel < op->y_channels; channel++, weight += op->weight_bytes) {
        const uint32_t *words = (const uint32_t *)(const void *)weight;
        if (op->unpack != NULL) {
            uint32_t *end = scratch + op->pixel_words - 4;
            op->unpack(weight, scratch, op->weight_lines);
            for (int32_t i = 0; i < 4; i++) {
                end[i] = (uint32_t)*scales++;
            }
            words = scratch;
        }
        op->run(x_words, words, t->y + channel, t->outputs, t->rows, t->y_row_bytes);
    }
}

/* Rows `row` to `row + rows` of a tile's height: `count` outputs of each, from position `first` of the sliding axis on.
 * size: positions of x along it; y: where the first output goes. */
static void run_strip(const ep_dsp_conv_op *op, tile *t, int32_t size, int32_t first, int32_t count, int32_t row,
                      int32_t rows, int8_t *y, uint32_t *scratch)
{
    const int32_t spacing = op->phases * op->dilation;
    t->rows = rows;
    t->x_first_row = row * op->stride_rows - op->pad_rows;
    while (count > 0) {
        const int32_t begin = first * op->phases - op->pad;
        t->outputs = count < op->tile_outputs ? count : op->tile_outputs;
        const int32_t end = begin + (t->outputs - 1) * spacing + op->extent;
        t->x_first = begin - op->lead;
        t->x_begin = begin > 0 ? begin : 0;
        t->x_end = end < size ? end : size;
        t->y = y;
        run_tile(op, t, scratch);
        first += t->outputs * op->dilation;
        count -= t->outputs;
        y += t->outputs * op->dilation * op->y_stride;
    }
}

void ep_dsp_conv(const ep_dsp_conv_op *op, const ep_call *call)
{
    uint32_t *scratch = call->scratch;
    int8_t *pixel = (int8_t *)(scratch + op->pixel_words);
    for (int32_t i = 0; i < op->x_channels; i++) {
        pixel[i] = op->x_zero_point;
    }
    tile t;
    t.x_row_bytes = op->x_columns * op->x_stride;
    t.y_row_bytes = op->y_columns * op->y_stride;
    t.x = call->x - call->x_first * t.x_row_bytes;
    t.is_in_place = op->saved_rows > 0 && call->x == call->y;
    t.saved = NULL;
    t.saved_end = INT32_MIN;
    const int32_t dilation = op->dilation; /* so many strips lie between one another */
    if (op->slides_on_rows) {
        for (int32_t i = 0; i < dilation && i < call->y_rows; i++) {
            run_strip(op, &t, op->x_rows, call->y_first + i, (call->y_rows - i + dilation - 1) / dilation, 0, 1,
                      call->y + i * op->y_stride, scratch);
        }
        return;
    }
    int8_t *y = call->y;
    for (int32_t done = 0; done < call->y_rows; done += op->tile_rows, y += op->tile_rows * t.y_row_bytes) {
        const int32_t rows = call->y_rows - done < op->tile_rows ? call->y_rows - done : op->tile_rows;
        for (int32_t i = 0; i < dilation && i < op->y_columns; i++) {
            run_strip(op, &t, op->x_columns, i, (op->y_columns - i + dilation - 1) / dilation, call->y_first + done,
                      rows, y + i * op->y_stride, scratch);
        }
    }
}
