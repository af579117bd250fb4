"""add, sub and mul on Helium (Cortex-M55): runtime/ep_mve_elementwise.c and a generated inner loop.

TFLite brings the operands of a sum to twice the larger scale, times 2**20, and rescales them and their sum:
MultiplyByQuantizedMultiplier each time. For the operand of the larger scale the factor is 1/2: (q - z) * 2**19 exactly.
"""

from __future__ import annotations

from edgeprune.codegen.assembly import AssemblyBuilder, at
from edgeprune.codegen.kernel import Assembly, Call, Constant, Kernel, Lowered
from edgeprune.codegen.kernels.elementwise_operands import order_operands
from edgeprune.codegen.requantize import LARGEST_LEFT_SHIFT, find_output_range, get_scale, get_zero_point
from edgeprune.fixedpoint import quantize_multiplier
from edgeprune.graph import Tensor

_HALF = (2**30, 0)  # quantize_multiplier(0.5)
_LEFT_SHIFT = 20  # TFLite's headroom for sums


class MveElementwise(Kernel):
    """add, sub, mul of two maps of one shape, or of a map and a constant map or pixel."""

    def lower(self, call: Call) -> Lowered | None:
        if not call.target.mve:
            return None
        operands = order_operands(call)
        if operands is None:
            return None
        a, b, b_stride = operands
        kind = call.op.kind
        factors = _find_factors(kind, a, b, call.output)
        if factors is None:
            return None
        act_min, act_max = find_output_range(call)
        zero_point = get_zero_point(call.output)
        if kind == "sub" and call.inputs[0].is_constant:
            kind = "sub_from"
        assembly = generate_elementwise(kind, factors, clamps_negatives=act_min >= zero_point)
        fields: dict[str, int | str] = {
            "minus_a_zero": -get_zero_point(a),
            "minus_b_zero": -get_zero_point(b),
            "a_multiplier": factors[0][0],
            "a_shift": factors[0][1],
            "b_multiplier": factors[1][0],
            "b_shift": factors[1][1],
            "multiplier": factors[2][0],
            "shift": factors[2][1],
            "zero": zero_point,
            "act_min": act_min,
            "act_max": act_max,
            "run": assembly.name,
            "constant": f"{call.name}_constant" if b.is_constant else 0,
            "columns": call.y.columns,
            "channels": call.y.channels,
            "a_stride": call.x_strides[0],
            "b_stride": b_stride,
            "y_stride": call.y_stride,
        }
        values = call.y.pixels * call.y.channels
        is_flat = call.x_strides[0] == b_stride == call.y_stride == call.y.channels
        runs = -(-call.y.rows // call.rows) if is_flat else call.y.pixels
        constants = () if b.data is None else (Constant(f"{call.name}_constant", "int8_t", b.data.reshape(-1)),)
        return Lowered(
            kernel=f"Helium {call.op.kind}",
            function="ep_mve_elementwise",
            fields=fields,
            constants=constants,
            assembly=(assembly,),
            sources=("ep_mve_elementwise.c",),
            in_place=(0,) if b.is_constant else (0, 1),
            cycles=runs * 60 + -(-values // 4) * (14 if kind == "mul" else 25),
        )


Factor = tuple[int, int]


def _find_factors(kind: str, a: Tensor, b: Tensor, y: Tensor) -> tuple[Factor, Factor, Factor] | None:
    """Multiplier and shift of both operands and of the result."""
    scales = get_scale(a), get_scale(b)
    if kind == "mul":
        result = quantize_multiplier(scales[0] * scales[1] / get_scale(y))
        return None if result[1] > LARGEST_LEFT_SHIFT else (_HALF, _HALF, result)
    twice_largest = 2 * max(scales)
    ratio = twice_largest / (2**_LEFT_SHIFT * get_scale(y))
    if ratio >= 1.0:  # the reference, and TFLite, refuse it
        return None
    return (
        quantize_multiplier(scales[0] / twice_largest),
        quantize_multiplier(scales[1] / twice_largest),
        (quantize_multiplier(ratio)),
    )


def generate_elementwise(kind: str, factors: tuple[Factor, Factor, Factor], clamps_negatives: bool) -> Assembly:
    """void name(op, a, b, y, count); kind: add, sub (a - b), sub_from (b - a) or mul."""
    (a_exact, b_exact), shift = [factor == _HALF for factor in factors[:2]], factors[2][1]
    rounding = f"left_{shift}" if shift > 0 else "whole" if shift == 0 else "clamped" if clamps_negatives else "right"
    ways = "" if kind == "mul" else "".join(_name_way(factor) for factor in factors[:2])
    code = AssemblyBuilder(f"ep_mve_{kind}{ways}_{rounding}")
    code.enter()
    code("ldr", "lr", code.argument(4))
    code("vpush", "{d8-d9}")
    code.comment("r4, r5 zero points, r6 to r9 factors of a and b, r10, r11 of the result, r12 its zero point")
    code("ldrd", "r4", "r5", at("r0", 36))
    code("vdup.32", "q3", "r4")
    code("vdup.32", "q4", "r5")
    code("ldm", "r0", "{r4, r5, r6, r7, r8, r9, r10, r11, r12}")
    code("wlstp.32", "lr", "lr", code.local("end"))
    code.label("next")
    code("vldrb.s32", "q0", "[r1], #4")
    code("vldrb.s32", "q1", "[r2], #4")
    code("vadd.i32", "q0", "q0", "r4")
    code("vadd.i32", "q1", "q1", "r5")
    if kind == "mul":
        code("vmul.i32", "q0", "q0", "q1")
    else:
        _rescale_operand(code, "q0", a_exact, ("r6", "r7"), factors[0][1])
        _rescale_operand(code, "q1", b_exact, ("r8", "r9"), factors[1][1])
        order = ("q1", "q0") if kind == "sub_from" else ("q0", "q1")
        code("vadd.i32" if kind == "add" else "vsub.i32", "q0", *order)
    if shift > 0:
        code("vshl.i32", "q0", "q0", f"#{shift}")
    code("vqrdmulh.s32", "q0", "q0", "r10")
    if shift < 0:
        if not clamps_negatives:
            _lower_negatives(code, "q0")
        code("vrshl.s32", "q0", "r11")
    code("vadd.i32", "q0", "q0", "r12")
    code("vmax.s32", "q0", "q0", "q3")
    code("vmin.s32", "q0", "q0", "q4")
    code("vstrb.32", "q0", "[r3], #4")
    code("letp", "lr", code.local("next"))
    code.label("end")
    code("vpop", "{d8-d9}")
    code.leave()
    arguments = "const ep_mve_elementwise_op *op, const int8_t *a, const int8_t *b, int8_t *y, int32_t count"
    return code.build(f"void {code.name}({arguments})")


def _name_way(factor: Factor) -> str:
    return "_exact" if factor == _HALF else "_scaled" if factor[1] < 0 else "_multiplied"


def _rescale_operand(code: AssemblyBuilder, q: str, exact: bool, factor: tuple[str, str], shift: int) -> None:
    if exact:
        code("vshl.i32", q, q, f"#{_LEFT_SHIFT - 1}")
        return
    code("vshl.i32", q, q, f"#{_LEFT_SHIFT}")
    code("vqrdmulh.s32", q, q, factor[0])
    if shift < 0:
        _lower_negatives(code, q)
        code("vrshl.s32", q, factor[1])


def _lower_negatives(code: AssemblyBuilder, q: str) -> None:
    """One less where negative: VRSHL then rounds ties away from zero, as RoundingDivideByPOT does."""
    code("vshr.s32", "q2", q, "#31")
    code("vadd.i32", q, q, "q2")
