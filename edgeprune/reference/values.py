"""Between real numbers and stored int8: quantize_values, dequantize_values, and the ops quantize and dequantize.

The one rule for float32 -> int8 in this project, for inputs of a model, the `quantize` op and the firmware's caller:

    stored = clip(round(x / scale) + zero_point, -128, 127)

with the division in float32 and ties rounded away from zero, as TFLite's QUANTIZE (AffineQuantize). `np.round` sends
ties to even and would differ from the device by one step on them.
"""

from __future__ import annotations

import numpy as np

from edgeprune.errors import InputError
from edgeprune.fixedpoint import multiply_by_quantized_multiplier, quantize_multiplier, round_half_away
from edgeprune.graph import Quant
from edgeprune.reference.call import Call

# Far outside int8 and inside int32, so that a huge value / scale saturates instead of overflowing the conversion.
_SATURATED = np.float32(1e6)


def quantize_values(values: np.ndarray, quant: Quant) -> np.ndarray:
    """Real values to stored int8 by the rule above; any shape, per tensor or along `quant.axis`.

    Raises InputError when a value is NaN. Infinite values saturate.
    """
    values = np.asarray(values, np.float32)
    if np.isnan(values).any():
        raise InputError("values to quantize hold NaN; int8 has none. Clean the data first")
    scale, zero_point = _align(quant, values.ndim)
    with np.errstate(over="ignore"):  # a quotient beyond float32 is infinite, which saturates
        quotient = values / scale
    steps = round_half_away(np.clip(quotient, -_SATURATED, _SATURATED)).astype(np.int32)
    return np.clip(steps + zero_point, -128, 127).astype(np.int8)


def dequantize_values(stored: np.ndarray, quant: Quant) -> np.ndarray:
    """Stored integers to float32: scale * (stored - zero_point), one float32 product; any shape."""
    stored = np.asarray(stored)
    scale, zero_point = _align(quant, stored.ndim)
    return scale * (stored.astype(np.int32) - zero_point).astype(np.float32)


def _align(quant: Quant, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Scale and zero point, shaped to broadcast along the channel axis."""
    if quant.axis is None:
        return quant.scale[0], quant.zero_point[0]
    shape = [1] * rank
    shape[quant.axis] = -1
    return quant.scale.reshape(shape), quant.zero_point.reshape(shape)


def quantize_float32(call: Call) -> np.ndarray:
    """QUANTIZE float32 -> int8."""
    return quantize_values(call.x, call.quant(call.output))


def quantize_int8(call: Call) -> np.ndarray:
    """QUANTIZE int8 -> int8 of another scale (Requantize)."""
    multiplier, shift = quantize_multiplier(float(call.scale(call.inputs[0])) / float(call.scale(call.output)))
    centred = call.x.astype(np.int64) - call.zero_point(call.inputs[0])
    scaled = multiply_by_quantized_multiplier(centred, multiplier, shift) + call.zero_point(call.output)
    return np.clip(scaled, -128, 127).astype(np.int8)


def dequantize_int8(call: Call) -> np.ndarray:
    """DEQUANTIZE int8 -> float32."""
    return dequantize_values(call.x, call.quant(call.inputs[0]))
