"""Observers: exact extremes, percentiles to bin width, the MSE range against brute force."""

from __future__ import annotations

import numpy as np
import pytest

from edgeprune.quantize import OBSERVERS
from edgeprune.quantize.observers import MeanSquaredError, Percentile, SummaryBuilder, ValueSummary

BIN_WIDTH = 1 / 64  # of a value: 6 bits of mantissa


def summarise(values: np.ndarray, with_counts: bool = True) -> ValueSummary:
    builder = SummaryBuilder(with_counts)
    for part in np.array_split(np.asarray(values, np.float32), 3):
        if part.size:
            builder.add(part)
    return builder.build()


def rounding_and_clipping_error(values: np.ndarray, low: float, high: float) -> float:
    """Mean squared error of int8 over [low, high], zero exactly representable."""
    low, high = min(low, 0.0), max(high, 0.0)
    step = (high - low) / 255
    zero = np.rint(-low / step)
    stored = np.clip(np.rint(values / step) + zero, 0, 255)
    return float(((stored - zero) * step - values).__pow__(2).mean())


def test_the_summary_counts_everything_in_order() -> None:
    values = np.random.default_rng(0).normal(size=1000).astype(np.float32) * 1e-3
    values[:10] = 0.0
    summary = summarise(values)
    assert (summary.minimum, summary.maximum) == (values.min(), values.max())
    assert summary.counts.sum() == 1000
    assert summary.counts[summary.values == 0].sum() == 10
    assert (np.diff(summary.values) > 0).all()
    expanded = np.repeat(summary.values, summary.counts)
    np.testing.assert_allclose(expanded, np.sort(values), rtol=BIN_WIDTH)


def test_minmax_is_exact() -> None:
    values = np.array([-3.3, 0.1, 7.7], np.float32)
    assert OBSERVERS["minmax"].choose_range(summarise(values, with_counts=False)) == (values[0], values[-1])


@pytest.mark.parametrize("tail", [0.0, 0.001, 0.05])
def test_percentile_cuts_the_tails(tail: float) -> None:
    values = np.random.default_rng(1).normal(size=20_000).astype(np.float32)
    low, high = Percentile(tail).choose_range(summarise(values))
    np.testing.assert_allclose([low, high], np.quantile(values, [tail, 1 - tail]), rtol=2 * BIN_WIDTH)


def test_percentile_of_mostly_zeros_keeps_the_rest() -> None:
    values = np.concatenate([np.zeros(9000), np.linspace(0, 4, 1000)])
    low, high = Percentile(0.01).choose_range(summarise(values))
    assert low == 0.0
    assert high == pytest.approx(3.6, rel=2 * BIN_WIDTH)


def test_percentile_of_one_value() -> None:
    assert Percentile().choose_range(summarise(np.array([2.5]))) == (2.5, 2.5)


@pytest.mark.parametrize("shape", ["normal", "relu", "outlier", "negative", "two_sided_outliers"])
def test_mse_is_near_the_best_of_a_fine_grid(shape: str) -> None:
    rng = np.random.default_rng(2)
    normal = rng.normal(size=5000)
    values = {
        "normal": normal,
        "relu": np.maximum(normal, 0),
        "outlier": np.append(normal, 100.0),
        "negative": -(np.abs(normal) ** 3),
        "two_sided_outliers": np.concatenate([normal, [300.0, -50.0]]),
    }[shape]
    chosen = rounding_and_clipping_error(values, *MeanSquaredError().choose_range(summarise(values)))
    ends = np.geomspace(0.02, 1, 60)
    best = min(
        rounding_and_clipping_error(values, values.min() * low, values.max() * high) for low in ends for high in ends
    )
    # bins of 1/64, 96 candidates per end and the uniform-error model cost a little
    assert chosen <= 1.1 * best


def test_one_huge_outlier_does_not_swallow_the_rest() -> None:
    values = np.append(np.random.default_rng(3).normal(size=200_000), 1e6)
    assert OBSERVERS["minmax"].choose_range(summarise(values))[1] == 1e6
    assert OBSERVERS["percentile"].choose_range(summarise(values))[1] < 5


@pytest.mark.parametrize("name", OBSERVERS)
@pytest.mark.parametrize("values", [[0.0], [0.0, 0.0], [-1.0], [1e-30, 2e-30], [-5.0, -1.0], [3.0, 3.0, 3.0]])
def test_odd_tensors_get_a_range_within_what_was_seen(name: str, values: list[float]) -> None:
    low, high = OBSERVERS[name].choose_range(summarise(np.array(values)))
    assert min(np.float32(min(values)), 0.0) <= low
    assert high <= max(np.float32(max(values)), 0.0)
    assert low <= high
