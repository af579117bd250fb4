/* All output channels of one position from one window of inputs. SPDX-License-Identifier: 0BSD
 *
 * Four channels at a time: one input value, once loaded, feeds four products. Sums are unsigned: they may wrap around on
 * the way, as they do in TensorFlow Lite Micro. */
#include "ep_dense.h"

/* A part of a window: `segments` runs of `length` values, `pitch` bytes apart. */
typedef struct {
    const int8_t *x;
    int32_t pitch;
    int32_t segments;
    int32_t length;
} window;

#define EP_FOUR_PRODUCTS(tap)                               \
    do {                                                    \
        const int32_t value = x[tap];                       \
        sum_0 += (uint32_t)(value * weight[4 * (tap) + 0]); \
        sum_1 += (uint32_t)(value * weight[4 * (tap) + 1]); \
        sum_2 += (uint32_t)(value * weight[4 * (tap) + 2]); \
        sum_3 += (uint32_t)(value * weight[4 * (tap) + 3]); \
    } while (0)

static EP_NOINLINE void add_four(const window *taps, const int8_t *weight, const int32_t *bias, uint32_t *sums)
{
    const int8_t *segment = taps->x;
    uint32_t sum_0 = (uint32_t)bias[0], sum_1 = (uint32_t)bias[1];
    uint32_t sum_2 = (uint32_t)bias[2], sum_3 = (uint32_t)bias[3];
    EP_NO_UNROLL
    for (int32_t i = taps->segments; i > 0; i--) {
        const int8_t *x = segment;
        const int8_t *const end = x + taps->length;
        EP_NO_UNROLL
        for (; end - x >= 4; x += 4) {
            EP_FOUR_PRODUCTS(0);
            EP_FOUR_PRODUCTS(1);
            EP_FOUR_PRODUCTS(2);
            EP_FOUR_PRODUCTS(3);
            weight += 16;
        }
        EP_NO_UNROLL
        for (; x != end; x++) {
            EP_FOUR_PRODUCTS(0);
            weight += 4;
        }
        segment += taps->pitch;
    }
    sums[0] = sum_0, sums[1] = sum_1, sums[2] = sum_2, sums[3] = sum_3;
}

static EP_NOINLINE void add_one(const window *taps, const int8_t *weight, const int32_t *bias, uint32_t *sums)
{
    const int8_t *segment = taps->x;
    uint32_t sum = (uint32_t)*bias;
    EP_NO_UNROLL
    for (int32_t i = taps->segments; i > 0; i--) {
        const int8_t *x = segment;
        const int8_t *const end = x + taps->length;
        EP_NO_UNROLL
        for (; end - x >= 2; x += 2) {
            sum += (uint32_t)(x[0] * weight[0]);
            sum += (uint32_t)(x[1] * weight[1]);
            weight += 2;
        }
        if (x != end) {
            sum += (uint32_t)(*x * *weight++);
        }
        segment += taps->pitch;
    }
    sums[0] = sum;
}

void ep_compute_dense(const ep_dense *dense, const int8_t *x, int32_t pitch, int32_t segments, int32_t length,
                      int8_t *y)
{
    const window taps = {x, pitch, segments, length};
    const int8_t *weight = dense->weight;
    int32_t channel = 0;
    uint32_t sums[4];
    EP_NO_UNROLL
    for (; channel + 4 <= dense->channels; channel += 4) {
        add_four(&taps, weight, dense->bias + channel, sums);
        ep_store_outputs(&dense->output, sums, channel, 4, y + channel);
        weight += 4 * segments * length;
    }
    EP_NO_UNROLL
    for (; channel < dense->channels; channel++) {
        add_one(&taps, weight, dense->bias + channel, sums);
        ep_store_outputs(&dense->output, sums, channel, 1, y + channel);
        weight += segments * length;
    }
}
