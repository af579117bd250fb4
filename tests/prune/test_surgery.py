"""Removing units: what changes in the module, what stays, what is refused."""

import copy
from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeprune.errors import InputError
from edgeprune.prune import guard_units, prune_channels, remove_units
from tests.prune.independent_check import CheckError, compare_with_masked, flatten_outputs, mask_original
from tests.prune.raised import Branches, Raised, make_samples, raise_network
from tests.prune.test_units import SHAPE, Chain, FrozenBetween, Residual

# Functions whose arguments repeat the number of channels; the convolution in front has 6.
MIDDLES: dict[str, Callable[[Tensor], Tensor]] = {
    "slice": lambda x: x[:, 1:5],
    "slice from the end": lambda x: x[:, -4:-1],
    "narrow": lambda x: x.narrow(1, 2, 3),
    "pick one of several": lambda x: x * torch.sigmoid(x[:, 2]).unsqueeze(1),
    "pick from the end": lambda x: torch.cat([x, x[:, -2].unsqueeze(1)], 1),
    "uneven chunks": lambda x: torch.cat(x[:, :5].chunk(2, 1)[::-1], 1),
    "split by size": lambda x: torch.cat(x.split(4, 1)[::-1], 1),
    "pad channels": lambda x: F.pad(x, (0, 0, 2, 1), value=0.5),
    "pad time": lambda x: F.pad(x, (3, 0)),
    "reshape": lambda x: x.reshape(len(x), 6, 2, 4).amax(2),
    "reshape to groups": lambda x: x.reshape(len(x), 2, 3, 8).flatten(1, 2),
    "reshape the other way": lambda x: x.reshape(len(x), 3, 2, 8).transpose(1, 2).reshape(len(x), 6, 8),
    "unflatten": lambda x: x.unflatten(1, (2, 3)).transpose(1, 2).flatten(1, 2),
    "expand": lambda x: x.unsqueeze(1).expand(-1, 2, 6, 8).flatten(1, 2),
    "squeeze": lambda x: x.mean(-1, keepdim=True).squeeze(-1).unsqueeze(-1),
    "squeeze of channels": lambda x: x.squeeze(1),
    "repeat": lambda x: x.repeat(1, 3, 1),
    "expand_as": lambda x: F.normalize(x, dim=2),
    "glu": lambda x: F.glu(x, 1),
    "other halves": lambda x: torch.cat([x[:, 1:4], x[:, :2]], 1).reshape(-1, 5, 4, 2).mean(-1),
    "merged with time": lambda x: x.reshape(len(x), 12, 4),
    "merged with the batch": lambda x: x.reshape(-1, 8).cumsum(-1).reshape(-1, 6, 8),
    "stack": lambda x: torch.stack([x, x.flip(1)], 2).flatten(1, 2),
}


CHOICES: dict[str, Callable[[tuple[int, ...]], tuple[int, ...]]] = {
    "first": lambda units: units[:1],
    "last": lambda units: units[-1:],
    "all but one": lambda units: units[1:],
}


@cache
def prune_middles(choice: str) -> tuple[tuple[int, ...], Tensor]:
    """Channels left of each convolution, and each function's three outputs' largest difference from the original's.

    All functions stand in one network, and are pruned at once.
    """
    case = raise_middles()
    dead = [unit for group in case.units.groups for unit in CHOICES[choice](group.units)]
    pruned = remove_units(case.module, case.units, guard_units(case.units, dead))
    masked, _ = mask_original(case.original, pruned)
    batch = make_samples(SHAPE, 3)
    with torch.no_grad():
        differences = (masked(batch) - pruned(batch)).abs().reshape(3, len(MIDDLES), 3).amax((0, 2))
    return tuple(conv.out_channels for conv in pruned.convs.children()), differences


@cache
def raise_middles() -> Raised:
    return raise_network(Branches(MIDDLES.values()), SHAPE)


@pytest.mark.parametrize("name", MIDDLES)
def test_arguments_follow_the_channels(name: str) -> None:
    index = list(MIDDLES).index(name)
    for choice in CHOICES:
        widths, differences = prune_middles(choice)
        assert widths[index] < 6
        assert differences[index] < 1e-12  # float64, one layer


def test_the_input_stays_as_it_was() -> None:
    case = raise_network(Chain(), SHAPE)
    code, state = case.module.code, {key: value.clone() for key, value in case.module.state_dict().items()}
    values = {node.name: node.meta["val"].shape for node in case.module.graph.nodes if "val" in node.meta}
    remove_units(case.module, case.units, {0, 6})
    assert case.module.code == code
    assert all(torch.equal(state[key], value) for key, value in case.module.state_dict().items())
    assert values == {node.name: node.meta["val"].shape for node in case.module.graph.nodes if "val" in node.meta}


def test_layers_and_recorded_shapes_tell_their_new_sizes() -> None:
    case = raise_network(Chain(), SHAPE)
    pruned = remove_units(case.module, case.units, {0, 2, 6})
    assert (pruned.conv1.in_channels, pruned.conv1.out_channels) == (2, 3)
    assert pruned.bn.num_features == 3
    assert (pruned.conv2.in_channels, pruned.conv2.out_channels) == (3, 3)
    assert (pruned.fc.in_features, pruned.fc.out_features) == (3, 3)
    shapes = {str(node.target): node.meta["val"].shape for node in pruned.graph.nodes if "val" in node.meta}
    assert shapes["aten.relu.default"][1:] == (3, 8)
    assert torch.equal(pruned.conv1.weight, case.module.conv1.weight[[1, 3, 4]])


def test_requires_grad_and_names_stay() -> None:
    case = raise_network(FrozenBetween(), SHAPE)
    pruned = remove_units(case.module, case.units, {0, 1})
    assert {name: p.requires_grad for name, p in pruned.named_parameters()} == {
        name: p.requires_grad for name, p in case.module.named_parameters()
    }
    assert not pruned.frozen.weight.requires_grad
    assert pruned.frozen.weight.shape == (5, 2, 1)
    assert [node.name for node in pruned.graph.nodes] == [node.name for node in case.module.graph.nodes]


class Tied(nn.Module):
    """Two layers that hold one weight, and one layer used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.twice = nn.Conv1d(2, 4, 1), nn.Conv1d(4, 4, 3, padding=1)
        self.left, self.right = nn.Conv1d(4, 3, 1, bias=False), nn.Conv1d(4, 3, 1)
        self.right.weight = self.left.weight
        self.fc = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.twice(torch.relu(self.twice(self.first(x))))
        return self.fc((self.left(x) + self.right(torch.relu(x))).mean(-1))


def test_shared_parameters_stay_shared() -> None:
    case = raise_network(Tied(), SHAPE)
    pruned = remove_units(case.module, case.units, {0, 2, case.units.count - 1})
    holders = [layer for layer in pruned.modules() if getattr(layer, "weight", None) is not None]
    assert len({id(layer.weight) for layer in holders}) == len(holders) - 1 == 4
    difference, _ = compare_with_masked(case.original, pruned, make_samples(SHAPE, 3))
    assert difference < 1e-12


def test_what_would_leave_nothing_is_refused() -> None:
    case = raise_network(Chain(), SHAPE)
    with pytest.raises(InputError, match="lose all its channels"):
        remove_units(case.module, case.units, range(5))
    with pytest.raises(InputError, match="unit -1: not a unit"):
        remove_units(case.module, case.units, {-1})


def test_prune_result_accounts_for_every_layer() -> None:
    case = raise_network(Residual(), SHAPE)
    inner = {unit for group in case.units.groups if group.layers == ("inner",) for unit in group.units}
    result = prune_channels(case.module, case.example, inner)
    assert [(row.layer, row.before, row.after) for row in result.widths] == [
        ("first", 4, 4),
        ("inner", 3, 1),
        ("second", 6, 6),
        ("fc", 2, 2),
    ]
    assert result.pinned == (("fc", "model output"),)
    assert result.not_shrunk == ()
    assert len(result.removed) == 2
    assert result.folds == ()


def test_layers_that_were_asked_to_shrink_and_did_not_are_named() -> None:
    class Narrow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.conv2, self.fc = nn.Conv1d(2, 4, 1), nn.Conv1d(4, 1, 1), nn.Linear(1, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(torch.relu(self.conv2(torch.relu(self.conv1(x)))).mean(-1))

    case = raise_network(Narrow(), SHAPE)
    result = prune_channels(case.module, case.example, {0, 4})
    assert [name for name, _ in result.not_shrunk] == ["conv2"]
    assert "would lose its last channel" in result.not_shrunk[0][1]
    result = prune_channels(case.module, case.example, {4}, asked=["conv1", "conv2", "fc"])
    assert [name for name, _ in result.not_shrunk] == ["conv1", "conv2", "fc"]
    assert result.not_shrunk[0][1] == "none of its 4 channels was selected"
    assert result.not_shrunk[2][1] == "model output"


def test_removing_nothing_gives_an_equal_module() -> None:
    case = raise_network(Chain(), SHAPE)
    same = remove_units(case.module, case.units, ())
    assert same is not case.module
    batch = make_samples(SHAPE, 3)
    with torch.no_grad():
        assert torch.equal(flatten_outputs(same(batch)), flatten_outputs(case.module(batch)))


def test_a_pruned_module_can_be_copied_and_moved() -> None:
    case = raise_network(Chain(), SHAPE)
    pruned = copy.deepcopy(remove_units(case.module, case.units, {1})).float()
    assert pruned(make_samples(SHAPE, 3).float()).dtype == torch.float32


def test_the_independent_check_notices_mistakes() -> None:
    case = raise_network(Chain(), SHAPE)
    batch = make_samples(SHAPE, 3)
    pruned = remove_units(case.module, case.units, {1, 3})
    swapped = copy.deepcopy(pruned)
    swapped.conv1.weight.data = swapped.conv1.weight.data.flip(0)
    with pytest.raises(CheckError, match=r"conv1\.weight: .* in order"):
        compare_with_masked(case.original, swapped, batch)
    other_inputs = copy.deepcopy(pruned)  # the wrong columns of the next layer
    other_inputs.conv2.weight.data = case.module.conv2.weight.data[:, [0, 1, 4]]
    assert compare_with_masked(case.original, other_inputs, batch)[0] > 1e-3
    scaled = copy.deepcopy(pruned)
    scaled.bn.bias.data *= 1.001
    with pytest.raises(CheckError, match="values that the original does not have"):
        compare_with_masked(case.original, scaled, batch)
