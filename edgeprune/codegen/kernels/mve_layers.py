"""Convolution and fully connected layers on Helium (Cortex-M55): runtime/ep_mve_conv.c, ep_mve_fc.c."""

from __future__ import annotations

import numpy as np

from edgeprune.codegen.kernel import Area, Call, Constant, Kernel, Lowered
from edgeprune.codegen.kernels.mve_slide_code import can_slide, generate_slide
from edgeprune.codegen.requantize import LayerScales, get_zero_point, scale_layer
from edgeprune.ops import same_padding

TILE_BYTES = 3 * 64 * 4  # EP_MVE_TILE_BYTES
CLAMPED, RIGHT, ANY = 0, 1, 2  # EP_MVE_CLAMPED, ...
_BIASES_BEYOND = 3  # values that the dot products read after the last channel's bias

DOT_SOURCES = ("ep_mve_dot.c",)


def find_form(scales: LayerScales) -> int:
    """Which of the three ways to requantize is exact for all channels."""
    if (scales.shift >= 0).any():
        return ANY
    return CLAMPED if scales.clamps_negatives else RIGHT


def lower_scales(
    name: str, scales: LayerScales, prefix: str = "", shares: bool = False
) -> tuple[dict[str, int | str], tuple[Constant, ...]]:
    """The fields of an ep_mve_scales named `<prefix>scales`, and their constants.

    shares: where all channels are scaled alike, four values stand for all.
    """
    is_uniform = shares and scales.is_uniform
    multiplier, shift = scales.multiplier, scales.shift
    if is_uniform:
        multiplier, shift = (np.repeat(values[:1], 4) for values in (multiplier, shift))
    fields: dict[str, int | str] = {
        f"{prefix}scales.multiplier": f"{name}_multiplier",
        f"{prefix}scales.shift": f"{name}_shift",
        f"{prefix}scales.zero": scales.zero_point,
        f"{prefix}scales.act_min": scales.act_min,
        f"{prefix}scales.act_max": scales.act_max,
        f"{prefix}scales.form": find_form(scales),
        f"{prefix}scales.is_uniform": int(is_uniform),
    }
    constants = (
        Constant(f"{name}_multiplier", "int32_t", multiplier.astype(np.int32)),
        Constant(f"{name}_shift", "int8_t", shift.astype(np.int8)),
    )
    return fields, constants


def lower_dot(
    name: str, weight: np.ndarray, scales: LayerScales, groups: int = 1, shares: bool = False
) -> tuple[dict[str, int | str], tuple[Constant, ...]]:
    """The fields of an ep_mve_layer named `layer`, and their constants.

    weight: int8 (output channels of all groups, length), as it is to lie in memory. shares: of lower_scales.
    """
    fields, constants = lower_scales(name, scales, "layer.", shares)
    bias = np.concatenate([scales.bias, np.zeros(_BIASES_BEYOND, np.int64)]).astype(np.int32)
    channels, length = weight.shape
    return (
        {
            "layer.weight": f"{name}_weight",
            "layer.bias": f"{name}_bias",
            **fields,
            "layer.length": length,
            "layer.channels": channels // groups,
        },
        (Constant(f"{name}_weight", "int8_t", weight), Constant(f"{name}_bias", "int32_t", bias), *constants),
    )


def count_dot_instructions(runs: int, pixels: int, length: int, channels: int, slide_step: int = 0) -> int:
    """Instructions of `runs` calls of ep_mve_dot_run for `pixels` pixels each; measured: within 10 %.

    slide_step: the step of overlapping patches; 0 where they are taken one by one.
    """
    chunks = -(-length // 16)
    tiles = -(-channels // 64)
    odd = channels % 2
    sums = (9 * (length // slide_step) + 4) * slide_step // 16 if slide_step else 12 * chunks
    triple = tiles * 110 + (channels // 2 + odd) * (18 + sums) + channels * 6 + odd * 60
    single = tiles * 90 + -(-channels // 4) * (13 + 10 * chunks + 12) + (60 if channels % 4 else 0)
    whole, rest = divmod(pixels, 3)
    return runs * (tiles * 60 + whole * triple + (0, single, triple)[rest])


class MveConv2d(Kernel):
    """conv_2d, all of it: any kernel, stride, dilation, groups."""

    def lower(self, call: Call) -> Lowered | None:
        if not call.target.mve:
            return None
        weight = call.inputs[1].data
        assert weight is not None
        channels_out, kernel_rows, kernel_columns, channels_in = weight.shape
        groups = call.x.channels // channels_in
        stride, dilation = call.op.attrs["stride"], call.op.attrs["dilation"]
        pads = find_padding(call, (kernel_rows, kernel_columns))
        function = _choose_function(call, weight.shape, groups, pads)
        length = kernel_rows * kernel_columns * channels_in
        in_columns = weight.transpose(0, 2, 1, 3)  # kernel columns outermost, as lines have them
        ordered = np.ascontiguousarray(weight if function == SERIES else in_columns).reshape(channels_out, length)
        layer_fields, constants = lower_dot(call.name, ordered, scale_layer(call), groups)
        column_bytes = kernel_rows * channels_in
        line_columns = min(call.y.columns, max(1, (LINE_BYTES // column_bytes - kernel_columns) // stride[1] + 1))
        patch_bytes = {
            POINTS: 0,
            SERIES: 3 * length if any(pads[0]) else 0,
            LINES: ((line_columns - 1) * stride[1] + kernel_columns) * column_bytes,
            PATCHES: 3 * length,
        }[function]
        slide_step = {SERIES: call.x.columns * channels_in * stride[0], LINES: column_bytes * stride[1]}.get(
            function, 0
        )
        slides = can_slide(length, slide_step)
        assembly = [generate_slide(length, slide_step)] if slides else []
        fields: dict[str, int | str] = {
            **layer_fields,
            **({"layer.slide": assembly[0].name, "layer.slide_step": slide_step} if slides else {}),
            **list_map_fields(call.x, call.x_strides[0], call.y, call.y_stride),
            "channels_in": channels_in,
            "groups": groups,
            "kernel_rows": kernel_rows,
            "kernel_columns": kernel_columns,
            "stride_rows": stride[0],
            "stride_columns": stride[1],
            "dilation_rows": dilation[0],
            "dilation_columns": dilation[1],
            "pad_top": pads[0][0],
            "pad_left": pads[1][0],
            "x_zero": get_zero_point(call.inputs[0]),
            "line_columns": line_columns,
        }
        return Lowered(
            kernel=f"Helium convolution ({function.rpartition('_')[2]})",
            function=function,
            fields=fields,
            constants=constants,
            assembly=tuple(assembly),
            sources=("ep_mve_conv.c", *DOT_SOURCES),
            scratch_bytes=TILE_BYTES + -(-patch_bytes // 8) * 8,
            cycles=_count_conv(call, function, groups, line_columns, slide_step if slides else 0),
        )


POINTS, SERIES, LINES, PATCHES = (f"ep_mve_conv_{way}" for way in ("points", "series", "lines", "patches"))
LINE_BYTES = 2048  # scratch for a line, where one column fits


def _choose_function(
    call: Call, weight_shape: tuple[int, ...], groups: int, pads: tuple[tuple[int, int], tuple[int, int]]
) -> str:
    """Which of the functions of ep_mve_conv.c copies least."""
    _, kernel_rows, kernel_columns, channels_in = weight_shape
    dilation = call.op.attrs["dilation"]
    if (kernel_rows, kernel_columns) == (1, 1):
        return POINTS
    if kernel_columns == call.x.columns and call.y.columns == 1 and not any(pads[1]):  # a series: rows alone slide
        lies_so = groups == 1 and call.x_strides[0] == channels_in and dilation[0] == 1
        return SERIES if lies_so and (dilation[1] == 1 or kernel_columns == 1) else PATCHES
    return LINES if dilation[1] == 1 else PATCHES


def _count_conv(call: Call, function: str, groups: int, line_columns: int, slide_step: int) -> int:
    """Instructions of one inference."""
    channels_out, kernel_rows, kernel_columns, channels_in = call.inputs[1].shape
    length, channels = kernel_rows * kernel_columns * channels_in, channels_out // groups
    rows, columns = call.y.rows, call.y.columns
    copy = 8 + 3 * -(-channels_in // 16)  # instructions to copy the channels of a pixel
    if function == LINES:
        tiles = -(-columns // line_columns)
        gathered = (columns + tiles * (kernel_columns - 1)) * min(copy, 6 if channels_in <= 16 else copy)
        lines = rows * groups * (kernel_rows * (gathered + 60) + 60)
        return lines + count_dot_instructions(rows * groups * tiles, -(-columns // tiles), length, channels, slide_step)
    if function == PATCHES:
        gathering = rows * columns * groups * (30 + kernel_rows * kernel_columns * (12 + copy))
        return gathering + count_dot_instructions(-(-rows * columns // 3) * groups, 3, length, channels)
    calls = -(-rows // call.rows)
    return groups * count_dot_instructions(calls, -(-rows * columns // calls), length, channels, slide_step)


class MveFullyConnected(Kernel):
    """fully_connected, any size."""

    def lower(self, call: Call) -> Lowered | None:
        if not call.target.mve:
            return None
        weight = call.inputs[1].data
        assert weight is not None
        fields, constants = lower_dot(call.name, weight, scale_layer(call), shares=True)
        return Lowered(
            kernel="Helium fully connected",
            function="ep_mve_fc",
            fields=fields,
            constants=constants,
            sources=("ep_mve_fc.c", *DOT_SOURCES),
            scratch_bytes=TILE_BYTES,
            cycles=50 + count_dot_instructions(1, 1, weight.shape[1], weight.shape[0]),
        )


def list_map_fields(x: Area, x_stride: int, y: Area, y_stride: int) -> dict[str, int | str]:
    """Sizes of the input and the output map, as all sliding kernels name them."""
    return {
        "x_rows": x.rows,
        "x_columns": x.columns,
        "x_stride": x_stride,
        "y_columns": y.columns,
        "y_stride": y_stride,
    }


def find_padding(call: Call, kernel_size: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Padding (before, after) of rows and of columns."""
    if call.op.attrs["padding"] == "valid":
        return (0, 0), (0, 0)
    stride, dilation = call.op.attrs["stride"], call.op.attrs.get("dilation", (1, 1))
    rows = same_padding(call.x.rows, kernel_size[0], stride[0], dilation[0])
    return rows, same_padding(call.x.columns, kernel_size[1], stride[1], dilation[1])
