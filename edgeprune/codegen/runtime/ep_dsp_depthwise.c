/* Depthwise convolution with packed pairs: see ep_dsp_depthwise.h. SPDX-License-Identifier: 0BSD
 *
 * Four input channels at a time: their planes, tile by tile, and from each plane the outputs of all its filters. */
#include "ep_dsp_depthwise.h"

#include "ep_dsp.h"

/* --- what both functions share --- */

static int32_t count_planes(const ep_dsp_channels *op)
{
    return op->x_channels < 4 ? op->x_channels : 4;
}

/* How many input channels from `channel` on are computed together. They lie in the last of the planes: where there are
 * fewer than four left, those gathered with them have been computed already. */
static inline int32_t start_group(const ep_dsp_channels *op, int32_t channel, uint32_t *records)
{
    const int32_t left = op->x_channels - channel, count = left < 4 ? left : 4;
    if (op->keeps_records) {
        op->records(op, channel * op->multiplier, records, count * op->multiplier);
    }
    return count;
}

/* All output channels of `count` input channels from `channel` on. */
static inline void run_group(const ep_dsp_channels *op, const ep_dsp_run *run, int32_t channel, int32_t count,
                             uint32_t *records)
{
    const int32_t end = (channel + count) * op->multiplier;
    int32_t output = channel * op->multiplier, x_bytes = (count_planes(op) - count) * op->plane_bytes;
    const uint32_t *record = records;
    if (op->records == NULL) {
        record = (const uint32_t *)op->weight + output * op->record_words;
    }
    for (; output < end; x_bytes += op->span_bytes) {
        const int32_t stop = end - output < op->span ? end : output + op->span;
        while (output < stop) {
            const int32_t step = stop - output < op->chunk ? stop - output : op->chunk;
            if (op->remakes_records) {
                op->records(op, output, records, step);
            }
            op->run(run, output, record, step, x_bytes);
            output += step;
            if (!op->remakes_records) {
                record += step * op->record_words;
            }
        }
    }
}

void ep_dsp_gather_bytes(const ep_dsp_gather *g, int32_t channel)
{
    const uint32_t padding = ep_pack_pair(g->padding, g->padding);
    const int32_t step = g->step;
    EP_NO_UNROLL
    for (int32_t plane = 0; plane < channel + 4; plane++) {
        const int8_t *x = g->x + plane;
        uint32_t *word = g->words + plane * (g->plane_bytes / 4);
        EP_NO_UNROLL
        for (int32_t i = g->front; i > 0; i--) {
            *word++ = padding;
        }
        if (g->head) {
            *word++ = ep_pack_pair(g->padding, *x);
            x += step;
        }
        EP_NO_UNROLL
        for (int32_t i = 2 * g->quads + (g->rest >> 1); i > 0; i--, x += 2 * step) {
            *word++ = ep_pack_pair(x[0], x[step]);
        }
        if (g->rest & 1) {
            *word++ = ep_pack_pair(*x, g->padding);
        }
        EP_NO_UNROLL
        for (int32_t i = g->back; i > 0; i--) {
            *word++ = padding;
        }
    }
}

/* What to gather for `values` values at positions first, first + step, ... of 0 to size - 1, in `words` words. x: at
 * position 0. */
static EP_NOINLINE void plan_gather(ep_dsp_gather *g, const int8_t *x, int32_t first, int32_t step, int32_t size,
                                    int32_t values, int32_t words, int32_t position_bytes)
{
    const int32_t before = first < 0 ? (step - 1 - first) / step : 0;
    int32_t inside = first < size ? (size - 1 - first) / step + 1 : 0;
    if (inside > values) {
        inside = values;
    }
    inside -= before;
    g->step = step * position_bytes;
    if (inside <= 0) {
        g->x = x;
        g->head = g->quads = g->rest = g->back = 0;
        g->front = words;
        return;
    }
    g->x = x + (first + before * step) * position_bytes;
    g->front = before >> 1;
    g->head = before & 1;
    g->quads = (inside - g->head) >> 2;
    g->rest = (inside - g->head) & 3;
    g->back = words - ((before + inside + 1) >> 1);
}

/* --- along the rows --- */

typedef struct {
    const ep_dsp_depthwise_line_op *op;
    uint32_t *records;
    ep_dsp_gather *gathers; /* per phase of dilation and stride */
    ep_dsp_run *runs;       /* per phase of the dilation */
    uint32_t *planes;
    int32_t strides; /* phases of the stride that have taps */
} line_work;

/* Plan `rows` output rows from `row` on of one column; x: the map's row 0, y: the output's row `row`. */
static EP_NOINLINE int32_t plan_lines(const line_work *work, const int8_t *x, int8_t *y, int32_t row, int32_t rows)
{
    const ep_dsp_depthwise_line_op *op = work->op;
    const int32_t y_row_bytes = op->columns * op->channels.y_stride;
    ep_dsp_gather *g = work->gathers;
    int32_t phase = 0;
    for (; phase < op->dilation && phase < rows; phase++, y += y_row_bytes) {
        const int32_t count = (rows - phase + op->dilation - 1) / op->dilation, pairs = (count + 2) >> 1;
        const int32_t first = (row + phase) * op->stride - op->pad;
        ep_dsp_run *run = work->runs + phase;
        const int32_t start = (pairs - 1) / 3 * 3; /* of the last block, in pairs */
        run->x = work->planes + start;
        run->y = y + 2 * start * op->dilation * y_row_bytes;
        run->y_limit = y;
        run->rest = count - 2 * start;
        run->less = op->has_narrow ? start + 3 - pairs : 0;
        run->plane_bytes = op->channels.plane_bytes;
        run->multiplier = op->channels.multiplier;
        run->x_ahead = 4 * (start + 3) + (run->multiplier == 1 ? run->plane_bytes : 0);
        run->y_ahead = (2 * start + 6) * op->dilation * y_row_bytes + 1;
        EP_NO_UNROLL
        for (int32_t i = 0; i < work->strides; i++, g++) {
            const int32_t taps = (op->kernel_rows - 1 - i) / op->stride + 1;
            plan_gather(g, x, first + i, op->stride * op->dilation, op->x_rows, count + taps - 1,
                        (count >> 1) + ((taps + 1) >> 1), op->columns * op->channels.x_stride);
            g->padding = op->channels.x_zero_point;
            g->plane_bytes = op->channels.plane_bytes;
            g->words = work->planes + i * op->line_words;
        }
    }
    return phase;
}

static EP_NOINLINE void run_lines(const line_work *work, int32_t phases)
{
    const ep_dsp_channels *channels = &work->op->channels;
    ep_dsp_gather_line *const gather = work->op->gather;
    uint32_t *const records = work->records;
    const int32_t strides = work->strides;
    for (int32_t channel = 0; channel < channels->x_channels; channel += 4) {
        const int32_t count = start_group(channels, channel, records);
        const ep_dsp_gather *g = work->gathers;
        const ep_dsp_run *run = work->runs;
        int32_t left = phases;
        do {
            int32_t i = strides;
            do {
                gather(g++, channel + count - 4);
            } while (--i > 0);
            run_group(channels, run++, channel, count, records);
        } while (--left > 0);
    }
}

void ep_dsp_depthwise_line(const ep_dsp_depthwise_line_op *op, const ep_call *call)
{
    const ep_dsp_channels *channels = &op->channels;
    const int32_t x_row_bytes = op->columns * channels->x_stride;
    const int32_t y_row_bytes = op->columns * channels->y_stride;
    line_work work;
    work.op = op;
    work.strides = op->stride < op->kernel_rows ? op->stride : op->kernel_rows;
    work.gathers = call->scratch;
    work.runs = (ep_dsp_run *)(work.gathers + op->dilation * work.strides);
    work.planes = (uint32_t *)(work.runs + op->dilation);
    work.records = work.planes + count_planes(channels) * (channels->plane_bytes / 4);
    for (int32_t column = 0; column < op->columns; column++) {
        const int8_t *x = call->x - call->x_first * x_row_bytes + column * channels->x_stride;
        int8_t *y = call->y + column * channels->y_stride;
        for (int32_t done = 0; done < call->y_rows; done += op->tile_rows, y += op->tile_rows * y_row_bytes) {
            const int32_t left = call->y_rows - done, rows = left < op->tile_rows ? left : op->tile_rows;
            run_lines(&work, plan_lines(&work, x, y, call->y_first + done, rows));
        }
    }
}

/* --- along the columns --- */

/* Words from the first plane to the others; where there are fewer than four, the first stands for those missing. */
typedef struct {
    int32_t second;
    int32_t third;
    int32_t fourth;
} plane_steps;

static plane_steps find_steps(const ep_dsp_channels *op)
{
    const int32_t step = op->plane_bytes / 4, planes = op->x_channels;
    const plane_steps steps = {planes > 1 ? step : 0, planes > 2 ? 2 * step : 0, planes > 3 ? 3 * step : 0};
    return steps;
}

/* Rows of padding from a plane's row `from` to `end`. */
static EP_NOINLINE void pad_rows(const ep_dsp_depthwise_plane_op *op, uint32_t *planes, int32_t from, int32_t end)
{
    const plane_steps steps = find_steps(&op->channels);
    const uint32_t padding = ep_pack_pair(op->channels.x_zero_point, op->channels.x_zero_point);
    uint32_t *words = planes + from * op->row_words;
    EP_NO_UNROLL
    for (int32_t i = (end - from) * op->row_words; i > 0; i--, words++) {
        words[0] = padding;
        words[steps.second] = padding;
        words[steps.third] = padding;
        words[steps.fourth] = padding;
    }
}

void ep_dsp_gather_few(const ep_dsp_depthwise_plane_op *op, const int8_t *x, uint32_t *words, int32_t rows)
{
    const ep_dsp_channels *channels = &op->channels;
    ep_dsp_gather g;
    g.padding = channels->x_zero_point;
    g.plane_bytes = channels->plane_bytes;
    for (int32_t i = 0; i < op->stride_columns && i < op->kernel_columns; i++) {
        const int32_t taps = (op->kernel_columns - 1 - i) / op->stride_columns + 1;
        g.words = words + op->phase_starts[i];
        plan_gather(&g, x, i - op->pad_columns, op->stride_columns, op->x_columns, op->y_columns + taps - 1,
                    (op->y_columns + taps) >> 1, channels->x_stride);
        EP_NO_UNROLL
        for (int32_t row = rows; row > 0; row--) {
            ep_dsp_gather_bytes(&g, channels->x_channels - 4);
            g.x += op->x_columns * channels->x_stride;
            g.words += op->row_words;
        }
    }
}

/* Fill the planes' rows `from` to `end` (counted within the planes), the first of which is the map's row `row`. */
static EP_NOINLINE void gather_rows(const ep_dsp_depthwise_plane_op *op, const int8_t *map, int32_t row, int32_t from,
                                    int32_t end, uint32_t *planes, int32_t is_padded)
{
    const int32_t first = row + from < 0 ? (-row < end ? -row : end) : from;
    int32_t last = op->x_rows - row < end ? op->x_rows - row : end;
    if (last > first) {
        const int8_t *x = map + (row + first) * (op->x_columns * op->channels.x_stride);
        uint32_t *words = planes + first * op->row_words;
        if (op->gather != NULL) {
            op->gather(x, words, last - first);
        } else {
            op->gather_few(op, x, words, last - first);
        }
    } else {
        last = first;
    }
    if (!is_padded) {
        pad_rows(op, planes, from, first);
        pad_rows(op, planes, last, end);
    }
}

/* Move `rows` rows of the planes, from row `from` on, to their start. */
static EP_NOINLINE void shift_planes(const ep_dsp_depthwise_plane_op *op, uint32_t *planes, int32_t from, int32_t rows)
{
    const plane_steps steps = find_steps(&op->channels);
    const uint32_t *source = planes + from * op->row_words;
    EP_NO_UNROLL
    for (int32_t i = rows * op->row_words; i > 0; i--, planes++, source++) {
        planes[0] = source[0];
        planes[steps.second] = source[steps.second];
        planes[steps.third] = source[steps.third];
        planes[steps.fourth] = source[steps.fourth];
    }
}

void ep_dsp_depthwise_plane(const ep_dsp_depthwise_plane_op *op, const ep_call *call)
{
    const ep_dsp_channels *channels = &op->channels;
    const int8_t *map = call->x - call->x_first * (op->x_columns * channels->x_stride);
    const int32_t y_row_bytes = op->y_columns * channels->y_stride;
    uint32_t *planes = call->scratch;
    uint32_t *records = planes + count_planes(channels) * (channels->plane_bytes / 4);
    /* What lies left and right of the map stays as it is; so does what lies above and below, if there is one tile. */
    const int32_t is_padded = call->y_rows <= op->tile_rows;
    pad_rows(op, planes, 0, (channels->plane_bytes / 4) / op->row_words);
    for (int32_t channel = 0; channel < channels->x_channels; channel += 4) {
        const int32_t count = start_group(channels, channel, records);
        const int8_t *x = map + (op->gather != NULL ? channel + count - 4 : 0);
        int32_t done = 0, kept = 0;
        while (done < call->y_rows) {
            const int32_t left = call->y_rows - done, rows = left < op->tile_rows ? left : op->tile_rows;
            const int32_t end = (rows - 1) * op->stride_rows + op->window_rows;
            const int32_t row = (call->y_first + done) * op->stride_rows - op->pad_rows;
            gather_rows(op, x, row, kept, end, planes, is_padded);
            ep_dsp_run run;
            run.plane_bytes = channels->plane_bytes;
            run.multiplier = channels->multiplier;
            run.x = planes;
            run.y = call->y + done * y_row_bytes;
            run.y_limit = run.y + rows * y_row_bytes;
            run_group(channels, &run, channel, count, records);
            done += rows;
            kept = op->window_rows - op->stride_rows;
            if (kept > 0 && done < call->y_rows) {
                shift_planes(op, planes, rows * op->stride_rows, kept);
            } else {
                kept = 0;
            }
        }
    }
}
