/* Convolution as dot products over gathered patches. SPDX-License-Identifier: 0BSD
 *
 * A patch is a few runs of bytes that lie side by side in the input: whole rows of the kernel, or single taps. A run
 * that reaches into the padding is put together first. */
#include "ep_dsp_patches.h"
#include "ep_bytes.h"

/* An output's place. */
typedef struct {
    int32_t row;
    int32_t column;
} position;

/* Where the run of `columns` columns from (row, column) on lies: in the input, or put together in `buffer`. */
static const int8_t *find_run(const ep_dsp_patches_op *op, const int8_t *x, int32_t row, int32_t column, int8_t *buffer)
{
    const int32_t columns = op->run_columns, channels = op->channels;
    int32_t before = column < 0 ? -column : 0;
    int32_t after = column + columns > op->x_columns ? column + columns - op->x_columns : 0;
    if (row < 0 || row >= op->x_rows || before >= columns || after >= columns) {
        ep_fill_bytes(buffer, op->x_zero_point, columns * channels);
        return buffer;
    }
    const int8_t *inside_run = x + (row * op->x_columns + column + before) * op->x_stride;
    if (before == 0 && after == 0) {
        return inside_run;
    }
    before *= channels;
    after *= channels;
    const int32_t inside = columns * channels - before - after;
    ep_fill_bytes(buffer, op->x_zero_point, before);
    ep_copy_bytes(buffer + before, inside_run, inside);
    ep_fill_bytes(buffer + before + inside, op->x_zero_point, after);
    return buffer;
}

/* Widen the patches of two outputs. x: the group's first channel of row 0, wherever that would lie. */
static uint32_t *widen_patches(const ep_dsp_patches_op *op, const int8_t *x, const position *places, int8_t *buffer,
                               uint32_t *to)
{
    const int32_t bytes = op->run_columns * op->channels;
    for (int32_t i = 0; i < op->kernel_rows; i++) {
        for (int32_t j = 0; j < op->runs; j++) {
            const int8_t *runs[2];
            for (int32_t pixel = 0; pixel < 2; pixel++) {
                const int32_t row = places[pixel].row * op->stride_rows - op->pad_top + i * op->dilation_rows;
                const int32_t column =
                    places[pixel].column * op->stride_columns - op->pad_left + j * op->dilation_columns;
                runs[pixel] = find_run(op, x, row, column, buffer + pixel * bytes);
            }
            to = ep_dsp_widen_pairs(runs[0], runs[1] - runs[0], bytes, to, 1);
        }
    }
    return to;
}

/* The place `pixel` outputs after the first one that was asked for. */
static position place_pixel(const ep_dsp_patches_op *op, const ep_call *call, int32_t pixel)
{
    const int32_t rows = pixel / op->y_columns;
    const position place = {call->y_first + rows, pixel - rows * op->y_columns};
    return place;
}

void ep_dsp_patches(const ep_dsp_patches_op *op, const ep_call *call)
{
    const int32_t tile = op->dot.tile, count = call->y_rows * op->y_columns;
    int8_t *spare = (int8_t *)call->scratch + tile * op->dot.steps * 8;
    int8_t *buffer = spare + tile * 8;
    for (int32_t group = 0; group < op->groups; group++) {
        const int8_t *x = call->x - call->x_first * op->x_columns * op->x_stride + group * op->channels;
        for (int32_t pixel = 0; pixel < count;) {
            int32_t pairs = 0, first = pixel;
            uint32_t *wide = call->scratch;
            if (first == count - 1 && count > 1) { /* a single one is computed with the one before it, or twice */
                first--;
            }
            for (; pairs < tile && (pairs == 0 || pixel + 1 < count); pairs++) {
                const int32_t at = pairs == 0 ? first : pixel;
                const position places[2] = {place_pixel(op, call, at),
                                            place_pixel(op, call, at + 1 < count ? at + 1 : at)};
                wide = widen_patches(op, x, places, buffer, wide);
                pixel = at + 2;
            }
            ep_dsp_multiply(&op->dot, group, call->scratch, pairs,
                            call->y + first * op->y_stride + group * op->dot.channels, count > 1 ? op->y_stride : 0,
                            spare);
        }
    }
}
