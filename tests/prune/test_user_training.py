"""A user's own training function: what it gets, and what it must give back."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional

from edgeprune.errors import InputError
from edgeprune.load import raise_module
from edgeprune.prune.train_settings import TrainSettings
from edgeprune.prune.user_training import TrainContext, train_with
from tests.prune.test_training import make_series


def make_context() -> TrainContext:
    """An autoencoder, which `train_model` would refuse."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv1d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv1d(4, 1, 3, padding=1))
    x, y = make_series(32)
    return TrainContext(
        raise_module(net.eval(), torch.zeros(2, 1, 16)), "Finetuned", x, y, None, None, TrainSettings(epochs=20)
    )


def rebuild(context: TrainContext) -> nn.Module:
    """Trains to give out what went in."""
    x = torch.tensor(context.x_train)
    optimizer = torch.optim.Adam(context.module.parameters(), 0.01)
    context.module.train()
    for _ in range(context.settings.epochs):
        optimizer.zero_grad()
        functional.mse_loss(context.module(x), x).backward()
        optimizer.step()
    return context.module


def test_a_users_function_trains_an_autoencoder() -> None:
    context = make_context()
    before = {name: tensor.clone() for name, tensor in context.module.state_dict().items()}
    result = train_with(rebuild, context)
    x = torch.tensor(context.x_train)
    with torch.no_grad():
        losses = [functional.mse_loss(module(x), x) for module in (context.module, result.module)]
    assert losses[1] < losses[0]
    assert all(torch.equal(before[name], tensor) for name, tensor in context.module.state_dict().items())
    assert not result.module.training
    assert result.stopped_by == "the user's function"


def spoil(context: TrainContext) -> nn.Module:
    with torch.no_grad():
        next(context.module.parameters()).fill_(torch.nan)
    return context.module


def widen(context: TrainContext) -> nn.Module:
    return raise_module(nn.Sequential(nn.Conv1d(1, 1, 3, padding=1)).eval(), torch.zeros(2, 1, 16))


@pytest.mark.parametrize(
    ("trainer", "message"),
    [
        (lambda context: None, "gave back NoneType"),
        (lambda context: 1 / 0, "failed: ZeroDivisionError"),
        (spoil, r"spoil gave back weights that are not finite \(0.bias\)|not finite \(0.weight\)"),
        (widen, "widen gave back a module with other parameters"),
    ],
)
def test_what_is_not_the_trained_module_is_refused(trainer: Callable[..., object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        train_with(trainer, make_context())  # type: ignore[arg-type]
