"""Equation 6 of the DSP paper: active channels, effective rank, efficiency, against values by hand and numpy's SVD."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

from edgeprune.errors import UnsupportedModelError
from edgeprune.load import raise_module
from edgeprune.prune import find_units
from edgeprune.prune.observed import find_observed_tensors
from edgeprune.prune.redundancy import (
    HEAT_MAP_CHANNELS,
    HEAT_MAP_POSITIONS,
    average_neighbours,
    compute_effective_ranks,
    describe_redundancy,
    draw_samples,
    find_active_channels,
    measure_redundancy,
)
from tests.prune.raised import raise_zoo


def make_map(singular_values: list[float], channels: int, positions: int, seed: int = 0) -> Tensor:
    """A map (1, channels, positions) with just these singular values."""
    generator = np.random.default_rng(seed)
    left = np.linalg.qr(generator.normal(size=(channels, channels)))[0][:, : len(singular_values)]
    right = np.linalg.qr(generator.normal(size=(positions, positions)))[0][:, : len(singular_values)]
    return torch.from_numpy(left @ np.diag(singular_values) @ right.T)[None]


@pytest.mark.parametrize(
    ("singular_values", "expected"),
    [
        ([3.0], 1),
        ([1.0, 1.0, 1.0, 1.0], 4),  # three explain 75 %
        ([10.0, 1.0, 1.0], 1),  # 100 of 102
        ([3.0, 2.0, 1.0], 3),  # 13 of 14 is 92.9 %
        ([3.0, 2.0, 0.5], 2),  # 13 of 13.25 is 98.1 %
        ([95**0.5, 5**0.5], 1),  # just 95 %
        ([94.9**0.5, 5.1**0.5], 2),
        ([1.0] * 20, 19),  # 19 of 20 is just 95 %
    ],
)
@pytest.mark.parametrize(("channels", "positions"), [(20, 50), (50, 20)])
def test_the_effective_rank_counts_singular_values(
    singular_values: list[float], expected: int, channels: int, positions: int
) -> None:
    everything = torch.ones(1, channels, dtype=torch.bool)
    ranks = compute_effective_ranks(make_map(singular_values, channels, positions), everything)
    assert ranks.tolist() == [expected]


def rank_by_svd(rows: np.ndarray) -> int:
    """The definition, one sample at a time."""
    squares = np.linalg.svd(rows, compute_uv=False) ** 2
    return int(np.searchsorted(np.cumsum(squares) / squares.sum(), 0.95) + 1)


@pytest.mark.parametrize("shape", [(9, 12, 40), (9, 30, 7), (5, 16, 5, 6), (3, 2, 8)])
def test_a_batch_of_maps_agrees_with_one_svd_each(shape: tuple[int, ...]) -> None:
    feature_map = torch.randn(*shape, generator=torch.Generator().manual_seed(1)).relu()
    active = find_active_channels(feature_map)
    expected_active, expected_ranks = [], []
    for sample in feature_map.flatten(2).numpy().astype(np.float64):
        is_active = sample.mean(axis=1) > sample.mean()
        expected_active.append(is_active.tolist())
        expected_ranks.append(rank_by_svd(sample[is_active]))
    assert active.tolist() == expected_active
    assert compute_effective_ranks(feature_map, active).tolist() == expected_ranks


def test_a_channel_is_active_above_the_mean_of_all() -> None:
    feature_map = torch.tensor([[[0.0, 2.0], [4.0, 2.0], [5.0, 5.0], [2.0, 2.0]]])  # means 1, 3, 5, 2: mean 2.75
    assert find_active_channels(feature_map).tolist() == [[False, True, True, False]]


@pytest.mark.parametrize(
    "feature_map",
    [
        torch.zeros(2, 3, 5),
        torch.full((2, 3, 5), 0.1),  # (0.1 + 0.1 + 0.1) / 3 is not 0.1 in binary
        torch.full((2, 7, 11), -0.3),
        torch.rand(2, 1, 6, generator=torch.Generator().manual_seed(0)),  # one channel is never above its own mean
    ],
)
def test_a_map_of_equal_channels_has_no_active_one(feature_map: Tensor) -> None:
    active = find_active_channels(feature_map)
    assert not active.any()
    assert compute_effective_ranks(feature_map, active).tolist() == [0, 0]


class Scaled(nn.Module):
    """relu of (x, 2x, 3x, 0 | x two positions later): four filters whose maps are known."""

    def __init__(self, filters: list[list[float]]) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, len(filters), 2, bias=False)
        self.conv.weight = nn.Parameter(torch.tensor(filters)[:, None])
        self.head = nn.Linear(len(filters), 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.conv(x)).mean(-1))


def raise_scaled(filters: list[list[float]]) -> fx.GraphModule:
    return raise_module(Scaled(filters), torch.zeros(2, 1, 4))


def test_efficiency_by_hand() -> None:
    # maps of a positive sample: x, 2x, 3x and 0: the means are m (1, 2, 3, 0), above 1.5 m are 2x and 3x, of rank 1.
    module = raise_scaled([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [0.0, 0.0]])
    tensors = find_observed_tensors(module, find_units(module, torch.zeros(2, 1, 4)))
    x = np.array([[[1, 2, 3, 9]], [[4, 4, 4, 9]], [[-1, -2, -3, 9]]], np.float32)  # the last gives zeros everywhere
    (row,) = measure_redundancy(module, tensors, x)
    assert (row.layer, row.channels, row.samples, row.silent_samples) == ("conv", 4, 3, 1)
    assert row.active_channels == pytest.approx(4 / 3)
    assert row.effective_rank == pytest.approx(2 / 3)
    assert row.efficiency == 0.5  # the silent sample does not count


def test_efficiency_is_averaged_over_samples() -> None:
    # maps: a = (x0, x1, x2), b = (x1, x2, x3), 0, 0: both are active; parallel in the first sample, not in the second
    module = raise_scaled([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
    tensors = find_observed_tensors(module, find_units(module, torch.zeros(2, 1, 4)))
    x = np.array([[[1, 2, 4, 8]], [[1, 0, 0, 1]]], np.float32)  # (1, 2, 4), (2, 4, 8); (1, 0, 0), (0, 0, 1)
    (row,) = measure_redundancy(module, tensors, x)
    assert (row.active_channels, row.effective_rank) == (2.0, 1.5)
    assert row.efficiency == 0.75
    (silent,) = measure_redundancy(module, tensors, -x)
    assert (silent.efficiency, silent.silent_samples) == (None, 2)


def test_heat_maps_average_neighbours_and_say_which_sample() -> None:
    assert average_neighbours(np.arange(10.0)[None], 4, 1).tolist() == [[0.5, 3.0, 5.5, 8.0]]
    assert average_neighbours(np.arange(3.0)[None], 4, 1).tolist() == [[0.0, 1.0, 2.0]]
    conv = nn.Conv1d(1, 70, 1)
    module = raise_module(nn.Sequential(conv, nn.ReLU(), nn.Conv1d(70, 2, 1)), torch.zeros(2, 1, 300))
    x = np.random.default_rng(0).normal(size=(5, 1, 300)).astype(np.float32)
    section = describe_redundancy({"Base": module}, x)
    (heat_map,) = section["heat_maps"]
    assert heat_map["sizes"] == {"Base": [70, 300]}
    values = np.array(heat_map["forms"]["Base"])
    assert values.shape == (HEAT_MAP_CHANNELS, HEAT_MAP_POSITIONS)
    with torch.no_grad():
        full = torch.relu(conv(torch.from_numpy(x[heat_map["sample"]]))).numpy()
    # 70 rows in 64: 6 pairs, of which the first begins at row 9; three digits are kept
    np.testing.assert_allclose(
        values[0, :3], [full[0, 0:2].mean(), full[0, 2:4].mean(), full[0, 4:7].mean()], rtol=6e-3
    )


def test_every_form_has_its_rows_and_nothing_is_changed() -> None:
    raised = raise_zoo("lite")
    before = {name: value.clone() for name, value in raised.module.state_dict().items()}
    modes = [layer.training for layer in raised.module.modules()]
    x = np.random.default_rng(0).normal(size=(40, *raised.example.shape[1:])).astype(np.float32)
    labels = ("Base", "Pretrained", "Scratch-trained")
    section = describe_redundancy(dict.fromkeys(labels, raised.module), x, most_samples=16)
    forms = section["redundancy"]["forms"]
    assert section["redundancy"]["samples"] == 16
    assert forms["Base"] == forms["Pretrained"] == forms["Scratch-trained"]
    assert all(list(heat_map["forms"]) == ["Base", "Pretrained"] for heat_map in section["heat_maps"])
    assert [row["layer"] for row in forms["Base"]] == ["bn0", "bn1", "bn2"]
    for row in forms["Base"]:
        assert 0 < row["effective_rank"] <= row["active_channels"] < row["channels"]
        assert 0 < row["efficiency"] <= 1
    assert [heat_map["tensor"] for heat_map in section["heat_maps"]] == [row["tensor"] for row in forms["Base"]]
    json.dumps(section, allow_nan=False)
    assert [layer.training for layer in raised.module.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in raised.module.state_dict().items())


@pytest.mark.parametrize("name", ["se_net", "shared_conv", "odds_and_ends"])
def test_other_networks_have_figures_too(name: str) -> None:
    raised = raise_zoo(name)
    x = np.random.default_rng(0).normal(size=(4, *raised.example.shape[1:])).astype(np.float32)
    rows = describe_redundancy({"Base": raised.module}, x)["redundancy"]["forms"]["Base"]
    assert rows
    assert all(row["effective_rank"] <= row["active_channels"] for row in rows)


def test_values_that_are_not_finite_are_refused() -> None:
    module = raise_scaled([[1.0, 0.0], [1e38, 1e38]])
    with pytest.raises(UnsupportedModelError, match="behind conv holds values that are not finite"):
        describe_redundancy({"Base": module}, np.full((2, 1, 4), 100.0, np.float32))


def test_samples_are_drawn_once_and_for_all() -> None:
    assert draw_samples(5, 8, 0).tolist() == [0, 1, 2, 3, 4]
    chosen = draw_samples(100, 8, 3)
    assert len(set(chosen.tolist())) == 8
    assert (chosen == draw_samples(100, 8, 3)).all()
    assert (chosen != draw_samples(100, 8, 4)).any()
