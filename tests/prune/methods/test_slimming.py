"""Slimming and prox-slimming from bench to a pruned net that is exported (papers.md P3)."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import fx, nn

from edgeprune.errors import InputError, UnsupportedModelError
from edgeprune.export import export_onnx, read_onnx
from edgeprune.load import raise_module
from edgeprune.prune import find_units, predict
from edgeprune.prune.bench import Bench
from edgeprune.prune.methods import make_method
from edgeprune.prune.methods.slimming import PAPER_STEPS, fit_weight, make_sparse_recipe
from edgeprune.prune.train_settings import TrainSettings
from tests.prune.test_checkpoint import Interrupter
from tests.prune.test_training import make_series

# 60 epochs x 2 steps; a scale of 1 that the loss does not care for is at 0 in the end from about PROX on
RECIPE = TrainSettings(epochs=60, batch_size=32, optimizer="sgd", learning_rate=0.05, device="cpu")
SLIM: dict[str, Any] = {"sparsity_weight": 1.25e-4}
PROX: dict[str, Any] = {"sparsity_weight": 6e-3}


class Unpadded(nn.Module):
    """Two convolutions with BatchNorm and one without, no padding: a constant channel is constant everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv1d(1, 6, 5, bias=False), nn.BatchNorm1d(6)
        self.conv2, self.norm2 = nn.Conv1d(6, 8, 3, bias=False), nn.BatchNorm1d(8)
        self.conv3, self.head = nn.Conv1d(8, 4, 3), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x))))))
        return self.head(torch.relu(self.conv3(x)).mean(-1))


@cache
def raise_net() -> fx.GraphModule:
    torch.manual_seed(0)
    return raise_module(Unpadded().eval(), torch.zeros(2, 1, 16))


def make_bench(base: fx.GraphModule | None = None, **recipe: Any) -> Bench:
    x, y = make_series(64)
    return Bench(base or raise_net(), x[:52], y[:52], x[52:], y[52:], replace(RECIPE, **recipe))


def count_widths(record: Any) -> dict[str, int]:
    return {row["layer"]: row["after"] for row in record["widths"]}


def export(module: fx.GraphModule) -> None:
    read_onnx(export_onnx(module, (1, 16)), name="slim")


def assert_same(one: fx.GraphModule, other: fx.GraphModule) -> None:
    for (name, a), b in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_slimming_removes_the_smallest_scales_of_all_layers() -> None:
    bench = make_bench()
    result = make_method("slimming", ratio=0.5, **SLIM).run(bench)
    assert list(result.variants) == ["sparse", "pruned", "retrained"]
    sparse = result.variants["sparse"][1]
    scales = {name: sparse.get_parameter(f"{name}.weight").detach().abs() for name in ("norm1", "norm2")}
    ranked = torch.cat(list(scales.values())).sort().values
    assert result.record["removed_units"] == 7  # half of 6 + 8
    assert result.record["threshold"] == pytest.approx(float(ranked[6]))
    for layer, norm in (("conv1", "norm1"), ("conv2", "norm2")):
        assert count_widths(result.record)[layer] == int((scales[norm] > ranked[6]).sum())
    assert result.record["kept_without_scales"] == [
        {"layer": "conv3", "reason": "no trainable BatchNorm scale on the way to head"}
    ]
    assert [row["title"] for row in bench.trainings] == ["sparse training", "Finetuned"]
    assert [row["epochs"] for row in bench.trainings] == [60, 60]
    assert bench.score(result.module) > 0.9
    export(result.module)


def test_slimming_per_layer_from_scratch_is_the_same_twice() -> None:
    options = {"ratio": 0.5, "scope": "layer", "start": "scratch", **SLIM}
    first, second = (make_method("slimming", "scratch", **options).run(make_bench(epochs=4)) for _ in range(2))
    assert count_widths(first.record) == {"conv1": 3, "conv2": 4, "conv3": 4, "head": 2}
    assert_same(first.module, second.module)
    assert first.record == second.record


def test_the_penalty_makes_scales_smaller() -> None:
    """Against the same training with next to no penalty. The median: a few scales grow instead, for the others."""
    runs = [make_method("slimming", "none", sparsity_weight=weight).run(make_bench()) for weight in (1e-9, 1.25e-4)]
    assert np.median(runs[1].record["scores"]) < 0.5 * np.median(runs[0].record["scores"])


def test_prox_slimming_removes_exact_zeros_and_the_output_stays() -> None:
    bench = make_bench()
    result = make_method("prox-slimming", "none", **PROX).run(bench)
    assert 0 < result.record["removed_units"] == result.record["zero_scores"] < 14
    sparse = result.variants["sparse"][1]
    assert result.record["zero_scores"] == sum(
        int((sparse.get_parameter(f"{name}.weight") == 0).sum()) for name in ("norm1", "norm2")
    )
    # float32: folding adds the constants in another order, recalibration measures the same statistics again
    before, after = predict(sparse, bench.x_val), predict(result.module, bench.x_val)
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4 * np.abs(before).max())
    assert list(result.variants) == ["sparse", "pruned"]
    export(result.module)


def test_prox_slimming_from_scratch_is_the_same_twice_and_can_be_fine_tuned() -> None:
    options = {"start": "scratch", **PROX}
    first, second = (make_method("prox-slimming", "finetune", **options).run(make_bench(epochs=4)) for _ in range(2))
    assert list(first.variants) == ["sparse", "pruned", "retrained"]
    assert_same(first.module, second.module)
    assert first.record == second.record


def test_nothing_is_removed_where_no_scale_became_zero() -> None:
    progress = Interrupter()
    bench = replace(make_bench(epochs=2), progress=progress)
    result = make_method("prox-slimming", "none", **PROX).run(bench)
    assert result.record["removed_units"] == 0
    assert any(note.startswith("prox-slimming: no scale became zero") for note in progress.notes)


def test_a_layer_keeps_a_channel_when_all_its_scales_are_zero() -> None:
    progress = Interrupter()
    bench = replace(make_bench(), progress=progress)
    result = make_method("prox-slimming", "none", sparsity_weight=2.0).run(bench)
    assert result.record["zero_scores"] == 14
    assert result.record["emptied_layers"] == ["conv1", "conv2"]
    assert progress.notes[-2].startswith("prox-slimming: all scales of conv1, conv2 became zero")
    assert count_widths(result.record) == {"conv1": 1, "conv2": 1, "conv3": 4, "head": 2}
    assert result.module.get_parameter("norm1.weight").item() != 0  # it keeps its gamma


def test_slimming_keeps_a_channel_in_every_layer() -> None:
    result = make_method("slimming", "none", ratio=0.95, **SLIM).run(make_bench(epochs=2))
    assert min(count_widths(result.record).values()) == 1


def test_the_sparse_training_is_by_sgd_to_its_last_epoch() -> None:
    adam = TrainSettings(epochs=7, weight_decay=1e-4, early_stopping="macro_f1")
    expected = TrainSettings(epochs=7, weight_decay=1e-4, optimizer="sgd", learning_rate=0.1, momentum=0.9)
    assert make_sparse_recipe(replace(make_bench(), recipe=adam)) == expected
    own = make_bench(learning_rate=0.02, momentum=0.5)
    assert make_sparse_recipe(own) == own.recipe


def test_lambda_is_fitted_to_the_number_of_steps() -> None:
    """160 epochs of CIFAR-10 in batches of 64, the rate cut to a tenth at 50 and 75 %: the papers' own lambda."""
    batches = -(-50_000 // 64)
    assert pytest.approx(160 * batches * (0.5 + 0.25 / 10 + 0.25 / 100), rel=1e-4) == PAPER_STEPS
    bench = make_bench(batch_size=16, epochs=100)  # 52 samples: 3 batches of 16 and one of 4
    assert fit_weight(1e-4, bench) == pytest.approx(1e-4 * 66_000 / (100 * 4))
    assert fit_weight(1e-4, make_bench(epochs=1)) == pytest.approx(1e-4 * 66_000 / 300)


def test_nets_without_batch_norm_are_refused() -> None:
    net = nn.Sequential(nn.Conv1d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(56, 2))
    bench = make_bench(raise_module(net.eval(), torch.zeros(2, 1, 16)))
    assert find_units(bench.base, bench.example).groups
    for name in ("slimming", "prox-slimming"):
        with pytest.raises(UnsupportedModelError, match=f"^{name}: none of this model's channels .* --method l1"):
            make_method(name).run(bench)


def test_options_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match=r"--ratio does not go with --method prox-slimming: .* --sparsity-weight"):
        make_method("prox-slimming", ratio=0.5)
