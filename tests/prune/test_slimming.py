"""Which BatchNorm scales stand for which units, and the penalty on them (papers.md P3, network slimming)."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from edgeprune.errors import UnsupportedModelError
from edgeprune.load import raise_module
from edgeprune.models import build_model
from edgeprune.prune import ChannelUnits, TrainSettings, find_units, train_model
from edgeprune.prune.slimming import Scales, SlimmingHook, find_scales, require_scales
from edgeprune.prune.units import PINNED
from tests.prune.independent_check import flatten_outputs
from tests.prune.raised import make_samples, raise_network, raise_zoo
from tests.prune.random_networks import RandomNetwork
from tests.prune.test_training import make_series
from tests.zoo import make_batch


def analyse(model: nn.Module, example: Tensor) -> tuple[fx.GraphModule, ChannelUnits, Scales]:
    module = raise_module(model.eval(), example)
    units = find_units(module, example)
    return module, units, find_scales(module, units)


def get_layer_units(units: ChannelUnits, name: str) -> list[int]:
    return next(layer.units.tolist() for layer in units.layers if layer.name == name)


# -- which scales belong to which units


def test_lite_has_scales_behind_its_concat_and_none_for_frozen_filters() -> None:
    model = build_model("lite", in_channels=1, classes=2, filters=4)
    _, units, scales = analyse(model, torch.zeros(2, 1, 80))
    behind_concat = scales.units["norm.weight"].tolist()
    convolutions = [unit for index in range(3) for unit in get_layer_units(units, f"convolutions.{index}")]
    assert behind_concat == convolutions + 17 * [PINNED]
    assert scales.units["block1.norm.weight"].tolist() == get_layer_units(units, "block1.pointwise")
    assert len(scales.judged) == 12 + 4 + 4
    assert scales.unjudged == ()


def test_inception_has_scales_but_for_its_bottlenecks() -> None:
    case = raise_zoo("inception_time")
    scales = find_scales(case.module, case.units)
    # a residual sum: the block's own scales and those of the shortcut stand for the same units
    assert scales.units["blocks.2.bn.weight"].tolist() == scales.units["shortcuts.0.1.weight"].tolist()
    joined = [unit for index in range(3) for unit in get_layer_units(case.units, f"blocks.0.convs.{index}")]
    joined += get_layer_units(case.units, "blocks.0.pool_conv")
    assert scales.units["blocks.0.bn.weight"].tolist() == joined
    reasons = dict(scales.unjudged)
    assert list(reasons) == [f"blocks.{index}.bottleneck" for index in range(1, 6)]
    assert reasons["blocks.1.bottleneck"] == "no trainable BatchNorm scale on the way to blocks.1.convs.0"


def test_residual_units_score_the_largest_scale_of_all_branches() -> None:
    case = raise_zoo("resnet20")
    scales = find_scales(case.module, case.units)
    stage = ["bn.weight"] + [f"blocks.{index}.bn2.weight" for index in range(3)]
    for name in stage:
        assert scales.units[name].tolist() == get_layer_units(case.units, "conv")
    values = {name: torch.zeros(len(ids)) for name, ids in scales.units.items()}
    for value, name in zip((0.1, -0.7, 0.3, 0.2), stage, strict=True):
        values[name][5] = value
    scores = scales.score_units(values)
    assert scores[get_layer_units(case.units, "conv")[5]] == pytest.approx(0.7)
    assert sum(score != 0 for score in scores.values()) == 1


def test_densenet_units_have_a_scale_for_every_reader() -> None:
    case = raise_zoo("densenet")
    scales = find_scales(case.module, case.units)
    for name in ("features.0.bn1.weight", "features.1.bn1.weight", "features.2.bn1.weight", "features.3.weight"):
        assert scales.units[name][:12].tolist() == get_layer_units(case.units, "stem")
    grown = get_layer_units(case.units, "features.0.conv2")
    assert scales.units["features.2.bn1.weight"][12:18].tolist() == grown
    assert scales.unjudged == ()


class Assorted(nn.Module):
    """A shared BatchNorm; a frozen and a scaleless one; a residual whose one branch has none."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(1, 4, 3), nn.Conv1d(1, 4, 3)
        self.shared = nn.BatchNorm1d(4)
        self.third, self.frozen = nn.Conv1d(4, 5, 3), nn.BatchNorm1d(5)
        self.fourth, self.plain = nn.Conv1d(5, 6, 3), nn.BatchNorm1d(6, affine=False)
        self.fifth, self.bare = nn.Conv1d(6, 7, 1), nn.Conv1d(6, 7, 1)
        self.norm = nn.BatchNorm1d(7)
        self.head = nn.Linear(7, 2)
        self.frozen.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.third(torch.relu(self.shared(self.first(x))) + torch.relu(self.shared(self.second(x)))))
        x = torch.relu(self.plain(self.fourth(self.frozen(x))))
        return self.head((self.norm(self.fifth(x)) + self.bare(x)).mean(-1))


def test_shared_frozen_scaleless_and_half_normalised() -> None:
    _, units, scales = analyse(Assorted(), torch.zeros(2, 1, 16))
    assert scales.units.keys() == {"shared.weight"}
    assert scales.units["shared.weight"].tolist() == get_layer_units(units, "first") == get_layer_units(units, "second")
    reasons = dict(scales.unjudged)
    assert reasons["third"] == "no trainable BatchNorm scale on the way to fourth"
    assert reasons["fourth"] == "no trainable BatchNorm scale on the way to fifth"
    assert reasons["fifth"] == reasons["bare"] == "no trainable BatchNorm scale on the way to head"


def test_gated_units_are_judged_by_the_scales_of_what_is_gated() -> None:
    case = raise_zoo("se_net")
    scales = find_scales(case.module, case.units)
    assert scales.units["bn1.weight"].tolist() == get_layer_units(case.units, "conv1")
    assert [layer for layer, _ in scales.unjudged] == ["se1.squeeze", "se2.squeeze", "squeeze"]


@pytest.mark.parametrize("name", ["gru", "vit"])
def test_nets_whose_layers_have_no_batch_norm(name: str) -> None:
    case = raise_zoo(name)
    scales = find_scales(case.module, case.units)
    assert "recurrent" not in " ".join(scales.units)
    if not scales.judged:
        with pytest.raises(UnsupportedModelError, match=r"slimming: none of this model's channels .* use --method l1"):
            require_scales(case.module, case.units, "slimming")


def check_influence(module: fx.GraphModule, units: ChannelUnits, batch: Tensor) -> int:
    """With their scales and shifts at 0, the filters of judged units have no influence; gives back how many units.

    Every filter that makes a judged unit is drawn anew, but for depthwise ones, which only hand on.
    """
    scales = find_scales(module, units)
    zeroed = copy.deepcopy(module)
    parameters = dict(zeroed.named_parameters())
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, ids in scales.units.items():
            parameters[name][torch.from_numpy(ids != PINNED)] = 0
            shift = parameters.get(name.removesuffix("weight") + "bias")
            if shift is not None:
                shift[torch.from_numpy(ids != PINNED)] = 0
        before = flatten_outputs(zeroed(batch))
        for name, axis in units.filters:
            layer = zeroed.get_submodule(name.rpartition(".")[0])
            if getattr(layer, "groups", 1) > 1 and layer.groups == layer.in_channels:
                continue
            ids = units.slices[(name, axis)]
            chosen = torch.from_numpy(np.isin(ids, scales.judged))
            filters = parameters[name].movedim(axis, 0)
            noise = torch.randn(filters.shape, generator=generator, dtype=filters.dtype)
            filters[chosen] = noise[chosen]
        after = flatten_outputs(zeroed(batch))
    # float64; 0 * (what the new filters make) is exactly 0, sums over zeros may be in another order
    assert (after - before).abs().max() <= 1e-12 * max(1.0, float(before.abs().max()))
    return len(scales.judged)


@pytest.mark.parametrize("name", ["inception_time", "resnet20", "densenet", "se_net", "eegnet"])
def test_filters_behind_scales_at_zero_have_no_influence(name: str) -> None:
    case = raise_zoo(name)
    assert check_influence(case.module, case.units, make_batch(name, 3).double()) > 20


STEP_NAMES = (
    *("convolution", "depthwise", "shared", *5 * ("norm, activation",), "concatenation", "sum", "gate", "chunks"),
    *("slice", "picked channel", "padding", "shuffle", "squeeze-excite", "spatial attention", "pool", "scale"),
)


def check_random_networks(seeds: range) -> int:
    judged = 0
    for seed in seeds:
        torch.manual_seed(seed)
        network = RandomNetwork(seed, STEP_NAMES)
        try:
            case = raise_network(network, (2, *network.spatial), seed)
        except UnsupportedModelError:
            continue
        judged += check_influence(case.module, case.units, make_samples((2, *network.spatial), 3, seed))
    return judged


def test_random_networks() -> None:
    assert check_random_networks(range(11, 13)) > 0


@pytest.mark.slow
@pytest.mark.parametrize("start", range(0, 120, 30))
def test_many_random_networks(start: int) -> None:
    assert check_random_networks(range(start, start + 30)) > 0


# -- the penalty


class TwoScales(nn.Module):
    """Two scales that count, one of a frozen filter that does not."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fixed = nn.Conv1d(1, 4, 3, bias=False), nn.Conv1d(1, 2, 3, bias=False)
        self.norm = nn.BatchNorm1d(6)
        self.head = nn.Linear(6, 2)
        self.fixed.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.norm(torch.cat([self.conv(x), self.fixed(x)], 1))).mean(-1))


def test_subgradient_by_hand() -> None:
    module, _, scales = analyse(TwoScales(), torch.zeros(2, 1, 16))
    gamma = module.get_parameter("norm.weight")
    gamma.data = torch.tensor([1.5, -0.5, 0.0, 2.0, 1.0, -1.0])
    hook = SlimmingHook(scales, 0.25)
    hook.begin(module, torch.optim.SGD([gamma], 0.1))
    gamma.grad = torch.tensor([1.0, 1.0, 1.0, -2.0, 3.0, 3.0])
    hook.adjust_gradients()
    assert gamma.grad is not None
    assert gamma.grad.tolist() == [1.25, 0.75, 1.0, -1.75, 3.0, 3.0]  # sign(0) = 0; the frozen filters' as they were
    assert hook.get_figures() == {"mean scale": 1.0}
    gamma.grad = None
    hook.adjust_gradients()
    assert gamma.grad is not None
    assert gamma.grad.tolist() == [0.25, -0.25, 0.0, 0.25, 0.0, 0.0]


def test_a_training_step_is_that_of_the_penalised_loss() -> None:
    """Against autograd on cross-entropy + lambda * sum |gamma| over the first four scales, one step of SGD."""
    torch.manual_seed(0)
    module, _, scales = analyse(TwoScales(), torch.zeros(2, 1, 16))
    x, y = make_series(16)
    settings = TrainSettings(epochs=1, batch_size=16, optimizer="sgd", learning_rate=0.5, momentum=0.0)
    trained = train_model(module, x, y, settings, hook=SlimmingHook(scales, 0.1)).module
    reference = copy.deepcopy(module).train()
    gamma = reference.get_parameter("norm.weight")
    loss = functional.cross_entropy(reference(torch.from_numpy(x)), torch.from_numpy(y)) + 0.1 * gamma[:4].abs().sum()
    loss.backward()
    assert gamma.grad is not None
    expected = (gamma - 0.5 * gamma.grad).detach()
    # float32, the batch in another order: some roundings
    torch.testing.assert_close(trained.get_parameter("norm.weight").detach(), expected, rtol=1e-5, atol=1e-6)


def test_the_hook_says_what_decides_it_and_keeps_the_last_epoch() -> None:
    _, _, scales = analyse(TwoScales(), torch.zeros(2, 1, 16))
    other = replace(scales, units={"norm.weight": np.array([0, 1, 2, PINNED, PINNED, PINNED])})
    texts = {SlimmingHook(scales, 0.1).describe(), SlimmingHook(scales, 0.2).describe()}
    texts.add(SlimmingHook(other, 0.1).describe())
    assert len(texts) == 3
    assert SlimmingHook(scales, 0.1).keeps_last
