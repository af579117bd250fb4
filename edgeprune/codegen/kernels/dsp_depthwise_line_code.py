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
    RUN_PLANE,
    RUN_PROTOTYPE,
    Finish,
    Outputs,
    TapLine,
    count_line_bytes,
    load_words,
    step_plane,
)

_PAIRS = (("r0", "r1"), ("r2", "r3"), ("r4", "r5"))
_WINDOW, _WEIGHTS = ("r6", "r7", "r8", "r9"), ("r10", "r11")


@dataclass(frozen=True)
class LineCode:
    """lines: phases of the stride. y_step: bytes from one output to the next. has_many: whether a plane has several
    output channels; how many is known at run time, so that layers share the code.

    has_narrow: whether there is code for blocks of one and two pairs, for a line's end: so n outputs take (n + 2) // 2
    pairs and no more. It pays where lines are short.
    """

    lines: tuple[TapLine, ...]
    y_step: int
    has_many: bool
    has_narrow: bool
    finish: Finish

    @property
    def name(self) -> str:
        forms = f"{'m' if self.has_many else ''}{'n' if self.has_narrow else ''}{self.finish.suffix}"
        return f"ep_dsp_dwline_{count_line_bytes(self.lines)}_y{self.y_step}{forms}"

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
    record, channels = at("sp", 12), at("sp", 16)  # the current one, how many are left
    x_ahead, y_ahead = at("sp", 20), at("sp", 24)  # from before a line to the first block of the next
    part = at("sp", 28)  # where the last block's outputs start
    first_store, first = at("sp", 32), at("sp", 36)  # what follows the last block's sums; the last block
    store = at("sp", 40)  # what follows the next wide block's sums
    plane_bytes, multiplier = at("sp", 44), at("sp", 48)
    of_plane = at("sp", 52)  # output channels left of the plane
    size = 56


def build_line_code(line: LineCode) -> Assembly:
    """void name(const ep_dsp_run *, int32_t output, const uint32_t *record, int32_t count, int32_t x_bytes).

    See ep_dsp_depthwise.h. Registers: r0-r5 accumulators, then outputs; r6-r9 a window of x, then constants; r10, r11
    weights; r12 x; lr the record, then y.
    """
    code = AssemblyBuilder(line.name)
    frame = _Frame
    code.enter(frame.size)
    _emit_entry(code, line)
    code.label("channel")
    code.comment("r12 x, r5 y, r6 first y")
    code("strd", "r5", "r6", frame.y)
    code("ldrd", "r9", "r10", frame.first_store)
    code("str", "r9", frame.store)
    if line.has_narrow:
        code("bx", "r10")
    code.label("block")
    _emit_sums(code, line, BLOCK_PAIRS)
    code("ldr.w", "pc", frame.store)
    if line.has_narrow:
        code.label("two")
        _emit_sums(code, line, 2)
        code("b", code.local("last"))
        code.label("one")
        _emit_sums(code, line, 1)
    code.label("last")
    code("adr.w", "r10", code.local("outputs"))
    code("orr", "r10", "r10", "#1")
    code("str.w", "r10", frame.store)
    code("ldr.w", "pc", frame.part)
    code.comment("a block's outputs, from the last one on; the line's last block has less of them")
    code.label("outputs")
    outputs = Outputs(code, line.finish, _WINDOW)
    for place in reversed(range(BLOCK_OUTPUTS)):
        outputs.rescale(_PAIRS[place // 2][place % 2], "r10")
        _store_output(code, line, place)
    code.label("next")
    code("ldr.w", "r10", frame.y_first)
    code("sub", "r12", "r12", f"#{4 * BLOCK_PAIRS}")
    code.advance("lr", -BLOCK_OUTPUTS * line.y_step, "r11")
    code("str.w", "lr", frame.y)
    code("cmp", "lr", "r10")
    code("bhs.w", code.local("block"))

    code("ldrd", "r3", "r9", frame.record)
    code("ldrd", "r7", "r8", frame.x_ahead)
    code("add", "r12", "r12", "r7")
    code("add", "r5", "lr", "r8")
    code("add", "r6", "r10", "#1")
    code.advance("r3", 4 * line.record_words)
    if line.has_many:
        step_plane(code, "r12", frame.of_plane, frame.plane_bytes, frame.multiplier)
    code("subs", "r9", "r9", "#1")
    code("strd", "r3", "r9", frame.record)
    code("bne.w", code.local("channel"))
    code.leave()
    return code.build(RUN_PROTOTYPE.format(line.name))


def _emit_entry(code: AssemblyBuilder, line: LineCode) -> None:
    """Arguments to the frame: r0 run, r1 output, r2 record, r3 count."""
    frame = _Frame
    code("ldr", "r12", code.argument(4))
    if line.has_many:
        code("ldrd", "r4", "r5", at("r0", RUN_PLANE))
        code("strd", "r4", "r5", frame.plane_bytes)
        code("str", "r5", frame.of_plane)
    code("ldm", "r0", registers([f"r{number}" for number in range(4, 11)]))
    code.comment("r4 x, r5 y, r6 first y, r7 x ahead, r8 y ahead, r9 rest, r10 pairs that the last block has less")
    code("add", "r12", "r12", "r4")
    code("add", "r5", "r5", "r1")
    code("add", "r6", "r6", "r1")
    code("strd", "r2", "r3", frame.record)
    code("strd", "r7", "r8", frame.x_ahead)
    code("adr.w", "r0", code.local("next"))
    code("orr", "r0", "r0", "#1")
    code("mov", "r1", f"#{_count_output_bytes(line)}")
    code("mls", "r0", "r9", "r1", "r0")
    code("str", "r0", frame.part)
    code("adr.w", "r9", code.local("last"))
    code("orr", "r9", "r9", "#1")
    if line.has_narrow:
        code("cmp", "r10", "#1")
        code("adr.w", "r10", code.local("block"))
        for condition, label in (("eq", "two"), ("hi", "one")):
            code("it", condition)
            code(f"adr{condition}.w", "r10", code.local(label))
        code("orr", "r10", "r10", "#1")
    code("strd", "r9", "r10", frame.first_store)


def _emit_sums(code: AssemblyBuilder, line: LineCode, pairs: int) -> None:
    """What a block's outputs are rescaled from, to r0, r1, ...; r6-r9: constants; lr: y."""
    sums = _PAIRS[:pairs]
    code("ldr.w", "lr", _Frame.record)
    code.advance("lr", 8 * (BLOCK_PAIRS - pairs))
    code("ldm", "lr!", registers([register for pair in sums for register in pair]))
    weight = 4 * CONSTANT_WORDS
    for taps in line.lines:
        _sum_line(code, taps, weight, sums)
        weight += 4 * taps.words
    code("ldm", "lr", registers(_WINDOW))
    outputs = Outputs(code, line.finish, _WINDOW)
    code("ldr.w", "r10", _Frame.carry)
    code("ldr.w", "lr", _Frame.y)
    free, other = "r11", "r10"
    for low, high in reversed(sums):
        code("ubfx", free, low, "#0", "#21")
        outputs.take_even(low, high)
        outputs.take_odd(other, high)
        free, other = other, free
    code("str.w", other, _Frame.carry)


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


def _count_output_bytes(line: LineCode) -> int:
    """Bytes of code that rescale and store an output."""
    return Outputs(AssemblyBuilder(""), line.finish, _WINDOW).rescale_bytes + (8 if line.has_wide_step else 4)


def _store_output(code: AssemblyBuilder, line: LineCode, place: int) -> None:
    """Store output `place` of a block."""
    register = _PAIRS[place // 2][place % 2]
    if line.has_wide_step:
        code("movw", "r11", f"#{place * line.y_step}")
        code("strb.w", register, "[lr, r11]")
    else:
        code("strb.w", register, at("lr", place * line.y_step))
