"""Fast depthwise convolution for cores with the DSP extension: packed pairs, four channels gathered at a time.

`DspDepthwiseLine` slides along the rows (series, and kernels of one column), `DspDepthwisePlane` along the columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeprune.codegen.kernel import Call, Kernel, Lowered
from edgeprune.codegen.kernels.dsp_depthwise_code import (
    BLOCK_OUTPUTS,
    BLOCK_PAIRS,
    LARGEST_PLANE_BYTES,
    Finish,
    TapLine,
)
from edgeprune.codegen.kernels.dsp_depthwise_gather_code import RowGather, RowPart, build_line_gather, build_row_gather
from edgeprune.codegen.kernels.dsp_depthwise_layer import (
    USUAL_PLANE_BYTES,
    count_finish_cycles,
    count_padding,
    count_records_bytes,
    fold,
    lower_channels,
    round_plane,
)
from edgeprune.codegen.kernels.dsp_depthwise_line_code import LineCode, build_line_code
from edgeprune.codegen.kernels.dsp_depthwise_plane_code import PlaneCode, build_plane_code
from edgeprune.codegen.kernels.dsp_depthwise_record_code import build_record_code
from edgeprune.codegen.requantize import get_zero_point

_LARGEST_RECORDS_BYTES = 4096
_MOST_TAP_WORDS = 48  # of x words unrolled: bounds the code to about 1 KB
_LONGEST_PLANE_LINE = 6  # taps whose words stay in registers
_SPLIT_TAPS = 4
_RUN_BYTES, _GATHER_BYTES = 28, 40  # of C's ep_dsp_run and ep_dsp_gather
_NARROW_GAIN = 0.03  # the part of the time that code for blocks of less than three pairs must save
_MOST_PHASES = 3  # of a stride along the columns
_LARGE_MAPS_BYTES = 32 * LARGEST_PLANE_BYTES  # beside which planes of the largest size, four of them, are little


@dataclass(frozen=True)
class _LineCost:
    """Modelled cycles of lines. words: of taps, in so many filters (phases of the stride)."""

    words: int
    filters: int
    finish: Finish

    def count_line_cycles(self, outputs: int, *, has_narrow: bool) -> float:
        """Of one channel of a line."""
        pairs = (outputs + 2) // 2
        blocks = -(-pairs // BLOCK_PAIRS)
        last_pairs = pairs - BLOCK_PAIRS * (blocks - 1) if has_narrow else BLOCK_PAIRS
        sums = (blocks - 1) * self._count_block_cycles(BLOCK_PAIRS) + self._count_block_cycles(last_pairs)
        return 45 + sums + outputs * (count_finish_cycles(self.finish) - 2.5)

    def _count_block_cycles(self, pairs: int) -> float:
        """To the outputs' sums, extraction included."""
        return 24 + 7 * pairs + 3 * self.filters + (3 + pairs) * self.words


def _find_lengths(call: Call, tile_rows: int) -> list[int]:
    """Outputs of all the lines that an inference computes of a channel and column. tile_rows: the most at a time."""
    dilation = call.op.attrs["dilation"][0]
    lengths = []
    for first in range(0, call.y.rows, call.rows):
        rows = min(call.rows, call.y.rows - first)
        for tile in range(0, rows, tile_rows * dilation):
            of_tile = min(tile_rows * dilation, rows - tile)
            lengths += [(of_tile - phase + dilation - 1) // dilation for phase in range(min(dilation, of_tile))]
    return lengths


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
        cost = _LineCost(sum(words), len(filters), folded.finish)
        lengths = _find_lengths(call, tile_rows)
        wide, narrow = (sum(cost.count_line_cycles(length, has_narrow=n) for length in lengths) for n in (False, True))
        has_narrow = wide - narrow > _NARROW_GAIN * wide
        line_words = words[0] + (pairs if has_narrow else BLOCK_PAIRS * -(-pairs // BLOCK_PAIRS))
        plane_bytes = round_plane(4 * line_words * len(filters))
        if plane_bytes > LARGEST_PLANE_BYTES:
            return None
        code = LineCode(
            tuple(TapLine(4 * line_words * phase, taps.shape[1]) for phase, taps in enumerate(filters)),
            plane_bytes,
            call.op.attrs["depth_multiplier"],
            dilation[0] * call.y.columns * call.y_stride,
            has_narrow,
            folded.finish,
        )
        if count_records_bytes(call, code.record_words) > _LARGEST_RECORDS_BYTES:
            return None
        calls = -(-call.y.rows // call.rows)
        columns, groups = call.y.columns, -(-call.x.channels // 4)
        values = sum(stride[0] * length + kernel_rows for length in lengths)
        work = columns * (
            call.y.channels * (narrow if has_narrow else wide)
            + groups * (11.3 * values + len(lengths) * (90 + 55 * len(filters)))
        )
        fields, constants, records, record_cycles = lower_channels(
            call,
            folded,
            filters,
            plane_bytes=plane_bytes,
            start_words=2 * BLOCK_PAIRS,
            run=code.name,
            output_cycles=work / calls,
        )
        before = count_padding(call, 0, kernel_rows)
        work_bytes = dilation[0] * (_RUN_BYTES + _GATHER_BYTES * len(filters))
        gather = build_line_gather(plane_bytes)
        fields |= {
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
            cycles=round(work + columns * len(lengths) * 90 + calls * (columns * record_cycles + 300)),
            constants=constants,
            assembly=(*([gather] if call.x.channels >= 4 else []), build_record_code(records), build_line_code(code)),
            sources=("ep_dsp_depthwise.c",),
            in_place_rows=call.op.attrs["depth_multiplier"] == 1,  # a tile is gathered before it is written
            scratch_bytes=count_records_bytes(call, code.record_words) + 4 * plane_bytes + work_bytes,
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
            plane_bytes,
            call.op.attrs["depth_multiplier"],
            outputs,
            x_row=4 * stride[0] * row_words,
            y_row=outputs * call.y_stride,
            y_step=call.y_stride,
            finish=folded.finish,
        )
        unrolled = sum(line.words for line in lines)
        if unrolled > _MOST_TAP_WORDS or lines[-1].offset + 4 * code.count_words(lines[-1]) > 4095:
            return None
        if count_records_bytes(call, code.record_words) > _LARGEST_RECORDS_BYTES:
            return None
        calls = -(-call.y.rows // call.rows)
        tiles = calls * -(-call.rows // tile_rows)
        blocks_per_row = 1 + -(-code.last_block // BLOCK_OUTPUTS)
        loads = sum(3 * -(-code.count_words(line) // 2) + 3 for line in lines)
        sums = unrolled * code.pairs + code.has_tail * sum(line.taps // 2 for line in lines)
        block_cycles = 26 + loads + sums + code.block * count_finish_cycles(folded.finish)
        kept = max(0, window_rows - stride[0])
        groups = call.x.channels / 4
        work = call.y.channels * (call.y.rows * blocks_per_row * block_cycles + tiles * 36)
        work += groups * (call.x.rows + (calls - 1) * kept) * (call.x.columns * 11 + 14)
        work += groups * ((tiles - calls) * kept * row_words * 19 + tiles * 170) + calls * (3 * plane_bytes + 200)
        fields, constants, records, record_cycles = lower_channels(
            call,
            folded,
            [folded.taps[:, row, columns] for row in range(kernel_rows) for columns in shape.columns],
            plane_bytes=plane_bytes,
            start_words=code.start_words,
            run=code.name,
            output_cycles=work / calls,
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
        assembly = [build_record_code(records), build_plane_code(code)]
        if call.x.channels >= 4:
            assembly.append(build_row_gather(gather))
        fields |= {
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
            cycles=round(work + calls * record_cycles),
            constants=constants,
            assembly=tuple(assembly),
            sources=("ep_dsp_depthwise.c",),
            in_place_rows=call.op.attrs["depth_multiplier"] == 1,  # a tile is gathered before it is written
            scratch_bytes=count_records_bytes(call, code.record_words) + 4 * plane_bytes,
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
            trial = PlaneCode((line,), 0, 1, outputs, 0, 0, 0, Finish(False, False, -128, 127))
            words = max(words, first // 2 + trial.last_block // 2 + trial.count_words(line))
            lines.append((at + first // 2, count))
            columns.append(slice(phase + first * stride, phase + (first + count - 1) * stride + 1, stride))
        starts.append(at)
        counts.append(words)
        lengths.append(length)
        at += words
    return _RowShape(tuple(lines), tuple(columns), tuple(starts), tuple(counts), tuple(lengths), stride)
