/* add, sub and mul for Helium (MVE): runs of values by generated assembly. SPDX-License-Identifier: 0BSD */
#include "ep_mve_elementwise.h"

void ep_mve_elementwise(const ep_mve_elementwise_op *op, const ep_call *call)
{
    const int8_t *a = call->x + (call->y_first - call->x_first) * op->columns * op->a_stride;
    const int8_t *b = op->constant ? op->constant + call->y_first * op->columns * op->b_stride : call->x2;
    int8_t *y = call->y;
    int32_t runs = call->y_rows * op->columns, count = op->channels;
    if (op->a_stride == count && op->b_stride == count && op->y_stride == count) {
        count *= runs;
        runs = 1;
    }
    for (; runs > 0; runs--) {
        op->run(op, a, b, y, count);
        a += op->a_stride;
        b += op->b_stride;
        y += op->y_stride;
    }
}
