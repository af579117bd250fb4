/* Fully connected layer on cores with the DSP extension. SPDX-License-Identifier: 0BSD
 *
 * Inputs are widened once, or each time that they are read, where that takes too much memory or there are few outputs;
 * weights are read once, as they lie in flash. */
#include "ep_dsp_fully_connected.h"
#include "ep_dsp.h"

/* Inputs as int16, zeros up to a multiple of eight. */
static void widen(const int8_t *x, int32_t count, uint32_t *to)
{
    const uint32_t *end = to + ((count + 7) >> 3) * 4;
    for (; count >= 4; count -= 4) {
        const uint32_t bytes = ep_load_word(x);
        to[0] = ep_extend_even(bytes);
        to[1] = ep_extend_odd(bytes);
        to += 2;
        x += 4;
    }
    uint32_t bytes = 0;
    EP_NO_UNROLL
    for (int32_t i = count - 1; i >= 0; i--) {
        bytes = bytes << 8 | (uint8_t)x[i];
    }
    for (; to != end; to += 2) {
        to[0] = ep_extend_even(bytes);
        to[1] = ep_extend_odd(bytes);
        bytes = 0;
    }
}

void ep_dsp_fully_connected(const ep_dsp_fully_connected_op *op, const ep_call *call)
{
    const int32_t units = (op->inputs + 7) >> 3, whole = op->outputs & ~3, rest = op->outputs & 3;
    int8_t spare[4];
    ep_dsp_vector_block block = {
        .multiplier = op->multiplier,
        .offset = op->offset,
        .shift = op->shift,
        .y = call->y,
        .y_end = call->y + whole,
        .x = op->reads_bytes ? (const void *)call->x : call->scratch,
        .units = units,
        .stream = op->stream,
        .act_min = op->act_min,
        .excess = op->excess,
    };
    if (!op->reads_bytes) {
        widen(call->x, op->inputs, call->scratch);
    }
    if (whole > 0) {
        op->multiply(&block);
        block.stream += (whole >> 2) * (8 * units + op->constant_words);
    }
    if (rest == 0) {
        return;
    }
    block.y = whole > 0 ? block.y_end + rest - 4 : spare; /* the last four: some of them once more */
    block.y_end = block.y + 4;
    op->multiply(&block);
    if (whole == 0) {
        EP_NO_UNROLL
        for (int32_t channel = 0; channel < rest; channel++) {
            call->y[channel] = spare[channel];
        }
    }
}
