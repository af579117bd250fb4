"""Depthwise convolution's gathering: four channels of a map, a word per pixel, to four planes of packed pairs.

See dsp_depthwise_code.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgeprune.codegen.assembly import AssemblyBuilder, at, registers
from edgeprune.codegen.kernel import Assembly
from edgeprune.codegen.kernels.dsp_depthwise_code import FURTHEST, FURTHEST_DOUBLE

_MASK = 0xFF00FF00  # bytes 1 and 3
_SCALE = 1 << 29  # SMLAW with a byte in the upper half of its 16 bits: 2**8 * 2**29 / 2**16 = 2**21
_G_REST, _G_PADDING = 24, 32  # fields of C's ep_dsp_gather


def build_line_gather(plane_bytes: int) -> Assembly:
    """void name(const ep_dsp_gather *, int32_t channel): a line of four channels to planes (ep_dsp_depthwise.h).

    Registers: r3 step; else those of _Gather.
    """
    code = AssemblyBuilder(f"ep_dsp_gather_{plane_bytes}")
    gather = _Gather(code, plane_bytes)
    code.enter(frame_bytes=4)
    code("str", "r0", at("sp"))
    code("mov", "r2", "r1")
    code("ldm", "r0", registers(["r0", "r1", "r3", "r4", "r5", "r12"]))
    code.comment("r4 words of padding in front, r5 whether there is a head, r12 quads")
    code("add", "r0", "r0", "r2")
    gather.load_constants()
    code("orrs", "r9", "r4", "r5")
    code("bne.w", code.local("front"))
    code.label("body")
    code("cmp", "r12", "#0")
    code("beq", code.local("tail"))
    code.label("quads")
    for pixels in (("r4", "r5"), ("r6", "r7")):
        code("ldr", pixels[0], at("r0"))
        code("ldr", pixels[1], "[r0, r3]")
        code("add", "r0", "r0", "r3, lsl #1")
    gather.write_quad(0)
    code("adds", "r1", "r1", "#8")
    code("subs", "r12", "r12", "#1")
    code("bne", code.local("quads"))
    code.label("tail")
    code("ldr", "r9", at("sp"))
    code("ldrd", "r12", "r7", at("r9", _G_REST))
    code.comment("r7 words of padding at the back")
    code("lsls", "r12", "r12", "#31")  # bit 1 to the carry, bit 0 to the sign; both last until they are asked for
    code("bcc", code.local("single"))
    code("ldr", "r4", at("r0"))
    code("ldr", "r5", "[r0, r3]")
    code("add", "r0", "r0", "r3, lsl #1")
    gather.write_pair(0)
    code("add", "r1", "r1", "#4")
    code.label("single")
    code("bpl", code.local("back"))
    code("ldr", "r4", at("sp"))
    code("ldr", "r11", at("r4", _G_PADDING))
    code("ldr", "r4", at("r0"))
    gather.write_single(0)
    code("adds", "r1", "r1", "#4")
    code.label("back")
    code("cbz", "r7", code.local("done"))
    code("ldr", "r4", at("sp"))
    code("ldr", "r11", at("r4", _G_PADDING))
    _fill_planes(gather, "r7", "fill_back")
    code.label("done")
    code.leave()

    code.label("front")
    code("ldr", "r9", at("sp"))
    code("ldr", "r11", at("r9", _G_PADDING))
    code("cbz", "r4", code.local("head"))
    _fill_planes(gather, "r4", "fill_front")
    code.label("head")
    code("cmp", "r5", "#0")
    code("beq.w", code.local("body"))
    code("ldr", "r4", at("r0"))
    code("add", "r0", "r0", "r3")
    gather.write_head(0)
    code("adds", "r1", "r1", "#4")
    code("b.w", code.local("body"))
    return code.build(f"void {code.name}(const ep_dsp_gather *gather, int32_t channel)")


def _fill_planes(gather: _Gather, count: str, label: str) -> None:
    """So many words of padding (r11)."""
    code = gather.code
    code("add", "r9", "r11", "r11, lsl #21")
    code.label(label)
    for channel in range(4):
        gather.store("r9", channel, 0)
    code("adds", "r1", "r1", "#4")
    code("subs", count, count, "#1")
    code("bne", code.local(label))


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

    Registers: r3 x in a row; else those of _Gather.
    """
    code = AssemblyBuilder(rows.name)
    gather = _Gather(code, rows.plane_bytes)
    code.enter(frame_bytes=4)
    code("str", "r2", at("sp"))
    gather.load_constants()
    code.label("row")
    for number, part in enumerate(rows.parts):
        _emit_part(gather, rows, part, f"part{number}")
    code("ldr", "r12", at("sp"))
    code.advance("r0", rows.x_row_bytes, "r9")
    code("adds", "r1", "r1", f"#{rows.row_bytes}")
    code("subs", "r12", "r12", "#1")
    code("str", "r12", at("sp"))
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
        code.load("r11", rows.padding)
        gather.write_head(word)
        word += 4
        move(pixel)
    if part.quads > _MOST_QUADS_UNROLLED:
        code("mov", "r12", f"#{part.quads}")
        code.label(label)
        load(4)
        gather.write_quad(word)
        move(4 * pixel)
        code("adds", "r1", "r1", "#8")
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
        code.load("r11", rows.padding)
        gather.write_single(word)
    if part.quads > _MOST_QUADS_UNROLLED:
        code("sub", "r1", "r1", f"#{8 * part.quads}")


@dataclass(frozen=True)
class _Gather:
    """Pixels in r4-r7 to words at an offset in each plane.

    Registers: r0 x; r1 the first plane; r2 _SCALE; r4-r7 pixels; r8 _MASK; r9-r11, lr free; r12 count. A pair (a, b) is
    a sign-extended, plus b as the upper byte of a halfword times 2**29 / 2**16: two instructions, and one for each two
    channels that frees the bytes of b from their neighbours.
    """

    code: AssemblyBuilder
    plane_bytes: int

    def load_constants(self) -> None:
        self.code.load("r2", _SCALE)
        self.code.load("r8", _MASK)

    def store(self, register: str, channel: int, offset: int) -> None:
        self.code("str", register, at("r1", channel * self.plane_bytes + offset))

    def write_head(self, offset: int) -> None:
        """r4 behind padding (r11)."""
        for channel in range(4):
            self._extract("r9", "r4", channel)
            self.code("add", "r9", "r11", "r9, lsl #21")
            self.store("r9", channel, offset)

    def write_single(self, offset: int) -> None:
        """r4 before padding (r11)."""
        for channel in range(4):
            self._extract("r9", "r4", channel)
            self.code("add", "r9", "r9", "r11, lsl #21")
            self.store("r9", channel, offset)

    def write_pair(self, offset: int) -> None:
        """r4 and r5."""
        self.code("and", "lr", "r8", "r5, lsl #8")
        self.code("and", "r5", "r5", "r8")
        for channel in range(4):
            self._pack("r9", "r4", "r5" if channel % 2 else "lr", channel)
            self.store("r9", channel, offset)

    def write_quad(self, offset: int) -> None:
        """r4 and r5, r6 and r7."""
        for odd, even in (("r5", "r11"), ("r7", "lr")):
            self.code("and", even, "r8", f"{odd}, lsl #8")
            self.code("and", odd, odd, "r8")
        for channel in range(4):
            self._pack("r9", "r4", "r5" if channel % 2 else "r11", channel)
            self._pack("r10", "r6", "r7" if channel % 2 else "lr", channel)
            at_plane = channel * self.plane_bytes + offset
            if at_plane <= FURTHEST_DOUBLE:
                self.code("strd", "r9", "r10", at("r1", at_plane))
            else:
                self.store("r9", channel, offset)
                self.store("r10", channel, offset + 4)

    def _extract(self, into: str, word: str, channel: int) -> None:
        """into = byte `channel` of the word, sign-extended."""
        if channel == 3:
            self.code("asr", into, word, "#24")
        else:
            self.code("sxtb", into, word, *([f"ror #{8 * channel}"] if channel else []))

    def _pack(self, into: str, first: str, halves: str, channel: int) -> None:
        """into = byte `channel` of a pixel, and of another the byte in the lower or upper half."""
        self._extract(into, first, channel)
        self.code("smlawt" if channel >= 2 else "smlawb", into, "r2", halves, into)
