/* Moving values: transpose, slice, concat, pad, reshape. SPDX-License-Identifier: 0BSD */
#ifndef EP_COPY_H
#define EP_COPY_H

#include "ep.h"

/* Output row `first_row` + i, i < rows, is made from the input at `offset` + i * row_step (from row 0 on): a block of
 * outer x middle x inner values. Other output rows are left alone (ep_copy) or filled (ep_pad). Steps in bytes. */
typedef struct {
    int32_t first_row;
    int32_t rows;
    int32_t x_offset;
    int32_t x_pitch; /* bytes of an input row, for call->x_first */
    int32_t x_row_step;
    int32_t y_pitch; /* bytes of an output row */
    int32_t y_offset;
    int32_t outer;
    int32_t x_outer;
    int32_t y_outer;
    int32_t middle;
    int32_t x_middle;
    int32_t y_middle;
    int32_t inner;
    int32_t x_inner;
    int32_t y_inner;
} ep_copy_op;

typedef struct {
    ep_copy_op copy;
    int16_t columns; /* of the output */
    int16_t channels;
    int16_t y_stride;
    int16_t fill;
} ep_pad_op;

void ep_copy(const ep_copy_op *op, const ep_call *call);
void ep_pad(const ep_pad_op *op, const ep_call *call);

#endif
