/* Depthwise convolution for Helium (MVE), a channel at a time. SPDX-License-Identifier: 0BSD
 *
 * The values of a channel are gathered into a line, so that what an output needs lies side by side and VMLADAVA takes
 * 16 taps at once. Rows (or columns) of a two-dimensional kernel are interleaved on the line. Dilation costs nothing:
 * outputs whose inputs are `dilation` apart share a line that holds every dilation-th value (a phase). */
#include "ep_mve_depthwise.h"

#include "ep_mve_bytes.h"

/* `count` values from_step bytes apart, 8 at a time; answers the end of what was written. */
static int8_t *gather(int8_t *to, int32_t to_step, const int8_t *from, int32_t from_step, int32_t count) {
    int8_t *end = to + count * to_step;
    int32_t start = 0;
    if (to_step == 1) {
        __asm__ volatile("vidup.u16 q1, %[start], #1\n"
                         "vmul.i16 q1, q1, %[from_step]\n"
                         "wlstp.16 lr, %[count], 2f\n"
                         "1:\n"
                         "vldrb.u16 q0, [%[from], q1]\n"
                         "add %[from], %[from], %[from_step], lsl #3\n"
                         "vstrb.16 q0, [%[to]], #8\n"
                         "letp lr, 1b\n"
                         "2:\n"
                         : [start] "+Te"(start), [to] "+l"(to), [from] "+r"(from)
                         : [from_step] "r"(from_step), [count] "r"(count)
                         : "q0", "q1", "lr", "memory");
    } else {
        __asm__ volatile("vidup.u16 q2, %[start], #1\n"
                         "vmul.i16 q1, q2, %[from_step]\n"
                         "vmul.i16 q2, q2, %[to_step]\n"
                         "wlstp.16 lr, %[count], 2f\n"
                         "1:\n"
                         "vldrb.u16 q0, [%[from], q1]\n"
                         "add %[from], %[from], %[from_step], lsl #3\n"
                         "vstrb.16 q0, [%[to], q2]\n"
                         "add %[to], %[to], %[to_step], lsl #3\n"
                         "letp lr, 1b\n"
                         "2:\n"
                         : [start] "+Te"(start), [to] "+r"(to), [from] "+r"(from)
                         : [from_step] "r"(from_step), [to_step] "r"(to_step), [count] "r"(count)
                         : "q0", "q1", "q2", "lr", "memory");
    }
    return end;
}

static int8_t *fill(int8_t *to, int32_t step, int32_t value, int32_t count) {
    if (step == 1) {
        return ep_mve_fill(to, value, count);
    }
    for (; count > 0; count--, to += step) {
        *to = (int8_t)value;
    }
    return to;
}

/* Positions first, first + dilation, ... of one channel, `step` bytes apart in the line. x: position 0; NULL: outside. */
static void gather_axis(const ep_mve_axis *axis, int8_t *to, int32_t step, const int8_t *x, int32_t first,
                        int32_t count, int32_t zero) {
    int32_t before = 0, inside = 0;
    if (x) {
        if (first < 0) {
            before = axis->dilation == 1 ? -first : (axis->dilation - 1 - first) / axis->dilation;
            before = before < count ? before : count;
        }
        int32_t start = first + before * axis->dilation;
        inside = count - before;
        if (start + (inside - 1) * axis->dilation >= axis->size) {
            inside = start >= axis->size ? 0 : (axis->size - start + axis->dilation - 1) / axis->dilation;
        }
        to = fill(to, step, zero, before);
        if (inside > 0) {
            to = gather(to, step, x + start * axis->x_step, axis->dilation * axis->x_step, inside);
        }
    }
    fill(to, step, zero, count - before - inside);
}

/* All output channels of one input channel, `count` outputs of one line; y: the first output, of the first of them. */
static void run_channel(const ep_mve_depthwise_op *op, ep_mve_line *line, int32_t channel, int8_t *y, int32_t count) {
    line->count = count;
    for (int32_t i = channel * op->depth_multiplier; i < (channel + 1) * op->depth_multiplier; i++) {
        int32_t shift = op->scales.shift[i];
        line->weight = op->weight + i * op->slide.kernel * op->cross.kernel;
        line->y = y++;
        line->bias = op->bias[i];
        line->multiplier = op->scales.multiplier[i];
        line->shift = shift < 0 ? shift : 0;
        line->left_shift = shift < 0 ? 0 : shift;
        line->rounds_ties = shift < 0;
        op->run(line);
    }
}

void ep_mve_depthwise(const ep_mve_depthwise_op *op, const ep_call *call) {
    const ep_mve_axis *slide = &op->slide, *cross = &op->cross;
    const ep_mve_axis *rows = op->slides_rows ? slide : cross;
    const int8_t *map = call->x - call->x_first * rows->x_step; /* row 0, though it may not be in memory */
    int8_t *const to = call->scratch;
    int32_t depth = cross->kernel;
    int32_t slide_first = op->slides_rows ? call->y_first : 0;
    int32_t slide_count = op->slides_rows ? call->y_rows : op->y_columns;
    int32_t cross_first = op->slides_rows ? 0 : call->y_first;
    int32_t cross_count = op->slides_rows ? op->y_columns : call->y_rows;
    ep_mve_line line;
    line.line = to;
    line.y_step = op->phases * slide->y_step;
    line.zero = op->scales.zero;
    line.act_min = op->scales.act_min;
    line.act_max = op->scales.act_max;
    for (int32_t channel = 0; channel < op->channels; channel++) {
        for (int32_t i = 0; i < cross_count; i++) {
            int32_t cross_position = (cross_first + i) * cross->stride - cross->pad;
            for (int32_t first = 0; first < slide_count; first += op->tile * op->phases) {
                for (int32_t phase = first; phase < first + op->phases && phase < slide_count; phase++) {
                    int32_t count = (slide_count - phase + op->phases - 1) / op->phases;
                    count = count < op->tile ? count : op->tile;
                    int32_t position = (slide_first + phase) * slide->stride - slide->pad;
                    int32_t at = cross_position;
                    for (int32_t k = 0; k < depth; k++, at += cross->dilation) {
                        const int8_t *x = at >= 0 && at < cross->size ? map + at * cross->x_step + channel : 0;
                        gather_axis(slide, to + k, depth, x, position, (count - 1) * op->step + slide->kernel,
                                    op->x_zero);
                    }
                    int8_t *y = call->y + i * cross->y_step + phase * slide->y_step;
                    run_channel(op, &line, channel, y + channel * op->depth_multiplier, count);
                }
            }
        }
    }
}
