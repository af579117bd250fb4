"""Dense convolution with two taps or more on cores with the DSP extension: packed pairs (dsp_convolution_code.py).

A layer is seen along its *sliding axis*: the columns, or the rows where there is one column (series). The other is
the outer axis. A *line* is one input channel of one kernel row, or one phase of it: a stride of s along the sliding
axis makes s phases, each a convolution of stride 1 over every s-th value. A dilation of d makes d separate outputs,
each from every d-th value on. All lines have the same number of taps; shorter ones are filled up with zeros.

The input of a tile of outputs is packed into the scratch (2 bytes per value); weights lie in flash as int8 and are
unpacked a channel at a time, or, where that costs little flash and saves cycles, are packed already.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from edgeprune.codegen.kernel import Call, Constant, Kernel, Lowered
from edgeprune.codegen.kernels.dsp_convolution_code import (
    BLOCK_OUTPUTS,
    FIELD_BITS,
    LARGEST_WEIGHT_SUM,
    PAIRS,
    LineCode,
    generate_rows,
)
from edgeprune.codegen.kernels.dsp_unpack_code import generate_pack_line, generate_pack_pixels, generate_unpack
from edgeprune.codegen.requantize import fold_smmlar, get_zero_point, scale_layer
from edgeprune.ops import same_padding

_MOST_TAP_PAIRS = 64  # a line is unrolled: 1 KB of code
_MOST_SCRATCH_BYTES = 16384
# What a KB of scratch or of flash may cost in cycles.
_SCRATCH_WEIGHT, _FLASH_WEIGHT = 0.010, 0.03


@dataclass(frozen=True)
class Slide:
    """A layer along its sliding axis.

    taps: of a line (the most of any phase); kernel_rows: of the outer axis. phases: the stride; dilation: of the taps.
    extent: positions from an output's first tap to its last. pad: positions before the first one, of the sliding axis;
    pad_rows: rows, of the outer axis.
    x_rows, outputs, y_rows: the outer axis's input rows, outputs of a row, and output rows that one call computes.
    calls: how many calls an inference takes.
    in_place_row_bytes: of a step along the axis that tiles follow one another on, where the output has the input's size
    and one call computes it all, so that it may lie in the input's memory; else 0.
    """

    on_rows: bool
    taps: int
    kernel_rows: int
    phases: int
    dilation: int
    stride_rows: int
    extent: int
    pad: int
    pad_rows: int
    x_channels: int
    y_channels: int
    outputs: int
    y_rows: int
    calls: int
    in_place_row_bytes: int

    @property
    def tap_pairs(self) -> int:
        return (self.taps + 1) // 2

    @property
    def lines(self) -> int:
        return self.kernel_rows * self.x_channels * self.phases

    @property
    def row_lines(self) -> int:
        """Lines of one input row."""
        return self.x_channels * self.phases


@dataclass(frozen=True)
class Tile:
    """How much is packed at a time, and how.

    rows, outputs: output rows and outputs of each. unpacks: weights are int8 in flash.
    """

    rows: int
    outputs: int
    unpacks: bool


@dataclass(frozen=True)
class Plan:
    """A tile with all that follows from it. Words are 4 bytes."""

    slide: Slide
    tile: Tile
    chunks: int
    chunk_lines: int

    @property
    def blocks(self) -> int:
        return self.tile.outputs // BLOCK_OUTPUTS + 1

    @property
    def last_pairs(self) -> int:
        """Accumulators that the last block of a row needs, where all rows of all tiles are equally long."""
        if self.slide.on_rows or self.tile.outputs < self.slide.outputs:
            return PAIRS
        return self.tile.outputs % BLOCK_OUTPUTS // 2 + 1

    @property
    def x_rows(self) -> int:
        """Input rows of a tile."""
        return (self.tile.rows - 1) * self.slide.stride_rows + self.slide.kernel_rows

    @property
    def line_words(self) -> int:
        """Words of a line: three for each block, and those that the last tap of the last pair needs."""
        return PAIRS * self.blocks + self.slide.tap_pairs - 1

    @property
    def zero_lines(self) -> int:
        """Lines of zero weights that fill up the last chunk."""
        return self.chunks * self.chunk_lines - self.slide.lines

    @property
    def x_words(self) -> int:
        """Words of packed x, with what lines of zero weights read beyond."""
        return self.line_words * (self.slide.row_lines * self.x_rows + self.zero_lines)

    @property
    def record_words(self) -> int:
        """A channel's packed weights and its four constants."""
        return self.chunks * self.chunk_lines * self.slide.tap_pairs + 4

    @property
    def pixel_words_at(self) -> int:
        """Where the padding's pixel lies in the scratch: after the unpacked weights."""
        return self.record_words if self.tile.unpacks else 0

    @property
    def x_words_at(self) -> int:
        return self.pixel_words_at + -(-self.slide.x_channels // 4)

    @property
    def works_in_place(self) -> bool:
        """Whether tiles follow one another along one axis only, and are long enough for the rows kept from each."""
        slide = self.slide
        one_strip = slide.on_rows or self.tile.outputs >= slide.outputs
        step = self.tile.outputs if slide.on_rows else self.tile.rows
        return slide.in_place_row_bytes > 0 and one_strip and step >= self.padded_rows

    @property
    def padded_rows(self) -> int:
        return self.slide.pad if self.slide.on_rows else self.slide.pad_rows

    @property
    def saved_rows(self) -> int:
        """Rows of the input to keep from tile to tile when working in place."""
        is_one_tile = self.tile.outputs >= self.slide.outputs and self.tile.rows >= self.slide.y_rows
        return self.padded_rows if self.works_in_place and not is_one_tile else 0

    @property
    def saved_words_at(self) -> int:
        return self.x_words_at + self.x_words

    @property
    def scratch_bytes(self) -> int:
        saved_words = -(-self.saved_rows * self.slide.in_place_row_bytes // 4)
        return -(-4 * (self.saved_words_at + saved_words) // 8) * 8

    @property
    def extra_flash_bytes(self) -> int:
        if self.tile.unpacks:
            return 0
        weights = self.slide.lines * self.slide.taps
        return self.slide.y_channels * (4 * (self.record_words - 4) - weights)

    def make_code(self, y_stride: int, keeps_ties: bool, clamp: tuple[int, int]) -> LineCode:
        """What the assembly depends on."""
        line_bytes = 4 * self.line_words
        return LineCode(
            tap_pairs=self.slide.tap_pairs,
            chunk_lines=self.chunk_lines,
            chunks=self.chunks,
            line_bytes=line_bytes,
            row_bytes=line_bytes * self.slide.row_lines * self.slide.stride_rows if self.tile.rows > 1 else 0,
            y_step=y_stride * self.slide.dilation,
            last_pairs=self.last_pairs,
            keeps_ties=keeps_ties,
            clamp=clamp,
        )


class PackedPairsConvolution(Kernel):
    """conv_2d with one group and a kernel of two taps or more along the sliding axis."""

    def lower(self, call: Call) -> Lowered | None:
        slide = _find_slide(call)
        scales = scale_layer(call) if slide else None
        constants = fold_smmlar(scales) if scales else None
        if slide is None or scales is None or constants is None or call.y_stride * slide.dilation > 4095 // 6:
            return None
        lines = _arrange_lines(call, slide)
        chunks = _split_chunks(lines)
        if chunks is None or max(call.y_stride, call.x_strides[0]) > 2**15 - 1:
            return None
        plan = _choose_plan(slide, chunks, not scales.clamps_negatives)
        if plan is None:
            return None
        code = plan.make_code(call.y_stride, not scales.clamps_negatives, (scales.act_min, scales.act_max))
        # each output holds 2**20 too much for each chunk (dsp_convolution_code.py)
        twice_bias = (constants.twice_bias - (plan.chunks << FIELD_BITS) + 2**31) % 2**32 - 2**31
        table = np.stack(
            [
                twice_bias,
                constants.multiplier,
                constants.offset,
                constants.shift,
            ],
            axis=1,
        ).astype(np.int32)
        function = generate_rows(code)
        fields: dict[str, int | str] = {"run": function.name}
        assembly = [function, generate_pack_pixels(), generate_pack_line()]
        data: tuple[Constant, ...]
        filled = np.zeros((slide.y_channels, plan.chunks * plan.chunk_lines, slide.taps), np.int8)
        filled[:, : slide.lines] = lines
        if plan.tile.unpacks:
            unpack = generate_unpack(slide.taps)
            assembly.append(unpack)
            weight = Constant(f"{call.name}_weight", "int8_t", filled)
            scale = Constant(f"{call.name}_scale", "int32_t", table)
            data = (weight, scale)
            fields |= {"unpack": unpack.name, "weight": weight.name, "scales": scale.name}
        else:
            records = np.concatenate([pack_weights(filled), table.view(np.uint32)], axis=1)
            weight = Constant(f"{call.name}_weight", "uint32_t", records)
            data = (weight,)
            fields |= {"unpack": 0, "weight": weight.name, "scales": 0}
        fields |= {
            "weight_bytes": filled[0].size if plan.tile.unpacks else 4 * plan.record_words,
            "weight_lines": filled.shape[1],
            "x_rows": call.x.rows,
            "line_words": plan.line_words,
            "tap_pairs": slide.tap_pairs,
            "x_columns": call.x.columns,
            "y_columns": call.y.columns,
            "x_stride": call.x_strides[0],
            "y_stride": call.y_stride,
            "x_channels": slide.x_channels,
            "y_channels": slide.y_channels,
            "kernel_rows": slide.kernel_rows,
            "stride_rows": slide.stride_rows,
            "pad_rows": slide.pad_rows,
            "phases": slide.phases,
            "dilation": slide.dilation,
            "pad": slide.pad,
            "lead": slide.taps % 2 * slide.phases * slide.dilation,
            "extent": slide.extent,
            "tile_rows": plan.tile.rows,
            "tile_outputs": plan.tile.outputs,
            "saved_rows": plan.saved_rows,
            "x_words": plan.x_words_at,
            "pixel_words": plan.pixel_words_at,
            "saved_words": plan.saved_words_at,
            "slides_on_rows": int(slide.on_rows),
            "x_zero_point": get_zero_point(call.inputs[0]),
        }
        return Lowered(
            kernel="convolution, packed pairs",
            function="ep_dsp_conv",
            fields=fields,
            cycles=estimate_cycles(plan, not scales.clamps_negatives),
            constants=data,
            assembly=tuple(assembly),
            sources=("ep_dsp_conv.c", "ep_bytes.c"),
            scratch_bytes=plan.scratch_bytes,
            in_place_whole=(0,) if plan.works_in_place else (),
        )


def _find_slide(call: Call) -> Slide | None:
    """The layer along its sliding axis; None where it has no two taps there or needs what is not done here."""
    weight = call.inputs[1]
    attrs = call.op.attrs
    if not call.target.dsp or call.target.mve or weight.shape[3] != call.x.channels:
        return None
    kernel, stride, dilation = weight.shape[1:3], attrs["stride"], attrs["dilation"]
    on_rows = call.x.columns == 1 and kernel[1] == 1
    axis, outer = (0, 1) if on_rows else (1, 0)
    if kernel[axis] < 2 or (kernel[outer] > 1 and dilation[outer] > 1) or (stride[axis] > 1 and dilation[axis] > 1):
        return None
    pads = [(0, 0), (0, 0)]
    if attrs["padding"] == "same":
        sizes = (call.x.rows, call.x.columns)
        pads = [same_padding(sizes[i], kernel[i], stride[i], dilation[i]) for i in (0, 1)]
    slide = Slide(
        on_rows=on_rows,
        taps=-(-kernel[axis] // stride[axis]),
        kernel_rows=kernel[outer],
        phases=stride[axis],
        dilation=dilation[axis],
        stride_rows=stride[outer],
        extent=(kernel[axis] - 1) * dilation[axis] + 1,
        pad=pads[axis][0],
        pad_rows=pads[outer][0],
        x_channels=call.x.channels,
        y_channels=call.y.channels,
        outputs=call.rows if on_rows else call.y.columns,
        y_rows=1 if on_rows else call.rows,
        calls=-(-call.y.rows // call.rows),
        in_place_row_bytes=call.x.columns * call.x_strides[0] if _keeps_place(call) else 0,
    )
    return slide if slide.tap_pairs <= _MOST_TAP_PAIRS else None


def _keeps_place(call: Call) -> bool:
    """Whether every output pixel has the place of the input pixel that its window is centred on."""
    same_size = (call.x.rows, call.x.columns) == (call.y.rows, call.y.columns) and call.rows == call.y.rows
    steps = {call.op.attrs["stride"], call.op.attrs["dilation"]}
    return same_size and steps == {(1, 1)} and call.x_strides[0] == call.y_stride


def _arrange_lines(call: Call, slide: Slide) -> np.ndarray:
    """int8 weights (output channel, line, tap), lines in the order of packed x: kernel row, channel, phase."""
    weight = call.inputs[1].data  # OHWI
    assert weight is not None
    if slide.on_rows:
        weight = weight.transpose(0, 2, 1, 3)
    filled = np.zeros((*weight.shape[:2], slide.taps * slide.phases, weight.shape[3]), np.int8)
    filled[:, :, : weight.shape[2]] = weight
    taps = filled.reshape(*weight.shape[:2], slide.taps, slide.phases, weight.shape[3])
    return taps.transpose(0, 1, 4, 3, 2).reshape(len(weight), slide.lines, slide.taps)


def _split_chunks(lines: np.ndarray) -> tuple[int, int] | None:
    """(chunks, lines of each) so that no accumulator's fields overflow; None where one line alone can."""
    sums = np.abs(lines.astype(np.int64)).sum(axis=2)  # (output channel, line)
    count = sums.shape[1]
    for chunks in range(max(1, -(-int(sums.sum(axis=1).max()) // LARGEST_WEIGHT_SUM)), count + 1):
        chunk_lines = -(-count // chunks)
        padded = np.pad(sums, ((0, 0), (0, chunks * chunk_lines - count)))
        if padded.reshape(len(sums), chunks, chunk_lines).sum(axis=2).max() <= LARGEST_WEIGHT_SUM:
            return -(-count // chunk_lines), chunk_lines
    return None


def pack_weights(lines: np.ndarray) -> np.ndarray:
    """uint32 words (output channel, words) of int8 lines: w[2j+1] + w[2j] * 2**21; an odd line is led by a zero."""
    channels, _, taps = lines.shape
    wide = np.pad(lines.astype(np.int64), ((0, 0), (0, 0), (taps % 2, 0)))
    words = wide[:, :, 1::2] + (wide[:, :, 0::2] << FIELD_BITS)
    return (words.reshape(channels, -1) & 0xFFFFFFFF).astype(np.uint32)


# --- the choice of the tile ---


def _choose_plan(slide: Slide, chunks: tuple[int, int], keeps_ties: bool) -> Plan | None:
    """The tile with the fewest cycles, a KB of scratch or flash counting as about one percent of them."""

    def weigh(plan: Plan) -> float:
        kilobytes = _SCRATCH_WEIGHT * plan.scratch_bytes + _FLASH_WEIGHT * plan.extra_flash_bytes
        return estimate_cycles(plan, keeps_ties) * (1 + kilobytes / 1024)

    plans = [Plan(slide, tile, *chunks) for tile in _list_tiles(slide)]
    fitting = [plan for plan in plans if plan.scratch_bytes <= _MOST_SCRATCH_BYTES]
    return min(fitting, key=weigh, default=None)


def _list_tiles(slide: Slide) -> Iterator[Tile]:
    """Tiles worth a look: whole rows, several at a time, or parts of one row, cut where blocks end."""
    longest = -(-slide.outputs // slide.dilation)
    shapes = {(rows, longest) for rows in (1, 2, 3, 4, 6, 8, 12, 16) if rows <= slide.y_rows}
    for parts in range(2, 33):
        blocks = -(-(longest + 1) // BLOCK_OUTPUTS // parts)
        shapes.add((1, min(longest, max(1, blocks) * BLOCK_OUTPUTS - 1)))
    for rows, outputs in sorted(shapes):
        for unpacks in (True, False):
            yield Tile(rows, outputs, unpacks)


# Modelled Cortex-M4 cycles of the pieces: counted in the assembly, fitted to counted runs in the C code.
_CALL, _TILE, _CHANNEL, _ROW = 230, 200, 92, 45
_BLOCK, _PLACE, _CHUNK, _DRAIN, _TURN = 31, 7, 6, 52, 6
_PACKED_ROW, _PACKED_PIXELS, _PACKED_WORD = 240, 38, 6.9
_PACKED_LINE, _PACKED_LINE_WORD = 70, 11.5  # of fewer than four channels
_UNPACKED_CHANNEL, _UNPACKED_LINE, _UNPACKED_WORD = 30, 1, 4.7


def estimate_cycles(plan: Plan, keeps_ties: bool) -> int:
    """Modelled cycles of an inference."""
    slide, tile = plan.slide, plan.tile
    per_call = float(_CALL)
    for outputs, count in _cut(-(-slide.outputs // slide.dilation), tile.outputs):
        for rows, times in _cut(slide.y_rows, tile.rows):
            part = replace(plan, tile=replace(tile, outputs=outputs, rows=rows))
            per_call += _count_tile(part, plan.last_pairs, keeps_ties) * count * times * slide.dilation
    return round(per_call * slide.calls)


def _cut(size: int, piece: int) -> Iterator[tuple[int, int]]:
    """(length, how many) of the pieces of an axis."""
    if size >= piece:
        yield piece, size // piece
    if size % piece:
        yield size % piece, 1


def _count_tile(plan: Plan, last_pairs: int, keeps_ties: bool) -> float:
    slide = plan.slide
    words = plan.line_words * slide.phases
    if slide.x_channels < 4:
        pack = _PACKED_ROW * slide.phases + slide.x_channels * (_PACKED_LINE * slide.phases + _PACKED_LINE_WORD * words)
    else:
        pack = _PACKED_ROW * slide.phases + words * (_PACKED_PIXELS + _PACKED_WORD * slide.x_channels)
    unpack = 0.0
    if plan.tile.unpacks:
        lines = plan.chunks * plan.chunk_lines
        unpack = _UNPACKED_CHANNEL + lines * (_UNPACKED_LINE + _UNPACKED_WORD * slide.tap_pairs)
    epilogue = _BLOCK + (_DRAIN * plan.chunks + 25 if plan.chunks > 1 else 0)
    sums = (plan.blocks - 1) * _count_sums(plan, PAIRS) + _count_sums(plan, last_pairs)
    row = _ROW + plan.blocks * epilogue + plan.tile.outputs * (_PLACE + keeps_ties) + sums
    return _TILE + plan.x_rows * pack + slide.y_channels * (_CHANNEL + unpack + plan.tile.rows * row)


def _count_sums(plan: Plan, pairs: int) -> float:
    """Of the sums of one block with so many accumulators."""
    tap_pairs = plan.slide.tap_pairs
    # each load costs one cycle, and one more for each run of them
    line = 2 * tap_pairs + pairs - 1 + -(-tap_pairs // 2) + pairs * tap_pairs
    turns = -(-plan.chunk_lines // plan.make_code(1, False, (-128, 127)).lines_per_loop)
    return plan.chunks * (plan.chunk_lines * line + _CHUNK + (_TURN * turns if turns > 1 else 0))
