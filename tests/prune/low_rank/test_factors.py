"""Weights as U S V^T: which matrix, that nothing is lost at full rank, and which layers stay dense."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from edgeprune.errors import UnsupportedModelError
from edgeprune.load import raise_module
from edgeprune.models import build_model
from edgeprune.prune.low_rank import count_parameters, explain_dense_layers, factor_layers, get_factored
from edgeprune.prune.low_rank.factors import Factored, FactoredConv, FactoredLinear
from tests.prune.raised import raise_zoo

LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "conv1d": (lambda: nn.Conv1d(3, 5, 7, stride=2, padding=3, dilation=2), (3, 31)),
    "conv1d, same, more taps than rows": (lambda: nn.Conv1d(1, 5, 8, padding="same", bias=False), (1, 20)),
    "conv2d": (lambda: nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2)), (4, 9, 8)),
    "conv3d": (lambda: nn.Conv3d(2, 3, (2, 3, 2), padding=1, bias=False), (2, 4, 5, 6)),
    "1x1": (lambda: nn.Conv2d(6, 4, 1, stride=2), (6, 5, 5)),
    "linear": (lambda: nn.Linear(7, 4), (7,)),
    "linear over time": (lambda: nn.Linear(4, 9, bias=False), (5, 4)),
}


def factor(layer: nn.Module) -> Factored:
    return FactoredLinear(layer) if isinstance(layer, nn.Linear) else FactoredConv(layer)


@pytest.mark.parametrize("name", LAYERS)
def test_full_rank_is_the_original(name: str) -> None:
    torch.manual_seed(0)
    make, shape = LAYERS[name]
    layer = make().double()
    factored = factor(layer)
    x = torch.randn(2, *shape, dtype=torch.float64)
    # float64: rounding of an SVD of some 50 entries
    torch.testing.assert_close(factored.rebuild_weight(), layer.weight, rtol=0, atol=1e-13)
    torch.testing.assert_close(factored(x), layer(x), rtol=0, atol=1e-12)
    assert factored.bias is layer.bias
    assert (factored.S >= 0).all()
    assert (factored.S.diff() <= 0).all()


def test_rows_are_filter_and_channel_columns_are_taps() -> None:
    """Equations 1 and 2, counted from 0: M[s C + c, l2 L1 + l1] = W[s, c, l2, l1]."""
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 4, (2, 5))
    factored = FactoredConv(layer)
    matrix = ((factored.U * factored.S) @ factored.V.T).detach()
    weight = layer.weight.detach()
    assert matrix.shape == (12, 10)
    for s in range(4):
        for c in range(3):
            for l2 in range(2):
                for l1 in range(5):
                    found, meant = matrix[s * 3 + c, l2 * 5 + l1], weight[s, c, l2, l1]
                    assert abs(float(found - meant)) < 1e-6  # float32


def test_columns_of_a_3d_kernel_are_depth_height_width() -> None:
    torch.manual_seed(0)
    layer = nn.Conv3d(2, 2, (2, 3, 2))
    factored = FactoredConv(layer)
    matrix = ((factored.U * factored.S) @ factored.V.T).detach()
    weight = layer.weight.detach()
    for d in range(2):
        for h in range(3):
            for w in range(2):
                difference = matrix[1 * 2 + 0, (d * 3 + h) * 2 + w] - weight[1, 0, d, h, w]
                assert abs(float(difference)) < 1e-6  # float32


@pytest.mark.parametrize(
    ("name", "height", "width"),
    [("conv1d", 15, 7), ("conv2d", 24, 6), ("conv3d", 6, 12), ("1x1", 4, 6), ("linear", 4, 7)],
)
def test_parameters_are_rank_times_rows_columns_and_one(name: str, height: int, width: int) -> None:
    factored = factor(LAYERS[name][0]())
    rank = min(height, width)
    assert factored.rank == factored.full_rank == rank
    assert sum(p.numel() for p in (factored.U, factored.S, factored.V)) == rank * (height + width + 1)


def test_resnet20_at_full_rank_has_0_675_percent_more() -> None:
    net = build_model("resnet20", in_channels=3, classes=10)
    layers = [layer for layer in net.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
    assert len(layers) == 20
    assert count_parameters(net) == 269_722
    extra = sum(count_parameters(factor(layer)) - count_parameters(layer) for layer in layers)
    assert extra == 1_820
    assert round(100 * 1_820 / 269_722, 3) == 0.675


class Mixed(nn.Module):
    """One layer of each kind that stays dense, and two that do not; `again` shares its weight."""

    def __init__(self) -> None:
        super().__init__()
        self.plain, self.depthwise = nn.Conv1d(2, 4, 3, padding=1), nn.Conv1d(4, 4, 3, padding=1, groups=4)
        self.grouped, self.frozen = nn.Conv1d(4, 4, 3, padding=1, groups=2), nn.Conv1d(4, 4, 3, padding=1)
        self.up = nn.ConvTranspose1d(4, 4, 3, padding=1)
        self.first, self.again = nn.Linear(4, 4), nn.Linear(4, 4, bias=False)
        self.again.weight = self.first.weight
        self.head = nn.Linear(4, 3)
        self.frozen.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.up(self.frozen(self.grouped(self.depthwise(self.plain(x)))))
        return self.head(self.again(self.first(x.mean(-1))))


def test_which_layers_stay_dense_and_why() -> None:
    module = raise_module(Mixed(), torch.zeros(2, 2, 9))
    assert explain_dense_layers(module) == {
        "depthwise": "depthwise convolution",
        "grouped": "2 groups",
        "frozen": "frozen: requires_grad is False",
        "up": "transposed convolution",
        "again": "its weight is used elsewhere too",  # raising names both by the last owner of the weight
        "again_1": "its weight is used elsewhere too",
    }
    before = copy.deepcopy(module)
    factored = factor_layers(module)
    assert list(get_factored(factored)) == ["plain", "head"]
    assert not get_factored(module), "the module passed in stays as it is"
    x = torch.randn(3, 2, 9)
    torch.testing.assert_close(factored(x), before(x))
    frozen = factored.get_submodule("frozen")
    assert torch.equal(frozen.weight, module.get_submodule("frozen").weight)


def test_nothing_to_factor_is_refused() -> None:
    net = nn.Sequential(nn.Conv1d(2, 2, 3, groups=2), nn.AdaptiveAvgPool1d(1), nn.Flatten())
    with pytest.raises(UnsupportedModelError, match=r"there is none \(0: depthwise convolution\)"):
        factor_layers(raise_module(net, torch.zeros(2, 2, 9)))


SLOW = [
    pytest.param(name, marks=pytest.mark.slow) for name in ("lite", "resnet20", "se_net", "vit", "lstm_last_hidden")
]


@pytest.mark.parametrize("name", ["shared_conv", *SLOW])
def test_zoo_at_full_rank_computes_the_same(name: str) -> None:
    case = raise_zoo(name)
    factored = factor_layers(case.module)
    assert get_factored(factored)
    assert [node.target for node in factored.graph.nodes] == [node.target for node in case.module.graph.nodes]
    # float64, through up to some dozens of layers
    torch.testing.assert_close(factored(case.example), case.module(case.example), rtol=1e-9, atol=1e-9)
