"""The PQ index and SAP's bound, by hand and by another route (norms as exact roots, numpy's norm)."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgeprune.errors import InputError
from edgeprune.prune.pq_index import compute_lower_bound, compute_pq_index, count_prunable

PAIRS = ((1.0, 2.0), (0.5, 1.0))


def test_by_hand() -> None:
    # (3, -4): ||w||_1 = 7, ||w||_2 = 5, d^(1/2 - 1) = 1/sqrt 2
    assert compute_pq_index(np.array([3.0, -4.0]), 1, 2) == pytest.approx(1 - 7 / (5 * math.sqrt(2)), abs=1e-15)
    # (1, 4): ||w||_(1/2) = (1 + 2)^2 = 9, ||w||_1 = 5, d^(1 - 2) = 1/2
    assert compute_pq_index(np.array([[1.0], [4.0]]), 0.5, 1) == pytest.approx(1 - 9 / 10, abs=1e-15)


@pytest.mark.parametrize(("p", "q"), PAIRS)
def test_limits(p: float, q: float) -> None:
    assert compute_pq_index(np.full(7, -0.3), p, q) == pytest.approx(0, abs=1e-14)  # all equal: not sparse at all
    single = np.zeros(9)
    single[4] = 2.5
    assert compute_pq_index(single, p, q) == pytest.approx(1 - 9 ** (1 / q - 1 / p), abs=1e-14)  # as sparse as it gets
    assert compute_pq_index(np.zeros(5), p, q) == 0
    assert compute_pq_index(np.zeros(0), p, q) == 0


@pytest.mark.parametrize(("p", "q"), PAIRS)
def test_scale_does_not_matter_even_where_powers_would_vanish(p: float, q: float) -> None:
    weights = np.random.default_rng(0).standard_normal(100)
    index = compute_pq_index(weights, p, q)
    assert 0 < index < 1
    assert compute_pq_index(1e-200 * weights, p, q) == pytest.approx(index, abs=1e-12)
    if (p, q) == (1.0, 2.0):  # numpy's own norms
        assert index == pytest.approx(1 - np.linalg.norm(weights, 1) / np.linalg.norm(weights, 2) / 10, abs=1e-12)


@pytest.mark.parametrize(("p", "q"), [*PAIRS, (0.3, 1.0), (1.0, 4.0)])
@pytest.mark.parametrize(("k", "d"), [(1, 4), (3, 8), (8, 8), (17, 1000)])
def test_of_k_equal_entries_among_zeros_the_bound_is_k(p: float, q: float, k: int, d: int) -> None:
    """(1 - I)^(pq/(q-p)) = ((k/d)^(1/p - 1/q))^(pq/(q-p)) = k/d."""
    values = np.zeros(d)
    values[:k] = 0.7
    r = compute_lower_bound(compute_pq_index(values, p, q), d, p, q)
    assert r == pytest.approx(k, rel=1e-12)
    assert count_prunable(r, d) == min(d - k, math.floor(0.9 * d))


def test_bound_by_hand() -> None:
    # I = 1/2: r = 10 * (1/2)^(1*2/(2-1)) = 2.5 at (1,2); 10 * (1/2)^(.5*1/.5) = 5 at (.5,1)
    assert compute_lower_bound(0.5, 10, 1, 2) == pytest.approx(2.5)
    assert compute_lower_bound(0.5, 10, 0.5, 1) == pytest.approx(5)
    # eta: (1 + 1)^(-2/(2-1)) = 1/4
    assert compute_lower_bound(0.5, 10, 1, 2, eta=1.0) == pytest.approx(2.5 / 4)


def test_count_is_bounded_by_beta_scaled_by_gamma_and_leaves_one() -> None:
    assert count_prunable(2.5, 10) == 7  # floor(10 * (1 - .25)) = floor(7.5)
    assert count_prunable(0.1, 10) == 9  # beta: floor(10 * .9), not floor(9.9)
    assert count_prunable(2.5, 10, gamma=0.5) == 3  # floor(10 * .375)
    assert count_prunable(0.0, 4, beta=1.0) == 3
    assert count_prunable(10 + 1e-13, 10) == 0
    assert count_prunable(0.1, 1) == count_prunable(0.0, 0) == 0


@pytest.mark.parametrize(("p", "q"), [(0, 1), (1, 1), (2, 3), (0.5, 0.7), (1.0, 0.5)])
def test_refuses_norms_that_make_no_index(p: float, q: float) -> None:
    with pytest.raises(InputError, match="0 < p <= 1 <= q"):
        compute_pq_index(np.ones(3), p, q)
