"""Equations 8 and 10 to 12 of DPRP against figures worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from edgeprune.prune.low_rank.losses import (
    measure_compression,
    measure_disorder,
    measure_orthogonality,
    stack_spectra,
)


def spectra(*rows: list[float]) -> tuple[Tensor, Tensor]:
    return stack_spectra([torch.tensor(row, dtype=torch.float64) for row in rows])


def test_stacked_spectra_have_zeros_behind_their_ends() -> None:
    values, ranks = spectra([3.0, 2.0, 1.0], [5.0])
    assert values.tolist() == [[3.0, 2.0, 1.0], [5.0, 0.0, 0.0]]
    assert ranks.tolist() == [3, 1]


def test_orthogonality_by_hand() -> None:
    # U^T U - I = [[1+1-1, 1], [1, 1-1]] = [[1, 1], [1, 0]], norm sqrt 3; V^T V - I = diag(3, 0), norm 3; r = 2
    u = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    v = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    one = measure_orthogonality([(u, v)])
    assert float(one) == pytest.approx((math.sqrt(3) + 3) / 4, rel=1e-6)
    # 3 x 3: U = I with its first entry 2, so that U^T U - I = diag(3, 0, 0); V = I; r = 3; L = 2 halves both
    u3 = torch.diag(torch.tensor([2.0, 1.0, 1.0]))
    both = measure_orthogonality([(u, v), (u3, torch.eye(3))])
    assert float(both) == pytest.approx(((math.sqrt(3) + 3) / 4 + 3 / 9) / 2, rel=1e-6)


def test_orthogonality_of_orthonormal_factors_is_zero_and_so_is_its_gradient() -> None:
    u, v = torch.eye(4)[:, :2].clone().requires_grad_(), torch.eye(2).requires_grad_()
    loss = measure_orthogonality([(u, v)])
    loss.backward()
    assert float(loss.detach()) == 0
    assert u.grad is not None
    assert v.grad is not None
    assert u.grad.abs().sum() + v.grad.abs().sum() == 0


def test_orthogonality_has_the_gradient_of_a_norm() -> None:
    """d ||F^T F - I||_F / dF = 2 F E / ||E||_F with E = F^T F - I."""
    torch.manual_seed(0)
    u, v = torch.randn(5, 3, dtype=torch.float64, requires_grad=True), torch.randn(4, 3, dtype=torch.float64)
    measure_orthogonality([(u, v)]).backward()
    error = (u.T @ u - torch.eye(3)).detach()
    meant = 2 * u.detach() @ error / torch.linalg.matrix_norm(error) / 9
    torch.testing.assert_close(u.grad, meant)  # float64, its default tolerance is rounding


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([3.0, 2.0, 1.0], 0.0),
        ([1.0, 2.0, 4.0], (1 + 2) / 2),  # two places out of order: the mean of their rises
        ([3.0, 1.0, 2.0], 1.0),  # one place
        ([3.0, -1.0, -2.0], (1 + 2) / 2),  # in order, two negative: the mean, the last one too (ours)
        ([-1.0, 2.0], 3 + 1),
        ([-0.5], 0.5),
        ([0.0, 0.0], 0.0),
        ([2.0, 2.0], 0.0),
    ],
)
def test_sorting_by_hand(row: list[float], expected: float) -> None:
    assert float(measure_disorder(*spectra(row))) == pytest.approx(expected, rel=1e-12)


def test_sorting_of_several_layers_is_their_mean_and_sees_no_padding() -> None:
    loss = measure_disorder(*spectra([1.0, 2.0, 4.0], [-3.0], [5.0, 6.0]))
    assert float(loss) == pytest.approx((1.5 + 3 + 1) / 3, rel=1e-12)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([4.0, 2.0, 1.0], 1 / math.sqrt(21)),  # tau = r = 3: ours, the last value
        ([4.0, 3.0, 0.0], (3 + 0) / 1 / 5),  # tau = 2: sigma_2 and sigma_3 over (3 - 2) * 5
        ([3.0, 0.2, 4.0], (3 + 0.2 + 4) / 2 / math.sqrt(25.04)),  # tau = 1, unsorted
        ([-3.0, 0.0, 0.0], 3 / 2 / 3),  # sizes, not values
        ([5.0], 1.0),  # one value
        ([2.0, 2.0], 1 / math.sqrt(2)),  # all equal
        ([0.0, 0.0], 0.0),  # nothing to compress
    ],
)
def test_compression_by_hand(row: list[float], expected: float) -> None:
    assert float(measure_compression(*spectra(row), 0.1)) == pytest.approx(expected, rel=1e-12)


def test_compression_of_several_layers_is_their_mean() -> None:
    loss = measure_compression(*spectra([4.0, 2.0, 1.0], [5.0], [4.0, 3.0, 0.0]), 0.1)
    assert float(loss) == pytest.approx((1 / math.sqrt(21) + 1 + 3 / 5) / 3, rel=1e-12)


def test_compression_pushes_the_last_value_down_and_the_others_up() -> None:
    values = torch.tensor([4.0, 2.0, 1.0], dtype=torch.float64, requires_grad=True)
    measure_compression(*stack_spectra([values]), 0.1).backward()
    # d/ds_i of s_3 / |s|: s_3 (-s_i) / |s|^3, and for i = 3 also 1 / |s|
    norm = math.sqrt(21)
    meant = [-4 / norm**3, -2 / norm**3, 1 / norm - 1 / norm**3]
    assert values.grad is not None
    assert values.grad.tolist() == pytest.approx(meant, rel=1e-12)


def test_zeros_give_no_nan_in_any_gradient() -> None:
    values = torch.zeros(3, requires_grad=True)
    stacked, ranks = stack_spectra([values])
    (measure_disorder(stacked, ranks) + measure_compression(stacked, ranks, 0.1)).backward()
    assert values.grad is not None
    assert values.grad.tolist() == [0, 0, 0]
