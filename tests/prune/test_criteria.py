"""Scores of units, and which of them are selected."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgeprune.errors import InputError
from edgeprune.prune import CRITERIA, ChannelUnits, Criterion, L1Norm, select_lowest
from edgeprune.prune.criteria import L2Norm, RandomScore
from edgeprune.prune.selection import LeftOver
from tests.prune.raised import Raised, raise_network, raise_zoo
from tests.prune.test_units import SHAPE, Chain, DepthwiseAndShuffle, Residual


@pytest.fixture(scope="module")
def chain() -> Raised:
    return raise_network(Chain(), SHAPE)


def make_scores(units: ChannelUnits, values: dict[int, float]) -> dict[int, float]:
    return {unit: values.get(unit, 1.0) for group in units.groups for unit in group.units}


def test_l1_norm_is_the_sum_of_absolute_weights_of_the_filter(chain: Raised) -> None:
    scores = L1Norm().score_units(chain.module, chain.units)
    assert sorted(scores) == list(range(9))
    weights = [*chain.module.conv1.weight.detach(), *chain.module.conv2.weight.detach()]
    assert scores == pytest.approx({unit: float(weight.abs().sum()) for unit, weight in enumerate(weights)})


def test_l1_norm_of_coupled_layers_is_the_sum_over_their_filters() -> None:
    case = raise_network(Residual(), SHAPE)
    scores = L1Norm().score_units(case.module, case.units)
    first, second = case.module.first.weight.detach(), case.module.second.weight.detach()
    assert scores[2] == pytest.approx(float(first[2].abs().sum() + second[3].abs().sum()))


def test_l1_norm_of_grouped_and_depthwise_filters() -> None:
    case = raise_network(DepthwiseAndShuffle(), SHAPE)
    scores = L1Norm().score_units(case.module, case.units)
    grouped, depthwise = case.module.grouped.weight.detach(), case.module.depthwise.weight.detach()
    expected = grouped[[0, 3]].abs().sum() + depthwise[0:4].abs().sum()
    assert scores[2] == pytest.approx(float(expected))


def test_l1_norm_of_an_rnn_sums_the_rows_of_all_gates() -> None:
    case = raise_zoo("lstm_last_hidden")
    (layer,) = (layer for layer in case.units.layers if layer.kind == "LSTM")
    lstm = case.module.get_submodule(layer.name)
    rows = torch.cat([lstm.weight_ih_l0.detach(), lstm.weight_hh_l0.detach()], 1).abs().sum(1)
    scores = L1Norm().score_units(case.module, case.units)
    for index, unit in enumerate(layer.units.tolist()):
        assert scores[unit] == pytest.approx(float(rows[index :: layer.width].sum()))


def test_criteria_are_listed() -> None:
    assert all(issubclass(criterion, Criterion) for criterion in CRITERIA.values())
    assert list(CRITERIA.values()) == [L1Norm, L2Norm, RandomScore]


def test_lowest_of_each_layer(chain: Raised) -> None:
    scores = make_scores(chain.units, {1: 0.2, 3: 0.1, 0: 0.3, 5: 5.0})
    assert select_lowest(chain.units, scores, 0.5) == {1, 3, 6, 7}  # floor(2.5) of 5, 2 of 4; ties: the first ones
    assert select_lowest(chain.units, scores, 0.0) == frozenset()
    assert select_lowest(chain.units, scores, 0.19) == frozenset()  # floor(0.95) of 5 is none
    assert select_lowest(chain.units, scores, 0.2) == {3}


def test_a_high_ratio_keeps_one_channel_of_each_layer(chain: Raised) -> None:
    scores = make_scores(chain.units, {4: 2.0, 7: 2.0})
    assert select_lowest(chain.units, scores, 0.999) == frozenset(range(9)) - {4, 7}
    assert select_lowest(chain.units, scores, 0.999, "global") == frozenset(range(9)) - {4, 7}


def test_global_scope_compares_relative_scores(chain: Raised) -> None:
    small, large = {unit: 1.0 + unit / 10 for unit in range(5)}, {unit: 100.0 * (unit - 4) for unit in range(5, 9)}
    scores = small | large
    assert select_lowest(chain.units, scores, 0.34, "global") == {0, 5, 6}
    assert select_lowest(chain.units, scores, 0.34, "global", relative=False) == {0, 1, 2}


def test_ratio_is_not_spoiled_by_binary_fractions() -> None:
    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv1d(2, 100, 1), nn.Linear(100, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.conv(x).mean(-1))

    units = raise_network(Wide(), SHAPE).units
    scores = make_scores(units, {})
    for percent in (29, 57, 58, 99):  # 0.29 * 100 is 28.999999999999996
        assert len(select_lowest(units, scores, percent / 100)) == percent


@pytest.mark.parametrize("ratio", [-0.1, 1.0, 50, float("nan")])
def test_ratio_outside_its_range_is_refused(chain: Raised, ratio: float) -> None:
    with pytest.raises(InputError, match="ratio is"):
        select_lowest(chain.units, make_scores(chain.units, {}), ratio)


def test_bad_scope_and_scores_are_refused(chain: Raised) -> None:
    scores = make_scores(chain.units, {})
    with pytest.raises(InputError, match="scope is 'model'; allowed: layer, global"):
        select_lowest(chain.units, scores, 0.5, "model")
    with pytest.raises(InputError, match="unit 3 scores nan"):
        select_lowest(chain.units, scores | {3: float("nan")}, 0.5)


def test_l2_norm_is_the_root_of_the_sum_of_squares(chain: Raised) -> None:
    scores = L2Norm().score_units(chain.module, chain.units)
    weights = [*chain.module.conv1.weight.detach().numpy(), *chain.module.conv2.weight.detach().numpy()]
    expected = {unit: float(np.linalg.norm(weight.ravel())) for unit, weight in enumerate(weights)}
    assert scores == pytest.approx(expected, rel=1e-12)


def test_l2_norm_of_coupled_layers_is_the_sum_over_their_filters() -> None:
    case = raise_network(Residual(), SHAPE)
    scores = L2Norm().score_units(case.module, case.units)
    first, second = (case.module.get_submodule(name).weight.detach().numpy() for name in ("first", "second"))
    assert scores[2] == pytest.approx(float(np.linalg.norm(first[2]) + np.linalg.norm(second[3])))


def test_random_scores_repeat_with_the_seed_and_cover_every_unit() -> None:
    case = raise_network(Residual(), SHAPE)
    first, again, other = (RandomScore(seed).score_units(case.module, case.units) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert sorted(first) == sorted(unit for group in case.units.groups for unit in group.units)
    assert all(0 <= score < 1 for score in first.values())


def test_random_scores_are_drawn_anew_for_another_number_of_units() -> None:
    """Else pruning in steps would go on removing the same places."""
    few, more = (raise_network(model, SHAPE) for model in (DepthwiseAndShuffle(), Residual()))
    assert (few.units.count, more.units.count) == (5, 9)
    scores = [set(RandomScore(1).score_units(case.module, case.units).values()) for case in (few, more)]
    assert not scores[0] & scores[1]


def test_ratio_of_what_was_there_at_first(chain: Raised) -> None:
    """Groups of 5 and 4 of which 8 and 5 were there: at .5, floor(4) and floor(2.5) are gone in the end."""
    scores = make_scores(chain.units, {1: 0.2, 5: 0.1})
    left = [LeftOver((0, 1, 2, 3, 4), 8), LeftOver((5, 6, 7, 8), 5)]
    assert select_lowest(chain.units, scores, 0.5, left=left) == {1, 5}  # 3 and 1 were gone before
    assert select_lowest(chain.units, scores, 0.2, left=left) == frozenset()
    assert select_lowest(chain.units, scores, 0.5, "global", left=left) == {1, 5}  # floor(6.5) of 13, 4 gone
    left.append(LeftOver((), 2))  # a group that no longer exists counts too
    assert select_lowest(chain.units, scores, 0.5, "global", relative=False, left=left) == {5}  # floor(7.5), 6 gone
