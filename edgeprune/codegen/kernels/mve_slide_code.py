"""Generated assembly: sums of three neighbouring patches that overlap, two channels at a time (runtime/ep_mve_dot.h).

Where a patch begins a whole number of 16-byte chunks after the one before, and is a whole number of such steps long
(the taps), each loaded chunk serves up to three patches: 3 * taps + 2 loads where ep_mve_dot_3x2 takes 5 * taps.

    for chunk in a step:  for tap:  sums[p] += weight[tap][chunk] * x[tap + p][chunk]
"""

from __future__ import annotations

from edgeprune.codegen.assembly import AssemblyBuilder, at
from edgeprune.codegen.kernel import Assembly

MOST_TAPS = 8  # unrolled
_LARGEST_OFFSET = 508  # of VLDRW; multiples of 4

# offsets in ep_mve_dot
_X, _WEIGHT, _SUMS, _SUMS_END = 0, 12, 20, 24


def can_slide(length: int, step: int) -> bool:
    """Whether patches of `length` bytes, `step` bytes apart, are served by `generate_slide`."""
    taps, rest = divmod(length, step) if step else (0, 1)
    return step % 16 == 0 and rest == 0 and 2 <= taps <= MOST_TAPS and step * (taps - 1) - 16 <= _LARGEST_OFFSET >= step


def generate_slide(length: int, step: int) -> Assembly:
    """void name(const ep_mve_dot *): as ep_mve_dot_3x2 with x1 = x0 + step, x2 = x1 + step; x0 a multiple of 4."""
    taps = length // step
    code = AssemblyBuilder(f"ep_mve_slide_{taps}_step_{step}")
    code.enter(frame_bytes=4)
    code.comment("r1 patches, r7 and r9 weights of two channels, r12 bias, r11 sums")
    code("ldr", "r1", at("r0", _X))
    code("ldrd", "r7", "r12", at("r0", _WEIGHT))
    code("ldrd", "r11", "r2", at("r0", _SUMS))
    code("sub", "r2", "r2", "#8")
    code("str", "r2", at("sp"))
    code("sub", "r11", "r11", "#8")
    code.label("channels")
    code("mov", "r9", "r7")
    code.advance("r9", length)
    code("mov", "lr", f"#{step // 16}")
    code("dls", "lr", "lr")
    code("ldrd", "r0", "r2", "[r12], #8")
    for register, source in (("r4", "r0"), ("r6", "r2"), ("r8", "r0"), ("r10", "r2")):
        code("mov", register, source)
    code.label("chunk")
    code("vldrw.u32", "q1", f"[r1], #{step}")
    code("vldrw.u32", "q2", f"[r1], #{step}")
    for tap in range(taps):
        last = tap == taps - 1
        code("vldrw.u32", f"q{1 + (tap + 2) % 3}", at("r1") if last else f"[r1], #{step}")
        for weight, sums in (("r7", ("r0", "r4", "r8")), ("r9", ("r2", "r6", "r10"))):
            code("vldrw.u32", "q0", at(weight, step * tap - 16) if tap else f"[{weight}], #16")
            for patch, register in enumerate(sums):
                code("vmladava.s8", register, "q0", f"q{1 + (tap + patch) % 3}")
    code.advance("r1", 16 - step * (taps + 1))
    code("le", "lr", code.local("chunk"))
    code("sub", "r1", "r1", f"#{step}")
    code.advance("r7", 2 * length - step)
    code("strd", "r0", "r2", "[r11, #8]!")
    code("strd", "r4", "r6", at("r11", 256))
    code("strd", "r8", "r10", at("r11", 512))
    code("ldr", "r0", at("sp"))
    code("cmp", "r11", "r0")
    code("blo", code.local("channels"))
    code.leave()
    return code.build(f"void {code.name}(const ep_mve_dot *dot)")
