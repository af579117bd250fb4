"""Plain layers in place of factors compute the same as the rebuilt kernel."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import fx, nn

from edgeprune.load import raise_module
from edgeprune.measure import count_macs
from edgeprune.prune.low_rank import choose_by_macs, deploy_factors, factor_layers, get_factored, measure_costs
from edgeprune.prune.low_rank.costs import count_form, describe_deployment
from edgeprune.prune.low_rank.ranks import cut_rank
from tests.prune.raised import raise_zoo

LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "1-D": (lambda: nn.Conv1d(3, 6, 7), (3, 31)),
    "1-D, stride, padding, dilation": (
        lambda: nn.Conv1d(3, 6, 5, stride=2, padding=3, dilation=2, bias=False),
        (3, 31),
    ),
    "1-D, same, even kernel": (lambda: nn.Conv1d(2, 6, 8, padding="same", dilation=2), (2, 20)),
    "1-D, one channel": (lambda: nn.Conv1d(1, 6, 9, padding="same", bias=False), (1, 20)),
    "2-D": (lambda: nn.Conv2d(3, 6, (3, 5), stride=(2, 1), padding=(1, 2), dilation=(1, 2)), (3, 12, 13)),
    "2-D, same": (lambda: nn.Conv2d(4, 5, 3, padding="same", bias=False), (4, 6, 7)),
    "3-D": (lambda: nn.Conv3d(2, 4, (2, 3, 3), padding=(0, 1, 1), stride=(1, 2, 1)), (2, 4, 6, 5)),
    "1x1": (lambda: nn.Conv2d(6, 8, 1, stride=2), (6, 7, 7)),
    "1x1, padded": (lambda: nn.Conv1d(6, 8, 1, padding=1, bias=False), (6, 7)),
    "linear": (lambda: nn.Linear(6, 5), (6,)),
    "linear over time": (lambda: nn.Linear(6, 5, bias=False), (4, 6)),
}


def factor_one(make: Callable[[], nn.Module], shape: tuple[int, ...], rank: int) -> fx.GraphModule:
    torch.manual_seed(0)
    module = factor_layers(raise_module(nn.Sequential(make()).double(), torch.randn(2, *shape).double()))
    cut_rank(get_factored(module)["0"], rank)
    return module


@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("name", LAYERS)
def test_both_forms_equal_the_factored_layer(name: str, rank: int) -> None:
    make, shape = LAYERS[name]
    module = factor_one(make, shape, rank)
    x = torch.randn(3, *shape, dtype=torch.float64)
    expected = module(x)
    dense, thin = (deploy_factors(module, {"0": form}) for form in ("dense", "factors"))
    torch.testing.assert_close(dense(x), expected, rtol=0, atol=0)  # the same kernel
    torch.testing.assert_close(thin(x), expected, rtol=0, atol=1e-12)  # float64 sums in another order
    layers = {name: type(layer).__name__ for name, layer in thin.named_children()}
    kind = type(make()).__name__
    assert {name: type(layer).__name__ for name, layer in thin.get_submodule("0").named_children()} == {
        "taps": kind,
        "mix": kind,
    }
    assert list(layers) == ["0"]
    has_bias = make().bias is not None
    assert (thin.get_submodule("0.mix").bias is not None) == has_bias
    assert thin.get_submodule("0.taps").bias is None
    assert get_factored(module), "the module passed in stays as it is"


def test_maps_are_channel_by_channel_pattern_by_pattern() -> None:
    """taps: depthwise, channel c and pattern j at c r + j; mix: weight U[s C + c, j] sigma_j, by index loops."""
    module = factor_one(lambda: nn.Conv1d(3, 4, 5), (3, 12), rank=2)
    layer = get_factored(module)["0"]
    thin = deploy_factors(module, {"0": "factors"})
    taps, mix = thin.get_submodule("0.taps"), thin.get_submodule("0.mix")
    assert (taps.groups, taps.in_channels, taps.out_channels) == (3, 3, 6)
    assert (mix.kernel_size, mix.in_channels, mix.out_channels) == ((1,), 6, 4)
    for c in range(3):
        for j in range(2):
            assert torch.equal(taps.weight[c * 2 + j, 0], layer.V[:, j])
            for s in range(4):
                assert mix.weight[s, c * 2 + j, 0] == layer.U[s * 3 + c, j] * layer.S[j]


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("lite", "resnet20", "se_net", "odds_and_ends")]


@pytest.mark.parametrize("name", ["shared_conv", *SLOW])
def test_networks_in_any_mixture_of_forms(name: str) -> None:
    case = raise_zoo(name)
    module = factor_layers(case.module)
    layers = get_factored(module)
    for number, layer in enumerate(layers.values()):
        cut_rank(layer, max(1, layer.rank - 1 - number % 3))
    expected = module(case.example)
    for offset in (0, 1):
        forms = {layer: ("factors", "dense")[(number + offset) % 2] for number, layer in enumerate(layers)}
        deployed = deploy_factors(module, forms)
        # float64, other orders of sums through some dozens of layers
        torch.testing.assert_close(deployed(case.example), expected, rtol=1e-9, atol=1e-9)
        assert not get_factored(deployed)


def test_costs_by_hand() -> None:
    # 4 filters of 3 x 5 taps, series of 12: 8 positions
    module = factor_one(lambda: nn.Conv1d(3, 4, 5), (3, 12), rank=2)
    layer = get_factored(module)["0"]
    costs = measure_costs(module, (3, 12))
    assert costs.positions == {"0": 8}
    assert costs.other_macs == 0
    dense, thin = count_form(layer, 8, "dense"), count_form(layer, 8, "factors")
    assert (dense.macs, dense.parameters, dense.map_values) == (8 * 60, 60, 0)
    assert (thin.macs, thin.parameters, thin.map_values) == (8 * (3 * 2 * 5 + 4 * 3 * 2), 54, 8 * 6)
    described = describe_deployment(module, costs, {"0": "factors"}, {"other": "2 groups"})
    assert (described["macs_base"], described["macs_deployed"]) == (480, 432)
    row, other = described["ranks"]
    assert other == {"layer": "other", "form": "dense", "reason": "2 groups"}
    assert row["parameters_factors"] == 2 * (12 + 5 + 1)  # equation 3's count, what the paper stores
    assert (row["parameters_deployed"], row["map_values"]) == (54, 48)
    pointwise = get_factored(factor_one(lambda: nn.Conv2d(6, 8, 1), (6, 2, 2), rank=3))["0"]
    assert count_form(pointwise, 4, "factors").macs == 4 * 3 * (6 + 8)
    linear = get_factored(factor_one(lambda: nn.Linear(6, 5), (6,), rank=2))["0"]
    assert count_form(linear, 1, "factors").macs == 2 * (6 + 5)


@pytest.mark.parametrize(("taps", "highest"), [(40, 17), (20, 12), (10, 7)])
def test_ranks_at_which_factors_begin_to_pay(taps: int, highest: int) -> None:
    """papers.md P5, ours: r (L + S) < S L, for S = 32 and any number of channels."""
    module = factor_layers(raise_module(nn.Conv1d(8, 32, taps, bias=False), torch.zeros(2, 8, 64)))
    layers = get_factored(module)
    (layer,) = layers.values()
    paying = []
    for rank in range(layer.rank, 0, -1):
        cut_rank(layer, rank)
        if list(choose_by_macs(layers).values()) == ["factors"]:
            paying.append(rank)
    assert max(paying) == highest
    assert paying == list(range(highest, 0, -1))


def test_equal_macs_stay_dense() -> None:
    # 4 outputs, 4 taps: r (4 + 4) = 4 * 4 at r = 2
    module = factor_one(lambda: nn.Conv1d(3, 4, 4), (3, 12), rank=2)
    assert choose_by_macs(get_factored(module)) == {"0": "dense"}


def test_macs_of_a_net_agree_with_the_count_of_what_is_deployed() -> None:
    case = raise_zoo("shared_conv")
    module = factor_layers(case.module)
    layers = get_factored(module)
    for layer in layers.values():
        cut_rank(layer, max(1, layer.rank // 3))
    shape = tuple(case.example.shape[1:])
    costs = measure_costs(module, shape)
    assert costs.count_macs(layers, dict.fromkeys(layers, "dense")) == count_macs(case.module, shape).total
    forms = choose_by_macs(layers)
    assert "factors" in forms.values()
    assert costs.count_macs(layers, forms) == count_macs(deploy_factors(module), shape).total
