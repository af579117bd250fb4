"""tau by its definition, and the cut of factors with what the optimizer remembers."""

from __future__ import annotations

import random

import pytest
import torch
from torch import nn

from edgeprune.prune.low_rank.factors import FactoredConv
from edgeprune.prune.low_rank.ranks import cut_rank, find_cut, find_cuts


@pytest.mark.parametrize(
    ("row", "epsilon", "tau"),
    [
        ([4.0, 2.0, 1.0], 0.1, 3),  # no fall: r
        ([4.0, 0.3, 0.2], 0.1, 1),
        ([4.0, 2.0, 0.1, 0.05], 0.1, 2),  # the first fall, whatever follows
        ([4.0, 2.0, 0.1, 3.0], 0.1, 2),
        ([1.0, 0.1], 0.1, 1),  # at the bound: |s_2| > eps |s_1| no longer holds (both factors exact in float64)
        ([1.0, 0.5, 0.25], 0.5, 1),
        ([2.0, 2.0, 2.0], 0.9, 3),  # all equal
        ([7.0], 0.5, 1),  # one value
        ([0.0], 0.5, 1),
        ([0.0, 0.0, 0.0], 0.1, 1),  # zeros: one is kept
        ([1.0, 0.0, 5.0], 0.1, 1),
        ([0.0, 1.0, 0.5], 0.1, 3),  # unsorted: |1| <= 0.1 |0| is false
        ([-4.0, 2.0, -0.1], 0.1, 2),  # sizes count
    ],
)
def test_tau(row: list[float], epsilon: float, tau: int) -> None:
    assert find_cut(torch.tensor(row, dtype=torch.float64), epsilon) == tau


def test_tau_of_many_is_tau_of_each() -> None:
    """Against the definition written as a loop: the highest i up to which each |s_{k+1}| > epsilon |s_k|."""

    def find_by_loop(row: list[float], epsilon: float) -> int:
        i = 1
        while i < len(row) and abs(row[i]) > epsilon * abs(row[i - 1]):
            i += 1
        return i

    draw = random.Random(0)
    for _ in range(200):
        rows = [[draw.choice([0.0, 1.0, -1.0, 0.2, 0.04, 3.0]) for _ in range(draw.randint(1, 7))] for _ in range(4)]
        epsilon = draw.choice([0.05, 0.2, 0.5])
        padded = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
        found = find_cuts(padded, torch.tensor([len(row) for row in rows]), epsilon).tolist()
        assert found == [find_by_loop(torch.tensor(row).tolist(), torch.tensor(epsilon).item()) for row in rows]


OPTIMIZERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, 0.01, momentum=0.9, fused=True),
    "adam": lambda parameters: torch.optim.Adam(parameters, 0.01, fused=True),
    "amsgrad": lambda parameters: torch.optim.Adam(parameters, 0.01, amsgrad=True),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_optimizers_memory_is_cut_along(name: str) -> None:
    torch.manual_seed(0)
    layer = FactoredConv(nn.Conv1d(3, 4, 5))
    optimizer = OPTIMIZERS[name](list(layer.parameters()))
    x = torch.randn(2, 3, 9)

    def step() -> None:
        optimizer.zero_grad()
        layer(x).square().sum().backward()
        optimizer.step()

    step()
    step()
    before = {
        parameter: (parameter.detach().clone(), {key: value.clone() for key, value in state.items()})
        for parameter, state in optimizer.state.items()
    }
    cut_rank(layer, 2, optimizer)
    assert layer.rank == 2
    assert layer.full_rank == 5
    for parameter in (layer.U, layer.S, layer.V):
        values, state = before[parameter]
        assert torch.equal(parameter, values[..., :2])
        assert parameter.is_contiguous()
        assert parameter.grad is None
        kept = [key for key, value in state.items() if value.shape == values.shape]
        assert kept == [key for key in state if key != "step"], "momentum_buffer, exp_avg, exp_avg_sq, ..."
        for key in kept:
            assert torch.equal(optimizer.state[parameter][key], state[key][..., :2])
    for key, value in before[layer.bias][1].items():
        assert torch.equal(optimizer.state[layer.bias][key], value)
    if name != "sgd":
        assert float(optimizer.state[layer.U]["step"]) == 2
    step()  # goes on


def test_a_cut_layer_trains_on_as_one_that_was_always_small() -> None:
    """Of two columns, the second without influence: cut before or after the step, the first moves the same way."""

    def make() -> FactoredConv:
        torch.manual_seed(1)
        layer = FactoredConv(nn.Conv1d(2, 3, 4, bias=False))
        with torch.no_grad():
            layer.S[1:] = 0
        return layer

    x = torch.randn(2, 2, 9)
    results = []
    for cut_after in (0, 2):
        layer = make()
        optimizer = torch.optim.Adam([layer.U, layer.V], 0.01)
        for index in range(4):
            if index == cut_after:
                cut_rank(layer, 1, optimizer)
            optimizer.zero_grad()
            layer(x).square().sum().backward()
            optimizer.step()
        results.append((layer.U.detach(), layer.V.detach()))
    for early, late in zip(*results, strict=True):
        torch.testing.assert_close(early, late, rtol=1e-5, atol=1e-6)  # float32, matrix products of other widths
