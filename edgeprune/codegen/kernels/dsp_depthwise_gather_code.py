"""Depthwise convolution's gathering: four channels of a map, a word per pixel, to four planes of packed pairs.

See dsp_depthwise_code.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgeprune.codegen.assembly import AssemblyBuilder, at
from edgeprune.codegen.kernel import Assembly
from edgeprune.codegen.kernels.dsp_depthwise_code import FURTHEST, FURTHEST_DOUBLE

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
    if part.quads > _MOST_QUADS_UNROLLED or column + (values - 1) * pixel > FURTHEST:
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
            if at_plane <= FURTHEST_DOUBLE:
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
