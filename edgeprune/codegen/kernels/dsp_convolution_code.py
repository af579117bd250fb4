"""The inner loop of the packed-pairs convolution, in assembly (Armv7E-M and Armv8-M with the DSP extension).

Arithmetic. With z = 2**21 and two values to a word, X[i] = x[2i] + x[2i+1] z and W[j] = w[2j+1] + w[2j] z, the 64-bit
sum over tap pairs j (SMLAL, one cycle) holds three sums side by side:

    sum X[m+j] W[j] = L + M z + H z**2      L: sum x[2(m+j)] w[2j+1]     a part of y[2m-1]
                                            M: y[2m], complete
                                            H: sum x[2(m+j)+1] w[2j]     a part of y[2m+1] = H(m) + L(m+1)

so that one instruction does four multiply-accumulates. Sums run over *lines*: input channels, kernel rows, phases of
a stride. An accumulator starts at 2**20 + 2**41, which keeps the fields L and M from borrowing: with L' = L + 2**20 and
M' = M + 2**20 in 0..2**21-1,

    L' = UBFX(low, 0, 21)      M' = low >> 21 | the lower 10 bits of the upper word << 11      H = upper word >> 10

and every output holds 2**20 too much, which the bias makes good. This is exact while 128 * sum|w| < 2**20 over what one
accumulator takes in; longer sums are cut into chunks, each added to 32-bit sums on the stack.

A block is three accumulators: six outputs, y[-1] to y[4] counted from the block, the first of which needs H of the
block before. Three accumulators (6 registers) leave six registers for x and w; taking in 2 words of x and 2 of w feeds
six SMLAL (24 MACs): 10 instructions and 11 cycles on a Cortex-M4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeprune.codegen.assembly import AssemblyBuilder, at, registers
from edgeprune.codegen.kernel import Assembly

PAIRS = 3  # accumulators of a block
BLOCK_OUTPUTS = 2 * PAIRS
FIELD_BITS = 21
LARGEST_WEIGHT_SUM = 2**20 // 128 - 1  # of |w| in one accumulator

_UNROLLED_INSTRUCTIONS = 160  # of the loop over lines, at most (about 600 bytes)
_X, _W = "r0", "r1"
_FAR = 4000  # bytes that LDR can reach
_FREE = ("r2", "r3", "r4", "r5", "r6", "r7")  # x and w in the sum; constants and an address in the epilogue
_ACCUMULATORS = (("r8", "r9"), ("r10", "r11"), ("r12", "lr"))

# The frame: offsets from sp.
_CARRY, _MARK, _Y, _Y_LAST, _TOP, _X_ROW, _WEIGHT, _ROWS, _SPAN, _Y_ROW, _LINES_END, _WEIGHT_END = range(0, 48, 4)
_PARTIAL = 48
_FRAME_BYTES, _CHUNKED_FRAME_BYTES = 48, 48 + 4 * (BLOCK_OUTPUTS + 1)
_FIRST, _LAST = 1, 2  # bits of _MARK


@dataclass(frozen=True)
class LineCode:
    """All that the assembly depends on.

    tap_pairs: words of w in a line. chunk_lines, chunks: the lines of an output, in equal chunks.
    line_bytes: from a line of x to the next.
    row_bytes: from the first line of an output row to that of the next row.
    y_step: bytes from one output of a row to the next.
    last_pairs: accumulators that the last block of any row needs: 3, or fewer, to save work there.
    keeps_ties: whether negative ties must be corrected (requantize.py).
    clamp: act_min and act_max.
    """

    tap_pairs: int
    chunk_lines: int
    chunks: int
    line_bytes: int
    row_bytes: int
    y_step: int
    last_pairs: int
    keeps_ties: bool
    clamp: tuple[int, int]

    @property
    def line_words(self) -> int:
        """Words of x that a block needs from a line."""
        return PAIRS + self.tap_pairs - 1

    @property
    def name(self) -> str:
        parts = [
            f"t{self.tap_pairs}",
            f"l{self.chunk_lines}x{self.chunks}",
            f"x{self.line_bytes}_{self.row_bytes}",
            f"y{self.y_step}",
            "" if self.last_pairs == PAIRS else f"p{self.last_pairs}",
            "ties" if self.keeps_ties else "",
            "" if self.clamp == (-128, 127) else f"c{self.clamp[0] + 128}_{self.clamp[1] + 128}",
        ]
        return "ep_pairs_" + "_".join(part for part in parts if part)

    @property
    def lines_per_loop(self) -> int:
        """Lines in one turn of the loop; all of a chunk where that is short enough."""
        most = max(1, _UNROLLED_INSTRUCTIONS // (5 * self.tap_pairs))
        if self.chunk_lines <= most:
            return self.chunk_lines
        # a divisor leaves no rest to unroll after the loop
        return max((n for n in range(1, most + 1) if self.chunk_lines % n == 0 and 3 * n >= most), default=most)


def generate_rows(code: LineCode) -> Assembly:
    """The function that computes one output channel of some rows; see ep_dsp_conv.h for its arguments."""
    return RowsGenerator(code).generate()


class RowsGenerator:
    """Emits the function of a LineCode, from its entry to its end."""

    def __init__(self, code: LineCode) -> None:
        self.code = code
        self.out = AssemblyBuilder(code.name)
        self.offset = 0  # of the next line from the x register

    @property
    def frame_bytes(self) -> int:
        return _FRAME_BYTES if self.code.chunks == 1 else _CHUNKED_FRAME_BYTES

    def generate(self) -> Assembly:
        out, code = self.out, self.code
        out.enter(self.frame_bytes)
        self._store_arguments()
        out.label("row")
        self._start_row()
        out.label("block")
        if code.chunks > 1:
            self._clear_partials()
        out("ldr", _W, at("sp", _WEIGHT))
        out.label("chunk")
        self._start_sums()
        if code.last_pairs < PAIRS:
            out("ldrd", "r6", "r7", at("sp", _Y))
            out("cmp", "r6", "r7")
            out("beq", out.local("last_lines"))
        self._sum_lines(PAIRS, "lines")
        out.label("summed")
        if code.chunks > 1:
            self._drain()
            out("ldr", "r2", at("sp", _WEIGHT_END))
            out("cmp", _W, "r2")
            out("bne", out.local("chunk"))
        self._write_outputs()
        out.advance("r6", BLOCK_OUTPUTS * code.y_step, "r7")
        out("str", "r6", at("sp", _Y))
        out.advance(_X, 4 * PAIRS - self._taken_bytes, "r7")
        out("b", out.local("block"))
        self._leave_early()
        self._end_row()
        self._enter_late()
        if code.last_pairs < PAIRS:
            out.label("last_lines")
            self._sum_lines(code.last_pairs, "few_lines")
            out("b", out.local("summed"))
        return out.build(
            f"void {code.name}(const uint32_t *x, const uint32_t *weight, int8_t *y, int32_t outputs, int32_t rows, "
            "int32_t y_row_bytes)"
        )

    def _store_arguments(self) -> None:
        out, code = self.out, self.code
        out("ldr", "r4", out.argument(4))
        out("ldr", "r5", out.argument(5))
        out("str", _X, at("sp", _X_ROW))
        out("str", _W, at("sp", _WEIGHT))
        out("str", "r4", at("sp", _ROWS))
        out("str", "r5", at("sp", _Y_ROW))
        out.comment("outputs = 6 * (blocks - 1) + the highest place used in the last block")
        out("movs", "r6", "#6")
        out("udiv", "r7", "r3", "r6")
        out("mls", "r4", "r7", "r6", "r3")
        out("str", "r4", at("sp", _TOP))
        out.load("r5", BLOCK_OUTPUTS * code.y_step)
        out("mul", "r7", "r7", "r5")
        out("str", "r7", at("sp", _SPAN))
        out.advance("r2", -code.y_step, "r5")
        if code.chunks == 1 and self._loops > 1:
            out("mov", "r4", _W)
            out.advance("r4", self._loop_weight_bytes, "r5")
            out("str", "r4", at("sp", _LINES_END))
        if code.chunks > 1:
            out("mov", "r4", _W)
            out.advance("r4", 4 * code.chunks * code.chunk_lines * code.tap_pairs, "r5")
            out("str", "r4", at("sp", _WEIGHT_END))

    @property
    def _loops(self) -> int:
        return self.code.chunk_lines // self.code.lines_per_loop

    @property
    def _loop_weight_bytes(self) -> int:
        return 4 * self._loops * self.code.lines_per_loop * self.code.tap_pairs

    def _start_row(self) -> None:
        """r2: the place before the row's first output."""
        out = self.out
        out("ldr", "r3", at("sp", _SPAN))
        out("add", "r3", "r2", "r3")
        out("strd", "r2", "r3", at("sp", _Y))
        out("movs", "r4", f"#{_FIRST}")
        out("str", "r4", at("sp", _MARK))
        out("ldr", _X, at("sp", _X_ROW))

    # --- the sum ---

    def _start_sums(self) -> None:
        for low, high in _ACCUMULATORS:
            self.out("mov", low, f"#{1 << (FIELD_BITS - 1)}")
            self.out("mov", high, f"#{1 << (2 * FIELD_BITS - 1 - 32)}")

    @property
    def _taken_bytes(self) -> int:
        """How far x has moved when the sums of a block are complete."""
        return 0 if self._stays else self.code.chunks * self.code.chunk_lines * self.code.line_bytes

    @property
    def _stays(self) -> bool:
        """Whether a block's lines are all unrolled and near, so that x can stay where it is."""
        code = self.code
        is_one_run = code.chunks == 1 and code.lines_per_loop == code.chunk_lines
        return is_one_run and code.chunk_lines * code.line_bytes < _FAR

    def _sum_lines(self, pairs: int, label: str) -> None:
        """Take a chunk's lines into the first `pairs` accumulators."""
        out, code = self.out, self.code
        lines = code.lines_per_loop
        if self._loops > 1:
            if code.chunks > 1:
                out("mov", "r2", _W)
                out.advance("r2", self._loop_weight_bytes, "r3")
                out("str", "r2", at("sp", _LINES_END))
            out.label(label)
        self._emit_lines(lines, pairs)
        if self._loops > 1:
            out("ldr", "r2", at("sp", _LINES_END))
            out("cmp", _W, "r2")
            out("bne", out.local(label))
        self._emit_lines(code.chunk_lines - self._loops * lines, pairs)

    def _emit_lines(self, count: int, pairs: int) -> None:
        """Lines one after the other, addressed from where the first begins."""
        x_offset = weight_offset = 0
        for _ in range(count):
            if x_offset + self.code.line_bytes > _FAR:
                self.out.advance(_X, x_offset, "r2")
                x_offset = 0
            self._emit_line(x_offset, weight_offset, pairs)
            x_offset += self.code.line_bytes
            weight_offset += 4 * self.code.tap_pairs
        if not self._stays:
            self.out.advance(_X, x_offset, "r2")
        self.out.advance(_W, weight_offset, "r2")

    def _emit_line(self, x_offset: int, weight_offset: int, pairs: int) -> None:
        """A window of x slides over the taps: four registers of x, two of w, loaded side by side.

        Single loads, since each costs one cycle after another one; LDRD and LDM would save instructions, not cycles.
        """
        taps = self.code.tap_pairs
        window, weights = _FREE[:4], _FREE[4:]
        loaded = 0
        for tap in range(0, taps, 2):
            steps = min(2, taps - tap)
            for step in range(steps):
                self.out("ldr", weights[step], at(_W, weight_offset + 4 * (tap + step)))
            while loaded < tap + steps + pairs - 1:
                self.out("ldr", window[loaded % 4], at(_X, x_offset + 4 * loaded))
                loaded += 1
            for step in range(steps):
                self._multiply([window[(tap + step + pair) % 4] for pair in range(pairs)], weights[step])

    def _multiply(self, x: Sequence[str], weight: str) -> None:
        for (low, high), word in zip(_ACCUMULATORS, x, strict=False):  # the last block may have fewer
            self.out("smlal", low, high, word, weight)

    # --- from accumulators to outputs ---

    def _extract_low(self, into: str, pair: int) -> None:
        self.out("ubfx", into, _ACCUMULATORS[pair][0], "#0", f"#{FIELD_BITS}")

    def _extract_middle(self, into: str, pair: int) -> None:
        low, high = _ACCUMULATORS[pair]
        self.out("lsr", into, low, f"#{FIELD_BITS}")
        self.out("bfi", into, high, "#11", "#10")

    def _add_high(self, into: str, pair: int) -> None:
        self.out("add", into, into, _ACCUMULATORS[pair][1], "asr #10")

    def _extract_all(self) -> None:
        """The sums of places 0 to 5, then H of the last pair, in r2, r3, r4, r8, r9, r10, r11."""
        self._extract_low("r2", 0)
        self._extract_middle("r3", 0)
        self._extract_low("r4", 1)
        self._add_high("r4", 0)
        self._extract_middle("r8", 1)
        self._extract_low("r9", 2)
        self._add_high("r9", 1)
        self._extract_middle("r10", 2)
        self.out("asr", "r11", "lr", "#10")

    def _clear_partials(self) -> None:
        self.out("movs", "r2", "#0")
        for place in range(0, BLOCK_OUTPUTS, 2):
            self.out("strd", "r2", "r2", at("sp", _PARTIAL + 4 * place))
        self.out("str", "r2", at("sp", _PARTIAL + 4 * BLOCK_OUTPUTS))

    def _drain(self) -> None:
        """Add the fields to the block's sums on the stack: places 0 to 5, then H of the last pair."""
        out = self.out
        sums = ("r2", "r3", "r4", "r8", "r9", "r10", "r11")
        self._extract_all()
        for place in range(0, BLOCK_OUTPUTS, 2):
            address = at("sp", _PARTIAL + 4 * place)
            out("ldrd", "r5", "r6", address)
            out("add", sums[place], sums[place], "r5")
            out("add", sums[place + 1], sums[place + 1], "r6")
            out("strd", sums[place], sums[place + 1], address)
        address = at("sp", _PARTIAL + 4 * BLOCK_OUTPUTS)
        out("ldr", "r5", address)
        out("add", sums[-1], sums[-1], "r5")
        out("str", sums[-1], address)

    def _write_outputs(self) -> None:
        """Places 5 to 0 of the block, downwards: the last block of a row enters late, the first one skips place 0.

        r2-r5: twice the bias, multiplier, offset, shift; r6: the address of place 0; r1: H of the block before.
        """
        out = self.out
        out("ldm", _W, registers(_FREE[:4]))
        if self.code.chunks > 1:
            out("ldr", "lr", at("sp", _PARTIAL + 4 * BLOCK_OUTPUTS))
        out("ldr", _W, at("sp", _CARRY))
        out("str", "lr", at("sp", _CARRY))
        out("ldrd", "r6", "r7", at("sp", _Y))
        out("cmp", "r6", "r7")
        out("beq", out.local("last"))
        for place in range(BLOCK_OUTPUTS - 1, 0, -1):
            out.label(f"place{place}")
            self._take_sum(place)
            self._write_output(place)
        out.label("place0")
        out("ldr", "r7", at("sp", _MARK))
        out("cbnz", "r7", out.local("marked"))
        self._take_sum(0)
        self._write_output(0)
        out.label("next")

    def _take_sum(self, place: int) -> None:
        """r7 = the sum of a place."""
        if self.code.chunks > 1:
            self.out("ldr", "r7", at("sp", _PARTIAL + 4 * place))
            if place == 0:
                self.out("add", "r7", "r7", _W)
        elif place % 2:
            self._extract_middle("r7", place // 2)
        else:
            self._extract_low("r7", place // 2)
            if place:
                self._add_high("r7", place // 2 - 1)
            else:
                self.out("add", "r7", "r7", _W, "asr #10")

    def _write_output(self, place: int) -> None:
        """Rescale r7 and store it; lr is free here (the last pair is done or was never needed)."""
        out, code = self.out, self.code
        result = "r7"
        self._double()
        if code.keeps_ties:
            result = "lr"
            out("smmlar", "lr", "r7", "r3", "r4")
            out("add", "lr", "lr", "r7", "asr #31")
        else:
            out("smmlar", "r7", "r7", "r3", "r4")
        out("asrs" if result == "r7" else "asr", result, result, "r5")
        act_min, act_max = code.clamp
        out("ssat", result, "#8", result)
        if act_min > -128:
            out("cmp", result, f"#{act_min}")
            out("it", "lt")
            out("movlt", result, f"#{act_min}")
        if act_max < 127:
            out("cmp", result, f"#{act_max}")
            out("it", "gt")
            out("movgt", result, f"#{act_max}")
        out("strb", result, at("r6", place * code.y_step))

    def _double(self) -> None:
        """r7 = twice the sum with the bias."""
        self.out("add", "r7", "r2", "r7", "lsl #1")

    def _leave_early(self) -> None:
        """Place 0 of the first block (nothing to write) and of the last (the row ends)."""
        out = self.out
        out.label("marked")
        out("mov", "lr", "#0")
        out("str", "lr", at("sp", _MARK))
        out("cmp", "r7", f"#{_FIRST}")
        out("beq", out.local("next"))
        out("cmp", "r7", f"#{_LAST}")
        out("bne", out.local("end_row"))
        self._take_sum(0)
        self._write_output(0)

    def _end_row(self) -> None:
        out = self.out
        out.label("end_row")
        out("ldr", "r3", at("sp", _ROWS))
        out("subs", "r3", "r3", "#1")
        out("beq", out.local("done"))
        self._go_to_next_row(1)

    def _go_to_next_row(self, rows: int) -> None:
        """r3: the rows left, `rows` of which have just been done."""
        out = self.out
        out("str", "r3", at("sp", _ROWS))
        out("ldr", "r4", at("sp", _X_ROW))
        out.advance("r4", self.code.row_bytes, "r5")
        out("str", "r4", at("sp", _X_ROW))
        out.comment("from the last block's place 0 back to the row's first, and on to the next row")
        out("ldr", "r2", at("sp", _Y_LAST))
        out("ldr", "r3", at("sp", _SPAN))
        out("sub", "r2", "r2", "r3")
        out("ldr", "r3", at("sp", _Y_ROW))
        out("add", "r2", "r2", "r3", f"lsl #{rows - 1}")
        out("b", out.local("row"))
        out.label("done")
        out.leave()

    def _enter_late(self) -> None:
        """The last block of a row: on to its highest place in use."""
        out = self.out
        out.label("last")
        out("ldr", "r7", at("sp", _MARK))
        out("orr", "r7", "r7", f"#{_LAST}")
        out("str", "r7", at("sp", _MARK))
        self._branch_to_top()

    def _branch_to_top(self) -> None:
        """Go on at the highest place in use."""
        out = self.out
        out("ldr", "r7", at("sp", _TOP))
        out("cmp", "r7", "#3")
        out("beq", out.local("place3"))
        out("bhi", out.local("high"))
        out("cmp", "r7", "#1")
        out("beq", out.local("place1"))
        out("bhi", out.local("place2"))
        out("b", out.local("place0"))
        out.label("high")
        out("cmp", "r7", "#4")
        out("beq", out.local("place4"))
        out("b", out.local("place5"))
