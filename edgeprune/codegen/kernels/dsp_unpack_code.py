"""int8 values to words of pairs in the scratch (dsp_convolution_code.py), in assembly: weights, pixels, lines."""

from __future__ import annotations

from edgeprune.codegen.assembly import AssemblyBuilder, at, registers
from edgeprune.codegen.kernel import Assembly
from edgeprune.codegen.kernels.dsp_convolution_code import FIELD_BITS


def generate_unpack(taps: int) -> Assembly:
    """The function that turns int8 weights, `taps` to a line, into words of pairs; see ep_dsp_conv.h.

    An odd number of taps is led by a zero: its first word is the first tap alone.
    """
    name = f"ep_unpack_pairs_{taps}"
    out = AssemblyBuilder(name)
    source, words, lines = "r0", "r1", "r2"
    free = ("r3", "r4", "r5", "r6", "r7", "r8", "r9", "r10")
    line: list[tuple[int, ...]] = [(0,)] if taps % 2 else []
    line += [(tap, tap + 1) for tap in range(taps % 2, taps, 2)]
    together = max(1, 4 // len(line))

    def emit(count: int) -> None:
        pairs = [tuple(tap + taps * index for tap in pair) for index in range(count) for pair in line]
        for start in range(0, len(pairs), 4):
            group = pairs[start : start + 4]
            # the word comes to lie in the register of its last tap (the lower field)
            used: list[str] = []
            unused = list(free)
            plans = [[unused.pop(0) for _ in pair] for pair in group]
            for pair, plan in zip(group, plans, strict=True):
                for tap, register in zip(pair, plan, strict=True):
                    out("ldrsb", register, at(source, tap))
            for plan in plans:
                if len(plan) == 2:
                    out("add", plan[1], plan[1], plan[0], f"lsl #{FIELD_BITS}")
                used.append(plan[-1])
            if len(used) > 1:
                out("stm", f"{words}!", registers(used))
            else:
                out("str", used[0], f"[{words}], #4")
        out.advance(source, taps * count, "r3")

    out.enter()
    if together > 1:
        out("subs", lines, lines, f"#{together}")
        out("blt", out.local("rest"))
        out.label("several")
        emit(together)
        out("subs", lines, lines, f"#{together}")
        out("bge", out.local("several"))
        out.label("rest")
        out("adds", lines, lines, f"#{together}")
        out("beq", out.local("done"))
    out.label("one")
    emit(1)
    out("subs", lines, lines, "#1")
    out("bne", out.local("one"))
    out.label("done")
    out.leave()
    return out.build(f"void {name}(const int8_t *weight, uint32_t *words, int32_t lines)")


def generate_pack_pixels() -> Assembly:
    """The function that packs all channels of pairs of pixels; see ep_dsp_conv.h."""
    out = AssemblyBuilder("ep_pack_pixels")
    first, second, words, step, channels = "r0", "r1", "r2", "r3", "r12"
    out.enter(frame_bytes=4)
    out.label("pixel")
    out("str", words, at("sp"))
    out("ldr", channels, out.argument(4))
    out("subs", channels, channels, "#4")
    out("blt", out.local("rest"))
    out.label("four")
    low, high = ("r4", "r5", "r6", "r7"), ("r8", "r9", "r10", "r11")
    for values, pixel in ((low, first), (high, second)):
        for channel, register in enumerate(values):
            out("ldrsb", register, at(pixel, channel))
    for one, other in zip(low, high, strict=True):
        out("add", one, one, other, f"lsl #{FIELD_BITS}")
    for start in (0, 2):
        out("str", low[start], at(words))
        out("str", low[start + 1], f"[{words}, {step}]")
        out("add", words, words, step, "lsl #1")
    out("adds", first, first, "#4")
    out("adds", second, second, "#4")
    out("subs", channels, channels, "#4")
    out("bge", out.local("four"))
    out.label("rest")
    out("adds", channels, channels, "#4")
    out("beq", out.local("next"))
    out.label("one")
    out("ldrsb", "r4", f"[{first}], #1")
    out("ldrsb", "r8", f"[{second}], #1")
    out("add", "r4", "r4", "r8", f"lsl #{FIELD_BITS}")
    out("str", "r4", at(words))
    out("add", words, words, step)
    out("subs", channels, channels, "#1")
    out("bne", out.local("one"))
    out.label("next")
    out("ldr", "r4", out.argument(6))
    out("ldr", "r5", out.argument(5))
    out("ldr", words, at("sp"))
    out("add", first, first, "r4")
    out("add", second, second, "r4")
    out("adds", words, words, "#4")
    out("subs", "r5", "r5", "#1")
    out("str", "r5", out.argument(5))
    out("bne", out.local("pixel"))
    out.leave()
    return out.build(
        "void ep_pack_pixels(const int8_t *a, const int8_t *b, uint32_t *words, int32_t step_bytes, int32_t channels, "
        "int32_t count, int32_t gap)"
    )


def generate_pack_line() -> Assembly:
    """The function that packs values of one channel; see ep_dsp_conv.h."""
    out = AssemblyBuilder("ep_pack_line")
    x, step, words, count, odd = "r0", "r1", "r2", "r3", "r12"  # odd: one step after x
    out.enter()
    out("subs", count, count, "#3")
    out("blt", out.local("rest"))
    out.label("three")
    out("add", odd, x, step)
    for one, other, scale in (("r4", "r7", ""), ("r5", "r8", f", {step}, lsl #1"), ("r6", "r9", f", {step}, lsl #2")):
        out("ldrsb", one, f"[{x}{scale}]")
        out("ldrsb", other, f"[{odd}{scale}]")
    for one, other in (("r4", "r7"), ("r5", "r8"), ("r6", "r9")):
        out("add", one, one, other, f"lsl #{FIELD_BITS}")
    out("stm", f"{words}!", registers(["r4", "r5", "r6"]))
    out("add", x, x, step, "lsl #2")
    out("add", x, x, step, "lsl #1")
    out("subs", count, count, "#3")
    out("bge", out.local("three"))
    out.label("rest")
    out("adds", count, count, "#3")
    out("beq", out.local("done"))
    out.label("one")
    out("ldrsb", "r5", f"[{x}, {step}]")
    out("ldrsb", "r4", at(x))
    out("add", x, x, step, "lsl #1")
    out("add", "r4", "r4", "r5", f"lsl #{FIELD_BITS}")
    out("str", "r4", f"[{words}], #4")
    out("subs", count, count, "#1")
    out("bne", out.local("one"))
    out.label("done")
    out.leave()
    return out.build("void ep_pack_line(const int8_t *x, int32_t step, uint32_t *words, int32_t count)")
