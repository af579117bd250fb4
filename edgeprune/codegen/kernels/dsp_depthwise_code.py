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

Five functions are generated. `build_line_gather`, `build_row_gather`: the planes. `build_record_code`: the records.
`build_line_code`: a long line (a series), block by block
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

_G_STEP, _G_FRONT, _G_QUADS, _G_BACK = 8, 16, 24, 32  # fields of C's ep_dsp_gather


def build_line_gather(plane_bytes: int) -> Assembly:
    """void ep_dsp_gather_<plane_bytes>(const ep_dsp_gather *): a line of four channels to planes (ep_dsp_depthwise.h).

    Registers: r0 x; r1, r2 planes 0 and 2; r3, r8 once and three times the step; r4-r7 pixels; r9-r11 words;
    r12 count; lr padding.
    """
    code = AssemblyBuilder(f"ep_dsp_gather_{plane_bytes}")
    gather = _Gather(code, plane_bytes)
    code.enter(frame_bytes=4)
    code("str", "r0", at("sp"))
    code("ldrd", "r12", "r10", at("r0", _G_FRONT))
    code("ldrd", "r3", "lr", at("r0", _G_STEP))
    code("ldrd", "r0", "r1", at("r0"))
    code("add", "r8", "r3", "r3, lsl #1")
    code("add", "r2", "r1", f"#{2 * plane_bytes}")
    _fill_planes(gather, "front")
    code("cmp", "r10", "#0")
    code("beq", code.local("body"))
    code("ldr", "r4", at("r0"))
    code("add", "r0", "r0", "r3")
    gather.write_head(0)
    gather.step_planes(4)
    code.label("body")
    code("ldr", "r9", at("sp"))
    code("ldr", "r12", at("r9", _G_QUADS))
    code("cmp", "r12", "#0")
    code("beq", code.local("rest"))
    code.label("quads")
    code("ldr", "r4", at("r0"))
    code("ldr", "r5", "[r0, r3]")
    code("ldr", "r6", "[r0, r3, lsl #1]")
    code("ldr", "r7", "[r0, r8]")
    code("add", "r0", "r0", "r3, lsl #2")
    gather.write_quad(0)
    gather.step_planes(8)
    code("subs", "r12", "r12", "#1")
    code("bne", code.local("quads"))
    code.label("rest")
    code("ldr", "r9", at("sp"))
    code("ldr", "r12", at("r9", _G_QUADS + 4))
    code("lsls", "r12", "r12", "#31")  # bit 1 to the carry, bit 0 to the sign; both last until they are asked for
    code("bcc", code.local("single"))
    code("ldr", "r4", at("r0"))
    code("ldr", "r5", "[r0, r3]")
    code("add", "r0", "r0", "r3, lsl #1")
    gather.write_pair(0)
    code("add", "r1", "r1", "#4")
    code("add", "r2", "r2", "#4")
    code.label("single")
    code("bpl", code.local("pad"))
    code("ldr", "r4", at("r0"))
    gather.write_single(0)
    gather.step_planes(4)
    code.label("pad")
    code("ldr", "r9", at("sp"))
    code("ldr", "r12", at("r9", _G_BACK))
    _fill_planes(gather, "back")
    code.leave()
    return code.build(f"void {code.name}(const ep_dsp_gather *gather)")


def _fill_planes(gather: _Gather, name: str) -> None:
    """r12 words of padding."""
    code = gather.code
    code("cmp", "r12", "#0")
    code("beq", code.local(f"{name}_done"))
    code("add", "r9", "lr", "lr, lsl #21")
    code.label(name)
    for channel in range(4):
        gather.store("r9", channel, 0)
    gather.step_planes(4)
    code("subs", "r12", "r12", "#1")
    code("bne", code.local(name))
    code.label(f"{name}_done")


@dataclass(frozen=True)
class RowPart:
    """A phase of a row: padding and a value (head), fours of values, 0 to 3 values (rest), the last with padding.

    column: of the first value. word: in a plane's row, where the first pair goes.
    """

    column: int
    word: int
    head: bool
    quads: int
    rest: int


@dataclass(frozen=True)
class RowGather:
    """Rows of a map to planes. step: pixels from a value to the next. padding: its stored value."""

    parts: tuple[RowPart, ...]
    step: int
    x_stride: int
    x_row_bytes: int
    row_bytes: int
    plane_bytes: int
    padding: int

    @property
    def name(self) -> str:
        parts = "_".join(f"{part.column}w{part.word}h{part.head:d}q{part.quads}r{part.rest}" for part in self.parts)
        sizes = (
            f"{self.step}x{self.x_stride}_{self.x_row_bytes}_{self.row_bytes}_{self.plane_bytes}p{self.padding + 128}"
        )
        return f"ep_dsp_rows_{parts}_{sizes}"


_MOST_QUADS_UNROLLED = 2


def build_row_gather(rows: RowGather) -> Assembly:
    """void name(const int8_t *x, uint32_t *words, int32_t rows): from the first row on.

    Registers: r0 x; r1, r2 planes 0 and 2; r3 x in a row; r4-r7 pixels; r8 rows; r9-r11 words; r12 count; lr padding.
    """
    code = AssemblyBuilder(rows.name)
    gather = _Gather(code, rows.plane_bytes)
    code.enter()
    code("mov", "r8", "r2")
    code("add", "r2", "r1", f"#{2 * rows.plane_bytes}")
    code.load("lr", rows.padding)
    code.label("row")
    for number, part in enumerate(rows.parts):
        _emit_part(gather, rows, part, f"part{number}")
    code.advance("r0", rows.x_row_bytes, "r9")
    code("adds", "r1", "r1", f"#{rows.row_bytes}")
    code("adds", "r2", "r2", f"#{rows.row_bytes}")
    code("subs", "r8", "r8", "#1")
    code("bne.w", code.local("row"))
    code.leave()
    return code.build(f"void {rows.name}(const int8_t *x, uint32_t *words, int32_t rows)")


def _emit_part(gather: _Gather, rows: RowGather, part: RowPart, label: str) -> None:
    code = gather.code
    pixel = rows.step * rows.x_stride
    values = part.head + 4 * part.quads + part.rest
    column, word = part.column * rows.x_stride, 4 * part.word
    x = "r0"
    if part.quads > _MOST_QUADS_UNROLLED or column + (values - 1) * pixel > _FURTHEST:
        code("mov", "r3", "r0")
        code.advance("r3", column, "r9")
        x, column = "r3", 0

    def load(count: int) -> None:
        nonlocal column
        for register in ("r4", "r5", "r6", "r7")[:count]:
            code("ldr", register, at(x, column))
            column += pixel

    def move(distance: int) -> None:
        nonlocal column
        if x == "r3":
            code.advance("r3", distance, "r9")
            column = 0

    if part.head:
        load(1)
        gather.write_head(word)
        word += 4
        move(pixel)
    if part.quads > _MOST_QUADS_UNROLLED:
        code("mov", "r12", f"#{part.quads}")
        code.label(label)
        load(4)
        gather.write_quad(word)
        move(4 * pixel)
        gather.step_planes(8)
        code("subs", "r12", "r12", "#1")
        code("bne", code.local(label))
    else:
        for _ in range(part.quads):
            load(4)
            gather.write_quad(word)
            word += 8
            move(4 * pixel)
    if part.rest >= 2:
        load(2)
        gather.write_pair(word)
        word += 4
    if part.rest % 2:
        load(1)
        gather.write_single(word)
    if part.quads > _MOST_QUADS_UNROLLED:
        code("sub", "r1", "r1", f"#{8 * part.quads}")
        code("sub", "r2", "r2", f"#{8 * part.quads}")


@dataclass(frozen=True)
class _Gather:
    """Pixels in r4-r7 to words at an offset in each plane. r1, r2: planes 0 and 2; lr: padding; r9-r11 free."""

    code: AssemblyBuilder
    plane_bytes: int

    def store(self, register: str, channel: int, offset: int) -> None:
        self.code("str", register, at("r1" if channel < 2 else "r2", (channel % 2) * self.plane_bytes + offset))

    def step_planes(self, amount: int) -> None:
        self.code("adds", "r1", "r1", f"#{amount}")
        self.code("adds", "r2", "r2", f"#{amount}")

    def write_head(self, offset: int) -> None:
        for channel in range(4):
            self._extract("r9", "r4", channel)
            self.code("add", "r9", "lr", "r9, lsl #21")
            self.store("r9", channel, offset)

    def write_single(self, offset: int) -> None:
        for channel in range(4):
            self._extract("r9", "r4", channel)
            self.code("add", "r9", "r9", "lr, lsl #21")
            self.store("r9", channel, offset)

    def write_pair(self, offset: int) -> None:
        for channel in range(4):
            self._pack("r9", "r10", "r4", "r5", channel)
            self.store("r9", channel, offset)

    def write_quad(self, offset: int) -> None:
        for channel in range(4):
            self._pack("r9", "r10", "r4", "r5", channel)
            self._pack("r10", "r11", "r6", "r7", channel)
            at_plane = (channel % 2) * self.plane_bytes + offset
            if at_plane <= _FURTHEST_DOUBLE:
                self.code("strd", "r9", "r10", at("r1" if channel < 2 else "r2", at_plane))
            else:
                self.store("r9", channel, offset)
                self.store("r10", channel, offset + 4)

    def _extract(self, into: str, word: str, channel: int) -> None:
        """into = byte `channel` of the word, sign-extended."""
        if channel == 3:
            self.code("asr", into, word, "#24")
        else:
            self.code("sxtb", into, word, *([f"ror #{8 * channel}"] if channel else []))

    def _pack(self, into: str, free: str, first: str, second: str, channel: int) -> None:
        """into = the pair of bytes `channel` of two pixels."""
        self._extract(into, first, channel)
        self._extract(free, second, channel)
        self.code("add", into, into, f"{free}, lsl #21")


# --- records ---

_C_WEIGHT, _C_SHIFT, _C_MULTIPLIER, _C_ZERO_POINT = 8, 16, 22, 32  # fields of C's ep_dsp_channels
_MOST_WORDS_UNROLLED = 3


@dataclass(frozen=True)
class RecordCode:
    """start_words: where accumulators start. weight_words. is_packed: weights lie in flash as words of pairs."""

    start_words: int
    weight_words: int
    is_packed: bool
    wide: bool

    @property
    def words(self) -> int:
        return self.start_words + CONSTANT_WORDS + self.weight_words

    @property
    def name(self) -> str:
        suffix = ("p" if self.is_packed else "") + ("w" if self.wide else "")
        return f"ep_dsp_records_{self.start_words}_{self.weight_words}{suffix}"

    @property
    def weight_bytes(self) -> int:
        return self.weight_words * (4 if self.is_packed else 2)


def build_record_code(records: RecordCode) -> Assembly:
    """void name(const ep_dsp_channels *, int32_t channel, uint32_t *record, int32_t count) (ep_dsp_depthwise.h).

    Registers: r1, r7 steps of the weights and of channels; r2 record; r3 count; r4 weights; r5 scales; r6 shifts; r8
    twice the zero point and 1; r9-r12, lr, r0 free.
    """
    code = AssemblyBuilder(records.name)
    code.enter()
    code("ldrd", "r4", "r5", at("r0", _C_WEIGHT))
    code("ldr", "r6", at("r0", _C_SHIFT))
    code("ldrsh", "r7", at("r0", _C_MULTIPLIER))
    code("ldrsh", "r8", at("r0", _C_ZERO_POINT))
    code("movs", "r0", f"#{records.weight_bytes}")
    code("mla", "r4", "r0", "r1", "r4")
    code("add", "r5", "r5", "r1, lsl #3")
    code("add", "r6", "r6", "r1")
    code("mul", "r1", "r0", "r7")
    code("lsl", "r8", "r8", "#1")
    code("add", "r8", "r8", "#1")
    code.label("record")
    code("ldrd", "r10", "r11", at("r5"))
    code("ldrsb", "r12", at("r6"))
    code("add", "r5", "r5", "r7, lsl #3")
    code("add", "r6", "r6", "r7")
    code("sub", "r10", "r10", f"#{1 << (20 + records.wide)}")
    code("mov", "r9", f"#{1 << 20}")
    code("mov", "lr", f"#{1 << 9}")
    if not records.wide:
        code("add", "lr", "lr", "r10, lsl #10")
    for _ in range(records.start_words // 2):
        code("stm", "r2!", registers(["r9", "lr"]))
    if records.start_words % 2:
        code("str", "r9", "[r2], #4")
    code("sub", "lr", "r12", "#1")
    code("lsl", "lr", "r8", "lr")
    code("strd", "r12", "r10", "[r2], #8")
    code("strd", "r11", "lr", "[r2], #8")
    _copy_weights(code, records)
    code("add", "r4", "r4", "r1")
    code("subs", "r3", "r3", "#1")
    code("bne.w", code.local("record"))
    code.leave()
    return code.build(
        f"void {records.name}(const ep_dsp_channels *op, int32_t channel, uint32_t *record, int32_t count)"
    )


def _copy_weights(code: AssemblyBuilder, records: RecordCode) -> None:
    words = records.weight_words
    free = ("r9", "r10", "r11", "r12", "lr")
    code("mov", "r0", "r4")
    if records.is_packed:
        whole, rest = divmod(words, len(free))
        for count in [len(free)] * whole + ([rest] if rest else []):
            if count == 1:
                code("ldr", "r9", at("r0"))
                code("str", "r9", "[r2], #4")
            else:
                code("ldm", "r0!", registers(free[:count]))
                code("stm", "r2!", registers(free[:count]))
        return
    if words > _MOST_WORDS_UNROLLED:
        code("mov", "r9", f"#{words // 2}")
        code.label("weights")
        _unpack_weights(code, not records.wide)
        code("subs", "r9", "r9", "#1")
        code("bne", code.local("weights"))
    else:
        for _ in range(words // 2):
            _unpack_weights(code, not records.wide)
    if words % 2:
        code("ldrsb", "r10", at("r0"))
        code("ldrsb", "r11", at("r0", 1))
        code("add", "r10", "r10", "r11, lsl #21")
        if not records.wide:
            code("lsl", "r10", "r10", "#1")
        code("str", "r10", "[r2], #4")


def _unpack_weights(code: AssemblyBuilder, doubled: bool) -> None:
    """Two words from four bytes."""
    code("ldr", "r10", "[r0], #4")
    code("sxtb", "r11", "r10")
    code("sxtb", "r12", "r10", "ror #8")
    code("add", "r11", "r11", "r12, lsl #21")
    code("sxtb", "r12", "r10", "ror #16")
    code("asr", "lr", "r10", "#24")
    code("add", "r12", "r12", "lr, lsl #21")
    if doubled:
        code("lsl", "r11", "r11", "#1")
        code("lsl", "r12", "r12", "#1")
    code("strd", "r11", "r12", "[r2], #8")


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
    wide_step = (BLOCK_OUTPUTS - 1) * line.y_step > _FURTHEST
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
    """void name(const ep_dsp_run *): channels of rows (ep_dsp_depthwise.h).

    Registers: r0-r6 accumulators and tail, then outputs; r7-r10 weights and x, then constants; r11 x; r12 y; lr the
    record, then free.
    """
    code = AssemblyBuilder(plane.name)
    y_last, y_end, record, x, _, channels, plane_step, _ = (at("sp", offset) for offset in range(0, 32, 4))
    code.enter(frame_bytes=32)
    code("ldm", "r0", registers(["r1", "r2", "r3", "r4", "r5", "r6", "r7", "r8"]))
    code("strd", "r7", "r8", plane_step)
    code("str", "r5", channels)
    code("str", "r3", record)
    code.label("channel")
    code.comment("r1 x, r2 y, r4 the end of y")
    code("mov", "r11", "r1")
    code("mov", "r12", "r2")
    code("strd", "r1", "r2", x)
    if plane.outputs > plane.block:
        code.advance("r2", plane.last_block * plane.y_step, "r8")
        code("strd", "r2", "r4", y_last)
    else:
        code("str", "r4", y_end)

    code.label("block")
    code("ldr.w", "lr", record)
    code("ldm", "lr!", registers(_PLANE_SUMS[: plane.start_words]))
    weight = 4 * CONSTANT_WORDS
    lines = list(plane.lines)
    while lines:
        both = lines[0].words == 1 and len(lines) > 1 and lines[1].words == 1  # one LDRD for the weights of both
        together = [lines.pop(0) for _ in range(1 + both)]
        count = sum(line.words for line in together)
        _load_words(code, _PLANE_FREE[:count], "lr", weight)
        x_registers = _PLANE_FREE[count:][:2]
        for number, line in enumerate(together):
            weights = _PLANE_FREE[number : number + 1] if both else _PLANE_FREE[:count]
            _sum_plane_line(code, plane, line, weights, x_registers)
        weight += 4 * count
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
    code("ldr", "r9", channels)
    code("ldrd", "r1", "r2", x)
    code("mov", "r4", "lr")
    code("ldrd", "r5", "r6", plane_step)
    code("ldr", "r3", record)
    code("add", "r1", "r1", "r5")
    code("add", "r2", "r2", "r6")
    code("add", "r4", "r4", "r6")
    code.advance("r3", 4 * plane.record_words)
    code("str", "r3", record)
    code("subs", "r9", "r9", "#1")
    code("str", "r9", channels)
    code("bne.w", code.local("channel"))
    code.leave()
    return code.build(f"void {plane.name}(const ep_dsp_run *run)")


def _sum_plane_line(
    code: AssemblyBuilder, plane: PlaneCode, line: TapLine, weights: tuple[str, ...], x_registers: tuple[str, ...]
) -> None:
    """All weights of the line stay in registers while words of x come by, each for all the pairs that it is in."""
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
