"""Fast depthwise convolution for cores with the DSP extension: packed pairs, four channels gathered at a time.

`DspDepthwiseLine` slides along the rows (series, and kernels of one column), `DspDepthwisePlane` along the columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeprune.codegen.kernel import Call, Kernel, Lowered
from edgeprune.codegen.kernels.dsp_depthwise_code import (
    BLOCK_PAIRS,
    LARGEST_PLANE_BYTES,
    Finish,
    TapLine,
)
from edgeprune.codegen.kernels.dsp_depthwise_cost import LineCost, PlaneCost, find_lengths
from edgeprune.codegen.kernels.dsp_depthwise_filters import lower_channels
from edgeprune.codegen.kernels.dsp_depthwise_gather_code import RowGather, RowPart, build_line_gather, build_row_gather
from edgeprune.codegen.kernels.dsp_depthwise_layer import (
    USUAL_PLANE_BYTES,
    count_padding,
    count_planes,
    fold,
    round_plane,
)
from edgeprune.codegen.kernels.dsp_depthwise_line_code import LineCode, build_line_code
from edgeprune.codegen.kernels.dsp_depthwise_plane_code import PlaneCode, build_plane_code
from edgeprune.codegen.requantize import get_zero_point

_MOST_TAP_WORDS = 48  # of x words unrolled: bounds the code to about 1 KB
_LONGEST_PLANE_LINE = 6  # taps whose words stay in registers
_SPLIT_TAPS = 4
_RUN_BYTES, _GATHER_BYTES = 36, 40  # of C's ep_dsp_run and ep_dsp_gather
_NARROW_GAIN = 0.03  # the part of the time that code for blocks of less than three pairs must save
_MOST_PHASES = 3  # of a stride along the columns
_LARGE_MAPS_BYTES = 32 * LARGEST_PLANE_BYTES  # beside which planes of the largest size, four of them, are little


class DspDepthwiseLine(Kernel):
    """Kernels of one column, along the rows: series above all; any dilation, or any stride."""

    def lower(self, call: Call) -> Lowered | None:
        folded = fold(call)
        stride, dilation = call.op.attrs["stride"], call.op.attrs["dilation"]
        if folded is None or folded.taps.shape[2] != 1 or stride[1] != 1:
            return None
        kernel_rows = folded.taps.shape[1]
        if stride[0] > 1 and dilation[0] > 1:
            return None
        filters = [folded.taps[:, phase :: stride[0], 0] for phase in range(min(stride[0], kernel_rows))]
        words = [-(-taps.shape[1] // 2) for taps in filters]
        if sum(words) > _MOST_TAP_WORDS:
            return None
        longest = -(-call.rows // dilation[0])
        room = LARGEST_PLANE_BYTES // 4 // len(filters)
        usual = USUAL_PLANE_BYTES // 4 // len(filters)
        most_pairs = min(max(usual, words[0] + BLOCK_PAIRS * 4), room) - words[0]
        pairs = min((longest + 2) // 2, BLOCK_PAIRS * (most_pairs // BLOCK_PAIRS))
        if pairs < 1:
            return None
        tile_rows = 2 * pairs - 1  # of a phase
        has_many = call.op.attrs["depth_multiplier"] > 1
        cost = LineCost(sum(words), len(filters), stride[0], kernel_rows, has_many, folded.finish)
        lengths, tiles = find_lengths(call, tile_rows)
        wide, narrow = (cost.count_sums(lengths, has_narrow=has_narrow) for has_narrow in (False, True))
        has_narrow = wide - narrow > _NARROW_GAIN * wide
        line_words = words[0] + (pairs if has_narrow else BLOCK_PAIRS * -(-pairs // BLOCK_PAIRS))
        plane_bytes = round_plane(4 * line_words * len(filters))
        if plane_bytes > LARGEST_PLANE_BYTES:
            return None
        code = LineCode(
            tuple(TapLine(4 * line_words * phase, taps.shape[1]) for phase, taps in enumerate(filters)),
            dilation[0] * call.y.columns * call.y_stride,
            has_many,
            has_narrow,
            folded.finish,
        )
        columns = call.y.columns
        work = columns * call.y.channels * (narrow if has_narrow else wide) + cost.count_rest(call, lengths, tiles)
        channels = lower_channels(
            call,
            folded,
            filters,
            plane_bytes=plane_bytes,
            start_words=2 * BLOCK_PAIRS,
            run=code.name,
            output_cycles=work / (columns * tiles),
            passes=-(-len(lengths) // tiles),
        )
        before = count_padding(call, 0, kernel_rows)
        work_bytes = dilation[0] * (_RUN_BYTES + _GATHER_BYTES * len(filters))
        gather = build_line_gather(plane_bytes)
        fields = channels.fields | {
            "gather": gather.name if call.x.channels >= 4 else "ep_dsp_gather_bytes",
            "x_rows": call.x.rows,
            "columns": call.y.columns,
            "kernel_rows": kernel_rows,
            "stride": stride[0],
            "dilation": dilation[0],
            "pad": before,
            "line_words": line_words,
            "tile_rows": tile_rows * dilation[0],
            "has_narrow": int(has_narrow),
        }
        return Lowered(
            kernel="depthwise line, packed pairs",
            function="ep_dsp_depthwise_line",
            fields=fields,
            cycles=round(work + columns * tiles * channels.filters.cycles),
            constants=channels.constants,
            assembly=(*([gather] if call.x.channels >= 4 else []), *channels.assembly, build_line_code(code)),
            sources=("ep_dsp_depthwise.c",),
            in_place_rows=call.op.attrs["depth_multiplier"] == 1,  # a tile is gathered before it is written
            scratch_bytes=channels.filters.scratch_bytes + count_planes(call) * plane_bytes + work_bytes,
        )


class DspDepthwisePlane(Kernel):
    """Kernels along rows and columns; strides at will, dilation along the rows."""

    def lower(self, call: Call) -> Lowered | None:
        folded = fold(call)
        stride, dilation = call.op.attrs["stride"], call.op.attrs["dilation"]
        if folded is None or (dilation[1] != 1 and folded.taps.shape[2] > 1) or stride[1] > _MOST_PHASES:
            return None
        _, kernel_rows, kernel_columns = folded.taps.shape
        outputs = call.y.columns
        pad = count_padding(call, 1, kernel_columns)
        shape = _cut_lines(folded.taps, stride[1], outputs)
        window_rows = (kernel_rows - 1) * dilation[0] + 1
        row_words = shape.row_words
        most_rows = (call.rows - 1) * stride[0] + window_rows
        plane_bytes = round_plane(4 * row_words * most_rows)
        maps_bytes = call.inputs[0].byte_count + call.output.byte_count if call.rows >= call.y.rows else 0
        usual = LARGEST_PLANE_BYTES if maps_bytes >= _LARGE_MAPS_BYTES else USUAL_PLANE_BYTES
        least = 4 * row_words * (window_rows + stride[0])
        plane_bytes = min(plane_bytes, max(usual, round_plane(least)), LARGEST_PLANE_BYTES)
        tile_rows = (plane_bytes // 4 // row_words - window_rows) // stride[0] + 1
        if plane_bytes // 4 // row_words < window_rows:
            return None
        lines = tuple(
            TapLine(4 * (row * dilation[0] * row_words + offset), taps)
            for row in range(kernel_rows)
            for offset, taps in shape.lines
        )
        code = PlaneCode(
            lines,
            outputs,
            x_row=4 * stride[0] * row_words,
            y_row=outputs * call.y_stride,
            y_step=call.y_stride,
            has_many=call.op.attrs["depth_multiplier"] > 1,
            finish=folded.finish,
        )
        unrolled = sum(line.words for line in lines)
        if unrolled > _MOST_TAP_WORDS or lines[-1].offset + 4 * code.count_words(lines[-1]) > 4095:
            return None
        calls = -(-call.y.rows // call.rows)
        cost = PlaneCost(code, plane_bytes, window_rows, tile_rows, stride[0], row_words, len(shape.starts))
        work = cost.count_cycles(call)
        channels = lower_channels(
            call,
            folded,
            [folded.taps[:, row, columns] for row in range(kernel_rows) for columns in shape.columns],
            plane_bytes=plane_bytes,
            start_words=code.start_words,
            run=code.name,
            output_cycles=work / calls,
            passes=-(-cost.count_tiles(call) // calls),
        )
        gather = RowGather(
            shape.find_parts(call.x.columns, pad, outputs),
            stride[1],
            call.x_strides[0],
            call.x.columns * call.x_strides[0],
            4 * row_words,
            plane_bytes,
            get_zero_point(call.inputs[0]),
        )
        assembly = [*channels.assembly, build_plane_code(code)]
        if call.x.channels >= 4:
            assembly.append(build_row_gather(gather))
        fields = channels.fields | {
            "gather": gather.name if call.x.channels >= 4 else 0,
            "gather_few": 0 if call.x.channels >= 4 else "ep_dsp_gather_few",
            "x_rows": call.x.rows,
            "x_columns": call.x.columns,
            "y_columns": outputs,
            "kernel_columns": kernel_columns,
            "window_rows": window_rows,
            "stride_rows": stride[0],
            "stride_columns": stride[1],
            "pad_columns": pad,
            "pad_rows": count_padding(call, 0, kernel_rows),
            "row_words": row_words,
            "tile_rows": tile_rows,
            **{f"phase_starts[{phase}]": start for phase, start in enumerate(shape.starts)},
        }
        return Lowered(
            kernel="depthwise rows, packed pairs",
            function="ep_dsp_depthwise_plane",
            fields=fields,
            cycles=round(work + calls * channels.filters.cycles),
            constants=channels.constants,
            assembly=tuple(assembly),
            sources=("ep_dsp_depthwise.c",),
            in_place_rows=call.op.attrs["depth_multiplier"] == 1,  # a tile is gathered before it is written
            scratch_bytes=channels.filters.scratch_bytes + count_planes(call) * plane_bytes,
        )


@dataclass(frozen=True)
class _RowShape:
    """How a row of a plane is laid out.

    lines: (word offset, taps) of each line of taps of a kernel row. columns: the kernel's columns of each, as slices.
    starts: the first word of each phase of the stride; words, taps: of each phase. row_words: of all.
    """

    lines: tuple[tuple[int, int], ...]
    columns: tuple[slice, ...]
    starts: tuple[int, ...]
    words: tuple[int, ...]
    taps: tuple[int, ...]
    stride: int

    @property
    def row_words(self) -> int:
        return sum(self.words)

    def find_parts(self, x_columns: int, pad: int, outputs: int) -> tuple[RowPart, ...]:
        """The phases that have columns in the map."""
        parts = []
        for phase, (start, taps) in enumerate(zip(self.starts, self.taps, strict=True)):
            before = max(0, -(-(pad - phase) // self.stride))
            column = phase - pad + before * self.stride
            inside = min(-(-(x_columns - column) // self.stride), outputs + taps - 1 - before)
            if inside > 0:
                head = before % 2
                quads, rest = divmod(inside - head, 4)
                parts.append(RowPart(column, start + before // 2, bool(head), quads, rest))
        return tuple(parts)


def _cut_lines(taps: np.ndarray, stride: int, outputs: int) -> _RowShape:
    """Phases of the stride, and long lines of taps cut into short ones."""
    kernel_columns = taps.shape[2]
    lines: list[tuple[int, int]] = []
    columns: list[slice] = []
    starts: list[int] = []
    counts: list[int] = []
    lengths: list[int] = []
    at = 0
    for phase in range(min(stride, kernel_columns)):
        length = -(-(kernel_columns - phase) // stride)
        step = length if length <= _LONGEST_PLANE_LINE else _SPLIT_TAPS
        words = 0
        for first in range(0, length, step):
            count = min(step, length - first)
            line = TapLine(0, count)
            trial = PlaneCode((line,), outputs, 0, 0, 0, False, Finish(False, False, -128, 127))
            words = max(words, first // 2 + trial.last_block // 2 + trial.count_words(line))
            lines.append((at + first // 2, count))
            columns.append(slice(phase + first * stride, phase + (first + count - 1) * stride + 1, stride))
        starts.append(at)
        counts.append(words)
        lengths.append(length)
        at += words
    return _RowShape(tuple(lines), tuple(columns), tuple(starts), tuple(counts), tuple(lengths), stride)
