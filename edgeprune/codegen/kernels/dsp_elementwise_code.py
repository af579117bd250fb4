"""Assembly of add, sub and mul on cores with the DSP extension: four values at a time.

    add:  y = act_min + usat8((offset + (a_factor * a >> 8) + (b_factor * b >> 8)) >> 20)

    mul:  y = act_min + usat8(t >> e), t = SMMLAR(2 * p, multiplier, offset), p = (a - z_a) * (b - z_b),
          less 1 where p is negative and ties matter: the short form of requantize.py, the offset counted from act_min

Whether there are factors and an offset with which a sum equals TFLite's chain of rescalings for all 65,536 pairs of
operands is found out when the layer is lowered (dsp_elementwise.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from edgeprune.codegen.assembly import AssemblyBuilder, at, registers
from edgeprune.codegen.kernel import Assembly

FRACTION_BITS = 20  # of a sum: its upper 12 bits are the distance of the output from act_min
_RESULTS = ("r0", "r10", "r12", "r11")  # of the four values of a word, in their order


@dataclass(frozen=True)
class Form:
    """What tells one function from another.

    kind: add or mul (a subtraction is an addition with a negative factor). clamped: act_min, act_max are not -128, 127.
    ties: negative ties of products have to be rounded away from zero.
    """

    kind: str
    clamped: bool
    ties: bool = False


def build_elementwise_code(form: Form) -> Assembly:
    """void ep_dsp_add(factors, a, b, y, count), or ep_dsp_mul.

    Registers: r1-r3 a, b, y; r4-r7 constants; lr what is left to do; the others are free.
    """
    marks = ("t" * form.ties) + ("c" * form.clamped)
    code = AssemblyBuilder(f"ep_dsp_{form.kind}{'_' * bool(marks)}{marks}")
    # the frame: act_min, excess, a product's shift
    code.enter(frame_bytes=12)
    code("ldr", "lr", code.argument(4))
    code("ldm", "r0", registers(["r4", "r5", "r6", "r7", "r8", "r9", "r10"]))
    code("strd", "r9", "r10", at("sp"))
    code("str", "r8", at("sp", 8))
    if form.kind == "add":
        code.load("r7", 0xFF00FF00)
    code("subs", "lr", "lr", "#8")
    code("blt", code.local("four"))
    code.label("eight")
    for _ in range(2):
        _do_word(code, form)
    code("subs", "lr", "lr", "#8")
    code("bge.w", code.local("eight"))
    code.label("four")
    code("adds", "lr", "lr", "#4")
    code("blt", code.local("rest"))
    _do_word(code, form)
    code("subs", "lr", "lr", "#4")
    code.label("rest")
    code("adds", "lr", "lr", "#4")
    code("beq", code.local("end"))
    code.label("one")
    code.comment("a single value in the lowest byte of a word")
    code("ldrb", "r8", "[r1], #1")
    code("ldrb", "r9", "[r2], #1")
    _compute_word(code, form)
    code("strb", "r0", "[r3], #1")
    code("subs", "lr", "lr", "#1")
    code("bne", code.local("one"))
    code.label("end")
    code.leave()
    return code.build(
        f"void {code.name}(const ep_dsp_factors *factors, const int8_t *a, const int8_t *b, int8_t *y, int32_t count)"
    )


def _do_word(code: AssemblyBuilder, form: Form) -> None:
    code("ldr", "r8", "[r1], #4")
    code("ldr", "r9", "[r2], #4")
    _compute_word(code, form)
    code("str", "r0", "[r3], #4")


def _compute_word(code: AssemblyBuilder, form: Form) -> None:
    """The outputs of the bytes of r8 and r9, in r0."""
    if form.kind == "add":
        _add_word(code)
    else:
        _multiply_word(code, form.ties)
    if form.clamped:
        code("ldrd", "r8", "r9", at("sp"))
        code("uqadd8", "r0", "r0", "r9")
        code("usub8", "r0", "r0", "r9")
        code("uadd8", "r0", "r0", "r8")
    else:
        code("eor", "r0", "r0", "#0x80808080")


def _add_word(code: AssemblyBuilder) -> None:
    """Distances from act_min; r4, r5 factors, r6 offset, r7 mask.

    A byte in the upper half of a halfword is 256 times its value: SMLAW takes (factor * 256 * value) >> 16.
    """
    first, second, third, fourth = _RESULTS
    code("and", "r10", "r7", "r8, lsl #8")
    code("and", "r11", "r7", "r9, lsl #8")
    code("smlawb", first, "r4", "r10", "r6")
    code("smlawt", third, "r4", "r10", "r6")
    code("smlawb", first, "r5", "r11", first)
    code("smlawt", third, "r5", "r11", third)
    code("and", "r8", "r8", "r7")
    code("and", "r9", "r9", "r7")
    code("smlawb", second, "r4", "r8", "r6")
    code("smlawt", fourth, "r4", "r8", "r6")
    code("smlawb", second, "r5", "r9", second)
    code("smlawt", fourth, "r5", "r9", fourth)
    for result in _RESULTS:
        code("usat", result, "#8", f"{result}, asr #{FRACTION_BITS}")
    code("orr", first, first, f"{second}, lsl #8")
    code("orr", third, third, f"{fourth}, lsl #8")
    code("orr", first, first, f"{third}, lsl #16")


def _multiply_word(code: AssemblyBuilder, ties: bool) -> None:
    """Distances from act_min; r4 multiplier, r5 offset, r6, r7 minus the zero points. They fit 16 bits (e >= 1)."""
    first, second, third, fourth = _RESULTS
    code("sxtab16", "r10", "r6", "r8")
    code("sxtab16", "r11", "r7", "r9")
    code("sxtab16", "r8", "r6", "r8, ror #8")
    code("sxtab16", "r9", "r7", "r9, ror #8")
    code("smulbb", first, "r10", "r11")
    code("smultt", third, "r10", "r11")
    code("smulbb", second, "r8", "r9")
    code("smultt", fourth, "r8", "r9")
    code("ldr", "r8", at("sp", 8))
    for result in _RESULTS:
        code("lsl", result, result, "#1")
        if ties:
            code("smmlar", "r9", result, "r4", "r5")
            code("add", result, "r9", f"{result}, asr #31")
        else:
            code("smmlar", result, result, "r4", "r5")
        code("asr", result, result, "r8")
    code("pkhbt", first, first, f"{third}, lsl #16")
    code("pkhbt", second, second, f"{fourth}, lsl #16")
    code("usat16", first, "#8", first)
    code("usat16", second, "#8", second)
    code("orr", first, first, f"{second}, lsl #8")
