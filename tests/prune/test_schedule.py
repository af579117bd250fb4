"""Schedules: what a step starts from, when it ends, when the whole ends, and what is given back."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, fx

from edgeprune.prune import TrainingInterruptedError, find_units
from edgeprune.prune import checkpoint as checkpoint_module
from edgeprune.prune.bench import AccuracyLimit, Bench
from edgeprune.prune.dsp import draw_weights
from edgeprune.prune.information import Flow, InformationFlow, Kept, Probe
from edgeprune.prune.masks import Masks, apply_masks, keep_all
from edgeprune.prune.schedule import Pruned, Pruner, ScheduleResult, State, run_schedule
from edgeprune.prune.stopping import AccuracyRule, FlowReference, FlowRule, RuleMaker
from edgeprune.prune.train_settings import TrainSettings
from tests.prune.test_checkpoint import Interrupter
from tests.prune.test_training import make_series, small_net

RECIPE = TrainSettings(epochs=3, batch_size=16, learning_rate=0.02, device="cpu")


class MaskOne(Pruner):
    """Masks one more filter of `conv` in each step, until one is left; remembers what it was shown."""

    def __init__(self) -> None:
        self.seen: list[fx.GraphModule] = []

    def prune(self, state: State, bench: Bench) -> Pruned | None:
        self.seen.append(state.module)
        masks = {name: mask.clone() for name, mask in (state.masks or keep_all(state.module)).items()}
        alive = torch.nonzero(masks["conv.weight"].flatten(1).any(1))[:, 0].tolist()
        if len(alive) == 1:
            return None
        masks["conv.weight"][alive[0]] = False
        return Pruned(State(apply_masks(state.module, masks), masks), {"masked": alive[0]})


class CutOne(Pruner):
    """Removes the first channel of `conv` in each step."""

    def prune(self, state: State, bench: Bench) -> Pruned | None:
        units = find_units(state.module, bench.example)
        layer = next(layer for layer in units.layers if layer.name == "conv")
        if layer.width == 1:
            return None
        result = bench.prune(state.module, {int(layer.units[0])})
        return Pruned(State(result.module), removed=(units, result.removed))


def make_bench(**changes: Any) -> Bench:
    x, y = make_series(40)
    x_val, y_val = make_series(20, seed=5)
    return replace(Bench(small_net(), x, y, x_val, y_val, RECIPE), **changes)


def run(bench: Bench, pruner: Pruner, **options: Any) -> ScheduleResult:
    settings = {"iterations": 2, "step_epochs": 2, "stop": "epochs", "epsilon": 0.1, **options}
    return run_schedule(bench, pruner, **settings)


def assert_same_weights(one: fx.GraphModule, other: fx.GraphModule) -> None:
    state = other.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in one.state_dict().items())


def test_each_step_prunes_what_the_last_one_trained() -> None:
    bench, pruner = make_bench(), MaskOne()
    before = copy.deepcopy(bench.base)
    result = run(bench, pruner)
    assert [row["step"] for row in result.steps] == [1, 2]
    assert [row["epochs"] for row in result.steps] == [2, 2]
    assert [row["masked"] for row in result.steps] == [0, 1]
    assert [row["stopped_by"] for row in result.steps] == ["epochs", "epochs"]
    assert [row["weights_left"] for row in result.steps] == [1 - 3 / 20, 1 - 6 / 20]  # 12 of conv, 8 of the head
    assert {row["parameters"] for row in result.steps} == {12 + 4 + 8 + 8 + 2 + 4}  # masks are not compression
    assert result.ended_by == "iterations"
    assert result.record["retraining_epochs"] == 4
    assert [row["title"] for row in bench.trainings] == ["step 1", "step 2"]
    assert pruner.seen[0] is bench.base
    assert not result.state.module.conv.weight[:2].any()
    assert result.state.module.conv.weight[2:].all()
    assert not result.state.module.training
    assert_same_weights(bench.base, before)
    assert result.steps[-1]["validation_metric"] == bench.score(result.state.module)


def test_it_ends_where_nothing_is_left() -> None:
    for pruner in (MaskOne(), CutOne()):
        result = run(make_bench(), pruner, iterations=None, step_epochs=1)
        assert (result.ended_by, len(result.steps)) == ("nothing left", 3)
    assert [row["parameters"] for row in result.steps] == [38 - 8, 38 - 16, 38 - 24]
    assert [row["weights_left"] for row in result.steps] == [None] * 3


def test_an_accuracy_limit_gives_back_the_last_net_within_it(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([0.95, 0.94, 0.90])
    monkeypatch.setattr(Bench, "score", lambda *_: next(scores))
    bench, pruner = make_bench(limit=AccuracyLimit("accuracy", 0.01, 0.95)), MaskOne()
    result = run(bench, pruner, iterations=9, step_epochs=1)
    assert [row["within_limit"] for row in result.steps] == [True, True, False]
    assert result.ended_by == "accuracy limit"
    assert result.state.module is pruner.seen[2]  # what the third step was shown: the second one's
    assert not result.state.masks["conv.weight"][:2].any()
    assert result.state.masks["conv.weight"][2:].all()

    scores = iter([0.5])
    nothing = run(bench, MaskOne(), iterations=9, step_epochs=1)
    assert nothing.state.module is bench.base
    assert not nothing.state.masks


def test_rewinding_goes_on_from_the_base_or_from_initial_weights() -> None:
    class Recording(Bench):
        """Keeps what trainings start from."""

        def train(self, module: fx.GraphModule, title: str, **options: Any) -> Any:
            starts[title] = copy.deepcopy(module)
            return super().train(module, title, **options)

    for rewind in ("none", "warmup", "init"):
        starts: dict[str, fx.GraphModule] = {}
        bench, pruner = Recording(**vars(make_bench())), MaskOne()
        result = run(bench, pruner, rewind=rewind)
        if rewind == "none":
            assert_same_weights(starts["step 2"], apply_masks(pruner.seen[1], result.state.masks))
        elif rewind == "warmup":
            assert pruner.seen[0] is bench.base
            assert_same_weights(starts["step 1"], bench.base)
            assert_same_weights(starts["step 2"], bench.base)
        else:
            drawn = draw_weights(bench.base, bench.seed)
            for title in ("training from new weights", "step 1", "step 2"):
                assert_same_weights(starts[title], drawn)
            assert bench.trainings[0]["epochs"] == RECIPE.epochs
            assert not torch.equal(pruner.seen[0].conv.weight, bench.base.conv.weight)
        # whatever it starts from, masked weights are zero in training and after
        assert not result.state.module.conv.weight[:2].any()


def test_rewinding_cuts_the_origin_as_the_net_was_cut() -> None:
    bench = make_bench()
    result = run(bench, CutOne(), rewind="warmup", step_epochs=1, recipe=replace(RECIPE, epochs=1, learning_rate=1e-9))
    torch.testing.assert_close(result.state.module.conv.weight, bench.base.conv.weight[2:], atol=1e-6, rtol=0)


class Scripted(Flow):
    """A flow whose values are given; Phi* = (3, 4), of norm 5."""

    axes: Mapping[str, tuple[tuple[str, int], ...]] = {"flow": (("none", 0),)}

    def __init__(self, values: Sequence[Sequence[float]]) -> None:
        self._values = iter([[3.0, 4.0], *values])

    def make_probe(self, module: fx.GraphModule) -> Probe:
        return lambda x, y: {"flow": torch.tensor(next(self._values), dtype=torch.float64)}

    def find_alive(self, name: str, masks: Masks) -> Tensor | None:
        return None


def make_scripted_rule(bench: Bench, epsilon: float) -> FlowRule:
    # distances: 5/5, 1/5, 0.5/5, 0/5
    flow = Scripted([[0.0, 0.0], [3.0, 5.0], [3.5, 4.0], [3.0, 4.0]])
    return FlowRule(FlowReference(flow, bench.base, bench), epsilon, Kept(), {})


@pytest.mark.parametrize(("epsilon", "epochs"), [(0.3, 2), (0.2, 2), (0.19, 3), (0.1, 3), (0.01, 4)])
def test_a_training_ends_in_the_epoch_whose_distance_is_within_epsilon(epsilon: float, epochs: int) -> None:
    bench = make_bench()
    rule = make_scripted_rule(bench, epsilon)
    result = bench.train(bench.base, "step", recipe=replace(RECIPE, epochs=6), hook=rule)
    assert rule.history == pytest.approx([1, 0.2, 0.1, 0][:epochs])
    assert (len(result.history), result.best_epoch, result.stopped_by) == (epochs, epochs, "the method")
    assert rule.has_fired
    fresh = make_scripted_rule(bench, epsilon)
    fresh.set_state(rule.get_state())
    assert fresh.history == rule.history
    assert fresh.describe() == rule.describe() != make_scripted_rule(bench, epsilon / 2).describe()


def test_a_training_ends_once_the_score_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = make_bench()
    scores = iter([0.7, 0.8, 0.9, 0.95])
    rule = AccuracyRule(bench, 0.9)
    monkeypatch.setattr(Bench, "score", lambda *_: next(scores))
    result = bench.train(bench.base, "step", recipe=replace(RECIPE, epochs=6), hook=rule)
    assert (len(result.history), rule.history) == (3, [0.7, 0.8, 0.9])


def test_the_score_that_ends_a_training_is_that_of_its_result() -> None:
    bench = make_bench()
    rule = RuleMaker("accuracy", 0.1, bench.base, bench).make_rule(Kept(), {})
    trained = bench.train(bench.base, "step", recipe=replace(RECIPE, epochs=4), hook=rule)
    assert rule.history[-1] == bench.score(trained.module)
    assert all(score < bench.score(bench.base) for score in rule.history[:-1])


def test_flow_rules_compare_with_the_dense_net() -> None:
    bench = make_bench()
    result = run(bench, CutOne(), stop="incop-if", epsilon=1e-3)
    flow = InformationFlow(bench.base)
    x, y = torch.from_numpy(bench.x_train), torch.from_numpy(bench.y_train)
    phi, reference = flow.measure(result.state.module, x, y), flow.measure(bench.base, x, y)
    (expected,), (found,) = reference.values(), phi.values()  # conv -> head: (4, 2), then (2, 2)
    by_hand = float((found - expected[2:]).norm() / expected[2:].norm())
    assert result.steps[-1]["phi"][-1] == pytest.approx(by_hand, rel=1e-6)  # weights of the last epoch
    assert len(result.steps[-1]["phi"]) == 2
    assert run(bench, CutOne(), stop="incop-gf", epsilon=1e9).record["retraining_epochs"] == 2  # one each


@pytest.mark.usefixtures("copies_every_epoch")
@pytest.mark.parametrize("stop", ["incop-if", "incop-gf"])
def test_an_interrupted_schedule_goes_on_to_the_bit(tmp_path: Path, stop: str) -> None:
    options = {"stop": stop, "epsilon": 1e-9, "iterations": 2, "step_epochs": 4}
    undisturbed = run(make_bench(), MaskOne(), **options)
    epochs = undisturbed.record["retraining_epochs"]
    with pytest.raises(TrainingInterruptedError):
        run(make_bench(checkpoints=tmp_path, progress=Interrupter(epochs - 1)), MaskOne(), **options)
    progress = Interrupter()
    resumed = run(make_bench(checkpoints=tmp_path, progress=progress), MaskOne(), **options)
    assert resumed.record == undisturbed.record
    assert_same_weights(resumed.state.module, undisturbed.state.module)
    assert progress.epochs < epochs


@pytest.fixture
def copies_every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint_module, "SECONDS_BETWEEN_COPIES", 0.0)


def test_phi_star_is_a_value_of_the_dense_net_alone() -> None:
    bench = make_bench()
    first = FlowReference(InformationFlow(bench.base), bench.base, bench)
    second = FlowReference(InformationFlow(bench.base), bench.base, bench)
    assert first.digest == second.digest
    changed = replace(bench, x_train=np.flip(bench.x_train, -1).copy())
    assert FlowReference(InformationFlow(bench.base), bench.base, changed).digest != first.digest
