"""Depthwise convolution along a line (a series): block by block from its end to its start.

The field L is carried from block to block; the block at the end stores only what there is. See dsp_depthwise_code.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgeprune.codegen.assembly import AssemblyBuilder, at, registers
from edgeprune.codegen.kernel import Assembly
from edgeprune.codegen.kernels.dsp_depthwise_code import (
    BLOCK_OUTPUTS,
    BLOCK_PAIRS,
    CONSTANT_WORDS,
    FURTHEST,
    Finish,
    Outputs,
    TapLine,
    count_line_bytes,
    load_words,
)

_PAIRS = (("r0", "r1"), ("r2", "r3"), ("r4", "r5"))
_WINDOW, _WEIGHTS = ("r6", "r7", "r8", "r9"), ("r10", "r11")
NARROW_PAIRS = 2


@dataclass(frozen=True)
class LineCode:
    """lines: phases of the stride. y_step: bytes from one output to the next of a line.

    has_narrow: whether there is code for narrow blocks, of two pairs, of which a line has one or two at its end: so
    n outputs take (n + 2) // 2 pairs and no more. It pays where lines are short.
    """

    lines: tuple[TapLine, ...]
    y_step: int
    has_narrow: bool
    finish: Finish

    @property
    def name(self) -> str:
        narrow = "n" if self.has_narrow else ""
        return f"ep_dsp_dwline_{count_line_bytes(self.lines)}_y{self.y_step}{narrow}{self.finish.suffix}"

    @property
    def start_words(self) -> int:
        return 2 * BLOCK_PAIRS

    @property
    def record_words(self) -> int:
        return self.start_words + CONSTANT_WORDS + sum(line.words for line in self.lines)

    @property
    def has_wide_step(self) -> bool:
        """Whether outputs of a block are further apart than STRB reaches."""
        return (BLOCK_OUTPUTS - 1) * self.y_step > FURTHEST


class _Frame:
    """The function's variables on the stack, in bytes from sp; neighbours are loaded and stored together."""

    carry = at("sp", 0)
    y, y_first = at("sp", 4), at("sp", 8)  # the current block's, the line's
    channel_x, channel_y = at("sp", 12), at("sp", 16)  # at the line's last block, the first to be computed
    record, channels = at("sp", 20), at("sp", 24)
    plane_step, y_step = at("sp", 28), at("sp", 32)  # from channel to channel
    part, narrow = at("sp", 36), at("sp", 40)  # where the stores of the last block start; how many blocks are narrow
    store, store_narrow = at("sp", 44), at("sp", 48)  # where the stores of the next block start
    size = 52


def build_line_code(line: LineCode) -> Assembly:
    """void name(const ep_dsp_run *, int32_t y_offset, const uint32_t *record, int32_t channels) (ep_dsp_depthwise.h).

    Registers: r0-r5 accumulators, then outputs; r6-r9 a window of x, then constants; r10, r11 weights; r12 x; lr the
    record, then y.
    """
    code = AssemblyBuilder(line.name)
    frame = _Frame
    code.enter(frame.size)
    code.comment("r4 x, r5 y, r6 first y, r7 plane step, r8 step of y, r9 rest, r10 narrow blocks")
    code("ldm", "r0", registers([f"r{number}" for number in range(4, 11)]))
    code("strd", "r2", "r3", frame.record)
    code("strd", "r7", "r8", frame.plane_step)
    code("rsb", "r3", "r3", "#4")
    code("mla", "r4", "r3", "r7", "r4")
    code("add", "r5", "r5", "r1")
    code("add", "r6", "r6", "r1")
    code("adr.w", "r11", code.local("stored"))
    code("orr", "r11", "r11", "#1")
    code("sub", "r9", "r11", f"r9, lsl #{3 if line.has_wide_step else 2}")
    code("strd", "r9", "r10", frame.part)
    code.label("channel")
    code("strd", "r5", "r6", frame.y)
    code("strd", "r4", "r5", frame.channel_x)
    code("mov", "r12", "r4")
    if line.has_narrow:
        code("ldrd", "r9", "r10", frame.part)
        code("strd", "r9", "r9", frame.store)
        code("cmp", "r10", "#0")
        code("bne.w", code.local("narrow"))
    else:
        code("ldr", "r9", frame.part)
        code("str", "r9", frame.store)
    code.label("block")
    _emit_block(code, line, BLOCK_PAIRS)
    code("ldr.w", "pc", frame.store)

    code.comment("the last block: as many as there are; then whole blocks")
    for place in reversed(range(BLOCK_OUTPUTS - 1)):
        _store_output(code, line, place)
    code.label("stored")
    code("adr.w", "r10", code.local("whole"))
    code("orr", "r10", "r10", "#1")
    code("str.w", "r10", frame.store)
    if line.has_narrow:
        code("ldr", "r11", frame.narrow)
        code("cmp", "r11", "#2")
        code("beq.w", code.local("again"))
    code("b", code.local("next"))
    code.label("whole")
    for place in reversed(range(BLOCK_OUTPUTS)):  # a narrow block's stores are the last four
        _store_output(code, line, place)
    code.label("next")
    code("ldr.w", "r10", frame.y_first)
    _step_back(code, line, BLOCK_PAIRS)
    code("cmp", "lr", "r10")
    code("bhs.w", code.local("block"))

    code("ldrd", "r3", "r9", frame.record)
    code("ldrd", "r4", "r5", frame.channel_x)
    code("ldrd", "r7", "r8", frame.plane_step)
    code("mov", "r6", "r10")
    code("add", "r4", "r4", "r7")
    code("add", "r5", "r5", "r8")
    code("add", "r6", "r6", "r8")
    code.advance("r3", 4 * line.record_words)
    code("subs", "r9", "r9", "#1")
    code("strd", "r3", "r9", frame.record)
    code("bne.w", code.local("channel"))
    code.leave()
    if line.has_narrow:
        code.label("again")
        code("add", "r10", "r10", f"#{2 * (8 if line.has_wide_step else 4)}")
        code("str", "r10", frame.store_narrow)
        _step_back(code, line, NARROW_PAIRS)
        code.label("narrow")
        _emit_block(code, line, NARROW_PAIRS)
        code("ldr.w", "pc", frame.store_narrow)
    return code.build(
        f"void {line.name}(const ep_dsp_run *run, int32_t y_offset, const uint32_t *record, int32_t channels)"
    )


def _emit_block(code: AssemblyBuilder, line: LineCode, pairs: int) -> None:
    """The outputs of a block to r0, r1, ...; lr: y."""
    sums = _PAIRS[:pairs]
    code("ldr.w", "lr", _Frame.record)
    if pairs == BLOCK_PAIRS:
        code("ldm", "lr!", registers([register for pair in sums for register in pair]))
    else:
        code.advance("lr", 8 * (BLOCK_PAIRS - pairs))
        code("ldm", "lr!", registers([register for pair in sums for register in pair]))
    weight = 4 * CONSTANT_WORDS
    for taps in line.lines:
        _sum_line(code, taps, weight, sums)
        weight += 4 * taps.words
    code("ldm", "lr", registers(_WINDOW))
    outputs = Outputs(code, line.finish, ("r6", "r7", "r8", "r9"))
    code("ldr.w", "r10", _Frame.carry)
    code("ldr.w", "lr", _Frame.y)
    free, other = "r11", "r10"
    for low, high in reversed(sums):
        code("ubfx", free, low, "#0", "#21")
        outputs.take_even(low, high)
        outputs.take_odd(other, high)
        free, other = other, free
    code("str.w", other, _Frame.carry)
    for low, high in sums:
        outputs.rescale(low, "r10")
        outputs.rescale(high, "r10")


def _sum_line(code: AssemblyBuilder, line: TapLine, weight: int, sums: tuple[tuple[str, str], ...]) -> None:
    """A window of four words of x slides over the weights, two at a time; lr + weight: the line's first weight."""
    words, ahead = line.words, len(sums) - 1

    def x(index: int) -> str:
        return _WINDOW[index % 4]

    load_words(code, tuple(x(index) for index in range(ahead)), "r12", line.offset)
    for tap in range(0, words, 2):
        count = min(2, words - tap)
        first = tap + ahead
        load_words(code, tuple(x(first + index) for index in range(count)), "r12", line.offset + 4 * first)
        load_words(code, _WEIGHTS[:count], "lr", weight + 4 * tap)
        for step in range(count):
            for pair, (low, high) in enumerate(sums):
                code("smlal", low, high, x(tap + step + pair), _WEIGHTS[step])


def _step_back(code: AssemblyBuilder, line: LineCode, pairs: int) -> None:
    """x and y to the block of so many pairs before the current one."""
    code("sub", "r12", "r12", f"#{4 * pairs}")
    code.advance("lr", -2 * pairs * line.y_step, "r11")
    code("str.w", "lr", _Frame.y)


def _store_output(code: AssemblyBuilder, line: LineCode, place: int) -> None:
    """Store output `place` of a block: 4 bytes of code, or 8 where the step is wide."""
    register = _PAIRS[place // 2][place % 2]
    if line.has_wide_step:
        code("movw", "r11", f"#{place * line.y_step}")
        code("strb.w", register, "[lr, r11]")
    else:
        code("strb.w", register, at("lr", place * line.y_step))
