"""Generated assembly: outputs of one channel out of a line of its inputs (runtime/ep_mve_depthwise.h, ep_mve_line).

Four outputs at a time. Up to three (four) registers hold all weights, 16 taps each; then an output costs two
instructions per 16 taps and a quarter of what requantizing four at once costs. Longer kernels read their weights anew
for every four outputs.
"""

from __future__ import annotations

from collections.abc import Callable

from edgeprune.codegen.assembly import AssemblyBuilder, at
from edgeprune.codegen.kernel import Assembly

CLAMPED, RIGHT, ANY = 0, 1, 2  # EP_MVE_CLAMPED, ...
_FORMS = {CLAMPED: "clamped", RIGHT: "right", ANY: "any"}
_LARGEST_OFFSET = 127  # of VLDRB
_LEFT_SHIFT, _ROUNDS_TIES = 44, 48  # offsets in ep_mve_line


def count_chunks(length: int) -> int:
    """Registers that hold `length` bytes."""
    return -(-length // 16)


def generate_line(length: int, step: int, form: int) -> Assembly:
    """void name(const ep_mve_line *): kernels of `length` bytes, outputs `step` bytes apart on the line."""
    code = AssemblyBuilder(f"ep_mve_line_{length}_step_{step}_{_FORMS[form]}")
    code.enter(frame_bytes=8)
    code("vpush", "{d8-d15}")
    frame = 64  # the frame lies above what vpush has pushed
    code.comment("r1 line, r12 weights, r8 count, r3 y, r5 y step, r11 bias, r7 multiplier, r9 shift, r10 zero")
    for register, word in (("r1", 0), ("r12", 1), ("r8", 2), ("r3", 3), ("r5", 4), ("r11", 5), ("r7", 6), ("r9", 7)):
        code("ldr", register, at("r0", 4 * word))
    code("ldr", "r10", at("r0", 32))
    code("ldrd", "r2", "r4", at("r0", 36))
    code("vdup.32", "q5", "r2")
    code("vdup.32", "q6", "r4")
    if form == ANY:
        code("ldrd", "r2", "r4", at("r0", _LEFT_SHIFT))
        code("strd", "r2", "r4", at("sp", frame))
    code("mov", "r6", "#0")
    code("vidup.u32", "q7", "r6", "#1")
    code("vmul.i32", "q7", "q7", "r5")
    code("lsl", "r5", "r5", "#2")
    chunks = count_chunks(length)
    is_resident = chunks <= (4 if form == CLAMPED else 3)
    if is_resident:
        _load_weights(code, length)
        _run(code, lambda: _sum_resident(code, chunks, step), lambda: _finish(code, form, chunks, frame))
    else:
        _run_long(code, length, step, form, frame)
    code("vpop", "{d8-d15}")
    code.leave()
    return code.build(f"void {code.name}(const ep_mve_line *line)")


def _load_weights(code: AssemblyBuilder, length: int) -> None:
    """q0, q1, ...: the weights, 0 beyond the last."""
    whole, rest = divmod(length, 16)
    for chunk in range(whole):
        code("vldrb.8", f"q{chunk}", at("r12", 16 * chunk))
    if rest:
        code("mov", "r6", f"#{rest}")
        code("vctp.8", "r6")
        code("vpst")
        code("vldrbt.8", f"q{whole}", at("r12", 16 * whole))


def _run(code: AssemblyBuilder, sums: Callable[[], None], finish: Callable[[], None]) -> None:
    """Loop over groups of four outputs; the last group once more with a predicate, where the count is no multiple."""
    code("mov", "r6", "#4")
    code("vctp.32", "r6")
    code("lsr", "r6", "r8", "#2")
    code("and", "r8", "r8", "#3")
    code("wls", "lr", "r6", code.local("rest"))
    code.label("next")
    sums()
    finish()
    code("le", "lr", code.local("next"))
    code.label("rest")
    code("cmp", "r8", "#0")
    code("beq", code.local("end"))
    code("vctp.32", "r8")
    code("mov", "r8", "#0")
    code("mov", "r6", "#1")
    code("dls", "lr", "r6")
    code("b", code.local("next"))
    code.label("end")


def _sum_resident(code: AssemblyBuilder, chunks: int, step: int) -> None:
    """r0, r2, r4, r6: sums of four outputs; r1 on to the next four."""
    reaches = 3 * step + 16 * (chunks - 1) <= _LARGEST_OFFSET
    spare = [f"q{register}" for register in range(chunks, 5)]  # q4 is free until the sums are done
    for output in range(4):
        for chunk in range(chunks):
            x = spare[(output * chunks + chunk) % len(spare)]
            code("vldrb.8", x, at("r1", 16 * chunk + (step * output if reaches else 0)))
            code("vmladav.s8" if chunk == 0 else "vmladava.s8", f"r{2 * output}", f"q{chunk}", x)
        if not reaches:
            code.advance("r1", step)
    if reaches:
        code.advance("r1", 4 * step)


def _finish(code: AssemblyBuilder, form: int, chunks: int, frame: int) -> None:
    """Requantize the four sums and store them."""
    spare = f"q{chunks}" if chunks < 4 else "q4"
    code("vmov", "q4[2]", "q4[0]", "r0", "r4")
    code("vmov", "q4[3]", "q4[1]", "r2", "r6")
    code("vadd.i32", "q4", "q4", "r11")
    if form == ANY:
        code("ldrd", "r0", "r2", at("sp", frame))
        code("vshl.s32", "q4", "r0")
    code("vqrdmulh.s32", "q4", "q4", "r7")
    if form != CLAMPED:
        code("vshr.s32", spare, "q4", "#31")
        if form == ANY:
            code("vmul.i32", spare, spare, "r2")
        code("vadd.i32", "q4", "q4", spare)
    code("vrshl.s32", "q4", "r9")
    code("vadd.i32", "q4", "q4", "r10")
    code("vmax.s32", "q4", "q4", "q5")
    code("vmin.s32", "q4", "q4", "q6")
    code("vpst")
    code("vstrbt.32", "q4", "[r3, q7]")
    code("add", "r3", "r3", "r5")


def _run_long(code: AssemblyBuilder, length: int, step: int, form: int, frame: int) -> None:
    """As `_run`, the loop over chunks of 16 taps being the hardware's; r8 counts outputs."""
    code.label("next")
    for register in ("r0", "r2", "r4", "r6"):
        code("mov", register, "#0")
    code.load("lr", length)
    code("dlstp.8", "lr", "lr")
    code.label("chunk")
    reaches = 3 * step <= _LARGEST_OFFSET
    code("vldrb.8", "q0", "[r12], #16")
    for output in range(4):
        x = f"q{1 + output % 3}"
        code("vldrb.8", x, at("r1", step * output if reaches else 0))
        code("vmladava.s8", f"r{2 * output}", "q0", x)
        if not reaches:
            code.advance("r1", step)
    code.advance("r1", 16 - (0 if reaches else 4 * step))
    code("letp", "lr", code.local("chunk"))
    code.advance("r1", 4 * step - 16 * count_chunks(length))
    code.advance("r12", -16 * count_chunks(length))
    code("vctp.32", "r8")
    _finish(code, form, 1, frame)
    code("subs", "r8", "r8", "#4")
    code("bgt", code.local("next"))
