"""Every architecture of the zoo, pruned by random choice, equals the original with the removed weights set to zero."""

import copy
import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from edgeprune.load import raise_program
from edgeprune.load.tracing import export_module
from edgeprune.prune import L1Norm, find_units, guard_units, prune_channels, remove_units, select_lowest
from tests.prune.independent_check import compare_with_masked, flatten_outputs
from tests.prune.raised import draw_units, make_samples, raise_zoo
from tests.zoo import ZOO

# float64 networks of up to a hundred layers, summed in another order: 1e-15 is seen, 1e-9 leaves room
TOLERANCE = 1e-9


# Layers of which some channels can't be removed; elsewhere it is the heads alone, for they are the model's output.
PINNED = {
    "lite": {"depthwise1", "fc"} | {f"hand_crafted.convs.{index}" for index in range(17)},
    "vit": {"patches", "qkv", "project", "mlp2", "fc"},
    "odds_and_ends": {"right", "fc", "aux"},
}


# Exporting and raising takes most of the time: what shows nothing new about channels runs with the slow tests.
QUICK = (
    *("lite", "eegnet", "resnet20", "se_net", "lstm_last_hidden", "vit", "shared_conv", "grouped_conv"),
    *("depthwise_multiplier", "odds_and_ends"),
)


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK)) for name in ZOO])
def test_pruned_equals_masked_original(name: str) -> None:
    case = raise_zoo(name)
    heads = {layer for layer, reason in case.units.pinned if reason == "model output"}
    assert {layer for layer, _ in case.units.pinned} == PINNED.get(name, heads)
    batch = make_samples(ZOO[name].sample_shape, 3, seed=7)
    choices = [draw_units(case.units, 0), draw_units(case.units, 1, ratio=0.6)]
    choices.append(guard_units(case.units, range(case.units.count)))  # all that can go at all
    for dead in choices:
        pruned = remove_units(case.module, case.units, dead)
        difference, removed = compare_with_masked(case.original, pruned, batch)
        assert difference < TOLERANCE
        assert (removed > 0) == bool(dead)


@pytest.mark.parametrize("name", ["lite", "eegnet", "resnet20", "lstm_last_hidden"])
def test_half_by_l1_loses_half_of_each_layer(name: str) -> None:
    case = raise_zoo(name)
    dead = select_lowest(case.units, L1Norm().score_units(case.module, case.units), 0.5)
    result = prune_channels(case.module, case.example, dead)
    assert result.not_shrunk == ()
    for layer, width in zip(case.units.layers, result.widths, strict=True):
        pinned = int((layer.units < 0).sum())
        assert width.after == pinned + math.ceil((width.before - pinned) / 2)


@pytest.mark.parametrize("name", ["lite", "lstm_last_hidden", "odds_and_ends"])
def test_parameters_and_macs_are_those_of_the_new_widths(name: str) -> None:
    case = raise_zoo(name)
    dead = draw_units(case.units, 3, ratio=0.5)
    pruned = remove_units(case.module, case.units, dead)
    gone = {member for unit in dead for member in case.units.members(unit)}
    for parameter_name, parameter in case.module.named_parameters():
        shape = list(parameter.shape)
        for _, axis, _ in {member for member in gone if member[0] == parameter_name}:
            shape[axis] -= 1
        assert tuple(shape) == tuple(pruned.get_parameter(parameter_name).shape)
    counts = []
    for module in (case.module, pruned):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            module(case.example)
        counts.append(counter.get_total_flops())
    assert counts[1] < counts[0]


@pytest.mark.parametrize("name", ["se_net", "eegnet"])
def test_prune_twice(name: str) -> None:
    case = raise_zoo(name)
    first = remove_units(case.module, case.units, draw_units(case.units, 4, ratio=0.3))
    units = find_units(first, case.example)
    assert units.count < case.units.count
    second = remove_units(first, units, draw_units(units, 5, ratio=0.3))
    batch = make_samples(ZOO[name].sample_shape, 3, seed=8)
    difference, _ = compare_with_masked(case.original, second, batch)
    assert difference < TOLERANCE


@pytest.mark.parametrize("name", ["lite", "lstm_last_hidden"])
def test_pruned_module_trains_and_is_exported_again(name: str, tmp_path) -> None:
    case = raise_zoo(name)
    pruned = remove_units(case.module, case.units, draw_units(case.units, 6, ratio=0.4)).float()
    example = case.example.float()
    pruned.train()
    optimizer = torch.optim.Adam([p for p in pruned.parameters() if p.requires_grad], 1e-2)
    before = copy.deepcopy(pruned.state_dict())
    flatten_outputs(pruned(example)).square().sum().backward()
    optimizer.step()
    assert any(not torch.equal(before[key], value) for key, value in pruned.state_dict().items())
    pruned.eval()
    path = tmp_path / "pruned.pt2"
    torch.export.save(export_module(pruned, example), path)
    again = raise_program(torch.export.load(path))
    assert {key: value.shape for key, value in again.state_dict().items()} == {
        key: value.shape for key, value in pruned.state_dict().items()
    }
    with torch.no_grad():
        assert torch.equal(flatten_outputs(again(example)), flatten_outputs(pruned(example)))
    units = find_units(again, example)
    assert units.count == find_units(pruned, example).count
    assert remove_units(again, units, draw_units(units, 7, ratio=0.4)).eval()(example) is not None
