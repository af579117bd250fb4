"""Assembly of dot products on cores with the DSP extension: four channels at a time, weights nested in pairs.

*Nested weights.* The weights of two channels a and b lie together, 256 * a + b, in an int16, one byte per weight. Two
of them are a word; SMLAD of it with a pair of int16 activations adds to 256 * A + B, SXTB16 of the same word leaves the
two b, and a second SMLAD adds to B. At the end A = (256 * A + B - B) / 256. Sums may wrap on the way; what must fit is
|A| < 2**23 (256 * A in an int32), which dsp_dot.py sees to; where it does not, the bytes a and b are *plain* (not
nested), and A takes an SXTB16 of its own.

*Pixels* (`build_pixels_code`). Two pixels x four channels, eight sums in r0-r7. The activations of the two pixels,
widened to int16, lie interleaved: a step takes two words of activations, two of weights, and does 16 MACs.

*One vector* (`build_vector_code`). One pixel x four channels, as a fully connected layer needs it: eight inputs are
loaded at once (LDM of four words), then two LDM of four words of weights.

What is left over from whole rounds of the loop is done first, by a jump into it, so that one function serves any
number of steps.

*Finish.* Twice the sum, rescaled with SMMLAR (requantize.py), gives the output's distance from act_min, which USAT cuts
to 0..255: the lower end of the activation for nothing. Four of them are put into one word, moved to int8 and stored.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgeprune.codegen.assembly import AssemblyBuilder, at, registers
from edgeprune.codegen.kernel import Assembly

PIXEL_STEPS = 16  # steps in the loop over pixels: 16 x 56 bytes of code
VECTOR_UNITS = 8  # units of eight inputs in the loop over a vector: 8 x 108 bytes of code
_SUMS = ("r0", "r1", "r2", "r3")  # of the first pixel: 256 * A + B, B, 256 * C + D, D
_SECOND_SUMS = ("r4", "r5", "r6", "r7")


@dataclass(frozen=True)
class Finish:
    """How sums become outputs; each difference is a function of its own.

    ties: negative ties have to be rounded away from zero (the activation does not clamp them).
    clamped: act_min, act_max are not -128, 127.
    wide: outputs before the clamp may exceed an int16.
    plain: weights are not nested, the two int8 lie side by side: sums may be large, for another SXTB16 per word.
    shared: (one vector) all channels have one multiplier, offset and shift.
    narrow: (one vector) inputs are int8, widened each time that they are loaded.
    """

    ties: bool
    clamped: bool
    wide: bool
    plain: bool = False
    shared: bool = False
    narrow: bool = False

    @property
    def suffix(self) -> str:
        flags = {
            "t": self.ties,
            "c": self.clamped,
            "w": self.wide,
            "p": self.plain,
            "s": self.shared,
            "n": self.narrow,
        }
        marks = "".join(mark for mark, is_set in flags.items() if is_set)
        return f"_{marks}" if marks else ""


def build_pixels_code(finish: Finish) -> Assembly:
    """void ep_dsp_pixels(const ep_dsp_block *block): pairs of pixels times quads of channels (ep_dsp_dot.h).

    Registers: r0-r7 sums, r8-r9 weights, r10-r11 activations, r12 the stream of weights and constants, lr activations.
    """
    code = AssemblyBuilder(f"ep_dsp_pixels{finish.suffix}")
    # the frame: y, y_stride, y_end | x, stream, x_end, entry | pairs, quad bytes | act_min and excess, in each byte
    y, x, stream, x_end, entry, pairs, act_min = (at("sp", offset) for offset in (0, 12, 16, 20, 24, 28, 36))
    code.enter(frame_bytes=44)
    code.comment("y, y_stride, quad bytes; x, stream; steps, pairs; act_min, excess")
    code("ldm", "r0", registers(["r1", "r2", "r3", "r4", "r5", "r6", "r7", "r8", "r9"]))
    code("add", "r10", "r1", "r3")
    code("stm", "sp", registers(["r1", "r2", "r10"]))
    code("strd", "r4", "r5", x)
    code("strd", "r7", "r3", pairs)
    code("strd", "r8", "r9", act_min)
    code("add", "r4", "r4", "r6, lsl #3")
    _enter_loop(code, "r6", PIXEL_STEPS, _count_step_bytes(finish), first=1)
    code("strd", "r4", "r5", x_end)

    code.label("pair")
    code("ldr", "r12", stream)
    code.label("quad")
    code("ldr", "lr", x)
    _add_pixels_step(code, finish, "smuad")
    code("ldr.w", "pc", entry)
    code.label("loop")
    for _ in range(PIXEL_STEPS):
        _add_pixels_step(code, finish, "smlad")
    code("ldr", "r8", x_end)
    code("cmp", "lr", "r8")
    code("bne.w", code.local("loop"))
    code.label("finish")
    for sums in (_SUMS, _SECOND_SUMS):
        _unnest(code, finish, sums)
    for channel in range(4):
        code("ldmia", "r12!", registers(["r8", "r9", "r10", "r11"]))
        for sums in (_SUMS, _SECOND_SUMS):
            _rescale(
                code, finish, channel, sums[channel], bias="r8", multiplier="r9", offset="r10", shift="r11", free="lr"
            )
    if finish.clamped:
        code("ldrd", "r8", "r9", act_min)
    for sums in (_SUMS, _SECOND_SUMS):
        _pack(code, finish, sums, act_min="r8", excess="r9")
    code("ldm", "sp", registers(["r8", "r9", "r10"]))
    code("str", "r4", "[r8, r9]")
    code("str", "r0", "[r8], #4")
    code("str", "r8", y)
    code("cmp", "r8", "r10")
    code("bne.w", code.local("quad"))

    code.comment("the next pair")
    code("ldrd", "r0", "r1", pairs)
    code("subs", "r0", "r0", "#1")
    code("beq", code.local("end"))
    code("str", "r0", pairs)
    code("lsls", "r9", "r9", "#1")
    code("add", "r10", "r10", "r9")
    code("str", "r10", at("sp", 8))
    code("subs", "r2", "r10", "r1")
    code("str", "r2", y)
    code("ldr", "r3", x)
    code("ldr", "r4", x_end)
    code("str", "r4", x)
    code("subs", "r3", "r4", "r3")
    code("add", "r4", "r4", "r3")
    code("str", "r4", x_end)
    code("b.w", code.local("pair"))
    code.label("end")
    code.leave()
    return code.build(f"void {code.name}(const ep_dsp_block *block)")


def _count_step_bytes(finish: Finish) -> int:
    return (16 if finish.plain else 14) * 4


def _add_pixels_step(code: AssemblyBuilder, finish: Finish, mnemonic: str) -> None:
    """Two inputs of two pixels times four channels: 14 instructions of 4 bytes, 15 cycles on a Cortex-M4.

    LDR after LDR is a cycle, so that four cost 5 cycles, where two LDRD would cost 6 (and 12 instructions in all).
    Plain weights: 16 instructions, 18 cycles.
    """
    pixels = ((_SUMS, "r10"), (_SECOND_SUMS, "r11"))
    code("ldr", "r11", at("lr", 4))
    code("ldr", "r10", "[lr], #8")
    if finish.plain:
        for index in (0, 2):
            code("ldr", "r8", "[r12], #4")
            code("sxtb16", "r9", "r8", "ror #8")
            code("sxtb16", "r8", "r8")
            for channel, weights in ((index, "r9"), (index + 1, "r8")):
                for sums, pixel in pixels:
                    _multiply(code, mnemonic, sums[channel], pixel, weights)
        return
    code("ldr", "r9", at("r12", 4))
    code("ldr", "r8", "[r12], #8")
    for index, weights in ((0, "r8"), (2, "r9")):
        for channel in (index, index + 1):
            if channel % 2:
                code("sxtb16", weights, weights)
            for sums, pixel in pixels:
                _multiply(code, mnemonic, sums[channel], pixel, weights)


def build_widening_code() -> Assembly:
    """uint32_t *ep_dsp_widen_words(x, offset, words, to, runs, step): bytes of two pixels to int16 (ep_dsp_dot.h).

    Two words of each pixel at a time: 16 values by 15 instructions, 26 cycles.
    """
    code = AssemblyBuilder("ep_dsp_widen_words")
    code.enter(frame_bytes=4)
    code("ldr", "lr", code.argument(4))
    code("ldr", "r12", code.argument(5))
    code("sub", "r12", "r12", "r2, lsl #2")
    code("str", "r12", at("sp"))
    code.label("run")
    code("lsrs", "r12", "r2", "#1")
    code("beq", code.local("one"))
    code.label("two")
    for first in (4, 8):
        code("ldr", f"r{first + 3}", "[r0, r1]")
        code("ldr", f"r{first}", "[r0], #4")
    _widen_word(code, 4)
    _widen_word(code, 8)
    code("stmia", "r3!", registers(["r4", "r5", "r6", "r7", "r8", "r9", "r10", "r11"]))
    code("subs", "r12", "r12", "#1")
    code("bne", code.local("two"))
    code.label("one")
    code("tst", "r2", "#1")
    code("beq", code.local("next"))
    code("ldr", "r7", "[r0, r1]")
    code("ldr", "r4", "[r0], #4")
    _widen_word(code, 4)
    code("stmia", "r3!", registers(["r4", "r5", "r6", "r7"]))
    code.label("next")
    code("ldr", "r4", at("sp"))
    code("add", "r0", "r0", "r4")
    code("subs", "lr", "lr", "#1")
    code("bne", code.local("run"))
    code("mov", "r0", "r3")
    code.leave()
    return code.build(
        f"uint32_t *{code.name}"
        "(const int8_t *x, int32_t offset, int32_t words, uint32_t *to, int32_t runs, int32_t step)"
    )


def _widen_word(code: AssemblyBuilder, first: int) -> None:
    """Words of two pixels, in registers first and first + 3, to even bytes of both and odd bytes of both."""
    word, even, odd, other = (f"r{first + index}" for index in range(4))
    code("sxtb16", odd, word, "ror #8")
    code("sxtb16", word, word)
    code("sxtb16", even, other)
    code("sxtb16", other, other, "ror #8")


def build_vector_code(finish: Finish) -> Assembly:
    """void ep_dsp_vector(const ep_dsp_vector_block *block): quads of channels of one vector (ep_dsp_dot.h).

    Registers: r0-r3 sums, r4-r7 inputs, r8-r11 weights, r12 the stream of weights and biases, lr inputs.
    """
    code = AssemblyBuilder(f"ep_dsp_vector{finish.suffix}")
    # the frame: multiplier, offset, shift | y, y_end, x | x_end, entry | act_min, excess
    y, x, x_end, entry, act_min = (at("sp", offset) for offset in (12, 20, 24, 28, 32))
    code.enter(frame_bytes=40)
    code.comment("multiplier, offset, shift; y, y_end; x, units; stream; act_min, excess")
    code("ldm", "r0", registers(["r1", "r2", "r3", "r4", "r5", "r6", "r7", "r8", "r9", "r10"]))
    code("stm", "sp", registers(["r1", "r2", "r3", "r4", "r5", "r6"]))
    code("mov", "r12", "r8")
    code("strd", "r9", "r10", act_min)
    code("add", "r4", "r6", f"r7, lsl #{3 if finish.narrow else 4}")
    _enter_loop(code, "r7", VECTOR_UNITS, _count_unit_bytes(finish), first=0)
    code("strd", "r4", "r5", x_end)

    code.label("quad")
    code("ldr", "lr", x)
    for register in _SUMS:
        code("movs", register, "#0")
    code("ldr.w", "pc", entry)
    code.label("loop")
    for _ in range(VECTOR_UNITS):
        _add_vector_unit(code, finish)
    code("ldr", "r4", x_end)
    code("cmp", "lr", "r4")
    code("bne.w", code.local("loop"))
    _unnest(code, finish, _SUMS)
    if finish.shared:
        code("ldmia", "r12!", registers(["r4", "r5", "r6", "r7"]))
        code("ldm", "sp", registers(["r8", "r9", "r10"]))
    for channel in range(4):
        if not finish.shared:
            code("ldmia", "r12!", registers(["r7", "r8", "r9", "r10"]))
        bias = f"r{4 + channel}" if finish.shared else "r7"
        _rescale(
            code, finish, channel, _SUMS[channel], bias=bias, multiplier="r8", offset="r9", shift="r10", free="r11"
        )
    if finish.clamped:
        code("ldrd", "r8", "r9", act_min)
    _pack(code, finish, _SUMS, act_min="r8", excess="r9")
    code("ldrd", "r4", "r5", y)
    code("str", "r0", "[r4], #4")
    code("str", "r4", y)
    code("cmp", "r4", "r5")
    code("bne.w", code.local("quad"))
    code.leave()
    return code.build(f"void {code.name}(const ep_dsp_vector_block *block)")


def _count_unit_bytes(finish: Finish) -> int:
    return ((37 if finish.plain else 27) + (5 if finish.narrow else 0)) * 4


def _add_vector_unit(code: AssemblyBuilder, finish: Finish) -> None:
    """Eight inputs times four channels: 27 instructions of 4 bytes, 32 MACs, 39 cycles on a Cortex-M4.

    Plain weights: 37 instructions, 53 cycles. Narrow inputs: 5 instructions and 2 cycles more.
    """
    pairs = ("r4", "r5", "r6", "r7")
    if finish.narrow:
        code("ldr", "r6", at("lr", 4))  # two LDR: the address may be any
        code("ldr.w", "r4", "[lr], #8")
        for even, odd in (("r4", "r5"), ("r6", "r7")):
            code("sxtb16", odd, even, "ror #8")
            code("sxtb16", even, even)
    else:
        code("ldmia.w", "lr!", registers(pairs))
    if finish.plain:
        for pair in pairs:
            code("ldrd", "r8", "r9", "[r12], #8")
            for index, word in ((0, "r8"), (2, "r9")):
                code("sxtb16", "r10", word, "ror #8")
                code("sxtb16", word, word)
                _multiply(code, "smlad", _SUMS[index], pair, "r10")
                _multiply(code, "smlad", _SUMS[index + 1], pair, word)
        return
    for inputs in (pairs[:2], pairs[2:]):
        code("ldmia.w", "r12!", registers(["r8", "r9", "r10", "r11"]))
        for pair, weights in zip(inputs, (("r8", "r9"), ("r10", "r11")), strict=True):
            for index, word in ((0, weights[0]), (2, weights[1])):
                _multiply(code, "smlad", _SUMS[index], pair, word)
                code("sxtb16", word, word)
                _multiply(code, "smlad", _SUMS[index + 1], pair, word)


def _enter_loop(code: AssemblyBuilder, count: str, loop_count: int, item_bytes: int, first: int) -> None:
    """r5 = where to jump to for `count` (a register) items, of which `first` are done before the loop. Uses r6-r8."""
    if first:
        code("adr.w", "r5", code.local("finish"))
        code("subs", "r6", count, f"#{first}")
        code("beq", code.local("enter"))
        count = "r6"
    code("adr.w", "r5", code.local("loop"))
    code("rsbs", "r6", count, "#0")
    code("and", "r6", "r6", f"#{loop_count - 1}")
    code("movs", "r7", f"#{item_bytes}")
    code("mla", "r5", "r6", "r7", "r5")
    code.label("enter")
    code("orr", "r5", "r5", "#1")


def _multiply(code: AssemblyBuilder, mnemonic: str, total: str, first: str, second: str) -> None:
    """total += first x second, or total = first x second with smuad."""
    code(mnemonic, total, first, second, *([total] if mnemonic == "smlad" else []))


def _unnest(code: AssemblyBuilder, finish: Finish, sums: tuple[str, ...]) -> None:
    """The even channels' 256 * A of 256 * A + B."""
    if not finish.plain:
        code("subs", sums[0], sums[0], sums[1])
        code("subs", sums[2], sums[2], sums[3])


def _rescale(
    code: AssemblyBuilder,
    finish: Finish,
    channel: int,
    total: str,
    *,
    bias: str,
    multiplier: str,
    offset: str,
    shift: str,
    free: str,
) -> None:
    """total = the output's distance from act_min; even channels hold 256 times their sum where they were nested."""
    is_whole = finish.plain or channel % 2
    code("add", total, bias, f"{total}, {'lsl #1' if is_whole else 'asr #7'}")
    if finish.ties:
        code("smmlar", free, total, multiplier, offset)
        code("add", total, free, f"{total}, asr #31")
    else:
        code("smmlar", total, total, multiplier, offset)
    code("asr", total, total, shift)


def _pack(code: AssemblyBuilder, finish: Finish, sums: tuple[str, ...], *, act_min: str, excess: str) -> None:
    """Four distances from act_min to four int8 outputs in the word sums[0].

    excess: 255 - (act_max - act_min) in each byte: what a saturating addition of it cuts off lies above act_max.
    """
    first, second, third, fourth = sums
    if finish.wide:
        for register in sums:
            code("usat", register, "#8", register)
        code("orr", first, first, f"{second}, lsl #8")
        code("orr", third, third, f"{fourth}, lsl #8")
        code("orr", first, first, f"{third}, lsl #16")
    else:
        code("pkhbt", first, first, f"{third}, lsl #16")
        code("pkhbt", second, second, f"{fourth}, lsl #16")
        code("usat16", first, "#8", first)
        code("usat16", second, "#8", second)
        code("orr", first, first, f"{second}, lsl #8")
    if finish.clamped:
        code("uqadd8", first, first, excess)
        code("usub8", first, first, excess)
        code("uadd8", first, first, act_min)
    else:
        code("eor", first, first, "#0x80808080")
