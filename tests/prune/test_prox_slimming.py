"""The proximal update: by hand, against argmins searched for, with exact zeros (papers.md P3, proximal slimming)."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from edgeprune.load import raise_module
from edgeprune.prune import TrainingInterruptedError, TrainSettings, find_units, train_model
from edgeprune.prune.prox_slimming import ProxHook, shrink_values, update_pair
from edgeprune.prune.slimming import Scales, find_scales
from tests.prune.test_checkpoint import Interrupter
from tests.prune.test_slimming import TwoScales
from tests.prune.test_training import make_series

EXAMPLE = torch.zeros(2, 1, 16)
SGD = TrainSettings(epochs=1, batch_size=16, optimizer="sgd", learning_rate=0.5, momentum=0.0)


def make_case() -> tuple[fx.GraphModule, Scales]:
    torch.manual_seed(0)
    module = raise_module(TwoScales().eval(), EXAMPLE)
    return module, find_scales(module, find_units(module, EXAMPLE))


def test_soft_threshold() -> None:
    values = torch.tensor([-3.0, -1.0, -0.25, 0.0, 0.25, 1.0, 3.0])
    assert shrink_values(values, 1.0).tolist() == [-2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 2.0]
    drawn = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(shrink_values(drawn, 0.3), functional.softshrink(drawn, 0.3))


def test_update_by_hand() -> None:
    """a = 2, beta = 6, lambda = 4: gamma' = (2 gamma + 6 xi) / 8, xi' = S((2 xi + 6 gamma') / 8, 1/2)."""
    gamma, xi = torch.tensor([4.0, -4.0, 1.0]), torch.tensor([8.0, 0.0, 0.5])
    new_gamma, new_xi = update_pair(gamma, xi, a=2.0, beta=6.0, weight=4.0)
    assert new_gamma.tolist() == [7.0, -1.0, 0.625]
    # (16 + 42) / 8 - 1/2; (0 - 6) / 8 + 1/2; (1 + 3.75) / 8 = .59375 - 1/2
    assert new_xi.tolist() == [6.75, -0.25, 0.09375]
    again = update_pair(new_gamma, new_xi, a=2.0, beta=6.0, weight=4.0)
    # gamma: (-2 - 1.5) / 8 = -.4375; xi: (-.5 - 2.625) / 8 = -.390625, inside the threshold
    assert (again[0][1], again[1][1]) == (-0.4375, 0.0)


@pytest.mark.parametrize(("gamma", "xi", "gradient"), [(0.9, 0.7, 0.3), (-0.2, 0.1, -1.0), (0.05, 0.0, 0.2)])
def test_update_solves_the_papers_two_problems(gamma: float, xi: float, gradient: float) -> None:
    """Both argmins of the paper, by search over a grid of step 1e-5."""
    a, beta, weight = 10.0, 100.0, 4.0
    grid = torch.arange(-2, 2, 1e-5, dtype=torch.float64)
    first = grid[(gradient * grid + a / 2 * (grid - gamma) ** 2 + beta / 2 * (grid - xi) ** 2).argmin()]
    second = grid[(weight * grid.abs() + a / 2 * (grid - xi) ** 2 + beta / 2 * (first - grid) ** 2).argmin()]
    stepped = torch.tensor(gamma - gradient / a, dtype=torch.float64)  # SGD with learning rate 1/a
    found = update_pair(stepped, torch.tensor(xi, dtype=torch.float64), a, beta, weight)
    assert found[0] == pytest.approx(float(first), abs=1.1e-5)  # the grid's step
    assert found[1] == pytest.approx(float(second), abs=2.1e-5)  # and that of `first` in it


def test_a_training_step_is_the_papers() -> None:
    """One step of SGD against the paper's closed form on autograd's gradient; other scales take the plain step."""
    module, scales = make_case()
    x, y = make_series(16)
    hook = ProxHook(scales, weight=2.0, beta=6.0)
    trained = train_model(module, x, y, SGD, hook=hook).module.get_parameter("norm.weight").detach()
    reference = copy.deepcopy(module).train()
    gamma = reference.get_parameter("norm.weight")
    functional.cross_entropy(reference(torch.from_numpy(x)), torch.from_numpy(y)).backward()
    assert gamma.grad is not None
    xi, a = gamma.detach().clone(), 2.0  # 1 / 0.5
    expected = ((a * gamma.detach() + 6 * xi) - gamma.grad) / (a + 6)
    # float32, the batch in another order: some roundings
    torch.testing.assert_close(trained[:4], expected[:4], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(trained[4:], (gamma - 0.5 * gamma.grad).detach()[4:], rtol=1e-5, atol=1e-6)
    expected_xi = functional.softshrink((a * xi + 6 * expected) / (a + 6), 2 / (a + 6))
    torch.testing.assert_close(hook.xi["norm.weight"][:4], expected_xi[:4], rtol=1e-5, atol=1e-6)


class Recorder(nn.Module):
    """A module of one scale parameter, for a hook without a training."""

    def __init__(self, gamma: Tensor) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(len(gamma))
        self.norm.weight = nn.Parameter(gamma.clone())


def test_a_follows_the_learning_rate() -> None:
    _, scales = make_case()
    module = Recorder(torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))
    optimizer = torch.optim.SGD(module.parameters(), 0.5)
    hook = ProxHook(scales, weight=4.0, beta=6.0)
    hook.begin(module, optimizer)
    hook.adjust_parameters()  # gamma = xi, so only the shrinking by 4 / (2 + 6) shows
    assert hook.xi["norm.weight"].tolist() == [0.5, 1.5, 2.5, 3.5, 5.0, 6.0]
    optimizer.param_groups[0]["lr"] = 0.1
    hook.begin(module, optimizer)
    hook.adjust_parameters()
    shrunk = [value - 4 / 16 for value in (1.0, 2.0, 3.0, 4.0)]
    assert hook.xi["norm.weight"].tolist() == [*shrunk, 5.0, 6.0]
    assert hook.get_figures() == {"scales at zero": "0 of 4"}


def test_xi_starts_at_the_bases_scales_or_where_the_paper_draws_it() -> None:
    _, scales = make_case()
    module = Recorder(torch.tensor([1.0, -2.0, 3.0, 4.0, 5.0, 6.0]))
    optimizer = torch.optim.SGD(module.parameters(), 0.5)
    trained, drawn, again = (ProxHook(scales, 1.0, 1.0, seed) for seed in (None, 7, 7))
    for hook in (trained, drawn, again):
        hook.begin(module, optimizer)
    assert trained.xi["norm.weight"].tolist() == [1.0, -2.0, 3.0, 4.0, 5.0, 6.0]
    first = drawn.xi["norm.weight"]
    assert ((first[:4] >= 0.47) & (first[:4] <= 0.53)).all()
    assert len(set(first[:4].tolist())) == 4
    assert torch.equal(first, again.xi["norm.weight"])
    assert len({hook.describe() for hook in (trained, drawn, again)}) == 2


def test_exact_zeros_stay_and_gamma_follows() -> None:
    module, scales = make_case()
    x, y = make_series(32)
    settings = TrainSettings(epochs=30, batch_size=16, optimizer="sgd", learning_rate=0.05)
    hook = ProxHook(scales, weight=20.0, beta=100.0)
    trained = train_model(module, x, y, settings, hook=hook)
    xi = hook.xi["norm.weight"]
    assert (xi[:4] == 0).all()
    assert trained.module.get_parameter("norm.weight")[:4].abs().max() < 0.05
    assert trained.best_epoch == 30
    assert hook.get_figures() == {"scales at zero": "4 of 4"}


def test_an_interrupted_training_gives_the_same_xi(tmp_path: Path) -> None:
    module, scales = make_case()
    x, y = make_series(32)
    settings = TrainSettings(epochs=12, batch_size=8, optimizer="sgd", learning_rate=0.05, plateau_patience=1)
    hooks = [ProxHook(scales, weight=0.3, beta=100.0) for _ in range(4)]
    whole = train_model(module, x, y, settings, hook=hooks[0])
    with pytest.raises(TrainingInterruptedError):
        train_model(module, x, y, settings, hook=hooks[1], checkpoints=tmp_path, progress=Interrupter(5))
    resumed = train_model(module, x, y, settings, hook=hooks[2], checkpoints=tmp_path)
    served = train_model(module, x, y, settings, hook=hooks[3], checkpoints=tmp_path)
    for result, hook in ((resumed, hooks[2]), (served, hooks[3])):
        assert torch.equal(hook.xi["norm.weight"], hooks[0].xi["norm.weight"])
        assert all(
            torch.equal(a, b)
            for a, b in zip(result.module.state_dict().values(), whole.module.state_dict().values(), strict=True)
        )
