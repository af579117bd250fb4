"""Which channels belong together, and why some must stay."""

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeprune.errors import EdgepruneError, InputError
from edgeprune.prune import find_units, guard_units
from edgeprune.prune.labels import LabelPool, shrink, varying_axes
from edgeprune.prune.units import PINNED
from tests.prune.raised import Branches, Raised, raise_network

SHAPE = (2, 8)


class Chain(nn.Module):
    """conv1 -> bn -> relu -> conv2 -> mean -> fc."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(2, 5, 3, padding=1)
        self.bn = nn.BatchNorm1d(5)
        self.conv2 = nn.Conv1d(5, 4, 3, padding=1, bias=False)
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv2(torch.relu(self.bn(self.conv1(x)))).mean(-1))


def find_layer_units(case: Raised, name: str) -> np.ndarray:
    return next(layer.units for layer in case.units.layers if layer.name == name)


def test_units_of_a_chain() -> None:
    case = raise_network(Chain(), SHAPE)
    units = case.units
    assert units.count == 9
    assert units.groups[0].layers == ("conv1",)
    assert units.groups[0].units == (0, 1, 2, 3, 4)
    assert set(units.members(2)) == {
        ("conv1.weight", 0, 2),
        ("conv1.bias", 0, 2),
        ("bn.weight", 0, 2),
        ("bn.bias", 0, 2),
        ("bn.running_mean", 0, 2),
        ("bn.running_var", 0, 2),
        ("conv2.weight", 1, 2),
    }
    assert units.producers(2) == (("conv1.weight", 0, 2),)
    assert units.pinned == (("fc", "model output"),)
    assert [layer.fixed for layer in units.layers] == [None, None, "model output"]


def test_node_units() -> None:
    case = raise_network(Chain(), SHAPE)
    names = {str(node.target): node.name for node in case.module.graph.nodes}
    assert case.units.node_units(names["aten.relu.default"]).tolist() == [0, 1, 2, 3, 4]
    assert case.units.node_units(names["conv2"], -2).tolist() == [5, 6, 7, 8]
    assert case.units.node_units("x").tolist() == [PINNED] * 2
    with pytest.raises(EdgepruneError, match="lie along axis 1, not 2"):
        case.units.node_units(names["conv2"], 2)
    with pytest.raises(EdgepruneError, match="nowhere"):
        case.units.node_units("nowhere")


def test_finding_units_changes_nothing_and_repeats() -> None:
    case = raise_network(Chain(), SHAPE)
    case.module.train()
    case.module.get_submodule("bn").eval()
    before = {key: value.clone() for key, value in case.module.state_dict().items()}
    again = find_units(case.module, case.example.float())  # the example takes the module's type
    assert all(torch.equal(before[key], value) for key, value in case.module.state_dict().items())
    assert case.module.training
    assert not case.module.get_submodule("bn").training
    assert again.count == case.units.count
    assert again.slices.keys() == case.units.slices.keys()
    assert all((again.slices[key] == ids).all() for key, ids in case.units.slices.items())


class Residual(nn.Module):
    """Two convolutions that are added; a third one in between is free. Padded to 6 channels, as in ResNet-20."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.inner, self.second = nn.Conv1d(2, 4, 1), nn.Conv1d(4, 3, 1), nn.Conv1d(3, 6, 1)
        self.fc = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        x = F.pad(x, (0, 0, 1, 1)) + self.second(torch.relu(self.inner(x)))
        return self.fc(x.mean(-1))


def test_padded_residual_couples_only_the_channels_that_meet() -> None:
    case = raise_network(Residual(), SHAPE)
    assert find_layer_units(case, "second").tolist()[1:5] == find_layer_units(case, "first").tolist()
    assert [(group.layers, len(group.units)) for group in case.units.groups] == [
        (("first", "second"), 4),
        (("second",), 2),
        (("inner",), 3),
    ]


class DepthwiseAndShuffle(nn.Module):
    """Grouped by 2, shuffled, depthwise with multiplier 2."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(2, 4, 1)
        self.grouped = nn.Conv1d(4, 6, 1, groups=2)
        self.depthwise = nn.Conv1d(6, 12, 3, groups=6, padding=1)
        self.fc = nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.grouped(self.first(x))
        x = x.reshape(-1, 2, 3, 8).transpose(1, 2).reshape(-1, 6, 8)
        return self.fc(self.depthwise(x).mean(-1))


def test_groups_shuffle_and_depthwise_multiplier() -> None:
    case = raise_network(DepthwiseAndShuffle(), SHAPE)
    assert find_layer_units(case, "first").tolist() == [0, 1, 0, 1]
    assert find_layer_units(case, "grouped").tolist() == [2, 3, 4, 2, 3, 4]
    assert find_layer_units(case, "depthwise").tolist() == np.repeat([2, 3, 4], 4).tolist()


class FrozenBetween(nn.Module):
    """A frozen convolution between two trainable ones."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.frozen, self.last = nn.Conv1d(2, 4, 1), nn.Conv1d(4, 5, 1), nn.Conv1d(5, 3, 1)
        self.frozen.requires_grad_(False)
        self.fc = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.relu(self.last(self.frozen(torch.relu(self.first(x))))).mean(-1))


def test_frozen_filters_stay_but_lose_inputs() -> None:
    case = raise_network(FrozenBetween(), SHAPE)
    assert case.units.pinned == (("frozen", "frozen: requires_grad is False"), ("fc", "model output"))
    assert (find_layer_units(case, "frozen") == PINNED).all()
    assert ("frozen.weight", 1, 2) in case.units.members(2)


# Functions behind a convolution of 6 channels, by what the report says of it.
MIXING: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax runs over channels": lambda x: torch.softmax(x, 1),
    "cumsum runs over channels": lambda x: torch.cumsum(x, 1),
    "mean runs over channels": lambda x: x - x.mean(1, keepdim=True),
    "roll runs over channels": lambda x: torch.roll(x, 1, 1),
    "einsum multiplies two activations": lambda x: torch.einsum("bct,bdt->bcd", x, x),
    "matmul multiplies two activations": lambda x: x @ x.transpose(1, 2),
    "multiplies queries, keys and values": lambda x: F.scaled_dot_product_attention(x, x, x),
    "a slice of channels with a step": lambda x: x[:, ::2],
    "index is not known to the channel analysis": lambda x: x[:, [2, 1, 0]],
    "taken apart one by one": lambda x: torch.stack(x.unbind(1)[::-1], 1),
    "a constant of a fixed shape": lambda x: x + torch.ones(6, 1).cumsum(0),
    "mixes neighbouring channels": lambda x: F.avg_pool1d(x.transpose(1, 2), 2).transpose(1, 2),
    "LayerNorm normalises over channels": nn.LayerNorm([6, 8]),
    "GroupNorm normalises over the channels of a group": nn.GroupNorm(2, 6),
}
FREE: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax over time": lambda x: torch.softmax(x, -1),
    "sort over time": lambda x: x.sort(-1)[0],
    "standard deviation": lambda x: x / (x.std(-1, keepdim=True) + 1),
    "constant over channels": lambda x: x * torch.linspace(0, 1, 8),
    "flip": lambda x: x.flip(1),
    "repeat": lambda x: x.repeat(1, 2, 1),
    "fold and unfold": lambda x: x.reshape(-1, 8).cumsum(-1).reshape(-1, 6, 8),
    "negative bounds": lambda x: x[:, -5:-1],
    "swap": lambda x: torch.cat(x.split([2, 4], 1)[::-1], 1),
    "border": lambda x: F.pad(x, (1, 2), mode="reflect"),
    "LayerNorm over time": nn.LayerNorm(8),
    "GroupNorm by channel": nn.GroupNorm(6, 6),
    "linear over time": nn.Linear(8, 4),
}


@cache
def raise_branches() -> Raised:
    return raise_network(Branches([*MIXING.values(), *FREE.values()]), SHAPE)


@pytest.mark.parametrize("reason", MIXING)
def test_what_mixes_channels_pins_them_with_a_reason(reason: str) -> None:
    name = f"convs.{list(MIXING).index(reason)}"
    assert (find_layer_units(raise_branches(), name) == PINNED).all()
    assert reason in dict(raise_branches().units.pinned)[name]


@pytest.mark.parametrize("name", FREE)
def test_what_treats_channels_one_by_one_leaves_them_free(name: str) -> None:
    index = len(MIXING) + list(FREE).index(name)
    assert (find_layer_units(raise_branches(), f"convs.{index}") != PINNED).all()


class Gains(nn.Module):
    """A gain for all channels, a gain per channel, a map over time, an attention of one channel."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.attention = nn.Conv1d(2, 5, 1), nn.Conv1d(5, 1, 1)
        self.one, self.each = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(5, 1))
        self.map, self.full = nn.Parameter(torch.ones(8)), nn.Parameter(torch.ones(5, 8))
        self.fc = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x) * self.one * self.each * self.map * self.full
        return self.fc((x * torch.sigmoid(self.attention(x))).mean(-1))


def test_gains_follow_the_channels() -> None:
    case = raise_network(Gains(), SHAPE)
    assert case.units.count == 5
    assert set(case.units.members(3)) == {
        ("conv.weight", 0, 3),
        ("conv.bias", 0, 3),
        ("each", 0, 3),
        ("full", 0, 3),
        ("attention.weight", 1, 3),
        ("fc.weight", 1, 3),
    }
    assert dict(case.units.pinned)["attention"].startswith("is broadcast over channels")


class ReadTwice(nn.Module):
    """The weight of a layer also read by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv1d(2, 4, 1), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv(x).mean(-1)) * self.conv.weight.abs().sum()


def test_a_weight_that_is_read_by_itself_stays() -> None:
    case = raise_network(ReadTwice(), SHAPE)
    assert (find_layer_units(case, "conv") == PINNED).all()
    assert "conv" in dict(case.units.pinned)


class TwoHeads(nn.Module):
    """Two outputs, one of them a feature map."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.fc = nn.Conv1d(2, 4, 1), nn.Conv1d(4, 3, 1), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.second(torch.relu(self.first(x)))
        return self.fc(features.mean(-1)), features


def test_every_output_is_pinned() -> None:
    case = raise_network(TwoHeads(), SHAPE)
    assert dict(case.units.pinned) == {"second": "model output", "fc": "model output"}
    assert [group.layers for group in case.units.groups] == [("first",)]


def test_guard_keeps_the_best_unit_of_what_would_be_empty() -> None:
    units = raise_network(Chain(), SHAPE).units
    everything = range(units.count)
    assert guard_units(units, everything) == frozenset(everything) - {0, 5}
    scores = {unit: float(unit % 4) for unit in everything}
    assert guard_units(units, everything, scores) == frozenset(everything) - {3, 7}
    assert guard_units(units, {0, 8}) == {0, 8}
    with pytest.raises(InputError, match="unit 9: not a unit"):
        guard_units(units, {9})


def test_width_one_layers_have_units_that_never_go() -> None:
    class Narrow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.conv2, self.fc = nn.Conv1d(2, 1, 3), nn.Conv1d(1, 1, 3), nn.Linear(1, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(torch.relu(self.conv2(torch.relu(self.conv1(x)))).mean(-1))

    case = raise_network(Narrow(), SHAPE)
    assert case.units.count == 2
    assert guard_units(case.units, {0, 1}) == frozenset()


def test_labels_shrink_and_become_boxes() -> None:
    pool = LabelPool()
    labels = pool.make_fresh(6).reshape(1, 2, 3, 1).expand(4, 2, 3, 5)
    assert varying_axes(labels) == [1, 2]
    assert shrink(labels).shape == (1, 2, 3, 1)
    box = pool.make_rectangular(labels)
    assert box.shape == labels.shape
    assert varying_axes(box) == [2]
    units = pool.resolve().get_units(labels)
    assert units[0, 0, :, 0].tolist() == units[3, 1, :, 4].tolist() == [0, 1, 2]
