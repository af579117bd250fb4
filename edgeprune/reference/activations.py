"""Functions of one variable, and softmax.

In int8 a function of one variable is a table of 256 entries: each kernel below computes the table by TFLite Micro's
arithmetic, integer but for elu, and looks the values up.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgeprune import fixedpoint
from edgeprune.fixedpoint import multiply_by_quantized_multiplier, quantize_multiplier, round_half_away
from edgeprune.reference.call import FLOAT_ACTIVATION_RANGES, Call

_STORED = np.arange(-128, 128, dtype=np.int64)


def _look_up(call: Call, outputs: np.ndarray) -> np.ndarray:
    """outputs: what the stored values -128 to 127 become; clamped to int8."""
    table = np.clip(outputs, -128, 127).astype(np.int8)
    return table[call.x.astype(np.int16) + 128]


def _centred_inputs(call: Call) -> np.ndarray:
    return _STORED - call.zero_point(call.inputs[0])


# --- relu, relu6, relu_n1_to_1 ---


def clamp_float(call: Call) -> np.ndarray:
    """relu, relu6 and relu_n1_to_1 on their own."""
    low, high = FLOAT_ACTIVATION_RANGES[call.op.kind]
    return np.clip(call.x, np.float32(low), np.float32(high))


def clamp_int8(call: Call) -> np.ndarray:
    """ReluQuantized: rescale to the output, then clamp there.

    TFLite Micro's RELU6 clamps without rescaling: it is right only where input and output share their quantization,
    and it has no RELU_N1_TO_1. Both are rules for whoever lowers to it; the meaning is the same.
    """
    multiplier, shift = quantize_multiplier(float(call.scale(call.inputs[0])) / float(call.scale(call.output)))
    scaled = multiply_by_quantized_multiplier(_centred_inputs(call), multiplier, shift)
    low, high = call.stored_range(call.op.kind)
    return _look_up(call, np.clip(scaled + call.zero_point(call.output), low, high))


# --- leaky_relu ---


def leaky_relu_float(call: Call) -> np.ndarray:
    """x where x > 0, alpha * x elsewhere."""
    return np.where(call.x > 0, call.x, call.x * np.float32(call["alpha"]))


def leaky_relu_int8(call: Call) -> np.ndarray:
    """QuantizeLeakyRelu; `alpha` is a float32, the real factors are float64 (LiteRT's are float32)."""
    scale_in, scale_out = float(call.scale(call.inputs[0])), float(call.scale(call.output))
    alpha = float(np.float32(call["alpha"]))
    centred = _centred_inputs(call)
    positive = multiply_by_quantized_multiplier(centred, *quantize_multiplier(scale_in / scale_out))
    negative = multiply_by_quantized_multiplier(centred, *quantize_multiplier(scale_in * alpha / scale_out))
    return _look_up(call, np.where(centred >= 0, positive, negative) + call.zero_point(call.output))


# --- logistic, tanh ---


def logistic_float(call: Call) -> np.ndarray:
    """1 / (1 + exp(-x)), without overflow on either side."""
    decayed = np.exp(-np.abs(call.x))
    return np.where(call.x >= 0, np.float32(1), decayed) / (np.float32(1) + decayed)


def logistic_int8(call: Call) -> np.ndarray:
    """The output is scale 1/256, zero point -128, built into the kernel."""
    call.require_output(1 / 256, -128)
    return _look_up(call, _saturating_function(call, fixedpoint.logistic_f4, output_shift=23) - 128)


def tanh_float(call: Call) -> np.ndarray:
    """float32 tanh."""
    return np.tanh(call.x)


def tanh_int8(call: Call) -> np.ndarray:
    """The output is scale 1/128, zero point 0, built into the kernel."""
    call.require_output(1 / 128, 0)
    return _look_up(call, _saturating_function(call, fixedpoint.tanh_f4, output_shift=24))


def _saturating_function(call: Call, function: Callable[[np.ndarray], np.ndarray], output_shift: int) -> np.ndarray:
    """The table of a function on F4; inputs beyond +-15 (the radius) saturate to the ends of int8."""
    multiplier, shift = quantize_multiplier(float(call.scale(call.inputs[0])) * 2.0**27)
    radius = fixedpoint.calculate_input_radius(4, shift)
    centred = _centred_inputs(call)
    inside = np.abs(centred) < radius
    in_f4 = multiply_by_quantized_multiplier(np.where(inside, centred, 0), multiplier, min(shift, 31))
    outputs = fixedpoint.rounding_divide_by_pot(function(in_f4), output_shift)
    # the order counts when the radius is 0: then 0 itself saturates downwards
    return np.where(centred <= -radius, -1000, np.where(centred >= radius, 1000, outputs))


# --- elu ---

# Far outside int8 and inside int32; C++ leaves open what converting a larger float gives.
_SATURATED = np.float32(1e6)


def elu_float(call: Call) -> np.ndarray:
    """x where x >= 0, exp(x) - 1 elsewhere; near 0 without loss of digits."""
    return np.where(call.x < 0, np.expm1(np.minimum(call.x, np.float32(0))), call.x)


def elu_int8(call: Call) -> np.ndarray:
    """PopulateLookupTable: every step in float32, ties away from zero.

    It is exp(x) - 1 and not expm1, and a product with 1 / scale and not a division: either would move some stored
    values. exp is the C library's, free in its last place; here it is the float32 nearest to the true value.
    """
    inverse_scale = np.float32(1) / call.scale(call.output)
    real = call.scale(call.inputs[0]) * _centred_inputs(call).astype(np.float32)
    powers = np.exp(np.minimum(real, 0).astype(np.float64)).astype(np.float32)
    curved = np.where(real < 0, powers - np.float32(1), real)
    with np.errstate(over="ignore"):  # infinite saturates
        steps = np.clip(curved * inverse_scale, -_SATURATED, _SATURATED)
    return _look_up(call, round_half_away(steps) + call.zero_point(call.output))


# --- hard_swish ---


def hard_swish_float(call: Call) -> np.ndarray:
    """x * min(6, max(0, x + 3)) / 6."""
    return call.x * np.clip(call.x + np.float32(3), np.float32(0), np.float32(6)) / np.float32(6)


def hard_swish_int8(call: Call) -> np.ndarray:
    """HardSwish on 16-bit fixed point; the names follow TFLite's."""
    hires_scale = float(call.scale(call.inputs[0])) / 128
    output_multiplier, output_exponent = quantize_multiplier(hires_scale / float(call.scale(call.output)))
    if output_exponent > 0:
        raise call.unsupported(
            f"the input scale {call.scale(call.inputs[0]):.9g} is 128 times the output scale "
            f"{call.scale(call.output):.9g} or more; TFLite's kernel cannot shift left"
        )
    reluish_multiplier, reluish_exponent = quantize_multiplier(hires_scale / (3 / 32768))
    hires = _centred_inputs(call) << 7
    preshift_output = fixedpoint.saturating_rounding_doubling_high_mul_int16(
        hires, fixedpoint.downscale_multiplier_to_int16(output_multiplier)
    )
    reluish = hires  # becomes min(1, max(-1, x / 3)) with 15 fraction bits
    if reluish_exponent > 0:
        reluish = fixedpoint.saturating_left_shift_int16(reluish, reluish_exponent - 1)
    reluish = fixedpoint.saturating_rounding_doubling_high_mul_int16(
        reluish, fixedpoint.downscale_multiplier_to_int16(reluish_multiplier)
    )
    if reluish_exponent > 0:
        reluish = fixedpoint.saturating_left_shift_int16(reluish, 1)
    elif reluish_exponent < 0:
        reluish = fixedpoint.rounding_divide_by_pot_int16(reluish, -reluish_exponent)
    reluish = (reluish + (1 << 15)) >> 1  # from [-1, 1] to [0, 1]
    preshift = fixedpoint.saturating_doubling_high_mul_int16(reluish, preshift_output)
    outputs = fixedpoint.rounding_divide_by_pot_int16(preshift, -output_exponent)
    return _look_up(call, outputs + call.zero_point(call.output))


# --- softmax ---


def softmax_float(call: Call) -> np.ndarray:
    """exp(beta * (x - max)) over its sum, along the last axis."""
    _require_an_axis(call)
    powers = np.exp((call.x - call.x.max(axis=-1, keepdims=True)) * np.float32(call["beta"]))
    return powers / powers.sum(axis=-1, keepdims=True, dtype=np.float32)


def _require_an_axis(call: Call) -> None:
    if call.x.ndim < 2:
        raise call.unsupported("its input has no axis but the batch; softmax needs one to run over")


def softmax_int8(call: Call) -> np.ndarray:
    """Softmax on fixed point along the last axis; the output is scale 1/256, zero point -128, built into the kernel.

    exp of the 256 possible differences to the row's maximum is a table; their sum, in Q12.19, is inverted once a row.
    """
    _require_an_axis(call)
    call.require_output(1 / 256, -128)
    # PreprocessSoftmaxScaling: differences go to F5
    real = min(float(np.float32(call["beta"])) * float(call.scale(call.inputs[0])) * 2.0**26, 2.0**31 - 1)
    if real <= 1.0:
        raise call.unsupported(f"beta * input scale is {real / 2**26:.3g}; TFLite's kernel needs more than 2**-26")
    multiplier, shift = quantize_multiplier(real)
    radius = fixedpoint.calculate_input_radius(5, shift)
    differences = np.arange(-255, 1, dtype=np.int64)
    counted = differences >= -radius
    rescaled = fixedpoint.saturating_rounding_doubling_high_mul(np.where(counted, differences, 0) << shift, multiplier)
    exp_table = np.where(counted, fixedpoint.exp_on_negative_values(rescaled, 5), 0)
    index = call.x.astype(np.int16) - call.x.max(axis=-1, keepdims=True).astype(np.int16) + 255
    sums = fixedpoint.rounding_divide_by_pot(exp_table, 12)[index].sum(axis=-1, keepdims=True)
    inverse, bits = fixedpoint.get_reciprocal(sums, 12)
    shares = fixedpoint.saturating_rounding_doubling_high_mul(exp_table[index], inverse)
    outputs = fixedpoint.rounding_divide_by_pot(shares, bits + 31 - 8) - 128
    outputs = np.where(counted[index], outputs, -128)
    return np.clip(outputs, -128, 127).astype(np.int8)
