"""The shipped datasets are what their manifest says, and what aeon carries."""

from __future__ import annotations

import hashlib
import importlib.util
import tomllib
from pathlib import Path

import numpy as np
import pytest

from edgeprune.load.data import load_dataset

FOLDER = Path(__file__).resolve().parents[2] / "calibration_data"
MANIFEST = tomllib.loads((FOLDER / "manifest.toml").read_text())


def test_every_file_is_in_the_manifest() -> None:
    assert {path.name for path in FOLDER.glob("*.npz")} == {entry["file"] for entry in MANIFEST.values()}


@pytest.mark.parametrize("name", MANIFEST)
def test_manifest_matches_file(name: str) -> None:
    entry = MANIFEST[name]
    path = FOLDER / entry["file"]
    assert hashlib.sha256(path.read_bytes()).hexdigest() == entry["sha256"]
    dataset = load_dataset(str(path))
    assert (len(dataset.y_train), len(dataset.y_test)) == (entry["train_samples"], entry["test_samples"])
    assert dataset.sample_shape == tuple(entry["shape"])
    assert dataset.class_names == tuple(entry["classes"])
    # "sample standard deviation 1": the archive's text files keep 8 digits
    np.testing.assert_allclose(dataset.x_train.std(axis=-1, ddof=1), 1, atol=1e-5)
    np.testing.assert_allclose(dataset.x_train.mean(axis=-1), 0, atol=1e-5)


@pytest.mark.skipif(importlib.util.find_spec("aeon") is None, reason="aeon (extra `ucr`) is not installed")
@pytest.mark.parametrize("name", MANIFEST)
def test_values_are_those_that_aeon_ships(name: str) -> None:
    ours, theirs = load_dataset(str(FOLDER / f"{name}.npz")), load_dataset(f"ucr:{name}")
    assert ours.sha256 == theirs.sha256
    assert theirs.source == f"ucr:{name}"
