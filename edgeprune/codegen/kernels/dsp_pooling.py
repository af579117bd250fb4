"""Sums over whole maps for cores with the DSP extension: global average pooling and means over rows and columns.

Windows of pools are left to the portable kernels, which use what such cores have (SSUB8 and SEL).
"""

from __future__ import annotations

from dataclasses import replace

from edgeprune.codegen.kernel import Call, Kernel, Lowered
from edgeprune.codegen.kernels.portable import REQUANTIZE_CYCLES, SETUP_CYCLES
from edgeprune.codegen.kernels.portable_pool import PortableMean, PortablePool

_FUNCTIONS = {"ep_mean_map": "ep_dsp_mean_map", "ep_average_map": "ep_dsp_average_map"}


class DspMapSum(Kernel):
    """mean and average_pool_2d over the whole map, row by row: four channels of a pixel in two instructions."""

    def lower(self, call: Call) -> Lowered | None:
        if not call.target.dsp or call.target.mve or call.x.channels < 4:
            return None
        portable = PortableMean() if call.op.kind == "mean" else PortablePool()
        lowered = portable.lower(call)
        if lowered is None or lowered.function not in _FUNCTIONS:
            return None
        fours, rest = divmod(call.x.channels, 4)
        calls = -(-call.x.rows // call.rows)
        per_call = SETUP_CYCLES + 85 * fours + 20 * rest
        return replace(
            lowered,
            kernel="map sum, pairs of 16 bits",
            function=_FUNCTIONS[lowered.function],
            cycles=calls * per_call
            + round(call.x.pixels * (4.85 * fours + 9 * rest))
            + call.x.channels * (23 + REQUANTIZE_CYCLES),
            sources=("ep_dsp_mean.c", "ep_fixed_point.c"),
        )
