"""Pooling, means and functions of one value on Helium (Cortex-M55): runtime/ep_mve_{pool,mean,lookup}.c."""

from __future__ import annotations

import numpy as np

from edgeprune.codegen.kernel import Call, Constant, Kernel, Lowered
from edgeprune.codegen.kernels.mve_layers import find_padding, list_map_fields
from edgeprune.codegen.kernels.portable import is_same_quant, split_pixels
from edgeprune.codegen.kernels.portable_activations import CLAMPS, tabulate
from edgeprune.codegen.requantize import (
    LARGEST_LEFT_SHIFT,
    describe_operands,
    find_output_range,
    get_scale,
    get_zero_point,
)
from edgeprune.codegen.rows import is_row_reduction
from edgeprune.fixedpoint import quantize_multiplier

_LARGEST_WINDOW = 255  # values of int8 whose sum's magnitude fits an int16


class MvePool(Kernel):
    """max_pool_2d and average_pool_2d; the average over a whole map is taken row by row."""

    def lower(self, call: Call) -> Lowered | None:
        if not call.target.mve:
            return None
        act_min, act_max = find_output_range(call)
        averages = call.op.kind == "average_pool_2d"
        if averages and is_row_reduction(call.graph, call.op):
            return _lower_reduction(call, "ep_mve_average", {"act_min": act_min, "act_max": act_max})
        kernel = call.op.attrs["kernel_size"]
        count = kernel[0] * kernel[1]
        if averages and count > _LARGEST_WINDOW:
            return None
        pads = find_padding(call, kernel)
        blocks = -(-call.x.channels // (8 if averages else 16))
        dividing = 9 * call.x.channels if averages else 0
        return Lowered(
            kernel="Helium pooling",
            function="ep_mve_average_pool" if averages else "ep_mve_max_pool",
            fields={
                **list_map_fields(call.x, call.x_strides[0], call.y, call.y_stride),
                "channels": call.x.channels,
                "kernel_rows": kernel[0],
                "kernel_columns": kernel[1],
                "stride_rows": call.op.attrs["stride"][0],
                "stride_columns": call.op.attrs["stride"][1],
                "pad_top": pads[0][0],
                "pad_left": pads[1][0],
                "act_min": act_min,
                "act_max": act_max,
            },
            sources=("ep_mve_pool.c",),
            cycles=call.y.pixels * (40 + blocks * (20 + kernel[0] * (4 + 7 * kernel[1])) + dividing),
        )


class MveMean(Kernel):
    """mean over rows and columns, row by row."""

    def lower(self, call: Call) -> Lowered | None:
        if not call.target.mve or not is_row_reduction(call.graph, call.op):
            return None
        count = call.x.pixels
        zero_point = get_zero_point(call.inputs[0])
        multiplier, shift = quantize_multiplier(get_scale(call.inputs[0]) / get_scale(call.output))
        bits = min(count.bit_length() - 1, 32, 31 + shift)  # as the reference divides
        if count * 255 >= 2**31 or shift - bits > LARGEST_LEFT_SHIFT:
            return None
        fields: dict[str, int | str] = {
            "bias": -zero_point * count,
            "multiplier": (multiplier << bits) // count,
            "left_shift": max(shift - bits, 0),
            "right_shift": min(shift - bits, 0),
            "rounds_ties": int(shift - bits < 0),
            "zero": get_zero_point(call.output),
            "act_min": -128,
            "act_max": 127,
        }
        return _lower_reduction(call, "ep_mve_mean", fields)


def _lower_reduction(call: Call, function: str, fields: dict[str, int | str]) -> Lowered:
    blocks = -(-call.x.channels // 8)
    calls = -(-call.x.rows // call.rows)
    return Lowered(
        kernel="Helium mean",
        function=function,
        fields={
            "x_rows": call.x.rows,
            "columns": call.x.columns,
            "channels": call.x.channels,
            "x_stride": call.x_strides[0],
            **fields,
        },
        sources=("ep_mve_mean.c",),
        state_bytes=32 * blocks,
        cycles=calls * (60 + 22 * blocks) + call.x.pixels * 5 * blocks + 8 * call.x.channels,
    )


class MveLookup(Kernel):
    """Any function of one stored value: a table of 256 results, or a clamp where the table is one."""

    def lower(self, call: Call) -> Lowered | None:
        if not call.target.mve or (call.inputs[0].dtype, call.output.dtype) != ("int8", "int8"):
            return None
        x = split_pixels(call.inputs[0])
        # a tensor of another rank than 3 or 4 is one run of bytes
        strides = (call.x_strides[0], call.y_stride) if len(call.output.shape) in (3, 4) else (x.channels, x.channels)
        fields: dict[str, int | str] = {
            "columns": x.columns,
            "channels": x.channels,
            "x_stride": strides[0],
            "y_stride": strides[1],
        }
        constants: tuple[Constant, ...] = ()
        if call.op.kind in CLAMPS and is_same_quant(call.inputs[0], call.output):
            least, most = describe_operands(call).stored_range(call.op.kind)
            fields |= {"table": 0, "act_min": least, "act_max": most}
        else:
            constants = (Constant(f"{call.name}_table", "int8_t", np.roll(tabulate(call), -128)),)
            fields["table"] = constants[0].name
        is_flat = strides == (x.channels, x.channels)
        runs = -(-x.rows // call.rows) if is_flat else x.pixels
        return Lowered(
            kernel="Helium table" if constants else "Helium clamp",
            function="ep_mve_lookup",
            fields=fields,
            constants=constants,
            sources=("ep_mve_lookup.c",),
            in_place=(0,),
            cycles=runs * 20 + -(-x.pixels * x.channels // 16) * 5,
        )
