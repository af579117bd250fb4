/* All output channels of one position from one window of inputs. SPDX-License-Identifier: 0BSD
 *
 * Four channels at a time: one input value, once loaded, feeds four products. Sums are unsigned: they may wrap around on
 * the way, as they do in TensorFlow Lite Micro. */
#include "ep_dense.h"
#include "ep_fixed_point.h"

static int8_t finish(const ep_dense *dense, uint32_t sum, const int32_t *scale)
{
    const int32_t value = ep_requantize((int32_t)sum, scale[0], scale[1], dense->zero_point);
    return (int8_t)ep_clamp_value(value, dense->act_min, dense->act_max);
}

#define EP_FOUR_PRODUCTS(tap)                                \
    do {                                                     \
        const int32_t value = x[tap];                        \
        sum_0 += (uint32_t)(value * weight[4 * (tap) + 0]);  \
        sum_1 += (uint32_t)(value * weight[4 * (tap) + 1]);  \
        sum_2 += (uint32_t)(value * weight[4 * (tap) + 2]);  \
        sum_3 += (uint32_t)(value * weight[4 * (tap) + 3]);  \
    } while (0)

void ep_compute_dense(const ep_dense *dense, const int8_t *window, int32_t pitch, int32_t segments, int32_t length,
                      int8_t *y)
{
    const int8_t *weight = dense->weight;
    const int32_t *bias = dense->bias;
    const int32_t *scale = dense->scale;
    const int32_t step = dense->scale_step;
    int32_t channel = dense->channels;
    for (; channel >= 4; channel -= 4) {
        uint32_t sum_0 = (uint32_t)bias[0], sum_1 = (uint32_t)bias[1];
        uint32_t sum_2 = (uint32_t)bias[2], sum_3 = (uint32_t)bias[3];
        const int8_t *segment = window;
        for (int32_t i = segments; i > 0; i--) {
            const int8_t *x = segment;
            int32_t taps = length;
            for (; taps >= 4; taps -= 4) {
                EP_FOUR_PRODUCTS(0);
                EP_FOUR_PRODUCTS(1);
                EP_FOUR_PRODUCTS(2);
                EP_FOUR_PRODUCTS(3);
                x += 4;
                weight += 16;
            }
            for (; taps > 0; taps--) {
                EP_FOUR_PRODUCTS(0);
                x += 1;
                weight += 4;
            }
            segment += pitch;
        }
        y[0] = finish(dense, sum_0, scale);
        y[1] = finish(dense, sum_1, scale + step);
        y[2] = finish(dense, sum_2, scale + 2 * step);
        y[3] = finish(dense, sum_3, scale + 3 * step);
        y += 4;
        bias += 4;
        scale += 4 * step;
    }
    for (; channel > 0; channel--) {
        uint32_t sum = (uint32_t)*bias++;
        const int8_t *segment = window;
        for (int32_t i = segments; i > 0; i--) {
            const int8_t *x = segment;
            for (int32_t taps = length; taps > 0; taps--) {
                sum += (uint32_t)(*x++ * *weight++);
            }
            segment += pitch;
        }
        *y++ = finish(dense, sum, scale);
        scale += step;
    }
}
