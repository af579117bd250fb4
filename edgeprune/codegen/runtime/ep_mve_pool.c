/* Pooling over windows for Helium (MVE): 16 channels, or 8 sums, at a time. SPDX-License-Identifier: 0BSD */
#include "ep_mve_pool.h"

/* What of a window lies inside the map. */
typedef struct {
    const int8_t *x;
    int32_t rows;
    int32_t columns;
} window;

typedef void (*finish)(const ep_mve_pool_op *op, const window *inside, int8_t *y);

static void pool(const ep_mve_pool_op *op, const ep_call *call, finish function)
{
    const int8_t *map = call->x - call->x_first * op->x_columns * op->x_stride;
    int8_t *y = call->y;
    for (int32_t i = 0; i < call->y_rows; i++) {
        int32_t row = (call->y_first + i) * op->stride_rows - op->pad_top;
        int32_t first_row = row < 0 ? 0 : row;
        int32_t end_row = row + op->kernel_rows < op->x_rows ? row + op->kernel_rows : op->x_rows;
        int32_t column = -op->pad_left;
        for (int32_t j = 0; j < op->y_columns; j++, column += op->stride_columns) {
            int32_t first = column < 0 ? 0 : column;
            int32_t end = column + op->kernel_columns < op->x_columns ? column + op->kernel_columns : op->x_columns;
            window inside = {map + (first_row * op->x_columns + first) * op->x_stride, end_row - first_row, end - first};
            function(op, &inside, y);
            y += op->y_stride;
        }
    }
}

/* The greatest of up to 16 channels (act_min at least), cut to act_max. */
static void find_maximum(const ep_mve_pool_op *op, const window *inside, int8_t *y)
{
    int32_t row_bytes = op->x_columns * op->x_stride;
    for (int32_t channel = 0; channel < op->channels; channel += 16) {
        const int8_t *row = inside->x + channel;
        const int8_t *end = row + inside->rows * row_bytes;
        __asm__ volatile("vctp.8 %[lanes]\n"
                         "vdup.8 q0, %[least]\n"
                         "1:\n"
                         "mov r12, %[row]\n"
                         "dls lr, %[columns]\n"
                         "2:\n"
                         "vpst\n"
                         "vldrbt.8 q1, [r12]\n"
                         "vmax.s8 q0, q0, q1\n" /* lanes beyond the channels are not stored */
                         "add r12, %[stride]\n"
                         "le lr, 2b\n"
                         "add %[row], %[row_bytes]\n"
                         "cmp %[row], %[end]\n"
                         "bne 1b\n"
                         "vdup.8 q1, %[most]\n"
                         "vmin.s8 q0, q0, q1\n"
                         "vpst\n"
                         "vstrbt.8 q0, [%[y]]\n"
                         : [row] "+r"(row)
                         : [lanes] "r"(op->channels - channel), [least] "r"(op->act_min), [most] "r"(op->act_max),
                           [columns] "r"(inside->columns), [stride] "r"(op->x_stride), [row_bytes] "r"(row_bytes),
                           [end] "r"(end), [y] "r"(y + channel)
                         : "q0", "q1", "r12", "lr", "cc", "memory");
    }
}

void ep_mve_max_pool(const ep_mve_pool_op *op, const ep_call *call)
{
    pool(op, call, find_maximum);
}

/* Sums of up to 8 channels. */
static void add_window(const ep_mve_pool_op *op, const window *inside, int32_t channel, int16_t sums[8])
{
    int32_t row_bytes = op->x_columns * op->x_stride;
    const int8_t *row = inside->x + channel;
    const int8_t *end = row + inside->rows * row_bytes;
    __asm__ volatile("vctp.16 %[lanes]\n"
                     "vmov.i16 q0, #0\n"
                     "1:\n"
                     "mov r4, %[row]\n"
                     "dls lr, %[columns]\n"
                     "2:\n"
                     "vpst\n"
                     "vldrbt.s16 q1, [r4]\n" /* 0 beyond the channels */
                     "vadd.i16 q0, q0, q1\n"
                     "add r4, %[stride]\n"
                     "le lr, 2b\n"
                     "add %[row], %[row_bytes]\n"
                     "cmp %[row], %[end]\n"
                     "bne 1b\n"
                     "vstrh.16 q0, [%[sums]]\n"
                     : [row] "+r"(row)
                     : [lanes] "r"(op->channels - channel), [columns] "r"(inside->columns), [stride] "r"(op->x_stride),
                       [row_bytes] "r"(row_bytes), [end] "r"(end), [sums] "r"(sums)
                     : "q0", "q1", "r4", "lr", "cc", "memory");
}

static void find_average(const ep_mve_pool_op *op, const window *inside, int8_t *y)
{
    const int32_t count = inside->rows * inside->columns, half = count / 2;
    const int32_t channels = op->channels, act_min = op->act_min, act_max = op->act_max;
    for (int32_t channel = 0; channel < channels; channel += 8) {
        int16_t sums[8];
        const int16_t *sum = sums;
        add_window(op, inside, channel, sums);
        EP_NO_UNROLL
        for (int8_t *end = y + (channels - channel < 8 ? channels - channel : 8); y != end; y++) {
            int32_t value = *sum++;
            value = (value + (value < 0 ? -half : half)) / count; /* C truncates: ties away from zero */
            value = value < act_min ? act_min : value;
            *y = (int8_t)(value > act_max ? act_max : value);
        }
    }
}

void ep_mve_average_pool(const ep_mve_pool_op *op, const ep_call *call)
{
    pool(op, call, find_average);
}
