/* Depthwise convolution for Helium (MVE), a channel at a time. SPDX-License-Identifier: 0BSD
 *
 * The values of a channel are gathered into a line, so that what an output needs lies side by side and VMLADAVA takes
 * 16 taps at once. Rows (or columns) of a two-dimensional kernel are interleaved on the line. Dilation costs nothing:
 * outputs whose inputs are `dilation` apart share a line that holds every dilation-th value (a phase). */
#include "ep_mve_depthwise.h"

#include "ep_mve_bytes.h"

/* `count` values from_step bytes apart, 8 at a time. */
static void gather(int8_t *to, int32_t to_step, const int8_t *from, int32_t from_step, int32_t count)
{
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
}

static void fill(int8_t *to, int32_t step, int32_t value, int32_t count)
{
    EP_NO_UNROLL
    for (; count > 0; count--, to += step) {
        *to = (int8_t)value;
    }
}

/* Which of `count` positions, `dilation` apart from `first` on, lie inside the axis. */
typedef struct {
    int32_t before; /* so many lie before it */
    int32_t start;  /* the first one inside */
    int32_t inside;
} extent;

static extent find_extent(const ep_mve_axis *axis, int32_t first, int32_t count)
{
    int32_t before = first < 0 ? (axis->dilation - 1 - first) / axis->dilation : 0;
    before = before < count ? before : count;
    int32_t start = first + before * axis->dilation;
    int32_t most = start < axis->size ? (axis->size - start + axis->dilation - 1) / axis->dilation : 0;
    extent found = {before, start, count - before < most ? count - before : most};
    return found;
}

/* All output channels of one input channel, `count` outputs of one line; y: the first output, of the first of them. */
static void run_channel(const ep_mve_depthwise_op *op, ep_mve_line *line, int32_t channel, int8_t *y, int32_t count)
{
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

void ep_mve_depthwise(const ep_mve_depthwise_op *op, const ep_call *call)
{
    const ep_mve_axis *slide = &op->slide, *cross = &op->cross;
    const ep_mve_axis *rows = op->slides_rows ? slide : cross;
    const int8_t *map = call->x - call->x_first * rows->x_step; /* row 0, though it may not be in memory */
    int8_t *const line = call->scratch;
    int32_t depth = cross->kernel;
    int32_t slide_first = op->slides_rows ? call->y_first : 0;
    int32_t slide_count = op->slides_rows ? call->y_rows : op->y_columns;
    int32_t cross_first = (op->slides_rows ? 0 : call->y_first) * cross->stride - cross->pad;
    int32_t cross_count = op->slides_rows ? op->y_columns : call->y_rows;
    ep_mve_line run;
    run.line = line;
    run.y_step = op->phases * slide->y_step;
    run.zero = op->scales.zero;
    run.act_min = op->scales.act_min;
    run.act_max = op->scales.act_max;
    for (int32_t output = 0; output < slide_count; output++) { /* the first one of a line */
        if (output >= op->phases && output % (op->tile * op->phases) >= op->phases) {
            continue; /* it lies on the line of an earlier one */
        }
        int32_t count = (slide_count - output + op->phases - 1) / op->phases;
        count = count < op->tile ? count : op->tile;
        int32_t positions = (count - 1) * op->step + slide->kernel;
        extent at = find_extent(slide, (slide_first + output) * slide->stride - slide->pad, positions);
        ep_mve_fill(line, op->x_zero, positions * depth); /* what lies outside stays so for all channels */
        for (int32_t channel = 0; channel < op->channels; channel++) {
            const int8_t *x = map + at.start * slide->x_step + channel;
            int8_t *y = call->y + output * slide->y_step + channel * op->depth_multiplier;
            int32_t row = cross_first;
            for (int32_t i = 0; i < cross_count; i++, row += cross->stride, y += cross->y_step) {
                int8_t *to = line + at.before * depth;
                for (int32_t k = 0; k < depth; k++, to++) {
                    int32_t from = row + k * cross->dilation;
                    if (from >= 0 && from < cross->size) {
                        gather(to, depth, x + from * cross->x_step, slide->dilation * slide->x_step, at.inside);
                    } else {
                        fill(to, depth, op->x_zero, at.inside);
                    }
                }
                run_channel(op, &run, channel, y, count);
            }
        }
    }
}
