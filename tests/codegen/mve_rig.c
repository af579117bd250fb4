/* Part of a test's model.c: calls kernels case by case (mve_rig.py). */
typedef void (*kernel_function)(const void *op, const ep_call *call);

typedef struct {
    kernel_function function;
    const void *op;
    const int8_t *x;
    const int8_t *x2;
    int32_t x_row; /* bytes of a row */
    int32_t x_rows;
    int32_t x2_row;
    int32_t y_offset;
    int32_t y_row;
    int32_t rows; /* to ask for in all */
    int32_t rows_per_call;
    int32_t window_stride; /* output row r needs window_size input rows from r * window_stride - window_before on */
    int32_t window_before;
    int32_t window_size;
    int32_t scratch_bytes;
    int32_t state_bytes;
} test_case;

#define MEMORY_END ((int8_t *)0x20080000u) /* of the data TCM; nothing lies after it */
#define GUARD_BYTES 64

static int32_t call_rows(const test_case *test, int32_t first, int32_t rows, int8_t *output, uint8_t *arena)
{
    uint8_t *scratch = arena, *state = arena + 32768;
    int32_t x_first = first * test->window_stride - test->window_before;
    int32_t x_end = (first + rows - 1) * test->window_stride - test->window_before + test->window_size;
    x_first = x_first < 0 ? 0 : x_first;
    x_end = x_end > test->x_rows ? test->x_rows : x_end;
    int32_t bytes = x_end > x_first ? (x_end - x_first) * test->x_row : 0;
    int8_t *x = MEMORY_END - bytes;
    __builtin_memcpy(x, test->x + x_first * test->x_row, (uint32_t)bytes);
    if (first == 0) {
        __builtin_memset(state, 0x3C, (uint32_t)test->state_bytes + GUARD_BYTES);
    }
    __builtin_memset(scratch, 0x3C, (uint32_t)test->scratch_bytes + GUARD_BYTES);
    const ep_call call = {
        .x = x,
        .x2 = test->x2 ? test->x2 + first * test->x2_row : 0,
        .y = output + test->y_offset + first * test->y_row,
        .scratch = scratch,
        .state = state,
        .x_first = x_first,
        .y_first = first,
        .y_rows = rows,
    };
    test->function(test->op, &call);
    for (int32_t i = 0; i < GUARD_BYTES; i++) {
        if (scratch[test->scratch_bytes + i] != 0x3C || state[test->state_bytes + i] != 0x3C) {
            return 1;
        }
    }
    return 0;
}

/* 0, or 1 + the number of a case that wrote beyond its scratch or state. */
static int32_t run_cases(const test_case *tests, int32_t count, int8_t *output, void *arena)
{
    for (int32_t i = 0; i < count; i++) {
        for (int32_t first = 0; first < tests[i].rows; first += tests[i].rows_per_call) {
            int32_t left = tests[i].rows - first;
            int32_t rows = left < tests[i].rows_per_call ? left : tests[i].rows_per_call;
            if (call_rows(&tests[i], first, rows, output, arena)) {
                return 1 + i;
            }
        }
    }
    return 0;
}
