"""The assembly of depthwise convolution with packed pairs (Armv7E-M and Armv8-M with the DSP extension).

The arithmetic is that of dsp_convolution_code.py: words of two neighbouring values, X[i] = x[2i] + x[2i+1] z and
W[j] = w[2j+1] + w[2j] z with z = 2**21, so that one SMLAL does four multiply-accumulates and its 64-bit sum holds

    L (a part of y[2m-1])   M (y[2m], complete)   H (a part of y[2m+1] = H(m) + L(m+1))

As a channel has one filter only, three more things pay:

- Weights are doubled in the words, and the bias of odd outputs starts in the field H, so that sums come out as SMMLAR
  wants them, 2 * a (requantize.py): five instructions for two of them. It needs 256 * sum|w| < 2**20 and a bias that
  fits; else the code is *wide*: plain weights, bias added and doubled at the end, six instructions.
- Four channels at a time are gathered from the map, a word per pixel, into four *planes* of packed pairs.
- What a channel needs in its loop lies together in a *record* of words in the scratch: where the accumulators start
  (for LDM), then shift, bias, multiplier, offset, then the weights of all lines.

Three functions are generated. `build_gather`: the planes. `build_line_code`: a long line (a series), block by block
from its end to its start, L carried from block to block; the block at the end stores only what there is.
`build_plane_code`: rows of a map, in blocks that stand alone: the sum L of the output after the last pair takes an MLA
for each weight, the lower 32 bits being enough.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgeprune.codegen.assembly import AssemblyBuilder, at, registers
from edgeprune.codegen.kernel import Assembly

BLOCK_PAIRS = 3
BLOCK_OUTPUTS = 2 * BLOCK_PAIRS
LARGEST_PLANE_BYTES = 1020  # what STRD can address
CONSTANT_WORDS = 4  # shift, bias, multiplier, offset
_FURTHEST_DOUBLE = 1020  # of LDRD
_FURTHEST = 4095  # of LDR, STRB


@dataclass(frozen=True)
class Finish:
    """How sums become outputs.

    wide: see the head. ties: negative ties are to be corrected. act_min, act_max: of the output.
    """

    wide: bool
    ties: bool
    act_min: int
    act_max: int

    @property
    def suffix(self) -> str:
        clamp = "" if (self.act_min, self.act_max) == (-128, 127) else f"c{self.act_min + 128}_{self.act_max + 128}"
        return ("w" if self.wide else "") + ("t" if self.ties else "") + clamp


@dataclass(frozen=True)
class TapLine:
    """One line of taps that an output sums: words of x from `offset` bytes on; `taps` of the kernel, two to a word."""

    offset: int
    taps: int

    @property
    def words(self) -> int:
        return -(-self.taps // 2)


def count_line_bytes(lines: tuple[TapLine, ...]) -> str:
    """The lines in a function's name."""
    return "_".join(f"{line.offset}x{line.taps}" for line in lines)


# --- gathering ---

# Fields of C's ep_dsp_gather.
_G_X, _G_STEP, _G_HEAD, _G_REST, _G_X_ROW = 0, 8, 16, 24, 32


def build_gather(plane_bytes: int) -> Assembly:
    """void ep_dsp_gather_<plane_bytes>(ep_dsp_gather *): rows of four channels into planes (ep_dsp_depthwise.h).

    Registers: r0 x; r1, r2 planes 0 and 2; r3, r8 once and three times the step; r4-r7 pixels; r9-r11 words;
    r12 count; lr padding.
    """
    code = AssemblyBuilder(f"ep_dsp_gather_{plane_bytes}")
    code.enter(frame_bytes=4)
    code("str", "r0", at("sp"))
    code("ldrd", "r3", "lr", at("r0", _G_STEP))
    code("add", "r8", "r3", "r3, lsl #1")
    code.label("row")
    code("ldr", "r9", at("sp"))
    code("ldrd", "r0", "r1", at("r9", _G_X))
    code("ldrd", "r10", "r12", at("r9", _G_HEAD))
    code("add", "r2", "r1", f"#{2 * plane_bytes}")
    code("cmp", "r10", "#0")
    code("beq", code.local("body"))
    code.comment("padding, then a value")
    code("ldr", "r4", at("r0"))
    code("add", "r0", "r0", "r3")
    for channel in range(4):
        _extract_byte(code, "r9", "r4", channel)
        code("add", "r9", "lr", "r9, lsl #21")
        code("str", "r9", _at_plane(channel, plane_bytes))
    _step_planes(code, 4)
    code.label("body")
    code("cmp", "r12", "#0")
    code("beq", code.local("rest"))
    code.label("quads")
    code("ldr", "r4", at("r0"))
    code("ldr", "r5", "[r0, r3]")
    code("ldr", "r6", "[r0, r3, lsl #1]")
    code("ldr", "r7", "[r0, r8]")
    code("add", "r0", "r0", "r3, lsl #2")
    for channel in range(4):
        _pack_byte(code, "r9", "r10", "r4", "r5", channel)
        _pack_byte(code, "r10", "r11", "r6", "r7", channel)
        code("strd", "r9", "r10", _at_plane(channel, plane_bytes))
    _step_planes(code, 8)
    code("subs", "r12", "r12", "#1")
    code("bne", code.local("quads"))
    code.label("rest")
    code("ldr", "r9", at("sp"))
    code("ldr", "r12", at("r9", _G_REST))
    code("lsls", "r12", "r12", "#31")  # bit 1 to the carry, bit 0 to the sign
    code("bcc", code.local("single"))
    code("ldr", "r4", at("r0"))
    code("ldr", "r5", "[r0, r3]")
    code("add", "r0", "r0", "r3, lsl #1")
    for channel in range(4):
        _pack_byte(code, "r9", "r10", "r4", "r5", channel)
        code("str", "r9", _at_plane(channel, plane_bytes))
    code("add", "r1", "r1", "#4")
    code("add", "r2", "r2", "#4")
    code.label("single")
    code("bpl", code.local("next"))
    code.comment("a value, then padding")
    code("ldr", "r4", at("r0"))
    for channel in range(4):
        _extract_byte(code, "r9", "r4", channel)
        code("add", "r9", "r9", "lr, lsl #21")
        code("str", "r9", _at_plane(channel, plane_bytes))
    code.label("next")
    code("ldr", "r9", at("sp"))
    code("ldrd", "r4", "r5", at("r9", _G_X_ROW))
    code("ldrd", "r0", "r1", at("r9", _G_X))
    code("ldrd", "r6", "r7", at("r9", _G_REST))
    code("add", "r0", "r0", "r4")
    code("add", "r1", "r1", "r5")
    code("strd", "r0", "r1", at("r9", _G_X))
    code("subs", "r7", "r7", "#1")
    code("str", "r7", at("r9", _G_REST + 4))
    code("bne.w", code.local("row"))
    code.leave()
    return code.build(f"void {code.name}(ep_dsp_gather *gather)")


def _at_plane(channel: int, plane_bytes: int) -> str:
    return at("r1" if channel < 2 else "r2", (channel % 2) * plane_bytes)


def _step_planes(code: AssemblyBuilder, amount: int) -> None:
    code("adds", "r1", "r1", f"#{amount}")
    code("adds", "r2", "r2", f"#{amount}")


def _extract_byte(code: AssemblyBuilder, into: str, word: str, channel: int) -> None:
    """into = byte `channel` of the word, sign-extended."""
    code("sxtb", into, word, *([f"ror #{8 * channel}"] if channel else []))


def _pack_byte(code: AssemblyBuilder, into: str, free: str, first: str, second: str, channel: int) -> None:
    """into = the pair of bytes `channel` of two pixels."""
    _extract_byte(code, into, first, channel)
    _extract_byte(code, free, second, channel)
    code("add", into, into, f"{free}, lsl #21")


# --- what lines and planes share ---


class _Outputs:
    """From accumulators to stored outputs. shift, bias, multiplier, offset: the registers of the constants."""

    def __init__(self, code: AssemblyBuilder, finish: Finish, constants: tuple[str, str, str, str]) -> None:
        self.code, self.finish = code, finish
        self.shift, self.bias, self.multiplier, self.offset = constants

    def take_even(self, low: str, high: str) -> None:
        """low = 2 * a of the even output."""
        self.code("lsrs", low, low, "#21")
        self.code("bfi", low, high, "#11", "#10")
        self.code("add", low, self.bias, f"{low}, lsl #1" if self.finish.wide else low)

    def take_odd(self, low: str, high: str) -> None:
        """high = 2 * a of the odd output; low: the field L of the next pair."""
        self.code("add", high, low, f"{high}, asr #10")
        if self.finish.wide:
            self.code("add", high, self.bias, f"{high}, lsl #1")

    def rescale(self, value: str, free: str) -> None:
        """value = the stored output."""
        code, finish = self.code, self.finish
        if finish.ties:
            code("smmlar", free, value, self.multiplier, self.offset)
            code("add", value, free, f"{value}, asr #31")
        else:
            code("smmlar", value, value, self.multiplier, self.offset)
        code("asr", value, value, self.shift)
        if finish.act_min == -128 and finish.act_max == 127:
            code("ssat", value, "#8", value)
            return
        for condition, limit in (("lt", finish.act_min), ("gt", finish.act_max)):
            code("cmp", value, f"#{limit}")
            code("it", condition)
            code(f"mov{condition}", value, f"#{limit}")


def _load_words(code: AssemblyBuilder, into: tuple[str, ...], base: str, offset: int) -> None:
    """Neighbouring words, two at a time where LDRD reaches."""
    place = 0
    while place < len(into):
        here = offset + 4 * place
        if place + 1 < len(into) and here <= _FURTHEST_DOUBLE:
            code("ldrd", into[place], into[place + 1], at(base, here))
            place += 2
        else:
            code("ldr.w", into[place], at(base, here))
            place += 1


# --- lines ---

# Fields of C's ep_dsp_run, which both functions advance from channel to channel.
_R_X, _R_CHANNELS, _R_PLANE = 0, 16, 24

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
    """void name(ep_dsp_run *): channels of a line (ep_dsp_depthwise.h).

    Registers: r0-r5 accumulators, then outputs; r6-r9 a window of x, then constants; r10, r11 weights; r12 x; lr the
    record, then y.
    """
    code = AssemblyBuilder(line.name)
    record, carry, y, y_first, store, run = (at("sp", offset) for offset in range(0, 24, 4))
    code.enter(frame_bytes=24)
    code("str", "r0", run)
    code.label("channel")
    code.comment("x, y, record, first y; this channel's to the frame, the next one's to the run")
    code("ldm", "r0", registers(["r1", "r2", "r3", "r4"]))
    code("ldrd", "r5", "r6", at("r0", _R_PLANE))
    code("mov", "r12", "r1")
    code("str", "r3", record)
    code("str", "r2", y)
    code("str", "r4", y_first)
    code("add", "r1", "r1", "r5")
    code("add", "r2", "r2", "r6")
    code.advance("r3", 4 * line.record_words)
    code("add", "r4", "r4", "r6")
    code("stm", "r0", registers(["r1", "r2", "r3", "r4"]))
    code("ldr", "r5", at("r0", _R_CHANNELS + 4))
    wide_step = (BLOCK_OUTPUTS - 1) * line.y_step > _FURTHEST
    code("adr.w", "r6", code.local("stored"))
    code("sub", "r6", "r6", f"r5, lsl #{3 if wide_step else 2}")
    code("orr", "r6", "r6", "#1")
    code("str", "r6", store)

    code.label("block")
    code("ldr.w", "lr", record)
    code("ldm", "lr!", registers([register for pair in _LINE_PAIRS for register in pair]))
    weight = 4 * CONSTANT_WORDS
    for taps in line.lines:
        _sum_line(code, taps, weight)
        weight += 4 * taps.words
    code("ldm", "lr", registers(_WINDOW))
    outputs = _Outputs(code, line.finish, ("r6", "r7", "r8", "r9"))
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
    _end_channel(code, run, "r1")
    return code.build(f"void {line.name}(ep_dsp_run *run)")


def _sum_line(code: AssemblyBuilder, line: TapLine, weight: int) -> None:
    """A window of four words of x slides over the weights, two at a time; lr + weight: the line's first weight."""
    words = line.words

    def x(index: int) -> str:
        return _WINDOW[index % 4]

    _load_words(code, (x(0), x(1)), "r12", line.offset)
    for tap in range(0, words, 2):
        both = tap + 1 < words
        further = (x(tap + 2), x(tap + 3)) if both else (x(tap + 2),)
        _load_words(code, further, "r12", line.offset + 4 * (tap + 2))
        _load_words(code, _WEIGHTS[: 1 + both], "lr", weight + 4 * tap)
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


def _end_channel(code: AssemblyBuilder, run: str, free: str) -> None:
    """On to the next channel of the run, or back."""
    code("ldr", "r0", run)
    code("ldr", free, at("r0", _R_CHANNELS))
    code("subs", free, free, "#1")
    code("str", free, at("r0", _R_CHANNELS))
    code("bne.w", code.local("channel"))
    code.leave()


# --- planes ---

_PLANE_SUMS = ("r0", "r1", "r2", "r3", "r4", "r5", "r6")
_PLANE_FREE = ("r7", "r8", "r9", "r10")  # weights and x, then constants


@dataclass(frozen=True)
class PlaneCode:
    """A map's rows.

    lines: of taps, from the first row of a window on. outputs: in a row. x_row: bytes of a plane from the first row of
    an output row's window to the next one's. y_row: bytes from an output row to the next. y_step: from one output to
    the next.
    """

    lines: tuple[TapLine, ...]
    outputs: int
    x_row: int
    y_row: int
    y_step: int
    finish: Finish

    @property
    def name(self) -> str:
        return (
            f"ep_dsp_dwplane_{count_line_bytes(self.lines)}_n{self.outputs}x{self.x_row}y{self.y_row}_{self.y_step}"
            f"{self.finish.suffix}"
        )

    @property
    def block(self) -> int:
        """Outputs of a block; an odd number needs no tail (see the head of the file)."""
        return min(self.outputs, BLOCK_OUTPUTS)

    @property
    def pairs(self) -> int:
        return (self.block + 1) // 2

    @property
    def has_tail(self) -> bool:
        return self.block % 2 == 0

    @property
    def start_words(self) -> int:
        """Words of a record before the constants."""
        return 2 * self.pairs + self.has_tail

    @property
    def record_words(self) -> int:
        return self.start_words + CONSTANT_WORDS + sum(line.words for line in self.lines)

    @property
    def last_block(self) -> int:
        """The output, an even one, that a row's last block starts at; the block may overlap the one before."""
        rest = self.outputs - self.block
        return rest + rest % 2

    def count_words(self, line: TapLine) -> int:
        """Words of x that a block needs of a line."""
        with_tail = self.pairs + line.taps // 2 if self.has_tail else 0
        return max(self.pairs + line.words - 1, with_tail)


def build_plane_code(plane: PlaneCode) -> Assembly:
    """void name(ep_dsp_run *): channels of rows (ep_dsp_depthwise.h).

    Registers: r0-r6 accumulators and tail, then outputs; r7-r10 weights and x, then constants; r11 x; r12 y; lr the
    record, then free.
    """
    code = AssemblyBuilder(plane.name)
    record, y_last, y_end, run = (at("sp", offset) for offset in range(0, 16, 4))
    code.enter(frame_bytes=16)
    code("str", "r0", run)
    code.label("channel")
    code("ldm", "r0", registers(["r1", "r2", "r3", "r4"]))
    code("ldrd", "r5", "r6", at("r0", _R_PLANE))
    code("mov", "r11", "r1")
    code("mov", "r12", "r2")
    code("str", "r3", record)
    code("str", "r4", y_end)
    if plane.outputs > plane.block:
        code("mov", "r7", "r2")
        code.advance("r7", plane.last_block * plane.y_step, "r8")
        code("str", "r7", y_last)
    code("add", "r1", "r1", "r5")
    code("add", "r2", "r2", "r6")
    code.advance("r3", 4 * plane.record_words)
    code("add", "r4", "r4", "r6")
    code("stm", "r0", registers(["r1", "r2", "r3", "r4"]))

    code.label("block")
    code("ldr.w", "lr", record)
    code("ldm", "lr!", registers(_PLANE_SUMS[: plane.start_words]))
    weight = 4 * CONSTANT_WORDS
    for line in plane.lines:
        _sum_plane_line(code, plane, line, weight)
        weight += 4 * line.words
    code("ldm", "lr", registers(_PLANE_FREE))
    _finish_block(code, plane)
    _store_block(code, plane, y_last)
    code.label("row_end")
    code.advance("r11", plane.x_row - 2 * plane.last_block, "lr")
    code.advance("r12", plane.y_row - plane.last_block * plane.y_step, "lr")
    if plane.outputs > plane.block:
        code("ldr", "r0", y_last)
        code.advance("r0", plane.y_row, "lr")
        code("str", "r0", y_last)
    code("ldr.w", "lr", y_end)
    code("cmp", "r12", "lr")
    code("bne.w", code.local("block"))
    _end_channel(code, run, "r1")
    return code.build(f"void {plane.name}(ep_dsp_run *run)")


def _sum_plane_line(code: AssemblyBuilder, plane: PlaneCode, line: TapLine, weight: int) -> None:
    """All weights of the line stay in registers while words of x come by, each for all the pairs that it is in."""
    words = line.words
    weights = _PLANE_FREE[:words]
    x_registers = _PLANE_FREE[words:][:2]
    _load_words(code, weights, "lr", weight)
    count = plane.count_words(line)
    tail = _PLANE_SUMS[2 * plane.pairs]
    for start in range(0, count, len(x_registers)):
        loaded = x_registers[: count - start]
        _load_words(code, loaded, "r11", line.offset + 4 * start)
        for index, x in enumerate(loaded, start):
            for tap, w in enumerate(weights):
                pair = index - tap
                if 0 <= pair < plane.pairs:
                    code("smlal", _PLANE_SUMS[2 * pair], _PLANE_SUMS[2 * pair + 1], x, w)
                elif pair == plane.pairs and plane.has_tail and 2 * tap + 1 < line.taps:
                    code("mla", tail, x, w, tail)


def _finish_block(code: AssemblyBuilder, plane: PlaneCode) -> None:
    shift, bias, multiplier, offset = _PLANE_FREE
    outputs = _Outputs(code, plane.finish, (shift, bias, multiplier, offset))
    for pair in range(plane.pairs):
        low, high = _PLANE_SUMS[2 * pair], _PLANE_SUMS[2 * pair + 1]
        outputs.take_even(low, high)
        if pair + 1 < plane.pairs:
            code("ubfx", "lr", _PLANE_SUMS[2 * pair + 2], "#0", "#21")
            outputs.take_odd("lr", high)
        elif plane.has_tail:
            tail = _PLANE_SUMS[2 * pair + 2]
            code("ubfx", tail, tail, "#0", "#21")
            outputs.take_odd(tail, high)
    for place in range(plane.block):
        outputs.rescale(_PLANE_SUMS[place], "lr")


def _store_block(code: AssemblyBuilder, plane: PlaneCode, y_last: str) -> None:
    """The block's outputs; then on to the row's next block, if there is one."""

    def store(place: int) -> None:
        offset = place * plane.y_step
        if offset > _FURTHEST:
            code("movw", "lr", f"#{offset}")
            code("strb.w", _PLANE_SUMS[place], "[r12, lr]")
        else:
            code("strb.w", _PLANE_SUMS[place], at("r12", offset))

    many = plane.outputs > plane.block
    short = many and plane.last_block + plane.block > plane.outputs  # the last block has one output less
    for place in range(plane.block - short):
        store(place)
    if not many:
        return
    code("ldr.w", "lr", y_last)
    code("cmp", "r12", "lr")
    code("beq", code.local("row_end"))
    if short:
        store(plane.block - 1)
        if (plane.block - 1) * plane.y_step > _FURTHEST:
            code("ldr.w", "lr", y_last)
    code("add", "r11", "r11", f"#{4 * BLOCK_PAIRS}")
    code.advance("r12", BLOCK_OUTPUTS * plane.y_step, "r0")
    overlap = -plane.last_block % BLOCK_OUTPUTS
    if overlap:
        code("cmp", "r12", "lr")
        code("bls.w", code.local("block"))
        code("sub", "r11", "r11", f"#{2 * overlap}")
        code("mov", "r12", "lr")
    code("b.w", code.local("block"))
