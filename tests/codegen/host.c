/* Runs a model on this machine: int8 inputs from standard input, outputs to standard output, then the self-test. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model.h"

int main(void)
{
    /* one allocation each, of the exact size: AddressSanitizer sees the first byte beyond */
    int8_t *input = malloc(EDGEPRUNE_MODEL_INPUT_BYTES);
    int8_t *output = malloc(EDGEPRUNE_MODEL_OUTPUT_BYTES);
    int8_t *arena = malloc(EDGEPRUNE_MODEL_ARENA_BYTES + 1); /* a model may need none */
    while (fread(input, 1, EDGEPRUNE_MODEL_INPUT_BYTES, stdin) == EDGEPRUNE_MODEL_INPUT_BYTES) {
        memset(arena, 0x5a, EDGEPRUNE_MODEL_ARENA_BYTES + 1); /* what is there before must not matter */
        if (edgeprune_model_run(input, output, arena) != 0) {
            return 2;
        }
        fwrite(output, 1, EDGEPRUNE_MODEL_OUTPUT_BYTES, stdout);
    }
    const int failed = edgeprune_model_selftest(arena);
    free(input);
    free(output);
    free(arena);
    return failed == 0 ? 0 : 3;
}
