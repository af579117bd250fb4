"""Convolution and fully connected layers on Helium (Cortex-M55): runtime/ep_mve_conv.c, ep_mve_fc.c."""

from __future__ import annotations

import numpy as np

from edgeprune.codegen.kernel import Area, Call, Constant, Kernel, Lowered
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


def lower_scales(name: str, scales: LayerScales) -> tuple[dict[str, int | str], tuple[Constant, ...]]:
    """The fields of an ep_mve_scales named `scales`, and their constants."""
    fields: dict[str, int | str] = {
        "scales.multiplier": f"{name}_multiplier",
        "scales.shift": f"{name}_shift",
        "scales.zero": scales.zero_point,
        "scales.act_min": scales.act_min,
        "scales.act_max": scales.act_max,
        "scales.form": find_form(scales),
    }
    constants = (
        Constant(f"{name}_multiplier", "int32_t", scales.multiplier.astype(np.int32)),
        Constant(f"{name}_shift", "int8_t", scales.shift.astype(np.int8)),
    )
    return fields, constants


def lower_dot(name: str, weight: np.ndarray, scales: LayerScales) -> tuple[dict[str, int | str], tuple[Constant, ...]]:
    """Fields `weight`, `bias` and `scales` of a layer made of dot products, and their constants.

    weight: int8, output channels first, as it is to lie in memory.
    """
    fields, constants = lower_scales(name, scales)
    bias = np.concatenate([scales.bias, np.zeros(_BIASES_BEYOND, np.int64)]).astype(np.int32)
    return (
        {"weight": f"{name}_weight", "bias": f"{name}_bias", **fields},
        (Constant(f"{name}_weight", "int8_t", weight), Constant(f"{name}_bias", "int32_t", bias), *constants),
    )


def count_dot_instructions(pixels: int, length: int, channels: int) -> int:
    """Instructions of ep_mve_dot_pixels for a row of pixels; measured: within 10 %."""
    chunks = -(-length // 16)
    single = 90 + -(-channels // 4) * (13 + 10 * chunks + 14)
    triple = 130 + -(-channels // 2) * (19 + 12 * chunks) + channels * 6
    return pixels // 3 * triple + (single if pixels % 3 == 1 else 0) + (triple if pixels % 3 == 2 else 0)


class MveConv2D(Kernel):
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
        length = kernel_rows * kernel_columns * channels_in
        in_place = _lies_in_place(call, weight.shape, groups)
        gathers = not in_place or any(map(any, pads))
        layer_fields, constants = lower_dot(call.name, weight, scale_layer(call))
        fields: dict[str, int | str] = {
            **layer_fields,
            **list_map_fields(call.x, call.x_strides[0], call.y, call.y_stride),
            "channels_in": channels_in,
            "channels_out": channels_out // groups,
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
            "in_place": int(in_place),
        }
        pixels = call.y.pixels
        gathering = 0 if in_place else pixels * groups * (20 + kernel_rows * (25 + length // kernel_rows // 5))
        return Lowered(
            kernel="Helium convolution, 3 pixels x 2 channels",
            function="ep_mve_conv",
            fields=fields,
            constants=constants,
            sources=("ep_mve_conv.c", *DOT_SOURCES),
            scratch_bytes=TILE_BYTES + (-(-3 * length // 8) * 8 if gathers else 0),
            cycles=pixels * 40
            + gathering
            + groups * count_dot_instructions(pixels, length, channels_out // groups),
        )


class MveFullyConnected(Kernel):
    """fully_connected, any size."""

    def lower(self, call: Call) -> Lowered | None:
        if not call.target.mve:
            return None
        weight = call.inputs[1].data
        assert weight is not None
        outputs, inputs = weight.shape
        fields, constants = lower_dot(call.name, weight, scale_layer(call))
        return Lowered(
            kernel="Helium fully connected, 4 outputs",
            function="ep_mve_fc",
            fields={**fields, "inputs": inputs, "outputs": outputs},
            constants=constants,
            sources=("ep_mve_fc.c", *DOT_SOURCES),
            scratch_bytes=TILE_BYTES,
            cycles=50 + count_dot_instructions(1, inputs, outputs),
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


def _lies_in_place(call: Call, weight_shape: tuple[int, ...], groups: int) -> bool:
    """Whether the input bytes of a patch inside the map lie side by side, in the order of the weights."""
    _, kernel_rows, kernel_columns, channels_in = weight_shape
    if (kernel_rows, kernel_columns) == (1, 1):
        return True
    if groups != 1 or call.x_strides[0] != channels_in:
        return False
    dilation = call.op.attrs["dilation"]
    one_row = kernel_rows == 1 and dilation[1] == 1
    whole_rows = kernel_columns == call.x.columns and dilation[0] == 1 and (dilation[1] == 1 or kernel_columns == 1)
    return one_row or whole_rows
