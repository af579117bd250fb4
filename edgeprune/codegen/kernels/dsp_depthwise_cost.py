"""Modelled Cortex-M4 cycles of depthwise convolution with packed pairs: counted in the assembly, fitted in the C."""

from __future__ import annotations

from dataclasses import dataclass

from edgeprune.codegen.kernel import Call
from edgeprune.codegen.kernels.dsp_depthwise_code import BLOCK_OUTPUTS, BLOCK_PAIRS, Finish
from edgeprune.codegen.kernels.dsp_depthwise_plane_code import PlaneCode

_CALL = 170
_LINE_TILE, _LINE, _LINE_PHASE = 100, 110, 120  # planning
_GROUP, _GATHER = 60, 75
_PLANE_GROUP = 45


def count_finish_cycles(finish: Finish) -> float:
    """From the sums of an output to its byte, extraction included."""
    clamp = 0 if (finish.act_min, finish.act_max) == (-128, 127) else 5
    return 6.5 + 0.5 * finish.wide + finish.ties + clamp


def _count_gather_cycles(channels: int, lines: int, values: float) -> float:
    """Of gathering all channels of so many lines that have so many values of each."""
    if channels < 4:
        return lines * 45 + channels * (lines * 42 + 5.8 * values)
    return -(-channels // 4) * (lines * _GATHER + 11 * values)


@dataclass(frozen=True)
class LineCost:
    """words: of taps, in so many filters (phases of the stride). kernel_rows: taps. has_many: filters of a channel."""

    words: int
    filters: int
    stride: int
    kernel_rows: int
    has_many: bool
    finish: Finish

    def count_sums(self, lengths: list[int], *, has_narrow: bool) -> float:
        """Of the outputs of one output channel. lengths: of all its lines."""
        return sum(self._count_line_cycles(length, has_narrow=has_narrow) for length in lengths)

    def count_rest(self, call: Call, lengths: list[int], tiles: int) -> float:
        """Of planning and gathering, and of the C code; without that of filters."""
        lines, groups = len(lengths), -(-call.x.channels // 4)
        planning = tiles * (_LINE_TILE + groups * _GROUP) + lines * (_LINE + _LINE_PHASE * self.filters)
        values = sum(self.stride * (length - 1) + self.kernel_rows for length in lengths)
        gathering = _count_gather_cycles(call.x.channels, lines * self.filters, values)
        return call.y.columns * (planning + gathering) + -(-call.y.rows // call.rows) * _CALL

    def _count_line_cycles(self, outputs: int, *, has_narrow: bool) -> float:
        pairs = (outputs + 2) // 2
        blocks = -(-pairs // BLOCK_PAIRS)
        last_pairs = pairs - BLOCK_PAIRS * (blocks - 1) if has_narrow else BLOCK_PAIRS
        sums = (blocks - 1) * self._count_block_cycles(BLOCK_PAIRS) + self._count_block_cycles(last_pairs)
        return 30 + 8 * self.has_many + sums + outputs * (count_finish_cycles(self.finish) - 2.5)

    def _count_block_cycles(self, pairs: int) -> float:
        """To the outputs' sums, extraction included."""
        return 21 + 8.3 * pairs + 3 * self.filters + (3 + pairs) * self.words


def find_lengths(call: Call, tile_rows: int) -> tuple[list[int], int]:
    """Outputs of all the lines that an inference computes of a channel and column, and the number of their tiles.

    tile_rows: the most outputs of a line at a time.
    """
    dilation = call.op.attrs["dilation"][0]
    lengths, tiles = [], 0
    for first in range(0, call.y.rows, call.rows):
        rows = min(call.rows, call.y.rows - first)
        for tile in range(0, rows, tile_rows * dilation):
            tiles += 1
            of_tile = min(tile_rows * dilation, rows - tile)
            lengths += [(of_tile - phase + dilation - 1) // dilation for phase in range(min(dilation, of_tile))]
    return lengths, tiles


@dataclass(frozen=True)
class PlaneCost:
    """window_rows: x rows from the first of a window to the last. tile_rows: output rows of a tile.

    stride_rows; row_words: of a plane. parts: phases of the stride along the columns.
    """

    code: PlaneCode
    plane_bytes: int
    window_rows: int
    tile_rows: int
    stride_rows: int
    row_words: int
    parts: int

    def count_tiles(self, call: Call) -> int:
        """Of all calls."""
        whole, rest = divmod(call.y.rows, call.rows)
        return whole * -(-call.rows // self.tile_rows) + -(-rest // self.tile_rows)

    def count_cycles(self, call: Call) -> float:
        """All but that of filters."""
        calls, tiles = -(-call.y.rows // call.rows), self.count_tiles(call)
        kept = max(0, self.window_rows - self.stride_rows)
        groups = -(-call.x.channels // 4)
        rows = call.x.rows + (calls - 1) * kept
        sums = call.y.channels * (call.y.rows * self._count_row_cycles() + tiles * 24)
        if call.x.channels < 4:
            gathering = _count_gather_cycles(call.x.channels, rows * self.parts, rows * call.x.columns) + tiles * 170
        else:
            gathering = groups * rows * (call.x.columns * 11 + 14)
        moving = (tiles - calls) * kept * self.row_words * 22 + tiles * 110
        return sums + gathering + groups * (moving + calls * _PLANE_GROUP) + calls * (3.1 * self.plane_bytes + 200)

    def _count_row_cycles(self) -> float:
        """Of a row of outputs."""
        code = self.code
        blocks = 1 + -(-code.last_block // BLOCK_OUTPUTS)
        loads = 0.0
        for lines in code.list_bundles():
            loads += _count_load_cycles(sum(line.words for line in lines))
            step = code.count_x_registers(lines)
            for line in lines:
                whole, rest = divmod(code.count_words(line), step)
                loads += whole * _count_load_cycles(step) + _count_load_cycles(rest)
        sums = sum(line.words for line in code.lines) * code.pairs
        sums += code.has_tail * sum(line.taps // 2 for line in code.lines)
        return 6 + blocks * (20 + loads + sums + code.block * count_finish_cycles(code.finish))


def _count_load_cycles(words: int) -> int:
    """Of neighbouring words, by LDRD and LDR."""
    return words // 2 * 3 + words % 2 * (2 if words == 1 else 1)
