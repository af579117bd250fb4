"""Generated assembly: pixels of a depthwise convolution, 16 channels at a time (runtime/ep_mve_taps.h).

VMULLB and VMULLT make 16 products of int8, each of 16 bits. The sum of two taps' products still fits an int16; then it
is widened and added to sums of 32 bits: 22 instructions for 2 taps x 16 channels, where 4 lanes of 32 bits at a time
would take 40.
"""

from __future__ import annotations

from edgeprune.codegen.assembly import AssemblyBuilder, at
from edgeprune.codegen.kernel import Assembly
from edgeprune.codegen.kernels.mve_line_code import CLAMPED

# offsets in ep_mve_taps_run
_WEIGHT, _BLOCKS, _LAST_STEP, _PAIRS, _ZERO, _LIMITS = 0, 16, 20, 24, 28, 32
_X, _OFFSETS, _X_STEP, _Y, _Y_STEP, _PIXELS = 40, 44, 48, 52, 56, 60


def generate_taps(form: int) -> Assembly:
    """void name(const ep_mve_taps_run *): right shifts only; form: CLAMPED or RIGHT."""
    code = AssemblyBuilder(f"ep_mve_taps_{'clamped' if form == CLAMPED else 'right'}")
    x, y, pixels = (at("sp", 64 + 4 * word) for word in range(3))  # the frame lies above what vpush has pushed
    code.enter(frame_bytes=12)
    code("vpush", "{d8-d15}")
    for word, place in ((_X, x), (_Y, y), (_PIXELS, pixels)):
        code("ldr", "r1", at("r0", word))
        code("str", "r1", place)
    code.label("pixel")
    code("ldr", "r1", at("r0", _WEIGHT))
    code("ldrd", "r7", "r8", at("r0", _WEIGHT + 4))
    code("ldrd", "r9", "r10", at("r0", _WEIGHT + 12))
    code("ldrd", "r5", "r6", x)
    code("ldr", "r11", at("r0", _ZERO))
    code.label("block")
    for part in range(4):
        code(f"vld4{part}.32", "{q4, q5, q6, q7}", "[r7]!" if part == 3 else "[r7]")
    code("ldr", "r3", at("r0", _OFFSETS))
    code("ldr", "lr", at("r0", _PAIRS))
    code("dls", "lr", "lr")
    code.label("pair")
    code("ldrd", "r2", "r4", "[r3], #8")
    code("add", "r2", "r2", "r5")
    code("add", "r4", "r4", "r5")
    code("vldrb.8", "q0", "[r1], #16")
    code("vldrb.8", "q1", at("r2"))
    code("vmullb.s8", "q2", "q0", "q1")
    code("vmullt.s8", "q3", "q0", "q1")
    code("vldrb.8", "q0", at("r1"))
    code("vldrb.8", "q1", at("r4"))
    code("vmullb.s8", "q0", "q0", "q1")
    code("vadd.i16", "q2", "q2", "q0")
    code("vldrb.8", "q0", "[r1], #16")
    code("vmullt.s8", "q0", "q0", "q1")
    code("vadd.i16", "q3", "q3", "q0")
    # channel 4 * lane + v is in q(4 + v)
    for half, source, sums in (("b", "q2", "q4"), ("b", "q3", "q5"), ("t", "q2", "q6"), ("t", "q3", "q7")):
        code(f"vmovl{half}.s16", "q0", source)
        code("vadd.i32", sums, sums, "q0")
    code("le", "lr", code.local("pair"))
    for part in range(4):
        code(f"vld4{part}.32", "{q0, q1, q2, q3}", "[r8]!" if part == 3 else "[r8]")
    for v in range(4):
        code("vqrdmulh.s32", f"q{4 + v}", f"q{4 + v}", f"q{v}")
    code("vldrw.u32", "q0", "[r9], #16")
    for v in range(4):
        if form != CLAMPED:
            code("vshr.s32", "q2", f"q{4 + v}", "#31")
            code("vadd.i32", f"q{4 + v}", f"q{4 + v}", "q2")
        if v > 0:  # VRSHL looks at the lowest byte of a lane only
            code("vshr.u32", "q1", "q0", f"#{8 * v}")
        code("vrshl.s32", f"q{4 + v}", f"q{4 + v}", "q1" if v > 0 else "q0")
    code("ldrd", "r2", "r4", at("r0", _LIMITS))
    code("vqmovnb.s32", "q4", "q4")
    code("vqmovnt.s32", "q4", "q6")
    code("vqmovnb.s32", "q5", "q5")
    code("vqmovnt.s32", "q5", "q7")
    code("vqadd.s16", "q4", "q4", "r11")
    code("vqadd.s16", "q5", "q5", "r11")
    code("vqmovnb.s16", "q4", "q4")
    code("vqmovnt.s16", "q4", "q5")
    code("vdup.8", "q0", "r2")
    code("vdup.8", "q1", "r4")
    code("vmax.s8", "q4", "q4", "q0")
    code("vmin.s8", "q4", "q4", "q1")
    code("vstrb.8", "q4", at("r6"))
    code("subs", "r10", "r10", "#1")
    code("beq", code.local("done"))
    code("mov", "r12", "#16")
    code("cmp", "r10", "#1")
    code("it", "eq")
    code("ldreq", "r12", at("r0", _LAST_STEP))
    code("add", "r5", "r5", "r12")
    code("add", "r6", "r6", "r12")
    code("b", code.local("block"))
    code.label("done")
    code("ldrd", "r5", "r6", x)
    code("ldr", "r2", at("r0", _X_STEP))
    code("ldr", "r4", at("r0", _Y_STEP))
    code("add", "r5", "r5", "r2")
    code("add", "r6", "r6", "r4")
    code("strd", "r5", "r6", x)
    code("ldr", "r2", pixels)
    code("subs", "r2", "r2", "#1")
    code("str", "r2", pixels)
    code("bne", code.local("pixel"))
    code("vpop", "{d8-d15}")
    code.leave()
    return code.build(f"void {code.name}(const ep_mve_taps_run *run)")
