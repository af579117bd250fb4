/* Convolution as dot products over gathered patches. SPDX-License-Identifier: 0BSD
 *
 * A patch is a few runs of bytes that lie side by side in the input: whole rows of the kernel, or single taps. A run
 * that reaches into the padding is put together first. */
#include "ep_dsp_patches.h"
#include "ep_bytes.h"

/* An output and the row and column of the input that its first tap is at. */
typedef struct {
    int32_t row;
    int32_t column;
    int32_t left; /* outputs of this row, this one too */
} patch;

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
    const int8_t *inside_run = x + row * op->x_pitch + (column + before) * op->x_stride;
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

/* Whether all taps lie inside the map. */
static int32_t is_inside(const ep_dsp_patches_op *op, const patch *at)
{
    return at->row >= 0 && at->row <= op->last_row && at->column >= 0 && at->column <= op->last_column;
}

/* Widen the patches of two outputs. x: the group's first channel of row 0, wherever that would lie. */
static uint32_t *widen_patches(const ep_dsp_patches_op *op, const int8_t *x, const patch *first, const patch *second,
                               int8_t *buffer, uint32_t *to)
{
    const int32_t bytes = op->run_columns * op->channels;
    if (is_inside(op, first) && is_inside(op, second)) {
        const int32_t offset =
            (second->row - first->row) * op->x_pitch + (second->column - first->column) * op->x_stride;
        const int32_t row_step = op->dilation_rows * op->x_pitch, step = op->dilation_columns * op->x_stride;
        x += first->row * op->x_pitch + first->column * op->x_stride;
        if (op->runs == 1) {
            return ep_dsp_widen_runs(x, offset, bytes, to, op->kernel_rows, row_step);
        }
        for (int32_t i = 0; i < op->kernel_rows; i++) {
            to = ep_dsp_widen_runs(x, offset, bytes, to, op->runs, step);
            x += row_step;
        }
        return to;
    }
    for (int32_t i = 0; i < op->kernel_rows; i++) {
        const int32_t down = i * op->dilation_rows;
        for (int32_t j = 0; j < op->runs; j++) {
            const int32_t right = j * op->dilation_columns;
            const int8_t *a = find_run(op, x, first->row + down, first->column + right, buffer);
            const int8_t *b = find_run(op, x, second->row + down, second->column + right, buffer + bytes);
            to = ep_dsp_widen_runs(a, b - a, bytes, to, 1, 0);
        }
    }
    return to;
}

/* Go on by one output. */
static void move_on(const ep_dsp_patches_op *op, patch *at)
{
    at->column += op->stride_columns;
    if (--at->left == 0) {
        at->left = op->y_columns;
        at->row += op->stride_rows;
        at->column = -op->pad_left;
    }
}

/* The outputs asked for of one group. */
static void multiply_patches(const ep_dsp_patches_op *op, const ep_call *call, int32_t group)
{
    const int32_t tile = op->dot.tile, count = call->y_rows * op->y_columns;
    const int8_t *x = call->x - call->x_first * op->x_pitch + group * op->channels;
    int8_t *y = call->y + group * op->dot.channels;
    int8_t *spare = (int8_t *)call->scratch + tile * op->dot.steps * 8, *buffer = spare + tile * 8;
    patch at = {call->y_first * op->stride_rows - op->pad_top, -op->pad_left, op->y_columns}, before = at;
    int32_t left = count;
    while (left >= 2) {
        int32_t pairs = 0;
        uint32_t *wide = call->scratch;
        for (; left >= 2 && pairs < tile; pairs++) {
            const patch first = at;
            move_on(op, &at);
            wide = widen_patches(op, x, &first, &at, buffer, wide);
            before = at;
            move_on(op, &at);
            left -= 2;
        }
        ep_dsp_multiply(&op->dot, group, call->scratch, pairs, y, op->y_stride, spare);
        y += 2 * pairs * op->y_stride;
    }
    if (left == 1) { /* it is computed with the one before it, or twice */
        const int32_t y_stride = count > 1 ? op->y_stride : 0;
        widen_patches(op, x, &before, &at, buffer, call->scratch);
        ep_dsp_multiply(&op->dot, group, call->scratch, 1, y - y_stride, y_stride, spare);
    }
}

void ep_dsp_patches(const ep_dsp_patches_op *op, const ep_call *call)
{
    for (int32_t group = 0; group < op->groups; group++) {
        multiply_patches(op, call, group);
    }
}
