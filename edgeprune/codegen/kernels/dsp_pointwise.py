"""Convolution by dot products on cores with the DSP extension: kernels of 1, and any other by gathered patches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgeprune.codegen.kernel import Call, Constant, Kernel, Lowered
from edgeprune.codegen.kernels.dsp_dot import fold_rescaling, order_inputs, pack_stream
from edgeprune.codegen.kernels.dsp_dot_code import PIXEL_STEPS, build_pixels_code, build_widening_code
from edgeprune.codegen.kernels.portable import slide_fields
from edgeprune.codegen.requantize import get_zero_point, scale_layer
from edgeprune.ops import same_padding

_TILE_BYTES = 768  # of widened pixels: bounds the scratch where channels are few; at least one pair is held
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
        channels_in = weight.shape[3]
        dot = lower_dot(call, weight, order_inputs(channels_in))
        if dot is None:
            return None
        widening = 30 + 13 * channels_in // 4
        return replace(
            dot,
            kernel="pointwise convolution, 2 pixels x 4 channels",
            function="ep_dsp_pointwise",
            fields={
                **dot.fields,
                "columns": call.y.columns,
                "channels": channels_in,
                "groups": call.x.channels // channels_in,
                "x_stride": call.x_strides[0],
                "y_stride": call.y_stride,
            },
            sources=("ep_dsp_pointwise.c", *dot.sources),
            cycles=dot.cycles + count_pairs(call) * (call.x.channels // channels_in) * widening,
        )


class DspPatches(Kernel):
    """conv_2d, all of it: patches are gathered two at a time."""

    def lower(self, call: Call) -> Lowered | None:
        if not _fits(call):
            return None
        weight = call.inputs[1].data
        assert weight is not None
        _, kernel_rows, kernel_columns, channels_in = weight.shape
        groups = call.x.channels // channels_in
        dilation = call.op.attrs["dilation"]
        touching = groups == 1 and dilation[1] == 1 and call.x_strides[0] == channels_in
        run_columns = kernel_columns if touching else 1
        runs, run_bytes = kernel_columns // run_columns, run_columns * channels_in
        run = order_inputs(run_bytes)
        starts = np.arange(kernel_rows * runs)[:, None, None] * run_bytes
        dot = lower_dot(call, weight, np.where(run < 0, -1, run + starts).reshape(-1, 2))
        if dot is None:
            return None
        slide = slide_fields(call, (kernel_rows, kernel_columns))
        gathering = 150 + kernel_rows * runs * (14 + 13 * run_bytes // 4 + (50 if run_bytes % 4 else 0))
        gathering += round(400 * kernel_rows * runs * find_border_share(call, (kernel_rows, kernel_columns)))
        return replace(
            dot,
            kernel="convolution of patches, 2 pixels x 4 channels",
            function="ep_dsp_patches",
            fields={
                **dot.fields,
                **{name: slide[name] for name in ("x_rows", "x_columns", "x_stride", "y_columns", "y_stride")},
                "x_pitch": call.x.columns * call.x_strides[0],
                "last_row": call.x.rows - 1 - (kernel_rows - 1) * dilation[0],
                "last_column": call.x.columns - 1 - (kernel_columns - 1) * dilation[1],
                "groups": groups,
                "channels": channels_in,
                "kernel_rows": kernel_rows,
                "runs": runs,
                "run_columns": run_columns,
                "stride_rows": slide["stride_rows"],
                "stride_columns": slide["stride_columns"],
                "dilation_rows": dilation[0],
                "dilation_columns": dilation[1],
                "pad_top": slide["pad_rows"],
                "pad_left": slide["pad_columns"],
                "x_zero_point": get_zero_point(call.inputs[0]),
            },
            sources=("ep_dsp_patches.c", "ep_bytes.c", *dot.sources),
            scratch_bytes=dot.scratch_bytes + -(-2 * run_bytes // 8) * 8,
            cycles=dot.cycles + count_pairs(call) * groups * gathering,
        )


def _fits(call: Call) -> bool:
    """Whether it is a convolution, for a core with the DSP extension and without Helium."""
    return call.op.kind == "conv_2d" and bool(call.target.dsp) and not call.target.mve


def find_border_share(call: Call, kernel_size: tuple[int, int]) -> float:
    """The part of the output's pixels whose patch reaches into the padding."""
    inside = 1.0
    for axis, (size, outputs) in enumerate(((call.x.rows, call.y.rows), (call.x.columns, call.y.columns))):
        stride, dilation = call.op.attrs["stride"][axis], call.op.attrs["dilation"][axis]
        if call.op.attrs["padding"] == "same":
            starts = np.arange(outputs) * stride - same_padding(size, kernel_size[axis], stride, dilation)[0]
            inside *= float(np.mean((starts >= 0) & (starts + (kernel_size[axis] - 1) * dilation < size)))
    return 1.0 - inside


def count_pairs(call: Call) -> int:
    """Pairs of pixels in one inference; a call that asks for an odd number of pixels wastes half of its last pair."""
    calls = -(-call.y.rows // call.rows)
    return calls * -(-call.rows * call.y.columns // 2)


def lower_dot(call: Call, weight: np.ndarray, order: np.ndarray) -> Lowered | None:
    """The part of a convolution that its channels are: the ep_dsp_dot named `dot`; without getting the pixels widened.

    weight: OHWI. order: (steps, 2), of `order_inputs`, over the weights of a channel.
    """
    rescaling = fold_rescaling(scale_layer(call), weight)
    if rescaling is None:
        return None
    groups = call.x.channels // weight.shape[3]
    channels, steps = weight.shape[0] // groups, len(order)
    flat = weight.reshape(groups, channels, -1)
    parts = [slice(group * channels, (group + 1) * channels) for group in range(groups)]
    streams = [pack_stream(flat[group], rescaling.take(part), order) for group, part in enumerate(parts)]
    pairs_per_call = -(-call.rows * call.y.columns // 2)
    tile = max(1, min(_MOST_PAIRS, pairs_per_call, _TILE_BYTES // (8 * steps)))
    quad_cycles = 80 + (18 if rescaling.finish.plain else 15) * steps + steps // PIXEL_STEPS * 6
    tiles = -(-call.y.rows // call.rows) * -(-pairs_per_call // tile)
    code = build_pixels_code(rescaling.finish)
    return Lowered(
        kernel="",
        function="",
        fields={
            "dot.multiply": code.name,
            "dot.stream": f"{call.name}_stream",
            "dot.group_words": len(streams[0]),
            "dot.steps": steps,
            "dot.channels": channels,
            "dot.tile": tile,
            "dot.act_min": rescaling.packed_act_min,
            "dot.excess": rescaling.packed_excess,
        },
        cycles=100 + groups * (count_pairs(call) * (20 + -(-channels // 4) * quad_cycles) + tiles * 110),
        constants=(Constant(f"{call.name}_stream", "uint32_t", np.concatenate(streams)),),
        assembly=(code, build_widening_code()),
        sources=("ep_dsp_dot.c",),
        scratch_bytes=tile * 8 * (steps + 1),
    )
