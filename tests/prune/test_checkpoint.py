"""Trainings that are cut off go on to the bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgeprune.load import raise_module
from edgeprune.progress import Progress, Step
from edgeprune.prune import TrainingInterruptedError, TrainSettings, train_model
from edgeprune.prune import checkpoint as checkpoint_module
from edgeprune.prune.hooks import HookChain, TrainingHook
from edgeprune.prune.training import TrainResult

SETTINGS = TrainSettings(epochs=12, batch_size=8, learning_rate=0.02, plateau_patience=1, seed=3)


class Net(nn.Module):
    """With dropout and batch norm: a generator and buffers to put away."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 4, 5, padding="same")
        self.norm = nn.BatchNorm1d(4)
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.dropout(torch.relu(self.norm(self.conv(x)))).mean(-1))


class Pull(TrainingHook):
    """Draws weights towards a running sum of its own: a hook with a state."""

    def begin(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.weight = module.get_parameter("conv.weight")
        self.total = torch.zeros_like(self.weight)

    def adjust_parameters(self) -> None:
        with torch.no_grad():
            self.total += self.weight
            self.weight -= 1e-3 * self.total

    def get_state(self) -> dict[str, Any]:
        return {"total": self.total}

    def set_state(self, state: Any) -> None:
        self.total = state["total"].clone()


class Interrupter(Progress):
    """Presses Ctrl-C after so many epochs; keeps the notes."""

    def __init__(self, after: int | None = None) -> None:
        self.epochs = 0
        self.notes: list[str] = []
        self._after = after

    def note(self, message: str) -> None:
        self.notes.append(message)

    def step(self, title: str, total: int | None = None) -> Any:
        outer = self

        class Counting(Step):
            def __enter__(self) -> Counting:
                return self

            def __exit__(self, *_: object) -> None:
                return None

            def advance(self, amount: int = 1, **figures: float | str) -> None:
                outer.epochs += amount
                if outer.epochs == outer._after:
                    raise KeyboardInterrupt

        return Counting()


def make_data() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 40)
    x = (rng.standard_normal((40, 1, 16)) + y[:, None, None]).astype(np.float32)
    return {"x_train": x[:30], "y_train": y[:30], "x_val": x[30:], "y_val": y[30:]}


def train(settings: TrainSettings, folder: Path | None, progress: Progress | None = None) -> TrainResult[Any]:
    torch.manual_seed(7)
    module = raise_module(Net().eval(), torch.zeros(2, 1, 16))
    hook = HookChain([Pull(), TrainingHook()])
    return train_model(
        module, **make_data(), settings=settings, hook=hook, checkpoints=folder, progress=progress or Progress()
    )


def assert_equal(one: TrainResult[Any], other: TrainResult[Any]) -> None:
    assert (one.history, one.best_epoch, one.stopped_by) == (other.history, other.best_epoch, other.stopped_by)
    for (name, a), b in zip(one.module.state_dict().items(), other.module.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


@pytest.fixture
def copies_every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint_module, "SECONDS_BETWEEN_COPIES", 0.0)


@pytest.mark.usefixtures("copies_every_epoch")
@pytest.mark.parametrize(
    "changes",
    [{}, {"optimizer": "sgd", "early_stopping": "accuracy", "patience": 4}, {"early_stopping": "macro_f1"}],
    ids=["adam", "sgd, early stopping", "early stopping"],
)
def test_an_interrupted_training_goes_on_to_the_bit(tmp_path: Path, changes: dict[str, Any]) -> None:
    settings = replace(SETTINGS, **changes)
    undisturbed = train(settings, None)
    for after in (2, 3):  # interrupted twice
        with pytest.raises(TrainingInterruptedError, match="run the same command again, and it goes on") as caught:
            train(settings, tmp_path, Interrupter(after))
        assert caught.value.checkpoint is not None
        assert caught.value.checkpoint.parent == tmp_path
    progress = Interrupter()
    resumed = train(settings, tmp_path, progress)
    assert "goes on after epoch 3" in progress.notes[0]
    assert_equal(resumed, undisturbed)


@pytest.mark.usefixtures("copies_every_epoch")
def test_what_was_finished_is_not_trained_again(tmp_path: Path) -> None:
    first = train(SETTINGS, tmp_path)
    progress = Interrupter(after=1)  # would raise in the first epoch
    assert_equal(train(SETTINGS, tmp_path, progress), first)
    assert progress.epochs == 0


def test_another_seed_is_another_training(tmp_path: Path) -> None:
    train(SETTINGS, tmp_path)
    progress = Interrupter()
    train(replace(SETTINGS, seed=4), tmp_path, progress)
    assert progress.epochs == 12
    assert len(list(tmp_path.iterdir())) == 2


def test_a_damaged_checkpoint_is_trained_again(tmp_path: Path) -> None:
    first = train(SETTINGS, tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:500])
    assert_equal(train(SETTINGS, tmp_path), first)
