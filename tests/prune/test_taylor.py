"""Taylor scores against gradients written out by hand, and against what zeroing a channel does to the loss."""

import copy
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from edgeprune.prune import ChannelUnits
from edgeprune.prune import taylor as taylor_module
from edgeprune.prune.taylor import FeatureMaps, TaylorScore, find_feature_maps, measure_maps
from tests.prune.raised import Raised, make_samples, raise_network, raise_zoo
from tests.prune.test_units import SHAPE, Chain, DepthwiseAndShuffle, FrozenBetween, Residual

SAMPLES = 7


@cache
def raise_case(model: Callable[[], nn.Module]) -> Raised:
    """The network raised, once; the tests leave it as it is."""
    torch.manual_seed(0)  # the spread of a network's weights is that of its own initialisation
    return raise_network(model(), SHAPE)


def make_data(case: Raised, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """float64 samples, for exact comparisons (methods pass float32), and labels."""
    x = make_samples(tuple(case.example.shape[1:]), SAMPLES, seed=3).numpy()
    return x, np.arange(SAMPLES) % classes


class Plain(nn.Module):
    """conv -> relu -> mean over time -> fc."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv1d(2, 5, 3, padding=1), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.relu(self.conv(x)).mean(-1))


def test_score_of_a_plain_net_by_hand() -> None:
    """papers.md P3. Of this net dL/dz[c, t] = sum_k (softmax_k - [k = y]) W[k, c] / T, with nothing but numpy."""
    case = raise_case(Plain)
    x, y = make_data(case, 3)
    weights = {name: value.detach().numpy() for name, value in case.module.named_parameters()}
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1)))
    steps = x.shape[2]
    conv = sum(
        np.einsum("nct,oc->not", padded[:, :, tap : tap + steps], weights["conv.weight"][:, :, tap]) for tap in range(3)
    )
    z = np.maximum(conv + weights["conv.bias"][:, None], 0)
    logits = z.mean(2) @ weights["fc.weight"].T + weights["fc.bias"]
    softmax = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    gradient = (softmax - np.eye(3)[y]) @ weights["fc.weight"] / steps  # (samples, channels), the same at each step
    theta = np.abs((gradient[:, :, None] * z).mean(2)).mean(0)
    scores = TaylorScore(x, y).score_units(case.module, case.units)
    assert scores == pytest.approx(dict(enumerate(theta / np.sqrt((theta**2).sum()))), rel=1e-12)


class Scaled(fx.Interpreter):
    """Runs a program with some channels of one node's tensor multiplied by a factor."""

    def __init__(self, module: fx.GraphModule, place: FeatureMaps, unit: int, factor: float) -> None:
        super().__init__(module)
        self.place, self.unit, self.factor = place, unit, factor

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.name != self.place.node:
            return value
        factors = np.where(self.place.ids == self.unit, self.factor, 1.0)
        shape = [1] * value.dim()
        if self.place.axis is not None:
            shape[self.place.axis] = -1
        return value * torch.from_numpy(factors).reshape(shape)


def measure_loss_change(
    module: fx.GraphModule, place: FeatureMaps, unit: int, x: np.ndarray, y: np.ndarray, epsilon: float
) -> np.ndarray:
    """(L(map scaled by 1 + epsilon) - L(map scaled by 1 - epsilon)) / (2 epsilon) of each sample."""
    losses = []
    with torch.no_grad():
        for factor in (1 + epsilon, 1 - epsilon):
            logits = Scaled(module, place, unit, factor).run(torch.from_numpy(x))
            losses.append(F.cross_entropy(logits, torch.from_numpy(y), reduction="none").numpy())
    return (losses[0] - losses[1]) / (2 * epsilon)


def count_positions(case: Raised, place: FeatureMaps, unit: int) -> int:
    """M: elements per sample that belong to the unit."""
    shape = case.units.tensors[place.node].shape
    elements = int(np.prod(shape)) // 2  # units are found with two samples
    return elements if place.axis is None else elements // shape[place.axis] * int((place.ids == unit).sum())


class Flattened(nn.Module):
    """Channels and time flattened before the activation: a unit has several entries of one axis."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv1d(2, 4, 3), nn.Linear(24, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.tanh(self.conv(x).flatten(1)))


def check_against_loss(case: Raised, classes: int) -> None:
    """Theta is the mean size of the derivative of the loss by the map's scale, over M."""
    x, y = make_data(case, classes)
    maps = find_feature_maps(case.module, case.units)
    assert maps
    for place, theta in zip(maps, measure_maps(case.module, maps, x, y), strict=True):
        for unit, value in list(zip(place.units, theta, strict=True))[:3]:
            change = measure_loss_change(case.module, place, unit, x, y, 1e-7)
            positions = count_positions(case, place, unit)
            # the differences are good to 2e-9, and a kink of ReLU or of max pooling may lie within epsilon
            assert value * positions == pytest.approx(np.abs(change).mean(), rel=1e-4, abs=2e-9), (place.layer, unit)


@pytest.mark.parametrize("model", [Chain, Residual, DepthwiseAndShuffle, FrozenBetween, Flattened])
def test_scores_are_derivatives_of_the_loss(model: Callable[[], nn.Module]) -> None:
    check_against_loss(raise_case(model), classes=2)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["lite", "resnet20", "mobilenet_v2", "shared_conv", "se_net", "lstm_last_hidden", "gru"]
)
def test_scores_are_derivatives_of_the_loss_in_the_zoo(name: str) -> None:
    check_against_loss(raise_zoo(name), classes=2)


def test_zeroing_a_channel_changes_the_loss_as_predicted() -> None:
    """To first order: of a map scaled down to a hundredth, so that the second order is small beside it."""

    class Faint(Plain):
        def forward(self, x: Tensor) -> Tensor:
            return self.fc(0.01 * torch.relu(self.conv(x)).mean(-1))

    case = raise_case(Faint)
    x, y = make_data(case, 3)
    maps = find_feature_maps(case.module, case.units)
    (theta,) = measure_maps(case.module, maps, x, y)
    for unit in range(5):
        with torch.no_grad():
            zeroed = Scaled(case.module, maps[0], unit, 0.0).run(torch.from_numpy(x))
            whole = case.module(torch.from_numpy(x))
        labels = torch.from_numpy(y)
        change = F.cross_entropy(zeroed, labels, reduction="none") - F.cross_entropy(whole, labels, reduction="none")
        # the map's share in the logits is below 0.05, so the second order is below 5 % of the first
        assert float(change.abs().mean()) == pytest.approx(theta[unit] * SHAPE[1], rel=0.05)


def find_norms(units: ChannelUnits, scores: dict[int, float]) -> list[float]:
    return [float(np.linalg.norm([scores[unit] for unit in group.units])) for group in units.groups]


def test_each_layer_has_scores_of_norm_one() -> None:
    case = raise_case(Chain)
    scores = TaylorScore(*make_data(case, 3)).score_units(case.module, case.units)
    assert find_norms(case.units, scores) == pytest.approx([1, 1])


def test_a_unit_over_several_layers_scores_the_sum() -> None:
    case = raise_case(Residual)
    x, y = make_data(case, 2)
    maps = {place.layer: place for place in find_feature_maps(case.module, case.units)}
    first, second = (measure_maps(case.module, [maps[name]], x, y)[0] for name in ("first", "second"))
    scores = TaylorScore(x, y).score_units(case.module, case.units)
    unit = maps["first"].units[1]
    share = second[maps["second"].units.index(unit)] / np.linalg.norm(second)
    assert scores[unit] == pytest.approx(first[1] / np.linalg.norm(first) + share)


class Places(nn.Module):
    """Each way a layer can be judged: behind norm and activation, joined, added, at a norm, at itself, forked."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv1d(2, 3, 1), nn.Conv1d(2, 4, 1)
        self.norm, self.prelu = nn.BatchNorm1d(7), nn.PReLU()
        self.main, self.shortcut = nn.Conv1d(7, 5, 1), nn.Conv1d(7, 5, 1)
        self.linear, self.linear_norm, self.bare = nn.Conv1d(5, 4, 1), nn.BatchNorm1d(4), nn.Conv1d(4, 6, 1)
        self.forked, self.end = nn.Conv1d(6, 6, 1), nn.Conv1d(6, 3, 1)
        self.fc = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.prelu(F.max_pool1d(self.norm(torch.cat([self.left(x), self.right(x)], 1)), 2))
        x = F.relu(self.main(x) + self.shortcut(x))
        x = self.forked(self.bare(self.linear_norm(self.linear(x))))
        x = F.gelu(F.dropout(self.end(x * torch.sigmoid(x)), 0.5, self.training))
        return self.fc(x.mean(-1))


class OnlyHead(nn.Module):
    """A linear classifier of means."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.mean(-1))


def test_where_layers_are_judged() -> None:
    case = raise_case(Places)
    names = {
        str(node.target).split(".")[1]: node.name for node in case.module.graph.nodes if node.op == "call_function"
    }
    places = {place.layer: place for place in find_feature_maps(case.module, case.units)}
    assert {layer: place.node for layer, place in places.items()} == {
        "left": "prelu",
        "right": "prelu",
        "main": names["relu"],  # the sum: once for main and its shortcut
        "linear": "linear_norm",
        "bare": "bare",
        "forked": "forked",
        "end": names["gelu"],
    }
    assert len(places["left"].units) == 3
    assert len(places["right"].units) == 4
    assert (places["left"].ids == places["right"].ids).all()


def test_shared_layers_are_judged_at_each_call() -> None:
    case = raise_zoo("shared_conv")
    assert [place.layer for place in find_feature_maps(case.module, case.units)].count("shared") == 2


def test_frozen_layers_are_left_out() -> None:
    case = raise_case(FrozenBetween)
    assert [place.layer for place in find_feature_maps(case.module, case.units)] == ["first", "last"]


def test_a_net_with_nothing_to_prune_has_no_scores() -> None:
    case = raise_case(OnlyHead)
    assert TaylorScore(*make_data(case, 2)).score_units(case.module, case.units) == {}


def test_states_of_an_rnn_have_their_samples_along_the_second_axis() -> None:
    """A map of last states is (layers, samples, hidden); by hand for a head on top of it."""
    case = raise_zoo("lstm_last_hidden")
    x, y = make_data(case, 2)
    maps = find_feature_maps(case.module, case.units)
    (theta,) = measure_maps(case.module, maps, x, y)
    one_by_one = [measure_maps(case.module, maps, x[i : i + 1], y[i : i + 1])[0] for i in range(SAMPLES)]
    assert theta == pytest.approx(np.mean(one_by_one, axis=0))


class Softmaxed(Chain):
    """With dropout, and a softmax at the end."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.dropout(self.conv2(torch.relu(self.bn(self.conv1(x)))), 0.5, self.training)
        return torch.softmax(self.fc(x.mean(-1)), -1)


def test_a_softmax_at_the_end_and_dropout_change_nothing() -> None:
    plain, softmaxed = raise_case(Chain), raise_case(Softmaxed)
    x, y = make_data(plain, 3)
    softmaxed.module.load_state_dict(plain.module.state_dict())
    softmaxed.module.train()
    scores = TaylorScore(x, y).score_units(softmaxed.module, softmaxed.units)
    assert softmaxed.module.training
    softmaxed.module.eval()
    assert scores == pytest.approx(TaylorScore(x, y).score_units(plain.module, plain.units))


def test_scoring_leaves_the_program_as_it_was() -> None:
    case = raise_case(Chain)
    before = copy.deepcopy(case.module.state_dict())
    TaylorScore(*make_data(case, 3)).score_units(case.module, case.units)
    assert all(torch.equal(value, before[key]) for key, value in case.module.state_dict().items())
    assert all(parameter.grad is None for parameter in case.module.parameters())


def test_batches_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    case = raise_case(Chain)
    data = make_data(case, 3)
    whole = TaylorScore(*data).score_units(case.module, case.units)
    monkeypatch.setattr(taylor_module, "BATCH_SIZE", 2)
    assert TaylorScore(*data).score_units(case.module, case.units) == pytest.approx(whole, rel=1e-9)


def test_class_weights_weigh_the_samples() -> None:
    """Weight 0 for a class: its samples count with nothing, and the others as they did."""
    case = raise_case(Chain)
    x, y = make_data(case, 3)
    weights = torch.tensor([1.0, 1.0, 0.0])
    chosen = y != 2
    weighted = TaylorScore(x, y, weights).score_units(case.module, case.units)
    assert weighted == pytest.approx(TaylorScore(x[chosen], y[chosen]).score_units(case.module, case.units))
