/* Dot products of int8 on cores with the DSP extension. SPDX-License-Identifier: 0BSD */
#include "ep_dsp_dot.h"
#include "ep_dsp.h"

/* The last 1 to 3 bytes of a run as a word, zeros in between: one or two lie where ep_extend_even takes them. */
static uint32_t load_tail(const int8_t *from, int32_t count)
{
    uint32_t word = (uint8_t)from[0];
    if (count == 3) {
        word |= (uint32_t)(uint8_t)from[1] << 8;
    }
    if (count > 1) {
        word |= (uint32_t)(uint8_t)from[count - 1] << 16;
    }
    return word;
}

uint32_t *ep_dsp_widen_runs(const int8_t *x, int32_t offset, int32_t count, uint32_t *to, int32_t runs, int32_t step)
{
    const int32_t words = count >> 2, rest = count & 3;
    if (rest == 0) {
        return ep_dsp_widen_words(x, offset, words, to, runs, step);
    }
    for (; runs > 0; runs--) {
        if (words > 0) {
            to = ep_dsp_widen_words(x, offset, words, to, 1, 0);
        }
        const int8_t *tail = x + 4 * words;
        const uint32_t first = load_tail(tail, rest), second = load_tail(tail + offset, rest);
        to[0] = ep_extend_even(first);
        to[1] = ep_extend_even(second);
        to += 2;
        if (rest == 3) {
            to[0] = ep_extend_odd(first);
            to[1] = ep_extend_odd(second);
            to += 2;
        }
        x += step;
    }
    return to;
}

void ep_dsp_multiply(const ep_dsp_dot *op, int32_t group, const uint32_t *x, int32_t pairs, int8_t *y,
                     int32_t y_stride, int8_t *spare)
{
    const int32_t whole = op->channels & ~3, rest = op->channels & 3;
    ep_dsp_block block = {
        .y = y,
        .y_stride = y_stride,
        .quad_bytes = whole,
        .x = x,
        .stream = op->stream + group * op->group_words,
        .steps = op->steps,
        .pairs = pairs,
        .act_min = op->act_min,
        .excess = op->excess,
    };
    if (whole > 0) {
        op->multiply(&block);
        block.stream += (whole >> 2) * (2 * op->steps + 16);
    }
    if (rest == 0) {
        return;
    }
    block.quad_bytes = 4;
    if (whole > 0) { /* the last four channels: some of them once more */
        block.y = y + whole + rest - 4;
        op->multiply(&block);
        return;
    }
    block.y = spare;
    block.y_stride = 4;
    op->multiply(&block);
    for (int32_t pixel = 0; pixel < 2 * pairs; pixel++) {
        EP_NO_UNROLL
        for (int32_t channel = 0; channel < rest; channel++) {
            y[channel] = spare[4 * pixel + channel];
        }
        y += y_stride;
    }
}
