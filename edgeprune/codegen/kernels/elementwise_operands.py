"""The operands of add, sub and mul as fast kernels take them: a map first, then a map, a constant map or a pixel."""

from __future__ import annotations

from edgeprune.codegen.kernel import Call
from edgeprune.graph import Tensor


def order_operands(call: Call) -> tuple[Tensor, Tensor, int] | None:
    """The map, the other operand, and the bytes between the latter's pixels: 0 for one pixel for all.

    None for shapes that are not handled.
    """
    first, second = call.inputs
    a, b = (second, first) if first.is_constant else (first, second)
    b_stride = _find_stride(call, b)
    if a.is_constant or b_stride is None or a.shape != call.output.shape:
        return None
    return a, b, b_stride


def _find_stride(call: Call, b: Tensor) -> int | None:
    if b.shape == call.output.shape:
        return call.y.channels if b.is_constant else call.x_strides[1]
    is_pixel = b.is_constant and b.shape[-1:] == (call.y.channels,) and b.element_count == call.y.channels
    return 0 if is_pixel else None
