"""Depthwise convolution's records: what a filter needs in its loop, side by side. See dsp_depthwise_code.py.

They are made by each call from int8 weights and constants, or lie in flash.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeprune.codegen.assembly import AssemblyBuilder, at, registers
from edgeprune.codegen.kernel import Assembly
from edgeprune.codegen.kernels.dsp_depthwise_code import CONSTANT_WORDS

_C_WEIGHT, _C_SHIFT, _C_ZERO_POINT = 8, 16, 32  # fields of C's ep_dsp_channels
_MOST_WORDS_UNROLLED = 3


@dataclass(frozen=True)
class RecordCode:
    """start_words: where accumulators start. weight_words: of packed pairs. wide: see dsp_depthwise_code.py."""

    start_words: int
    weight_words: int
    wide: bool

    @property
    def words(self) -> int:
        return self.start_words + CONSTANT_WORDS + self.weight_words

    @property
    def name(self) -> str:
        return f"ep_dsp_records_{self.start_words}_{self.weight_words}{'w' if self.wide else ''}"


def build_record_code(records: RecordCode) -> Assembly:
    """void name(const ep_dsp_channels *, int32_t output, uint32_t *record, int32_t count) (ep_dsp_depthwise.h).

    Registers: r0 weights; r1, r4 where the fields M and H start; r2 record; r3 count; r5 scales; r6 shifts; r8 twice
    the zero point and 1; r9-r12, lr free.
    """
    code = AssemblyBuilder(records.name)
    code.enter()
    code("ldrd", "r4", "r5", at("r0", _C_WEIGHT))
    code("ldr", "r6", at("r0", _C_SHIFT))
    code("ldrsh", "r8", at("r0", _C_ZERO_POINT))
    code("movs", "r0", f"#{2 * records.weight_words}")
    code("mla", "r0", "r0", "r1", "r4")
    code("add", "r5", "r5", "r1, lsl #3")
    code("add", "r6", "r6", "r1")
    code("lsl", "r8", "r8", "#1")
    code("add", "r8", "r8", "#1")
    code("mov", "r1", f"#{1 << 20}")
    code("mov", "r4", f"#{1 << 9}")
    code.label("record")
    code("ldrd", "r10", "r11", "[r5], #8")
    code("ldrsb", "r12", "[r6], #1")
    code("sub", "r10", "r10", f"#{1 << (20 + records.wide)}")
    start = "r4"
    if not records.wide:
        start = "r9"
        code("add", start, "r4", "r10, lsl #10")
    for _ in range(records.start_words // 2):
        code("stm", "r2!", registers(["r1", start]))
    if records.start_words % 2:
        code("str", "r1", "[r2], #4")
    code("sub", "lr", "r12", "#1")
    code("lsl", "lr", "r8", "lr")
    code("strd", "r12", "r10", "[r2], #8")
    code("strd", "r11", "lr", "[r2], #8")
    _copy_weights(code, records)
    code("subs", "r3", "r3", "#1")
    code("bne.w", code.local("record"))
    code.leave()
    return code.build(
        f"void {records.name}(const ep_dsp_channels *op, int32_t output, uint32_t *record, int32_t count)"
    )


def _copy_weights(code: AssemblyBuilder, records: RecordCode) -> None:
    words = records.weight_words
    if words > _MOST_WORDS_UNROLLED:
        code("mov", "r9", f"#{words // 2}")
        code.label("weights")
        _unpack_weights(code, not records.wide)
        code("subs", "r9", "r9", "#1")
        code("bne", code.local("weights"))
    else:
        for _ in range(words // 2):
            _unpack_weights(code, not records.wide)
    if words % 2:
        code("ldrsb", "r10", "[r0], #1")
        code("ldrsb", "r11", "[r0], #1")
        code("add", "r10", "r10", "r11, lsl #21")
        if not records.wide:
            code("lsl", "r10", "r10", "#1")
        code("str", "r10", "[r2], #4")


def _unpack_weights(code: AssemblyBuilder, doubled: bool) -> None:
    """Two words from four bytes."""
    code("ldr", "r10", "[r0], #4")
    code("sxtb", "r11", "r10")
    code("sxtb", "r12", "r10", "ror #8")
    code("add", "r11", "r11", "r12, lsl #21")
    code("sxtb", "r12", "r10", "ror #16")
    code("asr", "lr", "r10", "#24")
    code("add", "r12", "r12", "lr, lsl #21")
    if doubled:
        code("lsl", "r11", "r11", "#1")
        code("lsl", "r12", "r12", "#1")
    code("strd", "r11", "r12", "[r2], #8")


def make_records(
    records: RecordCode, pairs: np.ndarray, scale: np.ndarray, shift: np.ndarray, zero_point: int
) -> np.ndarray:
    """The records as they come out of the code: uint32 (output channels, words).

    pairs: (output channels, words, 2), the odd and the even tap of each word. scale: (output channels, 2), twice the
    bias and the multiplier. zero_point: of the output.
    """
    bias = scale[:, 0] - (1 << (20 + records.wide))
    high = (1 << 9) + (0 if records.wide else bias << 10)
    starts = np.stack([np.full(len(bias), 1 << 20), np.broadcast_to(high, bias.shape)], axis=1)
    starts = np.tile(starts, -(-records.start_words // 2))[:, : records.start_words]
    offset = (2 * zero_point + 1) << (shift - 1)
    constants = np.stack([shift, bias, scale[:, 1], offset], axis=1)
    weights = (pairs[:, :, 0] + (pairs[:, :, 1] << 21)) << (not records.wide)
    return (np.concatenate([starts, constants, weights], axis=1) & 0xFFFFFFFF).astype(np.uint32)
