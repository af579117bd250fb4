/* Sums over a map's rows and columns on cores with the DSP extension. SPDX-License-Identifier: 0BSD
 *
 * As ep_mean_map and ep_average_map (ep_mean.h). */
#ifndef EP_DSP_MEAN_H
#define EP_DSP_MEAN_H

#include "ep_mean.h"

typedef ep_map_op ep_dsp_mean_map_op;
typedef ep_map_op ep_dsp_average_map_op;

void ep_dsp_mean_map(const ep_dsp_mean_map_op *op, const ep_call *call);
void ep_dsp_average_map(const ep_dsp_average_map_op *op, const ep_call *call);

#endif
