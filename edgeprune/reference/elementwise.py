"""Ops of two operands, element by element with broadcasting: add, sub, mul, prelu."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgeprune.fixedpoint import multiply_by_quantized_multiplier, quantize_multiplier, wrap_int32
from edgeprune.reference.call import Call

_LEFT_SHIFT = 20  # TFLite's headroom for int8 addition: operands are scaled by 2**20 before they are added


def _aligned(call: Call) -> tuple[np.ndarray, np.ndarray]:
    """The two operands, ready for numpy's broadcasting.

    numpy lines axes up from the right. An activation of lower rank than the other operand has its batch axis in the
    wrong place then, (N, C) beside (N, 1, T, C); its declared shape says 1 there, so axes of 1 go in after the batch.
    """
    rank = max(len(tensor.shape) for tensor in call.inputs)
    for tensor in call.inputs:
        if tensor.is_constant and len(tensor.shape) == rank > 0 and tensor.shape[0] != 1:
            raise call.unsupported(f"the constant {tensor.name} {tensor.shape} lies along the batch axis; it must be 1")
    first, second = (
        values
        if tensor.is_constant or values.ndim == rank or values.ndim == 0
        else values.reshape(values.shape[0], *(1,) * (rank - values.ndim), *values.shape[1:])
        for tensor, values in zip(call.inputs, call.values, strict=True)
    )
    return first, second


def _make_float(function: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Callable[[Call], np.ndarray]:
    def kernel(call: Call) -> np.ndarray:
        first, second = _aligned(call)
        return call.clamp_float(function(first, second))

    return kernel


add_float = _make_float(np.add)
sub_float = _make_float(np.subtract)
mul_float = _make_float(np.multiply)


def add_int8(call: Call) -> np.ndarray:
    """AddFunc: both operands to twice the larger scale, times 2**20, then to the output's; two roundings each time."""
    return _add_int8(call, +1)


def sub_int8(call: Call) -> np.ndarray:
    """SubElementwise: as add, with the second operand taken off."""
    return _add_int8(call, -1)


def _add_int8(call: Call, sign: int) -> np.ndarray:
    scales = [float(call.scale(tensor)) for tensor in call.inputs]
    scale_out = float(call.scale(call.output))
    twice_largest = 2 * max(scales)
    to_output = twice_largest / ((1 << _LEFT_SHIFT) * scale_out)
    if to_output >= 1.0:
        raise call.unsupported(
            f"the output scale {scale_out:.9g} is more than 2**19 times finer than the input scale {max(scales):.9g}"
        )
    terms = []
    for values, tensor, scale in zip(_aligned(call), call.inputs, scales, strict=True):
        multiplier, shift = quantize_multiplier(scale / twice_largest)
        shifted = (values.astype(np.int64) - call.zero_point(tensor)) << _LEFT_SHIFT
        terms.append(multiply_by_quantized_multiplier(shifted, multiplier, shift))
    multiplier, shift = quantize_multiplier(to_output)
    total = multiply_by_quantized_multiplier(terms[0] + sign * terms[1], multiplier, shift)
    return call.clamp_int8(total + call.zero_point(call.output))


def mul_int8(call: Call) -> np.ndarray:
    """MulElementwise: the product of the centred values, rescaled once."""
    first, second = (
        values.astype(np.int64) - call.zero_point(tensor)
        for values, tensor in zip(_aligned(call), call.inputs, strict=True)
    )
    real = float(call.scale(call.inputs[0])) * float(call.scale(call.inputs[1])) / float(call.scale(call.output))
    scaled = multiply_by_quantized_multiplier(first * second, *quantize_multiplier(real))
    return call.clamp_int8(wrap_int32(scaled + call.zero_point(call.output)))


def prelu_float(call: Call) -> np.ndarray:
    """x where x >= 0, alpha * x elsewhere; alpha broadcasts."""
    x, alpha = _aligned(call)
    return np.where(x >= 0, x, x * alpha)


def prelu_int8(call: Call) -> np.ndarray:
    """BroadcastPrelu4DSlow."""
    x, alpha = (
        values.astype(np.int64) - call.zero_point(tensor)
        for values, tensor in zip(_aligned(call), call.inputs, strict=True)
    )
    scale_in, scale_alpha, scale_out = (float(call.scale(tensor)) for tensor in (*call.inputs, call.output))
    positive = multiply_by_quantized_multiplier(x, *quantize_multiplier(scale_in / scale_out))
    negative = multiply_by_quantized_multiplier(x * alpha, *quantize_multiplier(scale_in * scale_alpha / scale_out))
    scaled = np.where(x >= 0, positive, negative)
    return np.clip(wrap_int32(scaled + call.zero_point(call.output)), -128, 127).astype(np.int8)
