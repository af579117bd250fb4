"""l1, l2 and random: once, as the L1 paper, and in steps."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from edgeprune.prune import L1Norm, find_units, prune_channels, recalibrate_batchnorm, reset_parameters, select_lowest
from edgeprune.prune.bench import AccuracyLimit, Bench
from edgeprune.prune.criteria import RandomScore
from edgeprune.prune.methods import make_method
from edgeprune.prune.methods.filters import divide_ratio
from edgeprune.prune.methods.structured import ChannelPruner
from edgeprune.prune.schedule import ScheduleResult, State
from tests.prune.methods.benches import (
    RECIPE,
    SizeScoredBench,
    check_exportable,
    count_parameters,
    equal_states,
    list_widths,
    tiny_bench,
)
from tests.prune.raised import Raised, raise_network, raise_zoo
from tests.prune.random_networks import RandomNetwork
from tests.prune.test_units import SHAPE, DepthwiseAndShuffle, FrozenBetween, Residual

STEPWISE = {"iterations": 3, "step_epochs": 1}


def test_l1_removes_the_filters_of_least_norm_and_copies_the_others() -> None:
    bench = tiny_bench()
    result = make_method("l1", "none").run(bench)
    assert list_widths(result) == {"conv1": 3, "conv2": 4, "fc": 2}
    first, second = (bench.base.get_submodule(name).weight.detach().numpy() for name in ("conv1", "conv2"))
    kept, kept_second = (np.sort(np.argsort(np.abs(w).sum((1, 2)))[len(w) // 2 :]) for w in (first, second))
    assert (result.module.get_submodule("conv1").weight.detach().numpy() == first[kept]).all()
    assert (result.module.get_submodule("conv2").weight.detach().numpy() == second[kept_second][:, kept]).all()
    assert list(result.variants) == ["pruned"]
    assert bench.trainings == []


def test_l1_once_is_the_engine_step_by_step() -> None:
    """Scores, selection, folding over batches of 256, recalibration, the recipe's training; scratch without folding."""
    bench = tiny_bench()
    units = find_units(bench.base, bench.example)
    dead = select_lowest(units, L1Norm().score_units(bench.base, units), 0.5)
    folded = prune_channels(bench.base, bench.example, dead, fold_batches=[torch.from_numpy(bench.x_train)]).module
    pruned = recalibrate_batchnorm(folded, bench.x_train)
    finetuned = make_method("l1").run(bench)
    assert {key: label for key, (label, _) in finetuned.variants.items()} == {
        "pruned": "Pruned",
        "retrained": "Finetuned",
    }
    assert equal_states(finetuned.variants["pruned"][1], pruned)
    assert equal_states(finetuned.module, bench.train(pruned, "again").module)
    scratch = make_method("l1", "scratch").run(bench)
    fresh = reset_parameters(prune_channels(bench.base, bench.example, dead).module, bench.seed)
    assert scratch.variants["retrained"][0] == "Scratch-trained"
    assert equal_states(scratch.module, bench.train(fresh, "again").module)
    assert [row["title"] for row in bench.trainings] == ["Finetuned", "again", "Scratch-trained", "again"]


def test_layers_that_keep_all_their_channels_are_named() -> None:
    result = make_method("l1", "none", ratio=0.15).run(tiny_bench())  # floor(0.9) of 6
    assert result.record["not_shrunk"] == [
        {"layer": "conv1", "reason": "none of its 6 channels was selected"},
        {"layer": "fc", "reason": "model output"},
    ]
    everywhere = make_method("l1", "none", ratio=0.15, scope="global").run(tiny_bench())
    assert everywhere.record["not_shrunk"] == []


@pytest.mark.parametrize("name", ["l1", "l2", "random"])
def test_steps_end_at_the_same_widths_as_one_step(name: str) -> None:
    bench = tiny_bench()
    once = make_method(name, "none", ratio=0.6).run(bench)
    result = make_method(name, ratio=0.6, **STEPWISE).run(bench)
    assert list_widths(result) == list_widths(once) == {"conv1": 3, "conv2": 4, "fc": 2}  # floor(3.6), floor(4.8) gone
    assert [row["title"] for row in bench.trainings] == ["step 1", "step 2", "step 3", "Finetuned"]
    assert [row["removed_units"] for row in result.record["steps"]] == [3, 2, 2]  # floor(1.58, 2.74, 3.6 and 2.1, ...)
    assert result.record["steps"][-1]["parameters"] == count_parameters(result.module)
    assert result.record["ended_by"] == "iterations"
    if name == "random":  # the others make the same net with other numbers
        check_exportable(result.module)


def test_shares_of_the_steps() -> None:
    """Each removes the same factor of what is left."""
    assert divide_ratio(0.5, 1) == [0.5]
    assert divide_ratio(0.875, 3) == pytest.approx([0.5, 0.75, 0.875])
    assert divide_ratio(0.9, 7)[-1] == 0.9  # to the bit: the last share decides the final widths


@pytest.mark.parametrize("options", [{}, STEPWISE])
def test_equal_seeds_give_equal_nets(options: dict[str, int]) -> None:
    runs = [make_method("random", **options).run(tiny_bench()).module for _ in range(2)]
    assert equal_states(*runs)
    other = make_method("random", **options).run(tiny_bench(recipe=replace(RECIPE, seed=1))).module
    assert not equal_states(runs[0], other)


def test_steps_trained_from_scratch_in_the_end() -> None:
    """The architecture has no biases that folding added on the way."""
    result = make_method("l1", "scratch", **STEPWISE).run(tiny_bench())
    assert list(result.variants) == ["pruned", "retrained"]
    assert list_widths(result) == {"conv1": 3, "conv2": 4, "fc": 2}
    assert result.module.get_submodule("conv1").bias is None


def test_an_accuracy_limit_ends_the_steps_at_the_last_net_within() -> None:
    """The score is the share of parameters left: .5 is passed in the third of five steps."""
    tiny = tiny_bench()
    bench = SizeScoredBench(**{**vars(tiny), "limit": AccuracyLimit("accuracy", 0.5, 1.0)})
    result = make_method("l1", ratio=0.8, iterations=5, step_epochs=1).run(bench)
    within = [row["within_limit"] for row in result.record["steps"]]
    assert result.record["ended_by"] == "accuracy limit"
    assert within == [True] * (len(within) - 1) + [False]
    assert 1 < len(within) < 5
    assert count_parameters(result.module) == result.record["steps"][-2]["parameters"]
    assert bench.score(result.module) >= 0.5
    list_widths(result)


def test_nothing_within_the_limit_gives_the_base_back() -> None:
    tiny = tiny_bench()
    bench = SizeScoredBench(**{**vars(tiny), "limit": AccuracyLimit("accuracy", 0.01, 1.0), "trainings": []})
    result = make_method("l1", **STEPWISE).run(bench)
    assert result.record["removed_units"] == 0
    assert equal_states(result.module, bench.base)
    assert [row["title"] for row in bench.trainings] == ["step 1"]


def test_a_final_training_that_leaves_the_limit_is_not_deployed() -> None:
    class Spoiled(Bench):
        """Scores what has had the full recipe with 0."""

        def score(self, module: nn.Module, metric: str | None = None) -> float:
            return float(self.trainings[-1]["title"] != "Finetuned")

    bench = Spoiled(**{**vars(tiny_bench()), "limit": AccuracyLimit("accuracy", 0.1, 1.0), "trainings": []})
    result = make_method("l1", **STEPWISE).run(bench)
    assert list(result.variants) == ["finetuned", "pruned"]
    assert result.module is result.variants["pruned"][1]
    assert result.record["retraining_rejected"] is True


def make_raised_bench(case: Raised) -> Bench:
    """float32; for pruning without training."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(8, *case.example.shape[1:])).astype(np.float32)
    y = np.arange(8) % 2
    return Bench(copy.deepcopy(case.module).float(), x, y, x, y, RECIPE)


def check_tracing(case: Raised) -> None:
    """What a pruner says is gone after some steps, in units of the base, is just what the base lacks then."""
    bench = make_raised_bench(case)
    pruner = ChannelPruner(RandomScore(5), [0.2, 0.4, 0.6], "global")
    state, counts = State(bench.base), []
    while (pruned := pruner.prune(state, bench)) is not None:
        state = pruned.state
        counts.append(pruned.figures["removed_units"])
    gone = pruner.get_removed(make_result(state, len(counts)))
    units = find_units(bench.base, bench.example)
    assert len(gone) == sum(counts)
    at_once = prune_channels(bench.base, bench.example, gone).module
    parameters = dict(state.module.named_parameters())
    for name, _axis in units.filters:  # biases take what is folded
        assert torch.equal(dict(at_once.named_parameters())[name], parameters[name])
    assert pruner.get_removed(make_result(state, 0)) == frozenset()


def make_result(state: State, steps: int) -> ScheduleResult:
    """Of a schedule that ended with the step after so many."""
    rows = [*({"within_limit": None} for _ in range(steps)), {"within_limit": False}]
    return ScheduleResult(state, tuple(rows), "accuracy limit")


@pytest.mark.parametrize("model", [Residual, DepthwiseAndShuffle, FrozenBetween])
def test_units_are_traced_through_the_steps(model: type[nn.Module]) -> None:
    check_tracing(raise_network(model(), SHAPE))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["lite", "resnet20", "mobilenet_v2", "densenet", "shufflenet", "shared_conv", "se_net", "gru", "vit"]
)
def test_units_are_traced_through_the_zoo(name: str) -> None:
    check_tracing(raise_zoo(name))


def test_channels_that_pruning_frees_stay() -> None:
    """In this network a channel is pinned at first, and no longer when others are gone."""
    network = RandomNetwork(32)
    check_tracing(raise_network(network, (2, *network.spatial)))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_units_are_traced_through_random_networks(seed: int) -> None:
    network = RandomNetwork(seed)
    check_tracing(raise_network(network, (2, *network.spatial)))
