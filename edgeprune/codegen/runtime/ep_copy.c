/* Moving values: transpose, slice, concat, pad, reshape. SPDX-License-Identifier: 0BSD */
#include "ep_copy.h"
#include "ep_bytes.h"

static void copy_values(const ep_copy_op *op, const int8_t *x, int8_t *y)
{
    if (op->x_inner == 1 && op->y_inner == 1) {
        ep_copy_bytes(y, x, op->inner);
        return;
    }
    EP_NO_UNROLL
    for (int32_t i = op->inner; i > 0; i--) {
        *y = *x;
        x += op->x_inner;
        y += op->y_inner;
    }
}

void ep_copy(const ep_copy_op *op, const ep_call *call)
{
    const int8_t *map = call->x + op->x_offset - call->x_first * op->x_pitch;
    EP_NO_UNROLL
    for (int32_t i = 0; i < call->y_rows; i++) {
        const int32_t row = call->y_first + i - op->first_row;
        if (row < 0 || row >= op->rows) {
            continue;
        }
        EP_NO_UNROLL
        for (int32_t j = 0; j < op->outer; j++) {
            const int8_t *x = map + row * op->x_row_step + j * op->x_outer;
            int8_t *y = call->y + i * op->y_pitch + op->y_offset + j * op->y_outer;
            EP_NO_UNROLL
            for (int32_t k = op->middle; k > 0; k--) {
                copy_values(op, x, y);
                x += op->x_middle;
                y += op->y_middle;
            }
        }
    }
}

void ep_pad(const ep_pad_op *op, const ep_call *call)
{
    int8_t *y = call->y;
    EP_NO_UNROLL
    for (int32_t i = call->y_rows * op->columns; i > 0; i--) {
        ep_fill_bytes(y, op->fill, op->channels);
        y += op->y_stride;
    }
    ep_copy(&op->copy, call);
}
