"""Integer arithmetic of int8 inference, each primitive once: multiplier and shift, rounding, saturation, exp, tanh.

Everything here is exact integer arithmetic and equals the C++ of TensorFlow Lite Micro to the bit (tests hold it
against the interpreter). Sources: gemmlowp `fixedpoint/fixedpoint.h` (names in CamelCase below are gemmlowp's) and
TensorFlow Lite `kernels/internal/{common,quantization_util}`, in its double-rounding form, which is what TFLite Micro
and CMSIS-NN compile.

Values are int32 held in int64 numpy arrays, so that products do not overflow. Where C++ would overflow an int32 (a left
shift of a large accumulator, undefined there), the value wraps around, as the compiled code does.

A number in Qm.n fixed point is `raw / 2**n`, with m integer bits and n = 31 - m; F0, F2, F4, F5 below have 0, 2, 4, 5
integer bits, as gemmlowp's FixedPoint<int32_t, m>.
"""

from __future__ import annotations

import math

import numpy as np

from edgeprune.errors import EdgepruneError

INT32_MIN = -(2**31)
INT32_MAX = 2**31 - 1
INT16_MIN = -(2**15)
INT16_MAX = 2**15 - 1


class FixedPointError(EdgepruneError):
    """A real number that has no fixed-point form."""


def quantize_multiplier(real: float) -> tuple[int, int]:
    """A real factor as (multiplier, shift): real = multiplier / 2**31 * 2**shift, 2**30 <= |multiplier| < 2**31.

    TFLite's QuantizeMultiplier, with TFLite's sign of the shift: positive shifts left (factors of 1 and more), negative
    shifts right. (Vela and CMSIS-NN's tools count `31 - shift` instead.) Factors below 2**-32 become (0, 0).

    >>> quantize_multiplier(0.5)
    (1073741824, 0)
    >>> quantize_multiplier(1.0)
    (1073741824, 1)
    """
    if not math.isfinite(real):
        raise FixedPointError(f"a factor is {real}; it must be finite. Check the scales that it was made from")
    if real == 0.0:
        return 0, 0
    mantissa, shift = math.frexp(real)
    multiplier = round_half_away_exact(mantissa * 2.0**31)  # exact product: a power of two
    if multiplier == 2**31:
        multiplier //= 2
        shift += 1
    if shift < -31:  # every bit would be shifted out
        return 0, 0
    return multiplier, shift


def round_half_away_exact(value: float) -> int:
    """C's `round` of a float64: nearest integer, ties away from zero.

    >>> [round_half_away_exact(v) for v in (0.5, 1.5, -0.5, 0.49999999999999994)]
    [1, 2, -1, 0]
    """
    whole = math.trunc(value)
    if abs(value - whole) >= 0.5:
        whole += 1 if value > 0 else -1
    return whole


def round_half_away(values: np.ndarray) -> np.ndarray:
    """C's `round` of a float array, in its own dtype: nearest integer, ties away from zero (numpy's go to even)."""
    whole = np.trunc(values)
    return whole + np.sign(values) * (np.abs(values - whole) >= 0.5)


def wrap_int32(values: np.ndarray) -> np.ndarray:
    """int64 values modulo 2**32 into the int32 range, as overflowing int32 arithmetic leaves them."""
    return ((np.asarray(values, np.int64) + 2**31) & 0xFFFFFFFF) - 2**31


def saturating_rounding_doubling_high_mul(a: np.ndarray, b: np.ndarray | int) -> np.ndarray:
    """SaturatingRoundingDoublingHighMul: a * b / 2**31 rounded to nearest, ties upwards; int32 operands in int64.

    The one overflow, (-2**31)**2, saturates to 2**31 - 1. gemmlowp adds a nudge of the product's sign and truncates
    towards zero; adding 2**30 and flooring is the same for every product, ties included.
    """
    product = np.asarray(a, np.int64) * np.asarray(b, np.int64)
    return np.minimum((product + 2**30) >> 31, INT32_MAX)


def rounding_divide_by_pot(values: np.ndarray, exponent: np.ndarray | int) -> np.ndarray:
    """RoundingDivideByPOT: values / 2**exponent to nearest, ties away from zero; exponent 0 to 31."""
    values = np.asarray(values, np.int64)
    mask = (np.int64(1) << np.asarray(exponent, np.int64)) - 1
    threshold = (mask >> 1) + (values < 0)
    return (values >> exponent) + ((values & mask) > threshold)


def multiply_by_quantized_multiplier(
    values: np.ndarray, multiplier: np.ndarray | int, shift: np.ndarray | int
) -> np.ndarray:
    """MultiplyByQuantizedMultiplier with two roundings: int32 values times `multiplier / 2**31 * 2**shift`, as int64.

    multiplier, shift: of `quantize_multiplier`, one or broadcastable (one per output channel).
    """
    left = np.maximum(shift, 0)
    right = np.maximum(np.negative(shift), 0)
    shifted = np.asarray(values, np.int64) << left
    if np.any(left):  # without a left shift int32 stays int32
        shifted = wrap_int32(shifted)
    return rounding_divide_by_pot(saturating_rounding_doubling_high_mul(shifted, multiplier), right)


def multiply_by_pot_saturating(values: np.ndarray, exponent: int) -> np.ndarray:
    """SaturatingRoundingMultiplyByPOT: times 2**exponent; left shifts saturate, right shifts round."""
    if exponent <= 0:
        return rounding_divide_by_pot(values, -exponent)
    return np.clip(np.asarray(values, np.int64) << exponent, INT32_MIN, INT32_MAX)


def calculate_input_radius(integer_bits: int, left_shift: int, total_signed_bits: int = 31) -> int:
    """CalculateInputRadius: the largest stored input whose rescaled value still fits Q(integer_bits)."""
    limit = ((1 << integer_bits) - 1) * (1 << (total_signed_bits - integer_bits))
    return limit >> left_shift if left_shift >= 0 else limit << -left_shift


# --- exp, 1/(1+x), logistic, tanh on int32 fixed point ---


def exp_on_negative_values(raw: np.ndarray, integer_bits: int) -> np.ndarray:
    """exp_on_negative_values: exp(a) in F0 for a <= 0 given as raw Q(integer_bits).

    exp of the part in [-1/4, 0) by a Taylor expansion around -1/8, then a factor exp(-2**k) for each set bit above.
    """
    raw = np.asarray(raw, np.int64)
    fraction_bits = 31 - integer_bits
    quarter = 1 << (fraction_bits - 2)
    modulo = (raw & (quarter - 1)) - quarter  # in [-1/4, 0)
    result = _exp_between_minus_quarter_and_zero(multiply_by_pot_saturating(modulo, integer_bits))
    remainder = modulo - raw
    # (k, exp(-2**k) in F0)
    factors = ((-2, 1672461947), (-1, 1302514674), (0, 790015084), (1, 290630308), (2, 39332535), (3, 720401), (4, 242))
    for exponent, factor in factors:
        if integer_bits > exponent:
            bit = remainder & (1 << (fraction_bits + exponent))
            result = np.where(bit != 0, saturating_rounding_doubling_high_mul(result, factor), result)
    if integer_bits > 5:
        result = np.where(raw < -(1 << (36 - integer_bits)), 0, result)  # below -32
    return np.where(raw == 0, INT32_MAX, result)


def _exp_between_minus_quarter_and_zero(raw: np.ndarray) -> np.ndarray:
    """exp(a) in F0 for a in [-1/4, 0) in F0: exp(-1/8) * (1 + x + x^2/2 + x^3/6 + x^4/24), x = a + 1/8."""
    multiply = saturating_rounding_doubling_high_mul
    exp_of_minus_eighth, one_third = 1895147668, 715827883
    x = raw + (1 << 28)
    x2 = multiply(x, x)
    x3 = multiply(x2, x)
    x4 = multiply(x2, x2)
    x4_over_4 = rounding_divide_by_pot(x4, 2)
    tail = rounding_divide_by_pot(multiply(x4_over_4 + x3, one_third) + x2, 1)
    return exp_of_minus_eighth + multiply(x + tail, exp_of_minus_eighth)


def _invert_half_denominator(raw: np.ndarray) -> np.ndarray:
    """2 / (1 + a) in F2 for a in [0, 1] in F0, by three Newton-Raphson steps from 48/17 - 32/17 * d."""
    multiply = saturating_rounding_doubling_high_mul
    one_f2, c48_over_17, c_minus_32_over_17 = 1 << 29, 1515870810, -1010580540
    half_denominator = (np.asarray(raw, np.int64) + INT32_MAX + 1) >> 1  # RoundingHalfSum(a, 1); the sum is positive
    x = c48_over_17 + multiply(half_denominator, c_minus_32_over_17)
    for _ in range(3):
        error = one_f2 - multiply(half_denominator, x)
        x = x + multiply_by_pot_saturating(multiply(x, error), 2)
    return x


def one_over_one_plus_x(raw: np.ndarray) -> np.ndarray:
    """one_over_one_plus_x_for_x_in_0_1: 1 / (1 + a) in F0, a in F0."""
    return multiply_by_pot_saturating(_invert_half_denominator(raw), 1)  # halved as F1, then F1 -> F0


def one_minus_x_over_one_plus_x(raw: np.ndarray) -> np.ndarray:
    """one_minus_x_over_one_plus_x_for_x_in_0_1: (1 - a) / (1 + a) in F0, a in F0."""
    return multiply_by_pot_saturating(_invert_half_denominator(raw) - (1 << 29), 2)


def logistic_f4(raw: np.ndarray) -> np.ndarray:
    """logistic: 1 / (1 + exp(-a)) in F0, a in F4."""
    raw = np.asarray(raw, np.int64)
    positive = one_over_one_plus_x(exp_on_negative_values(-np.abs(raw), 4))
    return np.where(raw == 0, 1 << 30, np.where(raw > 0, positive, INT32_MAX - positive))


def tanh_f4(raw: np.ndarray) -> np.ndarray:
    """tanh in F0, a in F4: (1 - exp(-2|a|)) / (1 + exp(-2|a|)); doubling is free, F4 is read as F5."""
    raw = np.asarray(raw, np.int64)
    magnitude = one_minus_x_over_one_plus_x(exp_on_negative_values(-np.abs(raw), 5))
    return np.sign(raw) * magnitude


def get_reciprocal(raw: np.ndarray, integer_bits: int) -> tuple[np.ndarray, np.ndarray]:
    """GetReciprocal: (scale, bits) with 1 / a = scale (F0) / 2**bits, for positive a in Q(integer_bits)."""
    raw = np.asarray(raw, np.int64)
    leading_zeros = 32 - np.frexp(raw.astype(np.float64))[1].astype(np.int64)  # exact: int32 fits float64
    mantissa_minus_one = (raw << leading_zeros) - 2**31  # F0, in [0, 1)
    return one_over_one_plus_x(mantissa_minus_one), integer_bits - leading_zeros


# --- 16-bit primitives, which only hard_swish uses ---


def rounding_divide_by_pot_int16(values: np.ndarray, exponent: int) -> np.ndarray:
    """RoundingDivideByPOT of int16 values, whose mask overflows for exponents of 16 and more: there it adds one to
    all but negative values, where plain rounding would give 0. Factors so small make no sense, but must be equal too.
    """
    if exponent < 16:
        return rounding_divide_by_pot(values, exponent)
    return np.where(np.asarray(values) < 0, -1, 1)


def downscale_multiplier_to_int16(multiplier: int) -> int:
    """DownScaleInt32ToInt16Multiplier: the upper 16 bits, rounded, saturating."""
    if multiplier >= INT32_MAX - (1 << 15):
        return INT16_MAX
    return (multiplier + (1 << 15)) >> 16


def saturating_rounding_doubling_high_mul_int16(a: np.ndarray, b: np.ndarray | int) -> np.ndarray:
    """The int16 SaturatingRoundingDoublingHighMul: a * b / 2**15 to nearest, ties upwards."""
    product = np.asarray(a, np.int64) * np.asarray(b, np.int64)
    return np.minimum((product + 2**14) >> 15, INT16_MAX)


def saturating_doubling_high_mul_int16(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """SaturatingDoublingHighMul of TFLite's hard_swish: a * b / 2**15 truncated towards zero."""
    product = np.asarray(a, np.int64) * np.asarray(b, np.int64)
    return np.minimum(np.sign(product) * (np.abs(product) >> 15), INT16_MAX)


def saturating_left_shift_int16(values: np.ndarray, amount: int) -> np.ndarray:
    """SaturatingLeftShift of TFLite's hard_swish."""
    return np.clip(np.asarray(values, np.int64) << amount, INT16_MIN, INT16_MAX)
