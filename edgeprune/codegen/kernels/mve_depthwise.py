"""Depthwise convolution on Helium (Cortex-M55): runtime/ep_mve_depthwise.c and a generated inner loop."""

from __future__ import annotations

from math import gcd

import numpy as np

from edgeprune.codegen.kernel import Call, Constant, Kernel, Lowered
from edgeprune.codegen.kernels.mve_layers import find_form, find_padding, lower_scales
from edgeprune.codegen.kernels.mve_line_code import count_chunks, generate_line
from edgeprune.codegen.requantize import get_zero_point, scale_layer

LINE_BYTES = 2048  # of scratch, where that is enough for four outputs
_FARTHEST = 65_535 // 7  # bytes between two values that an 8-lane gather reaches, 16-bit offsets


class MveDepthwiseConv2d(Kernel):
    """depthwise_conv_2d, a channel at a time along rows or along columns."""

    def lower(self, call: Call) -> Lowered | None:
        if not call.target.mve:
            return None
        weight = call.inputs[1].data
        assert weight is not None
        _, kernel_rows, kernel_columns, channels_out = weight.shape
        pads = find_padding(call, (kernel_rows, kernel_columns))
        row_bytes = call.x.columns * call.x_strides[0]
        axes = [
            {
                "size": size,
                "x_step": x_step,
                "y_step": y_step,
                "kernel": kernel,
                "stride": call.op.attrs["stride"][number],
                "dilation": call.op.attrs["dilation"][number],
                "pad": pads[number][0],
            }
            for number, (size, x_step, y_step, kernel) in enumerate(
                (
                    (call.x.rows, row_bytes, call.y.columns * call.y_stride, kernel_rows),
                    (call.x.columns, call.x_strides[0], call.y_stride, kernel_columns),
                )
            )
        ]
        slides_rows = call.y.columns == 1 or min(call.rows, call.y.rows) > 2 * call.y.columns
        slide, cross = axes if slides_rows else reversed(axes)
        if slide["dilation"] * slide["x_step"] > _FARTHEST:
            return None
        length = kernel_rows * kernel_columns
        common = gcd(slide["stride"], slide["dilation"])
        phases, step = slide["dilation"] // common, slide["stride"] // common
        step_bytes = step * cross["kernel"]
        outputs = min(call.rows, call.y.rows) if slides_rows else call.y.columns
        beyond = 16 * count_chunks(length) + 3 * step_bytes  # what the last group of four reads after the last output
        tile = min(-(-outputs // phases), max(4, (LINE_BYTES - beyond) // step_bytes))
        scales = scale_layer(call)
        form = find_form(scales)
        assembly = generate_line(length, step_bytes, form)
        scale_fields, scale_constants = lower_scales(call.name, scales)
        taps = weight.reshape(kernel_rows, kernel_columns, channels_out)
        ordered = np.ascontiguousarray(taps.transpose(2, 0, 1) if slides_rows else taps.transpose(2, 1, 0))
        fields: dict[str, int | str] = {
            "weight": f"{call.name}_weight",
            "bias": f"{call.name}_bias",
            **scale_fields,
            "run": assembly.name,
            **{f"slide.{key}": value for key, value in slide.items()},
            **{f"cross.{key}": value for key, value in cross.items()},
            "slides_rows": int(slides_rows),
            "y_columns": call.y.columns,
            "channels": call.x.channels,
            "depth_multiplier": call.op.attrs["depth_multiplier"],
            "x_zero": get_zero_point(call.inputs[0]),
            "phases": phases,
            "step": step,
            "tile": tile,
        }
        runs = -(-outputs // (phases * tile)) * phases * (call.y.pixels // outputs) * call.x.channels
        gathered = (tile - 1) * step + slide["kernel"]
        gathering = cross["kernel"] * (50 + gathered // 8 * (4 if cross["kernel"] == 1 else 5))
        per_line = (-(-tile // 4)) * (8 * count_chunks(length) + 12 + (0, 2, 5)[form]) + 70
        return Lowered(
            kernel="Helium depthwise, lines",
            function="ep_mve_depthwise",
            fields=fields,
            constants=(
                Constant(f"{call.name}_weight", "int8_t", ordered),
                Constant(f"{call.name}_bias", "int32_t", scales.bias.astype(np.int32)),
                *scale_constants,
            ),
            assembly=(assembly,),
            sources=("ep_mve_depthwise.c",),
            scratch_bytes=-(-(((tile - 1) * step_bytes) + beyond + length) // 8) * 8,
            cycles=runs * (gathering + call.op.attrs["depth_multiplier"] * per_line + 30),
        )
