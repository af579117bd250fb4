"""What travels between rooms: normalization and datasets."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgeprune.artifacts import Dataset, Normalization, fit_normalization
from edgeprune.errors import InputError

BATCHES = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 9)),
    elements=st.floats(-1e6, 1e6, width=32),
)


def make_dataset(**changes: object) -> Dataset:
    generator = np.random.default_rng(0)
    base = Dataset(
        "d",
        generator.normal(3, 2, (6, 2, 5)).astype(np.float32),
        np.array([0, 1, 0, 1, 0, 1]),
        generator.normal(3, 2, (4, 2, 5)).astype(np.float32),
        np.array([0, 1, 0, 1]),
        ("a", "b"),
        "d.npz",
        ("a note",),
    )
    return dataclasses.replace(base, **changes)


@settings(max_examples=50, derandomize=True)
@given(BATCHES)
def test_none_changes_nothing(samples: np.ndarray) -> None:
    np.testing.assert_array_equal(Normalization().apply(samples), samples)


@settings(max_examples=100, derandomize=True)
@given(BATCHES)
def test_per_series_gives_mean_0_and_std_1_or_all_zeros(samples: np.ndarray) -> None:
    result = Normalization("per_series").apply(samples).astype(np.float64)
    assert result.dtype == np.float64
    assert np.isfinite(result).all()
    zero = (result == 0).all(axis=2)
    # float32 results of magnitude up to sqrt(T): their mean is off by some of their last bits
    assert np.abs(result.mean(axis=2)).max() < 1e-5
    assert (np.abs(result.std(axis=2) - 1) < 1e-5)[~zero].all()
    constant = samples.max(axis=2) == samples.min(axis=2)
    assert (zero | ~constant).all()


def test_per_series_by_hand() -> None:
    samples = np.array([[[1, 2, 3, 4], [5, 5, 5, 5]]], np.float32)
    std = np.sqrt(1.25)
    expected = np.array([[[-1.5, -0.5, 0.5, 1.5], [0, 0, 0, 0]]]) / std
    np.testing.assert_allclose(Normalization("per_series").apply(samples), expected, rtol=1e-6)  # float32


def test_per_series_of_images_is_over_rows_and_columns() -> None:
    samples = np.random.default_rng(0).normal(7, 3, (2, 3, 4, 5)).astype(np.float32)
    result = Normalization("per_series").apply(samples)
    assert result.shape == samples.shape
    np.testing.assert_allclose(result.mean(axis=(2, 3)), 0, atol=1e-6)  # float32
    np.testing.assert_allclose(result.std(axis=(2, 3)), 1, atol=1e-6)  # float32


def test_per_channel_is_fitted_on_train_and_applied_to_test() -> None:
    data = make_dataset()
    fitted = fit_normalization("per_channel", data.x_train)
    wide = data.x_train.astype(np.float64)
    mean, std = wide.mean(axis=(0, 2)), wide.std(axis=(0, 2))
    np.testing.assert_allclose(fitted.mean, mean, rtol=1e-15)  # both float64, summed alike
    expected = (data.x_test - mean[None, :, None]) / std[None, :, None]
    np.testing.assert_allclose(data.normalized(fitted).x_test, expected, rtol=1e-5, atol=1e-6)  # float32


def test_per_channel_of_a_constant_channel_stays_finite() -> None:
    samples = np.full((3, 1, 4), 7, np.float32)
    fitted = fit_normalization("per_channel", samples)
    assert fitted.std == (1.0,)
    assert (fitted.apply(samples) == 0).all()


@pytest.mark.parametrize("kind", ["none", "per_series"])
def test_kinds_without_figures(kind: str) -> None:
    assert fit_normalization(kind, make_dataset().x_train) == Normalization(kind)


def test_bad_normalizations() -> None:
    with pytest.raises(InputError, match="normalization is 'zscore'; allowed: none, per_series, per_channel"):
        Normalization("zscore")
    with pytest.raises(InputError, match="holds 1 channels, the data 2"):
        Normalization("per_channel", (0.0,), (1.0,)).apply(make_dataset().x_train)


def test_normalized_keeps_the_rest() -> None:
    data = make_dataset()
    result = data.normalized(Normalization("per_series"))
    assert (result.name, result.class_names, result.source, result.notes) == ("d", ("a", "b"), "d.npz", ("a note",))
    assert result.y_train is data.y_train
    assert result.sample_shape == (2, 5)


def test_digest_depends_on_every_value() -> None:
    data = make_dataset()
    digests = {data.sha256}
    for name in ("x_train", "y_train", "x_test", "y_test"):
        array = getattr(data, name).copy()
        array.flat[0] += 1
        digests.add(make_dataset(**{name: array}).sha256)
    digests.add(make_dataset(class_names=("a", "c")).sha256)
    digests.add(make_dataset(x_train=data.x_train.reshape(6, 5, 2)).sha256)
    assert len(digests) == 7
    assert make_dataset(source="elsewhere.npz").sha256 == data.sha256
