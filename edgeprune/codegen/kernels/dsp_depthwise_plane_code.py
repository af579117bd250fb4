"""Depthwise convolution along the rows of a map, in blocks that stand alone.

The sum L of the output after a block's last pair takes an MLA for each weight, the lower 32 bits being enough. See
dsp_depthwise_code.py.
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

_PLANE_SUMS = ("r0", "r1", "r2", "r3", "r4", "r5", "r6")
_PLANE_FREE = ("r7", "r8", "r9", "r10")  # weights and x, then constants


@dataclass(frozen=True)
class PlaneCode:
    """A map's rows.

    lines: of taps, from the first row of a window on. outputs: in a row. x_row: bytes of a plane from the first row of
    an output row's window to the next one's. y_row: bytes from an output row to the next. y_step: from one output to
    the next. has_many: whether a plane has several output channels; how many is known at run time.
    """

    lines: tuple[TapLine, ...]
    outputs: int
    x_row: int
    y_row: int
    y_step: int
    has_many: bool
    finish: Finish

    @property
    def name(self) -> str:
        return (
            f"ep_dsp_dwplane_{count_line_bytes(self.lines)}_n{self.outputs}x{self.x_row}y{self.y_row}_{self.y_step}"
            f"{'m' if self.has_many else ''}{self.finish.suffix}"
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

    def list_bundles(self) -> list[tuple[TapLine, ...]]:
        """Lines whose weights are loaded together: two of one word each by one LDRD; else one."""
        bundles: list[tuple[TapLine, ...]] = []
        for line in self.lines:
            if bundles and [known.words for known in bundles[-1]] == [line.words] == [1]:
                bundles[-1] = (*bundles[-1], line)
            else:
                bundles.append((line,))
        return bundles

    def count_x_registers(self, bundle: tuple[TapLine, ...]) -> int:
        """Words of x that are loaded at a time."""
        return min(2, len(_PLANE_FREE) - sum(line.words for line in bundle))

    def count_words(self, line: TapLine) -> int:
        """Words of x that a block needs of a line."""
        with_tail = self.pairs + line.taps // 2 if self.has_tail else 0
        return max(self.pairs + line.words - 1, with_tail)


def build_plane_code(plane: PlaneCode) -> Assembly:
    """void name(const ep_dsp_run *, int32_t output, const uint32_t *record, int32_t count, int32_t x_bytes).

    See ep_dsp_depthwise.h. Registers: r0-r6 accumulators and tail, then outputs; r7-r10 weights and x, then constants;
    r11 x; r12 y; lr the record, then free.
    """
    code = AssemblyBuilder(plane.name)
    y_last, y_end, x, record, plane_bytes, multiplier, of_plane = (
        at("sp", offset) for offset in (0, 4, 8, 16, 24, 28, 32)
    )
    code.enter(frame_bytes=36)
    code("ldrd", "r4", "r5", at("r0", RUN_PLANE))
    code("strd", "r4", "r5", plane_bytes)
    code("str", "r5", of_plane)
    code("ldm", "r0", registers(["r4", "r5", "r6"]))
    code.comment("r4 x, r5 y, r6 the end of y")
    code("ldr", "r7", code.argument(4))
    code("add", "r4", "r4", "r7")
    code("add", "r5", "r5", "r1")
    code("add", "r6", "r6", "r1")
    code("strd", "r2", "r3", record)
    code.label("channel")
    code("mov", "r11", "r4")
    code("mov", "r12", "r5")
    code("strd", "r4", "r5", x)
    if plane.outputs > plane.block:
        code.advance("r5", plane.last_block * plane.y_step, "r8")
        code("strd", "r5", "r6", y_last)
    else:
        code("str", "r6", y_end)

    code.label("block")
    code("ldr.w", "lr", record)
    code("ldm", "lr!", registers(_PLANE_SUMS[: plane.start_words]))
    weight = 4 * CONSTANT_WORDS
    for bundle in plane.list_bundles():
        count = sum(line.words for line in bundle)
        load_words(code, _PLANE_FREE[:count], "lr", weight)
        x_registers = _PLANE_FREE[count:][: plane.count_x_registers(bundle)]
        for number, line in enumerate(bundle):
            weights = _PLANE_FREE[number : number + 1] if len(bundle) == 2 else _PLANE_FREE[:count]
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
    code("ldrd", "r3", "r9", record)
    code("ldrd", "r4", "r5", x)
    code("add", "r6", "lr", "#1")
    code("add", "r5", "r5", "#1")
    if plane.has_many:
        step_plane(code, "r4", of_plane, plane_bytes, multiplier)
    else:
        code("ldr", "r7", plane_bytes)
        code("add", "r4", "r4", "r7")
    code.advance("r3", 4 * plane.record_words)
    code("subs", "r9", "r9", "#1")
    code("strd", "r3", "r9", record)
    code("bne.w", code.local("channel"))
    code.leave()
    return code.build(RUN_PROTOTYPE.format(plane.name))


def _sum_plane_line(
    code: AssemblyBuilder, plane: PlaneCode, line: TapLine, weights: tuple[str, ...], x_registers: tuple[str, ...]
) -> None:
    """All weights of the line stay in registers while words of x come by, each for all the pairs that it is in."""
    count = plane.count_words(line)
    tail = _PLANE_SUMS[2 * plane.pairs]
    for start in range(0, count, len(x_registers)):
        loaded = x_registers[: count - start]
        load_words(code, loaded, "r11", line.offset + 4 * start)
        for index, x in enumerate(loaded, start):
            for tap, w in enumerate(weights):
                pair = index - tap
                if 0 <= pair < plane.pairs:
                    code("smlal", _PLANE_SUMS[2 * pair], _PLANE_SUMS[2 * pair + 1], x, w)
                elif pair == plane.pairs and plane.has_tail and 2 * tap + 1 < line.taps:
                    code("mla", tail, x, w, tail)


def _finish_block(code: AssemblyBuilder, plane: PlaneCode) -> None:
    shift, bias, multiplier, offset = _PLANE_FREE
    outputs = Outputs(code, plane.finish, (shift, bias, multiplier, offset))
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
        if offset > FURTHEST:
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
        if (plane.block - 1) * plane.y_step > FURTHEST:
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
