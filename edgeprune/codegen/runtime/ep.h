/* edgeprune firmware kernels: what all of them share. SPDX-License-Identifier: 0BSD
 *
 * A feature map is int8, NHWC: rows x columns pixels; a pixel's channels lie side by side, one pixel `stride` bytes
 * after the other. A row is `columns * stride` bytes. Kernels compute a range of rows of their output. */
#ifndef EP_H
#define EP_H

#include <stddef.h>
#include <stdint.h>

/* Where constants go: define it to place weights in a section of your own (external flash, TCM). */
#ifndef EP_CONST
#define EP_CONST
#endif

/* Code size: functions that are called from many places stay functions, loops stay as long as they are written. */
#define EP_NOINLINE __attribute__((noinline))
#ifdef __clang__
#define EP_NO_UNROLL _Pragma("clang loop unroll(disable) vectorize(disable)")
#else
#define EP_NO_UNROLL
#endif

#define EP_LIKELY(condition) __builtin_expect(!!(condition), 1)

/* One call of a kernel. */
typedef struct {
    const int8_t *x;  /* first input, at its row x_first */
    const int8_t *x2; /* second activation input, at its row y_first (element-wise ops), or NULL */
    int8_t *y;        /* output, at its row y_first */
    void *scratch;    /* the kernel's for the time of the call; 8-byte aligned */
    void *state;      /* the kernel's from the call with the first row to the call with the last; 8-byte aligned */
    int32_t x_first;  /* the row of the first input that x points to; rows before it are not in memory */
    int32_t y_first;  /* the first output row to compute (a reduction over rows: the first input row to take in) */
    int32_t y_rows;   /* how many */
} ep_call;

#endif
