"""Portable C for ops of two operands: add, sub, mul, prelu; each broadcasts, and one operand may be a constant.

add and sub: TFLite brings both operands to twice the larger scale, times 2**20, adds, and rescales the sum:

    term(q) = MultiplyByQuantizedMultiplier((q - z) << 20, quantize_multiplier(scale / (2 * larger scale)))

For the operand of the larger scale the factor is 1/2, and term(q) = (q - z) * 2**19 exactly: one product. The other is
rescaled as any value, (q - z) * 2**21 being twice the value. Where both scales are equal the other's factor is 1/2 too,
(multiplier 2**30, shift 0), which the portable form of requantization cannot do (it needs a right shift of 1 or more);
twice the operand and half the factor are the same, exactly: (q - z) * 2**22, multiplier 2**30, shift -1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeprune.codegen.kernel import Call, Constant, Kernel, Lowered
from edgeprune.codegen.kernels.portable import SETUP_CYCLES, quantize_ratio
from edgeprune.codegen.requantize import (
    LARGEST_LEFT_SHIFT,
    encode_shift,
    find_output_range,
    get_scale,
    get_zero_point,
)
from edgeprune.graph import Tensor

_SOURCES = ("ep_elementwise.c", "ep_fixed_point.c")
_LARGEST_DIFFERENCE = 255  # |stored value - zero point|


@dataclass(frozen=True)
class _Operands:
    """The operands in C's order: a is an activation, b is the other or a constant."""

    a: Tensor
    b: Tensor
    is_reversed: bool  # b is the op's first operand
    fields: dict[str, int | str]
    constants: tuple[Constant, ...]
    in_place: tuple[int, ...]
    elements: int
    runs: int


def _place_operands(call: Call, act_min: int, act_max: int) -> _Operands | None:
    """How both operands are walked, and the fields of C's ep_operands; None for shapes that it cannot walk."""
    first, second = call.inputs
    if first.is_constant and second.is_constant:
        return None
    a, b = (second, first) if first.is_constant else (first, second)
    sizes = _view_map(call.output.shape, call.output.shape)
    views = [view for tensor in (a, b) if (view := _view_map(tensor.shape, call.output.shape)) is not None]
    if sizes is None or len(views) < 2:
        return None
    strides = list(call.x_strides)
    if b.is_constant:
        strides.append(b.shape[-1] if b.shape else 1)
    steps = [_find_steps(view, sizes, stride) for view, stride in zip(views, strides, strict=True)]
    rows, columns, channels = sizes
    same = [view == sizes and stride == channels for view, stride in zip(views, strides, strict=True)]
    is_flat = same[0] and (same[1] or views[1] == (1, 1, 1)) and call.y_stride == channels
    if is_flat:
        columns, channels = 1, columns * channels
    fields: dict[str, int | str] = {
        "operands.constant": f"{call.name}_constant" if b.is_constant else 0,
        **_walk_fields("operands.a", steps[0]),
        **_walk_fields("operands.b", steps[1]),
        "operands.columns": columns,
        "operands.channels": channels,
        "operands.y_stride": call.y_stride,
        "operands.is_flat": int(is_flat),
        "operands.act_min": act_min,
        "operands.act_max": act_max,
    }
    if max(call.y_stride, steps[0][1], steps[1][1]) >= 2**15:
        return None
    constants: tuple[Constant, ...] = ()
    if b.data is not None:
        constants = (Constant(f"{call.name}_constant", "int8_t", b.data.reshape(-1)),)
    in_place = tuple(index for index, view in enumerate(views) if view == sizes and not (a, b)[index].is_constant)
    runs = 1 if is_flat else rows * columns
    return _Operands(a, b, first.is_constant, fields, constants, in_place, rows * columns * channels, runs)


def _view_map(shape: tuple[int, ...], output: tuple[int, ...]) -> tuple[int, int, int] | None:
    """An operand's shape as rows, columns, channels beside the output's (kernel.find_area); 1 where it is repeated."""
    rank = len(output)
    padded = (1,) * (rank - len(shape)) + tuple(shape)
    if rank == 4:
        return padded[1], padded[2], padded[3]
    if rank == 3:
        return padded[1], 1, padded[2]
    count = int(np.prod(output, dtype=np.int64))
    if padded == tuple(output):
        return 1, 1, count
    return (1, 1, 1) if all(size == 1 for size in padded) else None


def _find_steps(view: tuple[int, int, int], sizes: tuple[int, int, int], stride: int) -> tuple[int, int, int]:
    """Bytes from row to row, column to column, channel to channel; 0 where the operand is repeated."""
    if view == (1, 1, 1):
        return 0, 0, 0
    moves = [own > 1 or size == 1 for own, size in zip(view, sizes, strict=True)]
    return (view[1] * stride if moves[0] else 0), (stride if moves[1] else 0), int(moves[2])


def _walk_fields(name: str, steps: tuple[int, int, int]) -> dict[str, int | str]:
    return {f"{name}.row_step": steps[0], f"{name}.column_step": steps[1], f"{name}.channel_step": steps[2]}


class PortableAdd(Kernel):
    """add and sub."""

    def lower(self, call: Call) -> Lowered | None:
        operands = _place_operands(call, *find_output_range(call))
        if operands is None:
            return None
        a, b = operands.a, operands.b
        signs = {"a": 1, "b": 1}
        if call.op.kind == "sub":
            signs = {"a": -1, "b": 1} if operands.is_reversed else {"a": 1, "b": -1}
        is_swapped = get_scale(b) > get_scale(a)
        exact, scaled = (b, a) if is_swapped else (a, b)
        exact_sign, scaled_sign = (signs["b"], signs["a"]) if is_swapped else (signs["a"], signs["b"])
        twice_largest = 2 * get_scale(exact)
        ratio = twice_largest / (2**20 * get_scale(call.output))
        if ratio >= 0.5:  # from 1.0 on TFLite refuses it; an output 2**19 times finer than its operands makes no sense
            return None
        scaled_factor = 2**21
        multiplier, shift = quantize_ratio(get_scale(scaled) / twice_largest)
        if shift == 0:
            scaled_factor, shift = 2**22, -1
        to_output, output_shift = quantize_ratio(ratio)
        return Lowered(
            kernel="portable",
            function="ep_add",
            fields={
                **operands.fields,
                "exact_factor": exact_sign * 2**20,
                "exact_offset": -get_zero_point(exact) * exact_sign * 2**20,
                "scaled_factor": scaled_factor,
                "scaled_offset": -get_zero_point(scaled) * scaled_factor,
                "scaled_multiplier": multiplier,
                "multiplier": to_output,
                "zero_point": get_zero_point(call.output),
                "scaled_sign": scaled_sign,
                "scaled_shift": encode_shift(shift, _LARGEST_DIFFERENCE * 2**20),
                "shift": encode_shift(output_shift, 2 * _LARGEST_DIFFERENCE * 2**19),
                "is_swapped": int(is_swapped),
            },
            cycles=_count_cycles(operands, 31),
            constants=operands.constants,
            sources=_SOURCES,
            in_place=operands.in_place,
        )


class PortableMul(Kernel):
    """mul."""

    def lower(self, call: Call) -> Lowered | None:
        operands = _place_operands(call, *find_output_range(call))
        if operands is None:
            return None
        first, second = call.inputs
        # the product of scales in the op's order: float64 is commutative, but let it be seen
        ratio = get_scale(first) * get_scale(second) / get_scale(call.output)
        multiplier, shift = quantize_ratio(ratio)
        if shift > LARGEST_LEFT_SHIFT:
            return None
        return Lowered(
            kernel="portable",
            function="ep_mul",
            fields={
                **operands.fields,
                "multiplier": multiplier,
                "a_zero_point": get_zero_point(operands.a),
                "b_zero_point": get_zero_point(operands.b),
                "zero_point": get_zero_point(call.output),
                "shift": encode_shift(shift, _LARGEST_DIFFERENCE**2),
            },
            cycles=_count_cycles(operands, 21),
            constants=operands.constants,
            sources=_SOURCES,
            in_place=operands.in_place,
        )


class PortablePrelu(Kernel):
    """prelu with alpha of any shape that broadcasts."""

    def lower(self, call: Call) -> Lowered | None:
        operands = _place_operands(call, -128, 127)
        if operands is None or operands.is_reversed:
            return None
        x, alpha = call.inputs
        positive = quantize_ratio(get_scale(x) / get_scale(call.output))
        negative = quantize_ratio(get_scale(x) * get_scale(alpha) / get_scale(call.output))
        if max(positive[1], negative[1]) > LARGEST_LEFT_SHIFT:
            return None
        return Lowered(
            kernel="portable",
            function="ep_prelu",
            fields={
                **operands.fields,
                "positive_multiplier": positive[0],
                "negative_multiplier": negative[0],
                "a_zero_point": get_zero_point(x),
                "b_zero_point": get_zero_point(alpha),
                "zero_point": get_zero_point(call.output),
                "positive_shift": encode_shift(positive[1], _LARGEST_DIFFERENCE),
                "negative_shift": encode_shift(negative[1], _LARGEST_DIFFERENCE**2),
            },
            cycles=_count_cycles(operands, 36),
            constants=operands.constants,
            sources=_SOURCES,
            in_place=operands.in_place,
        )


def _count_cycles(operands: _Operands, per_element: int) -> int:
    return SETUP_CYCLES + operands.runs * 110 + operands.elements * per_element
