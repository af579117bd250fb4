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

_LINE_PAIRS = (("r0", "r1"), ("r2", "r3"), ("r4", "r5"))
_WINDOW, _WEIGHTS = ("r6", "r7", "r8", "r9"), ("r10", "r11")


@dataclass(frozen=True)
class LineCode:
    """lines: phases of the stride. y_step: bytes from one output to the next of a line."""

    lines: tuple[TapLine, ...]
    y_step: int
    finish: Finish

    @property
    def name(self) -> str:
        return f"ep_dsp_dwline_{count_line_bytes(self.lines)}_y{self.y_step}{self.finish.suffix}"

    @property
    def record_words(self) -> int:
        return 2 * BLOCK_PAIRS + CONSTANT_WORDS + sum(line.words for line in self.lines)


def build_line_code(line: LineCode) -> Assembly:
    """void name(const ep_dsp_run *): channels of a line (ep_dsp_depthwise.h).

    Registers: r0-r5 accumulators, then outputs; r6-r9 a window of x, then constants; r10, r11 weights; r12 x; lr the
    record, then y.
    """
    code = AssemblyBuilder(line.name)
    # the frame: state of this channel; what advances from channel to channel; how far, and where the first store is
    carry, y, y_first, record, x, _, y_limit, channels, plane, _, entry, store = (
        at("sp", offset) for offset in range(0, 48, 4)
    )
    code.enter(frame_bytes=48)
    code("ldm", "r0", registers(["r1", "r2", "r3", "r4", "r5", "r6", "r7", "r8"]))
    wide_step = (BLOCK_OUTPUTS - 1) * line.y_step > FURTHEST
    code("adr.w", "r9", code.local("stored"))
    code("sub", "r9", "r9", f"r6, lsl #{3 if wide_step else 2}")
    code("orr", "r9", "r9", "#1")
    code("strd", "r7", "r8", plane)
    code("str", "r9", entry)
    code("str", "r5", channels)
    code("str", "r3", record)
    code.label("channel")
    code.comment("r1 x, r2 y, r4 first y")
    code("strd", "r2", "r4", y)
    code("strd", "r1", "r2", x)
    code("str", "r4", y_limit)
    code("ldr", "r9", entry)
    code("mov", "r12", "r1")
    code("str", "r9", store)

    code.label("block")
    code("ldr.w", "lr", record)
    code("ldm", "lr!", registers([register for pair in _LINE_PAIRS for register in pair]))
    weight = 4 * CONSTANT_WORDS
    for taps in line.lines:
        _sum_line(code, taps, weight)
        weight += 4 * taps.words
    code("ldm", "lr", registers(_WINDOW))
    outputs = Outputs(code, line.finish, ("r6", "r7", "r8", "r9"))
    code("ldr.w", "r10", carry)
    code("ldr.w", "lr", y)
    free, other = "r11", "r10"
    for low, high in reversed(_LINE_PAIRS):
        code("ubfx", free, low, "#0", "#21")
        outputs.take_even(low, high)
        outputs.take_odd(other, high)
        free, other = other, free
    code("str.w", other, carry)
    for low, high in _LINE_PAIRS:
        outputs.rescale(low, "r10")
        outputs.rescale(high, "r10")
    code("ldr.w", "pc", store)
    code.comment("the last block: as many as there are; then whole blocks")
    for place in reversed(range(BLOCK_OUTPUTS - 1)):
        _store_output(code, place, line.y_step, wide_step)
    code.label("stored")
    code("adr.w", "r10", code.local("whole"))
    code("orr", "r10", "r10", "#1")
    code("str.w", "r10", store)
    code("b", code.local("next"))
    code.label("whole")
    for place in range(BLOCK_OUTPUTS):
        _store_output(code, place, line.y_step, wide_step)
    code.label("next")
    code("ldr.w", "r10", y_first)
    code("sub", "r12", "r12", f"#{4 * BLOCK_PAIRS}")
    code.advance("lr", -BLOCK_OUTPUTS * line.y_step, "r11")
    code("str.w", "lr", y)
    code("cmp", "lr", "r10")
    code("bhs.w", code.local("block"))
    code("ldr", "r9", channels)
    code("ldrd", "r1", "r2", x)
    code("ldr", "r4", y_limit)
    code("ldrd", "r5", "r6", plane)
    code("ldr", "r3", record)
    code("add", "r1", "r1", "r5")
    code("add", "r2", "r2", "r6")
    code("add", "r4", "r4", "r6")
    code.advance("r3", 4 * line.record_words)
    code("str", "r3", record)
    code("subs", "r9", "r9", "#1")
    code("str", "r9", channels)
    code("bne.w", code.local("channel"))
    code.leave()
    return code.build(f"void {line.name}(const ep_dsp_run *run)")


def _sum_line(code: AssemblyBuilder, line: TapLine, weight: int) -> None:
    """A window of four words of x slides over the weights, two at a time; lr + weight: the line's first weight."""
    words = line.words

    def x(index: int) -> str:
        return _WINDOW[index % 4]

    load_words(code, (x(0), x(1)), "r12", line.offset)
    for tap in range(0, words, 2):
        both = tap + 1 < words
        further = (x(tap + 2), x(tap + 3)) if both else (x(tap + 2),)
        load_words(code, further, "r12", line.offset + 4 * (tap + 2))
        load_words(code, _WEIGHTS[: 1 + both], "lr", weight + 4 * tap)
        for step in range(1 + both):
            for pair, (low, high) in enumerate(_LINE_PAIRS):
                code("smlal", low, high, x(tap + step + pair), _WEIGHTS[step])


def _store_output(code: AssemblyBuilder, place: int, y_step: int, wide_step: bool) -> None:
    """Store output `place` of a block: 4 bytes of code, or 8 where the step is wide."""
    register = _LINE_PAIRS[place // 2][place % 2]
    if wide_step:
        code("movw", "r11", f"#{place * y_step}")
        code("strb.w", register, "[lr, r11]")
    else:
        code("strb.w", register, at("lr", place * y_step))
