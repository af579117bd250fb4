"""DSP from end to end on a small net: what it gives back, and what it refuses."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import fx, nn

from edgeprune.errors import InputError, UnsupportedModelError
from edgeprune.load import raise_module
from edgeprune.models import build_model
from edgeprune.prune import DspResult, DspSettings, TrainSettings, predict, recalibrate_batchnorm, run_dsp
from tests.prune.test_training import Recorder, make_series

RECIPE = TrainSettings(epochs=25, batch_size=16, learning_rate=0.01)
SETTINGS = DspSettings(
    strength=3e-3,
    retrain=("finetune", "scratch"),
    pretraining=RECIPE,
    retraining=RECIPE,
    finetuning=replace(RECIPE, epochs=8),
)


def count_trainable(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


@functools.cache
def small_lite() -> fx.GraphModule:
    torch.manual_seed(0)
    return raise_module(build_model("lite", in_channels=1, classes=2, filters=6).eval(), torch.zeros(2, 1, 16))


@functools.cache
def small_run() -> DspResult:
    x, y = make_series(48)
    return run_dsp(small_lite(), x, y, SETTINGS, progress=Recorder())


def test_variants_are_the_papers_and_get_smaller_and_still_classify() -> None:
    result = small_run()
    assert list(result.variants) == ["Pretrained", "Pruned", "Finetuned", "Scratch-trained"]
    counts = [count_trainable(module) for module in result.variants.values()]
    assert counts[0] == count_trainable(small_lite())
    assert counts[1] == counts[2] == counts[3] < 0.9 * counts[0]
    x, y = make_series(100, seed=9)
    for name in ("Finetuned", "Scratch-trained"):
        assert (predict(result.variants[name], x).argmax(1) == y).mean() > 0.9, name
    assert not any(module.training for module in result.variants.values())


def test_handcrafted_filters_survive_in_every_variant() -> None:
    frozen = {name: p for name, p in small_lite().named_parameters() if not p.requires_grad}
    assert len(frozen) == 11
    for module in small_run().variants.values():
        for name, parameter in frozen.items():
            assert torch.equal(module.get_parameter(name), parameter)
            assert not module.get_parameter(name).requires_grad


def test_every_variant_has_recalibrated_statistics() -> None:
    x, _ = make_series(48)
    for name, module in small_run().variants.items():
        again = recalibrate_batchnorm(module, x)
        for a, b in zip(module.buffers(), again.buffers(), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0, msg=name)


def test_removed_channels_are_the_inactive_ones() -> None:
    result = small_run()
    inactive = sum(len(activity.inactive) for activity in result.activities)
    assert 0 < len(result.pruning.removed) <= inactive
    assert [len(activity.tensor.learnable) for activity in result.activities] == [18, 6, 6]
    shrunk = {width.layer: width.before - width.after for width in result.pruning.widths}
    assert sum(shrunk[f"convolutions.{index}"] for index in range(3)) > 0


def test_scratch_is_drawn_anew_and_reproducible() -> None:
    x, y = make_series(48)
    again = run_dsp(small_lite(), x, y, replace(SETTINGS, retrain=("scratch",)))
    assert again.finetuned is None
    assert again.scratch is not None
    for a, b in zip(
        again.scratch.module.parameters(), small_run().variants["Scratch-trained"].parameters(), strict=True
    ):
        assert torch.equal(a, b)


def test_start_from_the_trained_weights() -> None:
    x, y = make_series(48)
    short = replace(RECIPE, epochs=1, learning_rate=1e-6, seed=7)  # the net itself was drawn with seed 0
    settings = replace(SETTINGS, start="trained", pretraining=short, retrain=())
    result = run_dsp(small_lite(), x, y, settings)
    assert result.scratch is None
    old = small_lite().get_parameter("head.weight")
    torch.testing.assert_close(
        result.pretraining.module.get_parameter("head.weight"), old, rtol=0, atol=1e-5
    )  # 3 steps
    drawn = run_dsp(small_lite(), x, y, replace(settings, start="scratch"))
    assert not torch.allclose(drawn.pretraining.module.get_parameter("head.weight"), old, atol=1e-3)


class Scaled(nn.Module):
    """A bare trainable parameter: nothing says how to draw it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 6, 5)
        self.scale = nn.Parameter(torch.ones(1, 6, 1))
        self.head = nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head((torch.relu(self.conv(x) * self.scale)).mean(-1))


def make_scaled(seed: int) -> fx.GraphModule:
    torch.manual_seed(seed)
    return raise_module(Scaled().eval(), torch.zeros(2, 1, 16))


def test_a_bare_parameter_needs_a_factory() -> None:
    x, y = make_series(32)
    settings = replace(SETTINGS, retrain=("scratch",), pretraining=replace(RECIPE, epochs=2), retraining=RECIPE)
    with pytest.raises(UnsupportedModelError, match="parameter scale"):
        run_dsp(make_scaled(0), x, y, settings)
    result = run_dsp(make_scaled(0), x, y, settings, factory=make_scaled)
    assert result.scratch is not None
    assert result.scratch.module.get_parameter("scale").shape == result.pruning.module.get_parameter("scale").shape
    with pytest.raises(UnsupportedModelError, match="other parameters than the model"):
        run_dsp(make_scaled(0), x, y, settings, factory=lambda seed: small_lite())


def test_a_net_without_feature_maps_is_refused() -> None:
    x, y = make_series(32)
    net = raise_module(nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.ReLU(), nn.Linear(4, 2)), torch.zeros(2, 1, 16))
    with pytest.raises(UnsupportedModelError, match=r"no activation in this model.*--method l1"):
        run_dsp(net, x, y, SETTINGS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strength": 0.0}, "strength is 0.0"),
        ({"start": "pretrained"}, "start is 'pretrained'; allowed: scratch, trained"),
        ({"retrain": ("scratchy",)}, "retrain holds 'scratchy'"),
        ({"tensor_weights": (float("nan"),)}, "tensor_weights"),
        ({"pretraining": TrainSettings(early_stopping="accuracy")}, "pretraining takes no early stopping"),
    ],
)
def test_settings_are_checked(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        DspSettings(**options)  # type: ignore[arg-type]


def test_early_stopping_of_retraining_uses_the_validation_samples() -> None:
    x, y = make_series(48)
    x_val, y_val = make_series(20, seed=2)
    recipe = replace(RECIPE, epochs=60, early_stopping="macro_f1", patience=2)
    settings = replace(SETTINGS, retrain=("scratch",), pretraining=replace(RECIPE, epochs=2), retraining=recipe)
    result = run_dsp(small_lite(), x, y, settings, x_val=x_val, y_val=y_val)
    assert result.scratch is not None
    assert result.scratch.history[0].validation_metric is not None
    assert np.isfinite(result.scratch.history[-1].loss)
