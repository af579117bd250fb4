"""Portable C for max_pool_2d, average_pool_2d and mean."""

from __future__ import annotations

import math

from edgeprune.codegen.kernel import Call, Kernel, Lowered
from edgeprune.codegen.kernels.portable import REQUANTIZE_CYCLES, SETUP_CYCLES, fit_int16, slide_fields
from edgeprune.codegen.requantize import LARGEST_LEFT_SHIFT, encode_shift, find_output_range, get_scale, get_zero_point
from edgeprune.codegen.rows import is_row_reduction
from edgeprune.fixedpoint import quantize_multiplier

_LARGEST_COUNT = 130_000  # values of an average that ep_divide.h takes; fewer than sums of int32 hold


class PortablePool(Kernel):
    """max_pool_2d and average_pool_2d; the average over a whole map is taken row by row."""

    def lower(self, call: Call) -> Lowered | None:
        kernel_size = call.op.attrs["kernel_size"]
        act_min, act_max = find_output_range(call)
        count = kernel_size[0] * kernel_size[1]
        if call.op.kind == "average_pool_2d":
            if count >= _LARGEST_COUNT:
                return None
            if is_row_reduction(call.graph, call.op):
                return _lower_map(call, "ep_average_map", act_min, act_max, {"bias": 0, "multiplier": 0, "shift": 0})
        slide = slide_fields(call, kernel_size)
        fields: dict[str, int | str] = {
            "x_rows": slide.pop("x_rows"),
            "channels": call.x.channels,
            **slide,
            "act_min": act_min,
            "act_max": act_max,
        }
        if not fit_int16(fields, ("x_rows",)):
            return None
        blocks = -(-call.x.channels // 4) if call.x.channels >= 4 else call.x.channels
        if call.op.kind == "average_pool_2d":
            per_block = 270 + 13 * count
        elif call.target.dsp:
            per_block = 90 + 9 * count
        else:
            per_block = 115 + 22 * count
        return Lowered(
            kernel="portable",
            function=f"ep_{call.op.kind}",
            fields=fields,
            cycles=SETUP_CYCLES + call.y.pixels * (100 + blocks * per_block),
            sources=("ep_pool.c", "ep_window.c"),
        )


class PortableMean(Kernel):
    """mean over any axes; over rows and columns it is taken row by row.

    QuantizedMeanOrSum divides within the multiplier: multiplier * 2**bits // count, shift - bits, where 2**bits is the
    largest power of two that count, and the shift's range, allow.
    """

    def lower(self, call: Call) -> Lowered | None:
        shape = call.inputs[0].shape
        axes = set(call.op.attrs["axes"])
        if 0 in axes or not axes:
            return None
        count = math.prod(shape[axis] for axis in axes)
        zero_point = get_zero_point(call.inputs[0])
        multiplier, shift = quantize_multiplier(get_scale(call.inputs[0]) / get_scale(call.output))
        bits = min(count.bit_length() - 1, 32, 31 + shift)
        largest = count * max(127 - zero_point, 128 + zero_point)
        if largest >= 2**31 or shift - bits > LARGEST_LEFT_SHIFT:
            return None
        scale: dict[str, int | str] = {
            "bias": -zero_point * count,
            "multiplier": (multiplier << bits) // count,
            "shift": encode_shift(shift - bits, largest),
        }
        if is_row_reduction(call.graph, call.op):
            return _lower_map(call, "ep_mean_map", -128, 127, scale)
        return _lower_mean(call, axes, scale)


def _lower_map(call: Call, function: str, act_min: int, act_max: int, scale: dict[str, int | str]) -> Lowered | None:
    fields: dict[str, int | str] = {
        "x_rows": call.x.rows,
        "columns": call.x.columns,
        "channels": call.x.channels,
        "x_stride": call.x_strides[0],
        "zero_point": get_zero_point(call.output),
        "act_min": act_min,
        "act_max": act_max,
        **scale,
    }
    if not fit_int16({name: fields[name] for name in ("channels", "x_stride")}):
        return None
    calls = -(-call.x.rows // call.rows)
    fours = -(-call.x.channels // 4)
    return Lowered(
        kernel="portable",
        function=function,
        fields=fields,
        cycles=calls * (SETUP_CYCLES + fours * 40)
        + call.x.pixels * fours * (10 if call.target.dsp else 17)
        + call.x.channels * (10 + REQUANTIZE_CYCLES),
        sources=("ep_mean.c", "ep_fixed_point.c"),
        state_bytes=4 * call.x.channels,
    )


def _lower_mean(call: Call, axes: set[int], scale: dict[str, int | str]) -> Lowered | None:
    """A mean that keeps rows, or columns, or mixes channels."""
    rank = len(call.inputs[0].shape)
    x = call.x
    if rank == 4:
        reduced = [axis in axes for axis in (1, 2, 3)]
    elif rank == 3:  # rows and channels (kernel.find_area)
        reduced = [1 in axes, True, 2 in axes]
    elif rank == 2:
        reduced = [True, True, 1 in axes]
    else:
        return None
    columns = 1 if reduced[1] else x.columns
    channels = 1 if reduced[2] else x.channels
    rows_per_sum = x.rows if reduced[0] else 1
    # what lies along the output's last axis; the pixels of an output are written one after the other
    written = columns * channels
    y_channels = min(call.y.channels, written)
    if written % y_channels or (y_channels != call.y.channels and call.y_stride != call.y.channels):
        return None
    fields: dict[str, int | str] = {
        "rows": x.rows,
        "columns": x.columns,
        "channels": x.channels,
        "x_stride": call.x_strides[0],
        "column_step": 0 if reduced[1] else channels,
        "channel_step": 0 if reduced[2] else 1,
        "rows_per_sum": rows_per_sum,
        "y_pixels": written // y_channels,
        "y_channels": y_channels,
        "y_stride": call.y_stride if y_channels == call.y.channels else y_channels,
        **scale,
        "zero_point": get_zero_point(call.output),
    }
    return Lowered(
        kernel="portable",
        function="ep_mean",
        fields=fields,
        cycles=SETUP_CYCLES + x.pixels * (15 + 15 * x.channels) + call.output.element_count * (20 + REQUANTIZE_CYCLES),
        sources=("ep_mean.c", "ep_fixed_point.c"),
        scratch_bytes=4 * written,
    )
