"""Taylor pruning: step by step, to a share or to the accuracy limit."""

import numpy as np
import pytest
import torch

from edgeprune.errors import UnsupportedModelError
from edgeprune.load import raise_module
from edgeprune.prune import find_units
from edgeprune.prune.bench import AccuracyLimit, Bench
from edgeprune.prune.losses import balance_classes
from edgeprune.prune.methods import make_method
from edgeprune.prune.methods import taylor as taylor_module
from edgeprune.prune.methods.taylor import list_shares
from edgeprune.prune.taylor import TaylorScore
from tests.prune.methods.benches import (
    RECIPE,
    SizeScoredBench,
    TinyNet,
    check_exportable,
    count_parameters,
    draw_samples,
    equal_states,
    list_widths,
    tiny_bench,
)

QUICK = {"step": 0.3, "step_epochs": 1}


def test_steps_take_a_share_of_what_is_left_up_to_the_ratio() -> None:
    assert list_shares(0.5, 0.3) == pytest.approx([0.3, 0.5])  # .51 would be too much
    assert list_shares(0.51, 0.3) == pytest.approx([0.3, 0.51])  # no step of nothing behind it
    assert list_shares(0.75, 0.5) == [0.5, 0.75]
    assert list_shares(0.2, 0.5) == [0.2]
    assert list_shares(0.0, 0.5) == []


def test_prunes_all_layers_together_to_the_ratio() -> None:
    bench = tiny_bench()
    result = make_method("taylor", ratio=0.6, **QUICK).run(bench)
    widths = list_widths(result)
    assert 14 - widths["conv1"] - widths["conv2"] == 8  # floor(.6 * 14)
    assert [row["removed_units"] for row in result.record["steps"]] == [4, 3, 1]  # floor(4.2), floor(7.14), floor(8.4)
    assert [row["title"] for row in bench.trainings] == ["step 1", "step 2", "step 3", "Finetuned"]
    assert [(key, label) for key, (label, _) in result.variants.items()] == [
        ("pruned", "Pruned"),
        ("retrained", "Finetuned"),
    ]
    check_exportable(result.module)


def test_the_first_step_removes_the_lowest_scores() -> None:
    bench = tiny_bench()
    units = find_units(bench.base, bench.example)
    scores = TaylorScore(bench.x_train, bench.y_train).score_units(bench.base, units)
    lowest = sorted(scores, key=scores.__getitem__)[:4]
    result = make_method("taylor", "none", ratio=0.3, **QUICK).run(bench)
    assert list_widths(result) == {
        "conv1": 6 - sum(unit < 6 for unit in lowest),
        "conv2": 8 - sum(unit >= 6 for unit in lowest),
        "fc": 2,
    }
    assert list(result.variants) == ["pruned"]


def test_layers_one_by_one() -> None:
    result = make_method("taylor", "none", scope="layer", ratio=0.5, **QUICK).run(tiny_bench())
    assert list_widths(result) == {"conv1": 3, "conv2": 4, "fc": 2}


def test_ends_by_itself_at_the_accuracy_limit() -> None:
    """The score is the share of parameters left; the ratio alone would go far below .6."""
    bench = SizeScoredBench(**{**vars(tiny_bench()), "limit": AccuracyLimit("accuracy", 0.4, 1.0), "trainings": []})
    result = make_method("taylor", ratio=0.9, step=0.1, step_epochs=1).run(bench)
    steps = result.record["steps"]
    assert result.record["ended_by"] == "accuracy limit"
    assert [row["within_limit"] for row in steps] == [True] * (len(steps) - 1) + [False]
    assert steps[-1]["validation_metric"] < 0.6 <= bench.score(result.module)
    assert count_parameters(result.module) == steps[-2]["parameters"]
    list_widths(result)


def test_equal_seeds_give_equal_nets() -> None:
    first, second = (make_method("taylor", **QUICK).run(tiny_bench()).module for _ in range(2))
    assert equal_states(first, second)


def test_balanced_classes_weigh_in_the_score(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def spy(x: np.ndarray, y: np.ndarray, weights: torch.Tensor | None) -> TaylorScore:
        seen.append(weights)
        return TaylorScore(x, y, weights)

    monkeypatch.setattr(taylor_module, "TaylorScore", spy)
    bench = tiny_bench(recipe=RECIPE.__class__(**{**vars(RECIPE), "class_weights": "balanced"}))
    make_method("taylor", "none", ratio=0.1, **QUICK).run(bench)
    assert torch.equal(seen[0], balance_classes(bench.y_train, 2))


def test_what_is_no_classifier_is_refused() -> None:
    class Multilabel(TinyNet):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.sigmoid(super().forward(x))

    x, y = draw_samples()
    base = raise_module(Multilabel().eval(), torch.from_numpy(x[:2]))
    with pytest.raises(UnsupportedModelError, match="sigmoid"):
        make_method("taylor").run(Bench(base, x, y, x[:0], y[:0], RECIPE))
