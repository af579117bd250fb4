/* Functions of one stored value for Helium (MVE): a table, or clamping; 16 values at a time.
 * SPDX-License-Identifier: 0BSD */
#include "ep_mve_lookup.h"

static void look_up(const int8_t *table, const int8_t *x, int8_t *y, int32_t count)
{
    __asm__ volatile("wlstp.8 lr, %[count], 2f\n"
                     "1:\n"
                     "vldrb.u8 q0, [%[x]], #16\n"
                     "vldrb.u8 q1, [%[table], q0]\n"
                     "vstrb.8 q1, [%[y]], #16\n"
                     "letp lr, 1b\n"
                     "2:\n"
                     : [x] "+r"(x), [y] "+r"(y)
                     : [table] "r"(table), [count] "r"(count)
                     : "q0", "q1", "lr", "memory");
}

static void clamp(int32_t least, int32_t most, const int8_t *x, int8_t *y, int32_t count)
{
    __asm__ volatile("vdup.8 q1, %[least]\n"
                     "vdup.8 q2, %[most]\n"
                     "wlstp.8 lr, %[count], 2f\n"
                     "1:\n"
                     "vldrb.8 q0, [%[x]], #16\n"
                     "vmax.s8 q0, q0, q1\n"
                     "vmin.s8 q0, q0, q2\n"
                     "vstrb.8 q0, [%[y]], #16\n"
                     "letp lr, 1b\n"
                     "2:\n"
                     : [x] "+r"(x), [y] "+r"(y)
                     : [least] "r"(least), [most] "r"(most), [count] "r"(count)
                     : "q0", "q1", "q2", "lr", "memory");
}

void ep_mve_lookup(const ep_mve_lookup_op *op, const ep_call *call)
{
    const int8_t *x = call->x + (call->y_first - call->x_first) * op->columns * op->x_stride;
    int8_t *y = call->y;
    int32_t runs = call->y_rows * op->columns, count = op->channels;
    if (op->x_stride == count && op->y_stride == count) {
        count *= runs;
        runs = 1;
    }
    for (; runs > 0; runs--, x += op->x_stride, y += op->y_stride) {
        if (op->table) {
            look_up(op->table, x, y, count);
        } else {
            clamp(op->act_min, op->act_max, x, y, count);
        }
    }
}
