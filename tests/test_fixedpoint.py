"""Integer primitives at their edges: against gemmlowp's C++ read out loud, and against real functions."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from edgeprune import fixedpoint
from edgeprune.fixedpoint import (
    INT32_MAX,
    INT32_MIN,
    FixedPointError,
    multiply_by_quantized_multiplier,
    quantize_multiplier,
    rounding_divide_by_pot,
    saturating_rounding_doubling_high_mul,
    wrap_int32,
)

EDGES = (INT32_MIN, INT32_MIN + 1, -(2**30) - 1, -(2**30), -(2**30) + 1, -3, -2, -1, 0, 1, 2, 3)
EDGES += (*(-value for value in EDGES if value not in (0, INT32_MIN)), INT32_MAX)


# --- literal readings of the C++, with Python integers; int() of a Fraction truncates towards zero, as C does ---


def read_high_mul(a: int, b: int) -> int:
    if a == b == INT32_MIN:
        return INT32_MAX
    product = a * b
    nudge = (1 << 30) if product >= 0 else 1 - (1 << 30)
    return int(Fraction(product + nudge, 1 << 31))


def read_divide_by_pot(x: int, exponent: int) -> int:
    mask = (1 << exponent) - 1
    return (x >> exponent) + int((x & mask) > (mask >> 1) + (1 if x < 0 else 0))


def read_wrap(x: int) -> int:
    return (x + 2**31) % 2**32 - 2**31


def random_int32(count: int, seed: int) -> list[int]:
    """Half uniform, half of random bit length, and the edges."""
    rng = np.random.default_rng(seed)
    uniform = rng.integers(INT32_MIN, INT32_MAX, count // 2, endpoint=True)
    short = rng.integers(INT32_MIN, INT32_MAX, count // 2, endpoint=True) >> rng.integers(0, 32, count // 2)
    return [int(value) for value in (*uniform, *short, *EDGES)]


# --- quantize_multiplier ---


@pytest.mark.parametrize(
    ("real", "expected"),
    [
        (0.5, (2**30, 0)),  # Vela, which counts 31 - shift, says (1073741824, 31)
        (1.0, (2**30, 1)),
        (0.25, (2**30, -1)),
        (0.75, (3 * 2**29, 0)),
        (3.0, (3 * 2**29, 2)),
        (0.0, (0, 0)),
        (1 - 2**-33, (2**30, 1)),  # rounds up to 1, which needs the next shift
        (2.0**-32, (2**30, -31)),
        (2.0**-33, (0, 0)),  # all bits shifted out
        (-0.5, (-(2**30), 0)),  # leaky_relu's alpha may be negative
    ],
)
def test_quantize_multiplier(real: float, expected: tuple[int, int]) -> None:
    assert quantize_multiplier(real) == expected


def test_quantize_multiplier_is_the_nearest() -> None:
    for real in np.random.default_rng(0).uniform(2.0**-20, 2.0**10, 500):
        multiplier, shift = quantize_multiplier(float(real))
        assert 2**30 <= multiplier <= INT32_MAX
        error = abs(Fraction(multiplier, 2**31) * Fraction(2) ** shift - Fraction(float(real)))
        assert error <= Fraction(2) ** (shift - 32)


@pytest.mark.parametrize("real", [float("nan"), float("inf")])
def test_quantize_multiplier_refuses(real: float) -> None:
    with pytest.raises(FixedPointError, match="finite"):
        quantize_multiplier(real)


# --- rounding ---


@pytest.mark.parametrize(
    ("value", "expected"), [(0.5, 1), (-0.5, -1), (1.5, 2), (2.5, 3), (-2.5, -3), (0.49999997, 0), (-0.49999997, 0)]
)
def test_round_half_away(value: float, expected: int) -> None:
    assert fixedpoint.round_half_away(np.float32([value]))[0] == expected
    assert fixedpoint.round_half_away_exact(value) == expected


def test_wrap_int32() -> None:
    values = np.array([2**31, -(2**31) - 1, 2**32, 2**31 - 1, -(2**31), 5])
    assert wrap_int32(values).tolist() == [-(2**31), 2**31 - 1, 0, 2**31 - 1, -(2**31), 5]


def test_high_mul_is_gemmlowps() -> None:
    first, second = random_int32(4000, seed=1), random_int32(4000, seed=2)
    found = saturating_rounding_doubling_high_mul(np.array(first), np.array(second))
    assert found.tolist() == [read_high_mul(a, b) for a, b in zip(first, second, strict=True)]
    table = saturating_rounding_doubling_high_mul(np.array(EDGES)[:, None], np.array(EDGES))
    assert table.tolist() == [[read_high_mul(a, b) for b in EDGES] for a in EDGES]


@pytest.mark.parametrize("exponent", [0, 1, 2, 7, 15, 30, 31])
def test_divide_by_pot_is_gemmlowps(exponent: int) -> None:
    values = random_int32(1000, seed=exponent)
    assert rounding_divide_by_pot(np.array(values), exponent).tolist() == [
        read_divide_by_pot(value, exponent) for value in values
    ]


def test_divide_by_pot_rounds_ties_away_from_zero() -> None:
    assert rounding_divide_by_pot(np.array([-3, -2, -1, 0, 1, 2, 3]), 1).tolist() == [-2, -1, -1, 0, 1, 1, 2]
    assert rounding_divide_by_pot(np.array([6, -6, 5, -5]), np.array([2, 2, 2, 2])).tolist() == [2, -2, 1, -1]


def test_multiply_by_quantized_multiplier_is_tflites() -> None:
    values = random_int32(500, seed=3)
    for real in (0.5, 1.0, 0.3, 2.0**-20, 1.7, 200.3, 2.0**20, 2.0**-31):
        multiplier, shift = quantize_multiplier(real)
        expected = [
            read_divide_by_pot(read_high_mul(read_wrap(value << max(shift, 0)), multiplier), max(-shift, 0))
            for value in values
        ]
        assert multiply_by_quantized_multiplier(np.array(values), multiplier, shift).tolist() == expected


def test_two_roundings_differ_from_one() -> None:
    """The reason why LiteRT's single-rounding fully_connected is 1 LSB off: 0.375 -> 0.5 -> 1."""
    assert multiply_by_quantized_multiplier(np.array([3]), *quantize_multiplier(0.125)).tolist() == [1]
    assert round(3 * 0.125) == 0


def test_multiply_takes_a_factor_per_channel() -> None:
    values = np.array([[100, 100, 100], [-7, -7, -7]])
    multipliers, shifts = np.array([quantize_multiplier(real) for real in (0.5, 2.0, 0.01)]).T
    assert multiply_by_quantized_multiplier(values, multipliers, shifts).tolist() == [[50, 200, 1], [-3, -14, 0]]


def test_multiply_by_pot_saturates() -> None:
    values = np.array([2**29, 2**30, -(2**30) - 1, 5])
    assert fixedpoint.multiply_by_pot_saturating(values, 1).tolist() == [2**30, INT32_MAX, INT32_MIN, 10]
    assert fixedpoint.multiply_by_pot_saturating(np.array([5, -5]), -1).tolist() == [3, -3]


@pytest.mark.parametrize(("bits", "shift", "expected"), [(4, 27, 15), (4, 28, 7), (5, 26, 31), (4, 0, 15 << 27)])
def test_calculate_input_radius(bits: int, shift: int, expected: int) -> None:
    assert fixedpoint.calculate_input_radius(bits, shift) == expected


# --- functions: within a few of their 31 fraction bits; their exact bits are held against TFLite Micro ---


def test_exp_on_negative_values() -> None:
    raw = -np.concatenate([np.arange(0, 2000), np.linspace(0, 2**31 - 1, 5001).astype(np.int64)])
    found = fixedpoint.exp_on_negative_values(raw, 5) / 2.0**31
    # the Taylor expansion of degree 4 is good to 1/8**5 / 120 = 2.5e-7 of the value
    np.testing.assert_allclose(found, np.exp(raw / 2.0**26), rtol=0, atol=4e-7)
    assert fixedpoint.exp_on_negative_values(np.array([0]), 5)[0] == INT32_MAX
    assert fixedpoint.exp_on_negative_values(np.array([-(2**31)]), 6)[0] == 0  # -64: below the clamp at -32


def test_reciprocals() -> None:
    raw = np.concatenate([[0, 1, INT32_MAX], np.linspace(0, INT32_MAX, 1001).astype(np.int64)])
    x = raw / 2.0**31
    # three Newton-Raphson steps leave rounding of the last few bits
    np.testing.assert_allclose(fixedpoint.one_over_one_plus_x(raw) / 2.0**31, 1 / (1 + x), rtol=0, atol=1e-8)
    np.testing.assert_allclose(
        fixedpoint.one_minus_x_over_one_plus_x(raw) / 2.0**31, (1 - x) / (1 + x), rtol=0, atol=1e-8
    )


def test_get_reciprocal() -> None:
    raw = np.array([1, 2, 3, 1 << 19, (1 << 19) + 1, 12345678, INT32_MAX])
    scale, bits = fixedpoint.get_reciprocal(raw, 12)
    np.testing.assert_allclose(scale / 2.0**31 / 2.0**bits, 2.0**19 / raw, rtol=1e-8)  # as above


def test_logistic_and_tanh() -> None:
    raw = np.concatenate([[0, 1, -1], np.linspace(-INT32_MAX, INT32_MAX, 4001).astype(np.int64)])
    x = raw / 2.0**27
    # exp's 4e-7 at most
    np.testing.assert_allclose(fixedpoint.logistic_f4(raw) / 2.0**31, 1 / (1 + np.exp(-x)), rtol=0, atol=4e-7)
    np.testing.assert_allclose(fixedpoint.tanh_f4(raw) / 2.0**31, np.tanh(x), rtol=0, atol=8e-7)
    assert fixedpoint.logistic_f4(np.array([0]))[0] == 2**30
    assert fixedpoint.tanh_f4(np.array([0]))[0] == 0


# --- 16 bits ---


def test_sixteen_bit_primitives() -> None:
    assert fixedpoint.downscale_multiplier_to_int16(2**30) == 2**14
    assert fixedpoint.downscale_multiplier_to_int16(INT32_MAX) == 2**15 - 1
    assert fixedpoint.saturating_rounding_doubling_high_mul_int16(np.array([-(2**15)]), -(2**15))[0] == 2**15 - 1
    assert fixedpoint.saturating_rounding_doubling_high_mul_int16(np.array([3, -3]), 2**14).tolist() == [2, -1]
    assert fixedpoint.saturating_doubling_high_mul_int16(np.array([3, -3]), np.array([2**14])).tolist() == [
        1,
        -1,
    ]
    assert fixedpoint.saturating_left_shift_int16(np.array([20000, -20000, 3]), 1).tolist() == [32767, -32768, 6]


def test_sixteen_bit_division_overflows_its_mask_at_sixteen() -> None:
    values = np.array([-5, 0, 5])
    assert fixedpoint.rounding_divide_by_pot_int16(values, 15).tolist() == [0, 0, 0]
    assert fixedpoint.rounding_divide_by_pot_int16(values, 16).tolist() == [-1, 1, 1]
