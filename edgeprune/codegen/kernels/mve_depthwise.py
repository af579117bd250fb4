"""Depthwise convolution on Helium (Cortex-M55), in two ways, each with a generated inner loop.

Lines (runtime/ep_mve_depthwise.c): a channel at a time, 16 taps at once; best for long kernels over many rows, and for
few channels. Taps (runtime/ep_mve_taps.c): 16 channels at once, tap by tap; best for small maps and few rows a call.
"""

from __future__ import annotations

from math import gcd

import numpy as np

from edgeprune.codegen.kernel import Call, Constant, Kernel, Lowered
from edgeprune.codegen.kernels.mve_layers import find_form, find_padding, list_map_fields, lower_scales
from edgeprune.codegen.kernels.mve_line_code import ANY, count_chunks, generate_line
from edgeprune.codegen.kernels.mve_taps_code import generate_taps
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
        gathering = cross["kernel"] * (35 + -(-gathered // 8) * (4 if cross["kernel"] == 1 else 5))
        per_line = (-(-tile // 4)) * (8 * count_chunks(length) + 13 + (0, 2, 5)[form]) + 65
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
            cycles=runs * (gathering + call.op.attrs["depth_multiplier"] * per_line + 45),
        )


BLOCK = 16  # channels
_LARGEST_PAIR = 255  # |weights| of two taps whose products with int8 fit an int16 together


class MveDepthwiseTaps(Kernel):
    """depthwise_conv_2d with a multiplier of 1 and at least 16 channels, 16 channels at a time."""

    def lower(self, call: Call) -> Lowered | None:
        if not call.target.mve or call.op.attrs["depth_multiplier"] != 1 or call.x.channels < BLOCK:
            return None
        weight = call.inputs[1].data
        assert weight is not None
        scales = scale_layer(call)
        form = find_form(scales)
        _, kernel_rows, kernel_columns, channels = weight.shape
        count = kernel_rows * kernel_columns
        pairs = -(-count // 2)
        taps = np.zeros((2 * pairs, channels), np.int8)
        taps[:count] = weight.reshape(count, channels)
        if form == ANY or np.abs(taps.astype(np.int64)).reshape(pairs, 2, channels).sum(axis=1).max() > _LARGEST_PAIR:
            return None
        blocks = -(-channels // BLOCK)
        firsts = [*range(0, channels - BLOCK, BLOCK), channels - BLOCK]  # of the blocks
        in_blocks = np.concatenate([np.arange(first, first + BLOCK) for first in firsts])
        stride, dilation = call.op.attrs["stride"], call.op.attrs["dilation"]
        pads = find_padding(call, (kernel_rows, kernel_columns))
        row_bytes = call.x.columns * call.x_strides[0]
        offsets = np.zeros(2 * pairs, np.int32)  # the tap without weight lies where the first does
        offsets[:count] = np.add.outer(
            np.arange(kernel_rows) * dilation[0] * row_bytes,
            np.arange(kernel_columns) * dilation[1] * call.x_strides[0],
        ).reshape(-1)
        assembly = generate_taps(form)
        names = {part: f"{call.name}_{part}" for part in ("weight", "bias", "multiplier", "shift", "offsets")}
        fields: dict[str, int | str] = {
            **{f"run.{part}": names[part] for part in ("weight", "bias", "multiplier", "shift")},
            "run.blocks": blocks,
            "run.last_step": firsts[-1] - firsts[-2] if blocks > 1 else 0,
            "run.pairs": pairs,
            "run.zero": scales.zero_point,
            "run.act_min": scales.act_min,
            "run.act_max": scales.act_max,
            "function": assembly.name,
            "offsets": names["offsets"],
            **list_map_fields(call.x, call.x_strides[0], call.y, call.y_stride),
            "kernel_rows": kernel_rows,
            "kernel_columns": kernel_columns,
            "stride_rows": stride[0],
            "stride_columns": stride[1],
            "dilation_rows": dilation[0],
            "dilation_columns": dilation[1],
            "pad_top": pads[0][0],
            "pad_left": pads[1][0],
            "x_zero": get_zero_point(call.inputs[0]),
            "channels": channels,
        }
        in_order = taps[:, in_blocks].reshape(2 * pairs, blocks, BLOCK).transpose(1, 0, 2)
        inside = [_count_inside(call, axis, (kernel_rows, kernel_columns)) for axis in (0, 1)]
        at_border = call.y.pixels - inside[0] * inside[1]
        calls = -(-call.y.rows // call.rows)
        return Lowered(
            kernel="Helium depthwise, taps",
            function="ep_mve_taps",
            fields=fields,
            constants=(
                Constant(names["weight"], "int8_t", np.ascontiguousarray(in_order)),
                Constant(names["bias"], "int32_t", scales.bias[in_blocks].astype(np.int32)),
                Constant(names["multiplier"], "int32_t", scales.multiplier[in_blocks].astype(np.int32)),
                Constant(names["shift"], "int8_t", scales.shift[in_blocks].astype(np.int8)),
                Constant(names["offsets"], "int32_t", offsets),
            ),
            assembly=(assembly,),
            sources=("ep_mve_taps.c",),
            scratch_bytes=-(-(8 * pairs + channels) // 8) * 8,
            cycles=calls * 150
            + call.y.pixels * (blocks * (23 * pairs + 44 + 8 * form) + 20)
            + (at_border + call.y.rows) * 70
            + at_border * count * 11,
        )


def _count_inside(call: Call, axis: int, kernel_size: tuple[int, int]) -> int:
    """Output positions along an axis whose windows lie inside the map."""
    size, outputs = ((call.x.rows, call.y.rows), (call.x.columns, call.y.columns))[axis]
    stride, dilation = call.op.attrs["stride"][axis], call.op.attrs["dilation"][axis]
    before = find_padding(call, kernel_size)[axis][0]
    positions = np.arange(outputs) * stride - before
    return int(((positions >= 0) & (positions + (kernel_size[axis] - 1) * dilation < size)).sum())
