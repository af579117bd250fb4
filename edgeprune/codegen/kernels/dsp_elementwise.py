"""add, sub and mul on cores with the DSP extension: runtime/ep_dsp_elementwise.c and a generated inner loop.

TFLite rescales the operands of a sum one by one, then the sum; the real numbers behind it make a linear form. Where it
is evaluated to 2**-20 of an output step, it nearly always rounds to the very same outputs, and since two int8 operands
make 65,536 pairs only, that is looked up: the reference is evaluated for all pairs, and the offset is chosen between
the bounds that they set. Where there is no such offset, factors a few units away are tried; then others take the op.
Of 120 sums and differences of random scales all have a form. Those of round numbers may not: ties, as those of
(a + b) / 2, go away from zero.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from edgeprune.codegen.kernel import Call, Constant, Kernel, Lowered
from edgeprune.codegen.kernels.dsp_elementwise_code import FRACTION_BITS, Form, build_elementwise_code
from edgeprune.codegen.kernels.elementwise_operands import order_operands
from edgeprune.codegen.requantize import find_output_range, get_scale, get_zero_point
from edgeprune.fixedpoint import quantize_multiplier
from edgeprune.graph import Op, Quant, Tensor
from edgeprune.reference.call import Call as ReferenceCall
from edgeprune.reference.elementwise import add_int8, sub_int8

_REFERENCES: dict[str, Callable[[ReferenceCall], np.ndarray]] = {"add": add_int8, "sub": sub_int8}
_TRIES = 3  # units that a factor may move
_STORED = np.arange(-128, 128, dtype=np.int64)
_FACTOR_BITS = FRACTION_BITS + 8
_CYCLES = {"add": 7, "sub": 7, "mul": 9}  # of a value

Affine = tuple[float, int]  # scale, zero point


class DspElementwise(Kernel):
    """add, sub and mul of two maps of one shape, or of a map and a constant map or pixel."""

    def lower(self, call: Call) -> Lowered | None:
        kind = call.op.kind
        if kind not in _CYCLES or not call.target.dsp or call.target.mve:
            return None
        first, second = call.inputs
        operands = order_operands(call)
        if operands is None:
            return None
        a, b, b_stride = operands
        found = _find_product(a, b, call) if kind == "mul" else _find_sum(first, second, call)
        if found is None:
            return None
        form, factors = found
        code = build_elementwise_code(form)
        act_min, act_max = find_output_range(call)
        values = call.y.pixels * call.y.channels
        is_flat = call.x_strides[0] == b_stride == call.y_stride == call.y.channels
        runs = -(-call.y.rows // call.rows) if is_flat else call.y.pixels
        return Lowered(
            kernel="multiplication" if kind == "mul" else f"{kind} as a linear form",
            function="ep_dsp_elementwise",
            fields={
                "run": code.name,
                **{f"factors.factors[{index}]": factor for index, factor in enumerate(factors)},
                "factors.act_min": (act_min & 0xFF) * 0x01010101,
                "factors.excess": (255 - (act_max - act_min)) * 0x01010101,
                "constant": f"{call.name}_constant" if b.is_constant else 0,
                "columns": call.y.columns,
                "channels": call.y.channels,
                "a_stride": call.x_strides[0],
                "b_stride": b_stride,
                "y_stride": call.y_stride,
            },
            cycles=60 + runs * 60 + values * _CYCLES[kind],
            constants=() if b.data is None else (Constant(f"{call.name}_constant", "int8_t", b.data.reshape(-1)),),
            assembly=(code,),
            sources=("ep_dsp_elementwise.c",),
            in_place=(0,) if b.is_constant else (0, 1),
        )


def _find_product(a: Tensor, b: Tensor, call: Call) -> tuple[Form, tuple[int, ...]] | None:
    """Multiplier, offset, minus both zero points, shift; None where the short form is not exact."""
    first, second = call.inputs
    multiplier, shift = quantize_multiplier(get_scale(first) * get_scale(second) / get_scale(call.output))
    (act_min, act_max), zero_point = find_output_range(call), get_zero_point(call.output)
    if not 1 <= -shift <= 21:  # 255 << 21 and the rescaled product fit an int32 together
        return None
    offset = (1 << (-shift - 1)) + ((zero_point - act_min) << -shift)
    zeros = [_repeat_half(-get_zero_point(tensor)) for tensor in (a, b)]
    form = Form("mul", (act_min, act_max) != (-128, 127), ties=act_min < zero_point)
    return form, (multiplier, offset, *zeros, -shift)


def _repeat_half(value: int) -> int:
    """An int16 in both halves of an int32."""
    word = (value & 0xFFFF) * 0x00010001
    return word - (word >> 31 << 32)


def _find_sum(first: Tensor, second: Tensor, call: Call) -> tuple[Form, tuple[int, ...]] | None:
    """The factors of C's a and b, the offset, and two zeros; None where there is no linear form."""
    scales = [(get_scale(tensor), get_zero_point(tensor)) for tensor in (first, second, call.output)]
    activation = ReferenceCall(call.op, call.inputs, call.output, ()).activation()
    found = find_linear_form(call.op.kind, scales[0], scales[1], scales[2], activation)
    if found is None:
        return None
    a_factor, b_factor, offset = found
    if first.is_constant:  # C's a is the op's second operand
        a_factor, b_factor = b_factor, a_factor
    return Form("add", find_output_range(call) != (-128, 127)), (a_factor, b_factor, offset, 0, 0)


@lru_cache(maxsize=256)
def find_linear_form(
    kind: str, first: Affine, second: Affine, output: Affine, activation: str
) -> tuple[int, int, int] | None:
    """Factors of the first and the second operand and the offset that give what the reference gives for all pairs."""
    wanted, act_min, act_max = _tabulate(kind, first, second, output, activation)
    sign = -1 if kind == "sub" else 1
    ideal = [round(first[0] / output[0] * 2**_FACTOR_BITS), round(sign * second[0] / output[0] * 2**_FACTOR_BITS)]
    if max(map(abs, ideal)) >= 2**31 - _TRIES:
        return None
    tries = itertools.product(range(-_TRIES, _TRIES + 1), repeat=2)
    for moves in sorted(tries, key=lambda moves: sum(map(abs, moves))):
        a_factor, b_factor = (factor + move for factor, move in zip(ideal, moves, strict=True))
        a_terms, b_terms = a_factor * _STORED >> 8, b_factor * _STORED >> 8
        offset = _find_offset(wanted, a_terms[:, None] + b_terms, act_min, act_max)
        if offset is not None and _fits_int32(offset + a_terms, offset + b_terms):
            return a_factor, b_factor, offset
    return None


def _tabulate(kind: str, first: Affine, second: Affine, output: Affine, activation: str) -> tuple[np.ndarray, int, int]:
    """What the reference computes for all pairs of stored values, (256, 256), and the range of the activation."""
    x, other, y = (
        Tensor(name, (1, 1), "int8", None, Quant.per_tensor(*affine))
        for name, affine in (("a", first), ("b", second), ("y", output))
    )
    op = Op(kind, kind, ("a", "b"), ("y",), {"activation": activation})
    values = (_STORED.astype(np.int8)[:, None], _STORED.astype(np.int8)[None])
    call = ReferenceCall(op, (x, other), y, values)
    return _REFERENCES[kind](call).astype(np.int64), *call.stored_range(activation)


def _find_offset(wanted: np.ndarray, sums: np.ndarray, act_min: int, act_max: int) -> int | None:
    """The offset in the middle of those with which act_min + usat8((sums + offset) >> FRACTION_BITS) is as wanted."""
    if act_min == act_max:
        return 0
    least = ((wanted - act_min) << FRACTION_BITS) - sums
    most = least + (1 << FRACTION_BITS) - 1
    low, high = int(least[wanted > act_min].max(initial=-(2**62))), int(most[wanted < act_max].min(initial=2**62))
    if low > high:
        return None
    low, high = max(low, high - 2**24), min(high, low + 2**24)  # where one side has no bound
    offset = (low + high) // 2
    return offset if _fits_int32(offset + sums) else None


def _fits_int32(*values: np.ndarray) -> bool:
    return all(bool((array >= -(2**31)).all() and (array < 2**31).all()) for array in values)
