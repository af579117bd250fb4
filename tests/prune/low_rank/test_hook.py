"""DPRP inside a training: ranks fall, the result repeats, an interrupted run goes on across a cut to the bit."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import fx, nn

from edgeprune.load import raise_module
from edgeprune.prune import TrainResult, TrainSettings, train_model
from edgeprune.prune.checkpoint import TrainingInterruptedError
from edgeprune.prune.epoch_figures import Epoch
from edgeprune.prune.low_rank import DprpHook, NetCosts, factor_layers, get_factored, measure_costs
from tests.prune.methods.benches import TinyNet, draw_samples, equal_states

# steps so large, and an epsilon so near to 1, that ranks fall within a few epochs
SETTINGS = TrainSettings(epochs=8, batch_size=10, learning_rate=0.01, device="cpu")


class StoppedHook(DprpHook):
    """Ctrl-C after an epoch."""

    def end_epoch(self, epoch: Epoch) -> bool:
        if len(self.history) == 6:
            raise KeyboardInterrupt
        return super().end_epoch(epoch)


def make_net() -> fx.GraphModule:
    torch.manual_seed(0)
    return factor_layers(raise_module(TinyNet(), torch.zeros(2, 1, 24)))


def train(hook: DprpHook, net: fx.GraphModule, **options: Any) -> TrainResult[fx.GraphModule]:
    x, y = draw_samples()
    return train_model(net, x, y, options.pop("settings", SETTINGS), hook=hook, **options)


def make_hook(net: fx.GraphModule, kind: type[DprpHook] = DprpHook, weight: float = 1.0) -> DprpHook:
    return kind(weight, 0.5, measure_costs(net, (1, 24)))


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_ranks_fall_and_never_rise(optimizer: str) -> None:
    net = make_net()
    hook = make_hook(net)
    rate = 0.01 if optimizer == "adam" else 1e-4  # SGD with mu_orth = 1000 and few layers
    result = train(hook, net, settings=replace(SETTINGS, optimizer=optimizer, learning_rate=rate))
    rows = hook.history
    assert [row["epoch"] for row in rows] == list(range(9))
    assert rows[0]["ranks"] == [5, 3, 2] == [layer.full_rank for layer in get_factored(net).values()]
    for before, after in pairwise(rows):
        assert all(late <= early for early, late in zip(before["ranks"], after["ranks"], strict=True))
        assert after["macs"] <= before["macs"]
        assert after["parameters"] <= before["parameters"]
    assert sum(rows[-1]["ranks"]) < sum(rows[0]["ranks"])
    assert rows[-1]["ranks"] == [layer.rank for layer in get_factored(result.module).values()]
    for layer in get_factored(result.module).values():
        for factor in (layer.U, layer.V) if optimizer == "adam" else ():
            error = (factor.T @ factor - torch.eye(layer.rank)).detach()
            assert float(torch.linalg.matrix_norm(error)) < 0.1  # steps of 0.01 or less, kept near by the loss
        assert (layer.S > 0).all()
    assert result.best_epoch == 8, "the last epoch is the result: earlier ones have other shapes"


def test_resumed_across_a_cut_is_bit_identical(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = make_net()
    whole_hook = make_hook(net)
    whole = train(whole_hook, net)
    assert whole_hook.history[0]["ranks"] != whole_hook.history[5]["ranks"], "a rank was cut before the interruption"
    assert whole_hook.history[5]["ranks"] != whole_hook.history[-1]["ranks"], "and one after it"

    monkeypatch.setattr("edgeprune.prune.checkpoint.SECONDS_BETWEEN_COPIES", 0.0)
    with pytest.raises(TrainingInterruptedError):
        train(make_hook(net, StoppedHook), net, checkpoints=tmp_path)
    resumed_hook = make_hook(net)
    resumed = train(resumed_hook, net, checkpoints=tmp_path)
    assert equal_states(whole.module, resumed.module)
    assert resumed_hook.history == whole_hook.history

    served_hook = make_hook(net)  # finished: given back at once
    served = train(served_hook, net, checkpoints=tmp_path)
    assert equal_states(whole.module, served.module)
    assert served_hook.history == whole_hook.history
    other = train(make_hook(net, weight=2.0), net, checkpoints=tmp_path)
    assert not equal_states(whole.module, other.module), "another compression weight is another training"


def test_the_loss_is_equation_8() -> None:
    """lambda_str (1000 L_orth + 1 L_sort) + lambda_comp L_comp, for one layer of rank 2 by hand."""
    net = factor_layers(raise_module(nn.Linear(2, 2), torch.zeros(3, 2)))
    (layer,) = get_factored(net).values()
    with torch.no_grad():
        layer.U.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        layer.V.copy_(torch.tensor([[2.0, 0.0], [0.0, 1.0]]))  # V^T V - I = diag(3, 0)
        layer.S.copy_(torch.tensor([3.0, 4.0]))  # out of order by 1; tau = r = 2: 4 / 5
    hook = DprpHook(0.25, 0.1, measure_costs(net, (2,)))
    hook.begin(net, torch.optim.SGD(net.parameters(), 0.1))
    assert float(hook.compute_loss({}).detach()) == pytest.approx(1000 * 3 / 4 + 1 + 0.25 * 4 / 5, rel=1e-6)


def test_described_by_what_decides_it() -> None:
    costs = NetCosts({}, 0)
    texts = {DprpHook(*options, costs).describe() for options in ((0.1, 0.1), (0.2, 0.1), (0.1, 0.2))}
    assert len(texts) == 3


def test_learning_rate_follows_the_classification_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """A term that rises by 1 each epoch: the total never falls, yet the learning rate stays while the task's does."""

    class Rising(DprpHook):
        def compute_loss(self, tensors: Any) -> torch.Tensor:
            return torch.tensor(float(len(self.history)))

    net = make_net()
    settings = replace(SETTINGS, plateau_patience=1, epochs=5)
    result = train(make_hook(net, Rising), net, settings=settings)
    for before, after in pairwise(result.history):
        assert after.loss > before.loss
        assert after.task_loss is not None
        assert after.task_loss == pytest.approx(after.loss - len(result.history[: result.history.index(after)]) - 1)
    assert {epoch.learning_rate for epoch in result.history} == {SETTINGS.learning_rate}
    monkeypatch.setattr(Rising, "schedules_by_task", False)
    result = train(make_hook(net, Rising), net, settings=settings)
    assert result.history[-1].learning_rate < SETTINGS.learning_rate
