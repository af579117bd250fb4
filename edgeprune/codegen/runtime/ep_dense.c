/* All output channels of one position from one window of inputs. SPDX-License-Identifier: 0BSD
 *
 * Four channels at a time: one input value, once loaded, feeds four products. Sums are unsigned: they may wrap around on
 * the way, as they do in TensorFlow Lite Micro. */
#include "ep_dense.h"
#ifdef __ARM_NEON
#include <arm_neon.h>
#endif
#if defined(__ARM_FEATURE_DOTPROD) && defined(__aarch64__) /* VQTBL1 is of 64-bit cores only */
#define EP_SDOT
#endif

/* A part of a window: `segments` runs of `length` values, `pitch` bytes apart. */
typedef struct {
    const int8_t *x;
    int32_t pitch;
    int32_t segments;
    int32_t length;
} window;

#ifdef __ARM_NEON

static inline int8x8_t load_four(const int8_t *values)
{
    int32_t word;
    __builtin_memcpy(&word, values, 4);
    return vreinterpret_s8_s32(vdup_n_s32(word));
}

#ifndef EP_SDOT
/* `sums` and the products of four taps with four channels each. */
static inline int32x4_t add_four_taps(int32x4_t sums, int8x16_t weight, int16x4_t x)
{
    const int16x8_t low = vmovl_s8(vget_low_s8(weight)), high = vmovl_s8(vget_high_s8(weight));
    sums = vmlal_lane_s16(sums, vget_low_s16(low), x, 0);
    sums = vmlal_lane_s16(sums, vget_high_s16(low), x, 1);
    sums = vmlal_lane_s16(sums, vget_low_s16(high), x, 2);
    return vmlal_lane_s16(sums, vget_high_s16(high), x, 3);
}
#endif

/* With the vectors of Armv7-A and Armv8-A: four lanes, four channels. */
static EP_NOINLINE void add_four(const window *taps, const int8_t *weight, const int32_t *bias, uint32_t *sums)
{
    const int8_t *segment = taps->x;
    int32x4_t even = vld1q_s32(bias), odd = vdupq_n_s32(0);
#ifdef EP_SDOT
    static const uint8_t turned[16] = {0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15};
    const uint8x16_t turn = vld1q_u8(turned); /* a channel's four taps side by side */
#endif
    for (int32_t i = taps->segments; i > 0; i--) {
        const int8_t *x = segment;
        int32_t left = taps->length;
#ifdef EP_SDOT
        for (; left >= 16; left -= 16) {
            const int8x16_t values = vld1q_s8(x);
            even = vdotq_laneq_s32(even, vqtbl1q_s8(vld1q_s8(weight), turn), values, 0);
            odd = vdotq_laneq_s32(odd, vqtbl1q_s8(vld1q_s8(weight + 16), turn), values, 1);
            even = vdotq_laneq_s32(even, vqtbl1q_s8(vld1q_s8(weight + 32), turn), values, 2);
            odd = vdotq_laneq_s32(odd, vqtbl1q_s8(vld1q_s8(weight + 48), turn), values, 3);
            x += 16;
            weight += 64;
        }
        for (; left >= 4; left -= 4) {
            even = vdotq_lane_s32(even, vqtbl1q_s8(vld1q_s8(weight), turn), load_four(x), 0);
            x += 4;
            weight += 16;
        }
#else
        for (; left >= 8; left -= 8) {
            const int16x8_t values = vmovl_s8(vld1_s8(x));
            even = add_four_taps(even, vld1q_s8(weight), vget_low_s16(values));
            odd = add_four_taps(odd, vld1q_s8(weight + 16), vget_high_s16(values));
            x += 8;
            weight += 32;
        }
        if (left >= 4) {
            even = add_four_taps(even, vld1q_s8(weight), vget_low_s16(vmovl_s8(load_four(x))));
            x += 4;
            weight += 16;
            left -= 4;
        }
#endif
        for (; left > 0; left--) {
            odd = vmlal_n_s16(odd, vget_low_s16(vmovl_s8(load_four(weight))), *x++);
            weight += 4;
        }
        segment += taps->pitch;
    }
    vst1q_u32(sums, vreinterpretq_u32_s32(vaddq_s32(even, odd)));
}

#else

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

#endif

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
