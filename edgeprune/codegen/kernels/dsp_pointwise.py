"""Convolution by dot products on cores with the DSP extension: kernels of 1, and any other by gathered patches."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np

from edgeprune.codegen.kernel import Call, Constant, Kernel, Lowered
from edgeprune.codegen.kernels.dsp_dot import Rescaling, fold_rescaling, order_inputs, pack_stream
from edgeprune.codegen.kernels.dsp_dot_code import build_pixels_code, build_widening_code
from edgeprune.codegen.kernels.portable import slide_fields
from edgeprune.codegen.requantize import get_zero_point, scale_layer

_TILE_BYTES = 1536  # of widened pixels: bounds the scratch where channels are few; at least one pair is held
_MOST_PAIRS = 8


class DspPointwise(Kernel):
    """conv_2d, kernel 1x1, stride 1, any number of channels, groups too."""

    def lower(self, call: Call) -> Lowered | None:
        if not _fits(call) or call.op.attrs["stride"] != (1, 1):
            return None
        weight = call.inputs[1].data
        assert weight is not None
        if weight.shape[1:3] != (1, 1):
            return None
        rescaling = fold_rescaling(scale_layer(call))
        if rescaling is None:
            return None
        channels_out, channels_in = weight.shape[0], weight.shape[3]
        groups = call.x.channels // channels_in
        order = order_inputs(channels_in)
        dot = lower_dot(call, weight.reshape(groups, channels_out // groups, channels_in), rescaling, order)
        if dot is None:
            return None
        tile = choose_tile(len(order), -(-call.rows * call.y.columns // 2))
        pairs = count_pairs(call)
        return replace(
            dot,
            kernel="pointwise convolution, 2 pixels x 4 channels",
            function="ep_dsp_pointwise",
            fields={
                **dot.fields,
                "dot.tile": tile,
                "columns": call.y.columns,
                "channels": channels_in,
                "groups": groups,
                "x_stride": call.x_strides[0],
                "y_stride": call.y_stride,
            },
            sources=("ep_dsp_pointwise.c", *dot.sources),
            scratch_bytes=count_tile_bytes(tile, len(order), channels_out // groups),
            cycles=groups
            * (
                count_dot_cycles(pairs, len(order), channels_out // groups, tile) + pairs * (30 + 13 * channels_in // 4)
            ),
        )


class DspPatches(Kernel):
    """conv_2d, all of it: patches are gathered two at a time."""

    def lower(self, call: Call) -> Lowered | None:
        if not _fits(call):
            return None
        weight = call.inputs[1].data
        assert weight is not None
        rescaling = fold_rescaling(scale_layer(call))
        if rescaling is None:
            return None
        channels_out, kernel_rows, kernel_columns, channels_in = weight.shape
        groups = call.x.channels // channels_in
        touching = groups == 1 and call.op.attrs["dilation"][1] == 1 and call.x_strides[0] == channels_in
        run_columns = kernel_columns if touching else 1
        runs = kernel_columns // run_columns
        run = order_inputs(run_columns * channels_in)
        starts = np.arange(kernel_rows * runs)[:, None, None] * run_columns * channels_in
        order = np.where(run < 0, -1, run + starts).reshape(-1, 2)
        dot = lower_dot(call, weight.reshape(groups, channels_out // groups, -1), rescaling, order)
        if dot is None:
            return None
        tile = choose_tile(len(order), -(-call.rows * call.y.columns // 2))
        pairs = count_pairs(call)
        slide = slide_fields(call, (kernel_rows, kernel_columns))
        gathering = 120 + kernel_rows * runs * (150 + 13 * run_columns * channels_in // 4)
        run_bytes = run_columns * channels_in
        return replace(
            dot,
            kernel="convolution of patches, 2 pixels x 4 channels",
            function="ep_dsp_patches",
            fields={
                **dot.fields,
                "dot.tile": tile,
                **{name: slide[name] for name in ("x_rows", "x_columns", "x_stride", "y_columns", "y_stride")},
                "groups": groups,
                "channels": channels_in,
                "kernel_rows": kernel_rows,
                "runs": runs,
                "run_columns": run_columns,
                "stride_rows": slide["stride_rows"],
                "stride_columns": slide["stride_columns"],
                "dilation_rows": call.op.attrs["dilation"][0],
                "dilation_columns": call.op.attrs["dilation"][1],
                "pad_top": slide["pad_rows"],
                "pad_left": slide["pad_columns"],
                "x_zero_point": get_zero_point(call.inputs[0]),
            },
            sources=("ep_dsp_patches.c", "ep_bytes.c", *dot.sources),
            scratch_bytes=tile * 8 * (len(order) + 1) + -(-2 * run_bytes // 8) * 8,
            cycles=groups * (count_dot_cycles(pairs, len(order), channels_out // groups, tile) + pairs * gathering),
        )


def _fits(call: Call) -> bool:
    """Whether it is a convolution, for a core with the DSP extension and without Helium."""
    return call.op.kind == "conv_2d" and bool(call.target.dsp) and not call.target.mve


def count_pairs(call: Call) -> int:
    """Pairs of pixels in one inference; a call that asks for an odd number of pixels wastes half of its last pair."""
    calls = -(-call.y.rows // call.rows)
    return calls * -(-call.rows * call.y.columns // 2)


def choose_tile(steps: int, pairs: int) -> int:
    """Pairs of pixels that are widened at a time."""
    return max(1, min(_MOST_PAIRS, pairs, _TILE_BYTES // (8 * steps)))


def count_tile_bytes(tile: int, steps: int, channels: int) -> int:
    """Scratch of a tile: the widened pixels, and outputs where there are fewer than 4 channels."""
    return tile * (8 * steps + (8 if channels < 4 else 0))


def lower_dot(call: Call, weight: np.ndarray, rescaling: Rescaling, order: np.ndarray) -> Lowered | None:
    """The part of a lowered op that its channels are: the ep_dsp_dot named `dot`, without its tile.

    weight: (groups, channels of each, inputs of each). order: (steps, 2), of `order_inputs`.
    """
    groups, channels, _ = weight.shape
    streams = [
        pack_stream(weight[group], _take(rescaling, slice(group * channels, (group + 1) * channels)), order)
        for group in range(groups)
    ]
    whole = [stream for stream in streams if stream is not None]
    if len(whole) < groups:
        return None
    code = build_pixels_code(rescaling.finish)
    return Lowered(
        kernel="",
        function="",
        fields={
            "dot.multiply": code.name,
            "dot.stream": f"{call.name}_stream",
            "dot.group_words": len(whole[0]),
            "dot.steps": len(order),
            "dot.channels": channels,
            "dot.act_min": rescaling.packed_act_min,
            "dot.excess": rescaling.packed_excess,
        },
        cycles=0,
        constants=(Constant(f"{call.name}_stream", "uint32_t", np.concatenate(whole)),),
        assembly=(code, build_widening_code()),
        sources=("ep_dsp_dot.c",),
    )


def count_dot_cycles(pairs: int, steps: int, channels: int, tile: int) -> int:
    """Modelled cycles of ep_dsp_multiply over so many pairs of pixels."""
    quads = -(-channels // 4)
    return pairs * (20 + quads * (80 + 15 * steps + steps // 16 * 6)) + -(-pairs // tile) * 110


def _take(rescaling: Rescaling, channels: slice) -> Rescaling:
    arrays = {
        item.name: getattr(rescaling, item.name)[channels]
        for item in fields(rescaling)
        if isinstance(getattr(rescaling, item.name), np.ndarray)
    }
    return replace(rescaling, **arrays)
