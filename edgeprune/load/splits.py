"""Stratified splits: the same seed gives the same samples on every machine."""

from __future__ import annotations

import numpy as np

from edgeprune.errors import InputError


def split_by_class(y: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices (larger part, smaller part), each sorted; of each class `fraction` goes to the smaller part.

    y: integer labels (N,). Of a class with n >= 2 samples the smaller part gets round(n * fraction), but at least 1 and
    at most n - 1. A class with one sample stays in the larger part.
    """
    generator = np.random.default_rng(seed)
    smaller = []
    for label in np.unique(y):
        members = np.flatnonzero(y == label)
        generator.shuffle(members)
        if len(members) > 1:
            count = int(np.floor(len(members) * fraction + 0.5))
            smaller.append(members[: min(max(count, 1), len(members) - 1)])
    chosen = np.sort(np.concatenate(smaller)) if smaller else np.array([], dtype=np.int64)
    return np.setdiff1d(np.arange(len(y)), chosen), chosen


def split_train(y: np.ndarray, fraction: float = 0.2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Indices (train, validation) into the training labels y (N,), stratified, sorted.

    Every class with two samples or more is in both parts. A class with a single sample stays in train: it can be
    learned but not validated (`load_dataset` notes such classes in Dataset.notes).

    Raises InputError if no class has two samples, so that there would be nothing to validate on.

    >>> train, validation = split_train(np.array([0, 0, 0, 1, 1, 2]), seed=0)
    >>> len(train), len(validation)
    (4, 2)
    """
    if not 0 < fraction < 1:
        raise InputError(f"the validation fraction is {fraction}; allowed: between 0 and 1, such as 0.2")
    train, validation = split_by_class(y, fraction, seed)
    if len(validation) == 0:
        raise InputError(
            f"{len(y)} training samples, no two of one class: too few for a validation split. Add samples, "
            "or train without early stopping"
        )
    return train, validation
