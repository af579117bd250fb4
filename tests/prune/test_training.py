"""Training: what it gives back, when it stops, and what it refuses."""

from __future__ import annotations

import copy
import functools
import re

import numpy as np
import pytest
import torch
from torch import nn

from edgeprune.errors import InputError, UnsupportedModelError
from edgeprune.load import raise_module
from edgeprune.models import build_model
from edgeprune.progress import Progress
from edgeprune.prune.checkpoint import TrainingInterruptedError
from edgeprune.prune.devices import FabricDevice, limit_threads
from edgeprune.prune.inference import predict
from edgeprune.prune.train_settings import TrainSettings
from edgeprune.prune.training import check_classifier, train_model


class SmallNet(nn.Module):
    """One convolution, batch norm, pooling; the head is followed by `ending`."""

    def __init__(self, ending: nn.Module | None = None, classes: int = 2) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 4, 3, padding="same")
        self.norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, classes)
        self.head_norm = nn.BatchNorm1d(classes)  # after pooling: cannot be trained on a batch of one sample
        self.ending = ending or nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.ending(self.head_norm(self.head(torch.relu(self.norm(self.conv(x))).mean(-1))))


def make_series(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Slow and fast sines with noise: (n, 1, 16), labels 0 and 1."""
    generator = np.random.default_rng(seed)
    y = np.arange(n) % 2
    phase = generator.uniform(0, 2 * np.pi, (n, 1))
    x = np.sin(phase + np.arange(16) * np.where(y == 0, 0.4, 1.6)[:, None]) + 0.1 * generator.standard_normal((n, 16))
    return x[:, None].astype(np.float32), y


def raised(module: nn.Module) -> torch.fx.GraphModule:
    return raise_module(module.eval(), torch.zeros(2, 1, 16))


@functools.cache
def small_net(ending: nn.Module | None = None, classes: int = 2) -> torch.fx.GraphModule:
    torch.manual_seed(0)
    return raised(SmallNet(ending, classes))


FAST = TrainSettings(epochs=15, batch_size=16, learning_rate=0.03, device="cpu")


def test_training_learns_and_leaves_the_input_alone() -> None:
    net = small_net()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    x, y = make_series(48)
    result = train_model(net, x, y, FAST)
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert (predict(result.module, x).argmax(1) == y).mean() > 0.95
    assert not result.module.training
    assert result.stopped_by == "epochs"
    assert len(result.history) == 15
    assert result.best_epoch == 1 + int(np.argmin([epoch.loss for epoch in result.history]))


def test_same_seed_gives_the_same_weights_and_leaves_the_global_generator() -> None:
    x, y = make_series(33)
    net = raised(nn.Sequential(nn.Conv1d(1, 4, 3), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(56, 2)))
    state = torch.get_rng_state()
    first = train_model(net, x, y, FAST)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    second = train_model(net, x, y, FAST)
    assert all(torch.equal(a, b) for a, b in zip(first.module.parameters(), second.module.parameters(), strict=True))
    assert first.history == second.history
    other = train_model(net, x, y, TrainSettings(epochs=15, batch_size=16, learning_rate=0.03, seed=1))
    assert other.history != first.history


def test_lone_last_sample_joins_the_batch_before() -> None:
    x, y = make_series(33)  # 2 batches of 16 leave one sample
    train_model(small_net(), x, y, TrainSettings(epochs=1, batch_size=16))


@pytest.mark.parametrize("ending", [nn.Softmax(dim=-1), nn.LogSoftmax(dim=-1)])
def test_softmax_heads_are_trained_on_their_logits(ending: nn.Module) -> None:
    x, y = make_series(32)
    plain = train_model(small_net(), x, y, FAST)
    ended = train_model(small_net(ending=ending), x, y, FAST)
    assert ended.history == plain.history
    outputs = predict(ended.module, x)
    logits = torch.tensor(predict(plain.module, x))
    # one rounding of the softmax
    np.testing.assert_allclose(outputs, ending(logits).numpy(), atol=1e-6)


def test_of_several_outputs_the_first_is_the_classifier() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = SmallNet()
            self.other = nn.Linear(16, 3)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.net(x), self.other(x[:, 0])

    torch.manual_seed(0)
    net = raised(Two())
    x, y = make_series(32)
    result = train_model(net, x, y, FAST)
    assert (predict(result.module, x).argmax(1) == y).mean() > 0.95
    assert torch.equal(result.module.get_parameter("other.weight"), net.get_parameter("other.weight"))


def test_early_stopping_gives_back_the_best_validation_epoch() -> None:
    x, y = make_series(48)
    x_val, y_val = make_series(20, seed=1)
    settings = TrainSettings(
        epochs=100, batch_size=64, learning_rate=0.2, early_stopping="macro_f1", patience=3, schedule="none"
    )
    result = train_model(small_net(), x, y, settings, x_val=x_val, y_val=y_val)
    assert result.stopped_by == "early stopping"
    assert len(result.history) == result.best_epoch + 3
    ranks = [(epoch.validation_metric, -(epoch.validation_loss or 0.0)) for epoch in result.history]
    assert result.best_epoch == 1 + ranks.index(max(ranks))
    with pytest.raises(InputError, match="early stopping on macro_f1 needs validation samples"):
        train_model(small_net(), x, y, settings)


def test_plateau_schedule_halves_the_learning_rate_down_to_its_minimum() -> None:
    x, y = make_series(32)
    settings = TrainSettings(epochs=9, learning_rate=1e-3, plateau_patience=1, min_learning_rate=3e-4)
    result = train_model(small_net(), x, y, settings, loss=lambda logits, labels: 1 + 0 * logits.sum())
    # the first epoch is the best; after two more without a better one the rate falls
    assert [epoch.learning_rate for epoch in result.history] == [1e-3] * 3 + [5e-4] * 2 + [3e-4] * 4
    low = TrainSettings(epochs=5, learning_rate=1e-5, plateau_patience=1, min_learning_rate=3e-4)
    result = train_model(small_net(), x, y, low, loss=lambda logits, labels: 1 + 0 * logits.sum())
    assert [epoch.learning_rate for epoch in result.history] == [1e-5] * 5


def test_balanced_class_weights_help_the_rare_class() -> None:
    x, y = make_series(60)
    kept = np.flatnonzero((y == 0) | (np.arange(60) < 8))  # 30 against 4
    net = raised(nn.Sequential(nn.Flatten(), nn.Linear(16, 2)))
    plain, balanced = (
        train_model(net, x[kept], y[kept], TrainSettings(epochs=4, learning_rate=0.01, class_weights=weights))
        for weights in ("none", "balanced")
    )
    margins = [np.diff(predict(result.module, x)).mean() for result in (plain, balanced)]
    assert margins[1] > margins[0] + 0.1


def test_time_limit_stops_after_the_epoch() -> None:
    x, y = make_series(32)
    result = train_model(small_net(), x, y, TrainSettings(epochs=1000, time_limit_s=1e-6))
    assert (result.stopped_by, len(result.history)) == ("time limit", 1)


class Recorder(Progress):
    """Keeps the notes; presses Ctrl-C after a number of epochs."""

    def __init__(self, interrupt_after: int | None = None) -> None:
        self.notes: list[str] = []
        self.figures: list[dict[str, float | str]] = []
        self._interrupt_after = interrupt_after

    def note(self, message: str) -> None:
        self.notes.append(message)

    def step(self, title: str, total: int | None = None):  # type: ignore[no-untyped-def, override]
        recorder = self

        class Step:
            def __enter__(self) -> Step:
                return self

            def __exit__(self, *_: object) -> None:
                return None

            def advance(self, amount: int = 1, **figures: float | str) -> None:
                recorder.figures.append(figures)
                if len(recorder.figures) == recorder._interrupt_after:
                    raise KeyboardInterrupt

        return Step()


def test_progress_tells_loss_accuracy_and_an_estimate() -> None:
    x, y = make_series(32)
    recorder = Recorder()
    train_model(small_net(), x, y, FAST, progress=recorder, title="retrain")
    assert len(recorder.figures) == 15
    assert set(recorder.figures[0]) == {"loss", "accuracy"}
    assert re.fullmatch(r"retrain: at most \d+ s \(15 epochs of \d+ ms\)", recorder.notes[0])


def test_ctrl_c_without_a_folder_says_that_nothing_was_kept() -> None:
    x, y = make_series(32)
    with pytest.raises(TrainingInterruptedError, match="Nothing was kept"):
        train_model(small_net(), x, y, FAST, progress=Recorder(interrupt_after=1))


def test_labels_must_fit_the_head() -> None:
    x, y = make_series(32)
    with pytest.raises(InputError, match=r"labels go from 0 to 2, but the model's head has 2 outputs"):
        train_model(small_net(), x, y * 2, FAST)
    with pytest.raises(InputError, match="the data has 2 classes, but the model's head has 3 outputs"):
        check_classifier(small_net(classes=3), x, y, classes=2)
    with pytest.raises(InputError, match="32 training samples, 31 labels"):
        train_model(small_net(), x, y[1:], FAST)
    with pytest.raises(InputError, match="1 training samples"):
        train_model(small_net(), x[:1], y[:1], FAST)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (SmallNet(ending=nn.Sigmoid()), "the head is a sigmoid"),
        (SmallNet(ending=nn.Linear(2, 1)), r"2 samples give an output of shape \(2, 1\)"),
        (nn.Conv1d(1, 1, 3, padding="same"), r"output of shape \(2, 1, 16\)"),
    ],
)
def test_heads_that_are_no_classifiers_are_refused(net: nn.Module, message: str) -> None:
    x, y = make_series(32)
    with pytest.raises(UnsupportedModelError, match=f"{message}.*--train pkg.module:function"):
        train_model(raised(net), x, y, FAST)


def test_a_loss_that_is_not_finite_is_an_error() -> None:
    x, y = make_series(32)
    with pytest.raises(InputError, match=r"the loss is inf in epoch 1. Lower the learning rate \(now 0\.03\)"):
        train_model(small_net(), x, y, FAST, loss=lambda logits, labels: logits.sum() + torch.inf)


def test_nothing_to_train_is_an_error() -> None:
    x, y = make_series(32)
    net = copy.deepcopy(small_net())
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(InputError, match="every parameter has requires_grad False"):
        train_model(net, x, y, FAST)


def test_batch_norms_are_recalibrated_at_the_end() -> None:
    x, y = make_series(32)
    trained = train_model(small_net(), x, y, TrainSettings(epochs=2)).module
    with torch.no_grad():
        inputs = trained.get_submodule("conv")(torch.tensor(x))
    # float32 sums in another order
    torch.testing.assert_close(trained.get_buffer("norm.running_mean"), inputs.mean((0, 2)), rtol=1e-5, atol=1e-6)


def test_frozen_filters_stay() -> None:
    x, y = make_series(32)
    lite = raise_module(build_model("lite", in_channels=1, classes=2, filters=4).eval(), torch.zeros(2, 1, 16))
    result = train_model(lite, x, y, TrainSettings(epochs=2))
    for (name, old), new in zip(lite.named_parameters(), result.module.parameters(), strict=True):
        assert torch.equal(old, new) != old.requires_grad, name


def test_fabric_trains_as_plain_pytorch_does(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = make_series(32)
    plain = train_model(small_net(), x, y, FAST)
    monkeypatch.setattr("edgeprune.prune.training.open_device", lambda name: FabricDevice("cpu"))
    fabric = train_model(small_net(), x, y, FAST)
    assert fabric.history == plain.history
    assert isinstance(fabric.module, torch.fx.GraphModule)
    for a, b in zip(fabric.module.parameters(), plain.module.parameters(), strict=True):
        assert torch.equal(a, b)


def test_threads_are_put_back() -> None:
    before = torch.get_num_threads()
    with limit_threads(batch_values=64):
        assert torch.get_num_threads() <= 2
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs is 0; it must be at least 1"),
        ({"batch_size": 1}, "batch_size is 1; it must be at least 2"),
        ({"optimizer": "adamw"}, "optimizer is 'adamw'; allowed: adam, sgd"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"time_limit_s": -1.0}, "time_limit_s is -1.0"),
        ({"momentum": 1.0}, "momentum is 1.0"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0"),
    ],
)
def test_settings_are_checked(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        TrainSettings(**options)  # type: ignore[arg-type]


def test_cuda_without_a_device_is_refused() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    x, y = make_series(8)
    with pytest.raises(InputError, match="sees no CUDA device"):
        train_model(small_net(), x, y, TrainSettings(device="cuda"))
