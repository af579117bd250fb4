"""Portable C for layers with weights: conv_2d, depthwise_conv_2d, fully_connected."""

from __future__ import annotations

import numpy as np

from edgeprune.codegen.kernel import Call, Constant, Kernel, Lowered
from edgeprune.codegen.kernels.portable import (
    SETUP_CYCLES,
    fit_int16,
    is_padded,
    slide_fields,
    split_pixels,
)
from edgeprune.codegen.requantize import LayerScales, encode_scales, get_zero_point, scale_layer

_DENSE = ("ep_dense.c", "ep_output.c", "ep_fixed_point.c")


class PortableFullyConnected(Kernel):
    """One window over the whole input."""

    def lower(self, call: Call) -> Lowered | None:
        scales = scale_layer(call)
        weight = call.inputs[1].data
        assert weight is not None
        dense = _lower_dense(call, scales, weight, groups=1)
        if dense is None:
            return None
        fields, constants = dense
        x = split_pixels(call.inputs[0])
        fields |= {"pixels": x.pixels, "channels": x.channels, "x_stride": call.x_strides[0]}
        if x.channels == call.x_strides[0]:  # one run
            fields |= {"pixels": 1, "channels": x.pixels * x.channels}
        return Lowered(
            kernel="portable",
            function="ep_fully_connected",
            fields=fields,
            cycles=SETUP_CYCLES + _count_dense_cycles(*weight.shape),
            constants=constants,
            sources=("ep_fully_connected.c", *_DENSE),
        )


class PortableConv2d(Kernel):
    """Windows read in place inside the map, gathered at its edges; groups, strides, dilations."""

    def lower(self, call: Call) -> Lowered | None:
        weight = call.inputs[1].data
        assert weight is not None
        return _lower_conv(call, weight)


class PortableDepthwiseConv2d(Kernel):
    """Four output channels at a time: of four input channels, or of one that has four filters or more."""

    def lower(self, call: Call) -> Lowered | None:
        weight = call.inputs[1].data
        assert weight is not None
        if call.x.channels == 1:  # a plain convolution
            return _lower_conv(call, np.ascontiguousarray(weight.transpose(3, 1, 2, 0)))
        scales = scale_layer(call)
        pairs = encode_scales(scales)
        if pairs is None:
            return None
        kernel_size = weight.shape[1], weight.shape[2]
        slide = slide_fields(call, kernel_size)
        dilation = call.op.attrs["dilation"]
        filters = call.op.attrs["depth_multiplier"]
        # in the order of the C structure
        fields: dict[str, int | str] = {
            "weight": f"{call.name}_weight",
            "bias": f"{call.name}_bias",
            **_output_fields(call, scales, pairs),
            "compute": "ep_depthwise_filters" if filters > 1 else "ep_depthwise_channels",
            "x_rows": slide.pop("x_rows"),
            "channels": call.y.channels,
            "filters": filters,
            **slide,
            "dilation_rows": dilation[0],
            "dilation_columns": dilation[1],
            "x_zero_point": get_zero_point(call.inputs[0]),
        }
        if not fit_int16(fields, ("x_rows",)):
            return None
        taps = kernel_size[0] * kernel_size[1]
        rows = kernel_size[0] if kernel_size[1] > 1 else 1  # loops over the taps of a row
        runs, run = (call.x.channels, filters) if filters > 1 else (1, call.y.channels)
        if run >= 4:
            per_tap = 20 if filters > 1 else 27
            work = -(-run // 4) * (330 + per_tap * taps + 15 * rows)
        else:
            work = run * (180 + 13 * taps + 15 * rows)
        return Lowered(
            kernel="portable",
            function="ep_depthwise_conv_2d",
            fields=fields,
            cycles=_count_call_cycles(call) + call.y.pixels * (200 + runs * work),
            constants=(
                Constant(f"{call.name}_weight", "int8_t", weight.reshape(-1)),
                Constant(f"{call.name}_bias", "int32_t", scales.bias.astype(np.int32)),
                Constant(f"{call.name}_scale", "int32_t", pairs),
            ),
            sources=("ep_depthwise_conv_2d.c", "ep_window.c", "ep_output.c", "ep_fixed_point.c"),
        )


def _lower_conv(call: Call, weight_ohwi: np.ndarray) -> Lowered | None:
    """weight_ohwi: (output channels, kernel rows, kernel columns, input channels of a group)."""
    channels_out, *kernel, group_in = weight_ohwi.shape
    kernel_size = kernel[0], kernel[1]
    groups = call.x.channels // group_in
    scales = scale_layer(call)
    dense = _lower_dense(call, scales, weight_ohwi.reshape(channels_out, -1), groups)
    if dense is None:
        return None
    fields, constants = dense
    dilation = call.op.attrs["dilation"]
    touching = kernel_size[1] == 1 or (dilation[1] == 1 and call.x_strides[0] == group_in)
    is_direct = groups == 1 and touching
    taps = kernel_size[0] * kernel_size[1] * group_in
    slide = slide_fields(call, kernel_size)
    fields |= {
        "group_weight": taps * (channels_out // groups),
        **slide,
        "groups": groups,
        "channels": group_in,
        "dilation_rows": dilation[0],
        "dilation_columns": dilation[1],
        "x_zero_point": get_zero_point(call.inputs[0]),
        "is_direct": int(is_direct),
    }
    if not fit_int16(fields, ("x_rows", "group_weight", "dense.channels")):
        return None
    gather = 0 if is_direct else groups * (20 + kernel_size[0] * kernel_size[1] * (24 + 2 * group_in))
    segments = kernel_size[0] if is_direct and taps != kernel_size[0] * call.x.columns * call.x_strides[0] else 1
    work = groups * _count_dense_cycles(channels_out // groups, taps, segments)
    return Lowered(
        kernel="portable",
        function="ep_conv_2d",
        fields=fields,
        cycles=_count_call_cycles(call) + call.y.pixels * (30 + gather + work),
        constants=constants,
        sources=("ep_conv_2d.c", "ep_window.c", "ep_bytes.c", *_DENSE),
        scratch_bytes=0 if is_direct and not is_padded(call, kernel_size) else taps,
    )


def _lower_dense(
    call: Call, scales: LayerScales, weight: np.ndarray, groups: int
) -> tuple[dict[str, int | str], tuple[Constant, ...]] | None:
    """The fields and constants of C's ep_dense; None where they don't fit. weight: (output channels, taps)."""
    pairs = encode_scales(scales)
    if pairs is None:
        return None
    fields: dict[str, int | str] = {
        "dense.weight": f"{call.name}_weight",
        "dense.bias": f"{call.name}_bias",
        **{f"dense.{name}": value for name, value in _output_fields(call, scales, pairs).items()},
        "dense.channels": len(weight) // groups,
    }
    interleaved = np.concatenate([interleave_channels(part) for part in np.split(weight, groups)])
    constants = (
        Constant(f"{call.name}_weight", "int8_t", interleaved),
        Constant(f"{call.name}_bias", "int32_t", scales.bias.astype(np.int32)),
        Constant(f"{call.name}_scale", "int32_t", pairs),
    )
    return fields, constants


def _output_fields(call: Call, scales: LayerScales, pairs: np.ndarray) -> dict[str, int | str]:
    """The fields of C's ep_output."""
    return {
        "output.scale": f"{call.name}_scale",
        "output.scale_step": 2 if len(pairs) > 2 else 0,
        "output.zero_point": scales.zero_point,
        "output.act_min": scales.act_min,
        "output.act_max": scales.act_max,
    }


def interleave_channels(weight: np.ndarray) -> np.ndarray:
    """(channels, taps) as ep_dense reads them: fours of channels as [tap][4], the rest as [tap]; flat.

    >>> interleave_channels(np.arange(10).reshape(5, 2))
    array([0, 2, 4, 6, 1, 3, 5, 7, 8, 9])
    """
    channels, taps = weight.shape
    whole = channels - channels % 4
    blocks = weight[:whole].reshape(-1, 4, taps).transpose(0, 2, 1)
    return np.concatenate([blocks.reshape(-1), weight[whole:].reshape(-1)])


def _count_call_cycles(call: Call) -> int:
    """Modelled cycles of an inference's calls, whatever they compute."""
    return -(-call.y.rows // call.rows) * (SETUP_CYCLES + 60)


def _count_dense_cycles(channels: int, taps: int, segments: int = 1) -> int:
    """Modelled cycles of ep_compute_dense for a window of `taps` values in `segments` runs."""
    fours, rest = divmod(channels, 4)
    more = 27 * (segments - 1)
    return round(60 + fours * (285 + 12.3 * taps + more) + rest * (110 + 8.5 * taps + more))
