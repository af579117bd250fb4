/* Runs kernels on this machine: orders from standard input, outputs to standard output. The cases, an array of functions
 * `run` that call a kernel with its parameters, come from cases.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cases.h"

enum { CASE, X, X2, Y, SCRATCH, STATE, X_FIRST, Y_FIRST, Y_ROWS, IN_PLACE, SHIFT, LAST };

/* An allocation of the exact size, `shift` bytes off alignment: AddressSanitizer sees the first byte beyond. */
static int8_t *take(int32_t size, int32_t shift)
{
    int8_t *memory = malloc((size_t)(size + shift));
    if (!memory) {
        abort();
    }
    return memory + shift;
}

static int8_t *take_input(int32_t size, int32_t shift)
{
    int8_t *memory = take(size, shift);
    if (fread(memory, 1, (size_t)size, stdin) != (size_t)size) {
        abort();
    }
    return memory;
}

int main(void)
{
    int32_t order[LAST];
    int8_t *state = NULL;
    while (fread(order, sizeof(order), 1, stdin) == 1) {
        const int32_t shift = order[SHIFT];
        int8_t *x = take_input(order[X], shift);
        int8_t *x2 = take_input(order[X2], shift);
        int8_t *y = take_input(order[Y], shift);
        int8_t *scratch = take(order[SCRATCH], 0);
        int8_t *const before = take(order[X] + order[X2], 0);
        if (order[Y_FIRST] == 0 || !state) {
            free(state);
            state = take(order[STATE], 0);
            memset(state, 0x5a, (size_t)order[STATE]);
        }
        memset(scratch, 0x5a, (size_t)order[SCRATCH]);
        memcpy(before, x, (size_t)order[X]);
        memcpy(before + order[X], x2, (size_t)order[X2]);
        int8_t *const target = order[IN_PLACE] == 1 ? x : order[IN_PLACE] == 2 ? x2 : y;
        const ep_call call = {.x = x,
                              .x2 = order[X2] ? x2 : NULL,
                              .y = target,
                              .scratch = scratch,
                              .state = state,
                              .x_first = order[X_FIRST],
                              .y_first = order[Y_FIRST],
                              .y_rows = order[Y_ROWS]};
        run[order[CASE]](&call);
        fwrite(target, 1, (size_t)order[Y], stdout);
        if ((target != x && memcmp(before, x, (size_t)order[X]) != 0) ||
            (target != x2 && memcmp(before + order[X], x2, (size_t)order[X2]) != 0)) {
            fprintf(stderr, "case %d wrote to an input\n", (int)order[CASE]);
            return 2;
        }
        free(x - shift);
        free(x2 - shift);
        free(y - shift);
        free(scratch);
        free(before);
    }
    free(state);
    return 0;
}
