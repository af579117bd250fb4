/* Depthwise convolution with packed pairs: see ep_dsp_depthwise.h. SPDX-License-Identifier: 0BSD
 *
 * Four channels at a time: their records, then tile by tile their planes and outputs. The scratch holds the records,
 * then the planes. */
#include "ep_dsp_depthwise.h"

#include "ep_dsp.h"

enum { FIELD = 1 << 20, UPPER_FIELD = 1 << 9 }; /* where the fields L (lower word) and M (upper word) start */

/* The record of an output channel. */
static void write_record(const ep_dsp_channels *op, int32_t channel, uint32_t *record)
{
    const int32_t shift = op->shift[channel];
    const uint32_t bias = (uint32_t)op->scale[2 * channel] - ((uint32_t)FIELD << op->is_wide);
    const uint32_t upper = op->is_wide ? UPPER_FIELD : UPPER_FIELD + (bias << 10);
    int32_t words = op->weight_words;
    int32_t i = op->start_words;
    for (; i > 1; i -= 2) {
        *record++ = FIELD;
        *record++ = upper;
    }
    if (i > 0) {
        *record++ = FIELD;
    }
    record[0] = (uint32_t)shift;
    record[1] = bias;
    record[2] = (uint32_t)op->scale[2 * channel + 1];
    record[3] = (uint32_t)(2 * op->y_zero_point + 1) << (shift - 1);
    record += 4;
    if (op->is_packed) {
        const uint32_t *weight = (const uint32_t *)op->weight + channel * words;
        do {
            *record++ = *weight++;
        } while (--words > 0);
        return;
    }
    const int8_t *weight = (const int8_t *)op->weight + channel * 2 * words;
    do {
        *record++ = ep_pack_pair(weight[0], weight[1]) << (op->is_wide ^ 1);
        weight += 2;
    } while (--words > 0);
}

/* Records of the `count` input channels from `channel` on: all of their first outputs, then of the second, ... */
static void write_records(const ep_dsp_channels *op, int32_t channel, int32_t count, uint32_t *record)
{
    for (int32_t i = 0; i < op->multiplier; i++) {
        for (int32_t j = 0; j < count; j++, record += op->record_words) {
            write_record(op, (channel + j) * op->multiplier + i, record);
        }
    }
}

/* Gathering for maps of fewer than four channels: a word of four would reach beyond the end of the map. */
static void gather_bytes(const ep_dsp_channels *op, const ep_dsp_gather *g)
{
    const int32_t pairs = 2 * g->quads + (g->rest >> 1);
    for (int32_t channel = 0; channel < op->x_channels; channel++) {
        const int8_t *row = g->x + channel;
        uint32_t *out = g->words + channel * (op->plane_bytes / 4);
        for (int32_t i = g->rows; i > 0; i--, row += g->x_row_bytes, out += g->row_bytes / 4) {
            const int8_t *x = row;
            uint32_t *word = out;
            if (g->head) {
                *word++ = ep_pack_pair(g->padding, *x);
                x += g->step;
            }
            for (int32_t j = pairs; j > 0; j--, x += 2 * g->step) {
                *word++ = ep_pack_pair(x[0], x[g->step]);
            }
            if (g->rest & 1) {
                *word = ep_pack_pair(*x, g->padding);
            }
        }
    }
}

static void gather(const ep_dsp_channels *op, ep_dsp_gather *g)
{
    if (op->x_channels < 4) {
        gather_bytes(op, g);
    } else {
        op->gather(g);
    }
}

/* Words of padding in all four planes. */
static void pad_planes(const ep_dsp_channels *op, uint32_t *words, int32_t count)
{
    const uint32_t padding = ep_pack_pair(op->x_zero_point, op->x_zero_point);
    if (count > 0) {
        for (int32_t plane = 0; plane < 4; plane++) {
            uint32_t *word = words;
            for (int32_t i = count; i > 0; i--) {
                *word++ = padding;
            }
            words += op->plane_bytes / 4;
        }
    }
}

/* Compute the outputs of `count` input channels; `skip` of the four in the planes come before them. */
static void run_channels(const ep_dsp_channels *op, const ep_dsp_run *first, int32_t skip, int32_t count)
{
    for (int32_t i = 0; i < op->multiplier; i++) {
        ep_dsp_run run = *first;
        run.x += skip * (op->plane_bytes / 4);
        run.y += i;
        run.y_limit += i;
        run.record += i * count * op->record_words;
        run.channels = count;
        run.plane_bytes = op->plane_bytes;
        run.y_step = op->multiplier;
        op->run(&run);
    }
}

/* A group of channels: the first that is gathered, how many of the gathered come before the first that is computed. */
typedef struct {
    int32_t channel;
    int32_t skip;
    int32_t count;
} group;

static group find_group(const ep_dsp_channels *op, int32_t channel)
{
    group g = {channel, 0, 4};
    if (channel + 4 > op->x_channels) {
        g.count = op->x_channels - channel;
        if (op->x_channels >= 4) { /* the last four, some of which are done already */
            g.channel = op->x_channels - 4;
            g.skip = channel - g.channel;
        }
    }
    return g;
}

static uint32_t *find_planes(const ep_dsp_channels *op, uint32_t *scratch)
{
    return scratch + (op->x_channels < 4 ? op->x_channels : 4) * op->multiplier * op->record_words;
}

/* --- along the rows --- */

/* Pack `values` values of one phase of the stride: rows `first`, `first` + step, ... (later rows may not be in memory);
 * `count` words in all. */
static void gather_line(const ep_dsp_depthwise_line_op *op, const int8_t *x, int32_t row_bytes, int32_t first,
                        int32_t step, int32_t values, int32_t count, uint32_t *words)
{
    const ep_dsp_channels *channels = &op->channels;
    int32_t before = first < 0 ? (step - 1 - first) / step : 0;
    int32_t inside = first < op->x_rows ? (op->x_rows - 1 - first) / step + 1 : 0;
    if (inside > values) {
        inside = values;
    }
    inside -= before; /* rows in the map */
    if (inside <= 0) {
        pad_planes(channels, words, count);
        return;
    }
    ep_dsp_gather g;
    g.head = before & 1;
    g.x = x + (first + before * step) * row_bytes;
    g.words = words + (before >> 1);
    g.step = step * row_bytes;
    g.padding = channels->x_zero_point;
    g.quads = (inside - g.head) >> 2;
    g.rest = (inside - g.head) & 3;
    g.rows = 1;
    g.x_row_bytes = 0;
    g.row_bytes = 0;
    pad_planes(channels, words, before >> 1);
    gather(channels, &g);
    before = (before + inside + 1) >> 1;
    pad_planes(channels, words + before, count - before);
}

/* Outputs `row`, `row` + dilation, ... of a group's channels: `count` of them. */
static void run_line(const ep_dsp_depthwise_line_op *op, const int8_t *x, int32_t row_bytes, const group *g,
                     int32_t row, int32_t count, int8_t *y, uint32_t *scratch)
{
    const ep_dsp_channels *channels = &op->channels;
    const int32_t y_step = op->dilation * op->columns * channels->y_stride;
    const int32_t whole = count / 6;
    uint32_t *planes = find_planes(channels, scratch);
    for (int32_t phase = 0; phase < op->stride && phase < op->kernel_rows; phase++) {
        const int32_t taps = (op->kernel_rows - 1 - phase) / op->stride + 1;
        gather_line(op, x + g->channel, row_bytes, row * op->stride - op->pad + phase, op->stride * op->dilation,
                    count + taps - 1, (count >> 1) + ((taps + 1) >> 1), planes + phase * op->line_words);
    }
    ep_dsp_run run;
    run.x = planes + 3 * whole;
    run.y = y + 6 * whole * y_step;
    run.y_limit = y;
    run.record = scratch;
    run.rest = count - 6 * whole;
    run_channels(channels, &run, g->skip, g->count);
}

void ep_dsp_depthwise_line(const ep_dsp_depthwise_line_op *op, const ep_call *call)
{
    const ep_dsp_channels *channels = &op->channels;
    const int32_t x_row_bytes = op->columns * channels->x_stride;
    const int32_t y_row_bytes = op->columns * channels->y_stride;
    const int8_t *map = call->x - call->x_first * x_row_bytes;
    for (int32_t channel = 0; channel < channels->x_channels; channel += 4) {
        const group g = find_group(channels, channel);
        write_records(channels, channel, g.count, call->scratch);
        for (int32_t column = 0; column < op->columns; column++) {
            const int8_t *x = map + column * channels->x_stride;
            int8_t *y = call->y + column * channels->y_stride + channel * channels->multiplier;
            for (int32_t phase = 0; phase < op->dilation; phase++) {
                int32_t left = (call->y_rows - phase + op->dilation - 1) / op->dilation;
                int32_t done = phase;
                while (left > 0) {
                    const int32_t count = left < op->tile_rows ? left : op->tile_rows;
                    run_line(op, x, x_row_bytes, &g, call->y_first + done, count, y + done * y_row_bytes, call->scratch);
                    done += count * op->dilation;
                    left -= count;
                }
            }
        }
    }
}

/* --- along the columns --- */

/* Fill the planes' rows `from` to `end` (counted within the planes), the first of which is the map's row `row`. */
static void gather_rows(const ep_dsp_depthwise_plane_op *op, const int8_t *map, int32_t row, int32_t from, int32_t end,
                        uint32_t *planes)
{
    const ep_dsp_channels *channels = &op->channels;
    const int32_t row_bytes = op->x_columns * channels->x_stride;
    const int32_t above = row + from < 0 ? (-row < end ? -row : end) : from;
    const int32_t inside = row + end > op->x_rows ? op->x_rows - row : end;
    pad_planes(channels, planes + from * op->row_words, (above - from) * op->row_words);
    if (inside > above) {
        const int16_t *phase = op->phases;
        for (int32_t i = op->phase_count; i > 0; i--, phase += 5) {
            ep_dsp_gather g;
            g.x = map + (row + above) * row_bytes + phase[0] * channels->x_stride;
            g.words = planes + above * op->row_words + phase[1];
            g.step = op->stride_columns * channels->x_stride;
            g.padding = channels->x_zero_point;
            g.head = phase[2];
            g.quads = phase[3];
            g.rest = phase[4];
            g.rows = inside - above;
            g.x_row_bytes = row_bytes;
            g.row_bytes = 4 * op->row_words;
            gather(channels, &g);
        }
        from = inside;
    } else {
        from = above;
    }
    pad_planes(channels, planes + from * op->row_words, (end - from) * op->row_words);
}

/* Move `count` words of each plane to its start. */
static void shift_planes(const ep_dsp_channels *op, uint32_t *words, int32_t by, int32_t count)
{
    for (int32_t plane = 0; plane < 4; plane++, words += op->plane_bytes / 4) {
        const uint32_t *from = words + by;
        uint32_t *to = words;
        for (int32_t i = count; i > 0; i--) {
            *to++ = *from++;
        }
    }
}

void ep_dsp_depthwise_plane(const ep_dsp_depthwise_plane_op *op, const ep_call *call)
{
    const ep_dsp_channels *channels = &op->channels;
    const int8_t *map = call->x - call->x_first * (op->x_columns * channels->x_stride);
    const int32_t y_row_bytes = op->y_columns * channels->y_stride;
    uint32_t *planes = find_planes(channels, call->scratch);
    pad_planes(channels, planes, channels->plane_bytes / 4); /* what lies left and right of the map stays */
    for (int32_t channel = 0; channel < channels->x_channels; channel += 4) {
        const group g = find_group(channels, channel);
        write_records(channels, channel, g.count, call->scratch);
        int32_t done = 0, kept = 0;
        while (done < call->y_rows) {
            const int32_t left = call->y_rows - done, rows = left < op->tile_rows ? left : op->tile_rows;
            const int32_t end = (rows - 1) * op->stride_rows + op->window_rows;
            const int32_t row = (call->y_first + done) * op->stride_rows - op->pad_rows;
            gather_rows(op, map + g.channel, row, kept, end, planes);
            ep_dsp_run run;
            run.x = planes;
            run.y = call->y + done * y_row_bytes + channel * channels->multiplier;
            run.y_limit = run.y + rows * y_row_bytes;
            run.record = call->scratch;
            run.rest = 0;
            run_channels(channels, &run, g.skip, g.count);
            done += rows;
            kept = op->window_rows - op->stride_rows;
            if (kept > 0 && done < call->y_rows) {
                shift_planes(channels, planes, rows * op->stride_rows * op->row_words, kept * op->row_words);
            } else {
                kept = 0;
            }
        }
    }
}
