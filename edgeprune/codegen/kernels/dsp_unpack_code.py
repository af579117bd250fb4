"""int8 weights from flash to words of pairs in the scratch (dsp_convolution_code.py), in assembly."""

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
