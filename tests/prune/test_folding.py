"""Folding: the mean of what removed channels contributed moves into biases and BatchNorm means."""

from functools import cache

import pytest
import torch
from torch import Tensor, nn

from edgeprune.errors import InputError
from edgeprune.prune import PruneResult, prune_channels
from tests.prune.independent_check import flatten_outputs
from tests.prune.raised import Raised, draw_units, make_samples, raise_network, raise_zoo, slim_units
from tests.zoo import ZOO

SHAPE = (2, 8)


class Constant(nn.Module):
    """conv -> BN -> relu -> each of the layers -> mean over time, joined. Channels 1 and 3 are made constant."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.conv, self.bn, self.layers = nn.Conv1d(2, 5, 3, padding=1), nn.BatchNorm1d(5), nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn(self.conv(x)))
        outputs = [layer(x) for layer in self.layers]
        return torch.cat([output.mean(-1) if output.dim() == 3 else output for output in outputs], 1)


class TwoBranches(nn.Module):
    """Two convolutions without bias, concatenated before one BatchNorm, as LITE has them."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv1d(5, 1, 1, bias=False), nn.Conv1d(5, 3, 1, bias=False)
        self.bn = nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(torch.cat([self.left(x), self.right(x)], 1))


class LinearOverChannels(nn.Module):
    """A linear layer over the last axis of three, then a BatchNorm over the second: not the same channels."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.bn = nn.Linear(5, 8, bias=False), nn.BatchNorm1d(8)
        self.out = nn.Conv1d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.bn(self.linear(x.transpose(1, 2))))


class Recurrent(nn.Module):
    def __init__(self, **options: bool) -> None:
        super().__init__()
        self.gru = nn.GRU(5, 4, batch_first=True, **options)

    def forward(self, x: Tensor) -> Tensor:
        return self.gru(x.transpose(1, 2))[0].transpose(1, 2)


def make_constant(*layers: nn.Module) -> Raised:
    """Gamma of the channels 1 and 3 set to zero: they are relu(beta) wherever they go."""
    case = raise_network(Constant(*layers), SHAPE)
    with torch.no_grad():
        case.module.bn.weight[[1, 3]] = 0
        case.module.bn.bias[[1, 3]] = torch.tensor([0.7, 0.4], dtype=torch.float64)
    return case


def prune_constant(case: Raised, batches: int = 2) -> PruneResult:
    folds = [make_samples(SHAPE, 8, seed) for seed in range(batches)]
    return prune_channels(case.module, case.example, {1, 3}, fold_batches=folds)


def measure_errors(case: Raised, result: PruneResult) -> list[float]:
    """Largest difference of each layer's 4 outputs from the original's, on samples not measured before."""
    batch = make_samples(SHAPE, 6, seed=99)
    with torch.no_grad():
        return (result.module(batch) - case.module(batch)).abs().amax(0).reshape(-1, 4).amax(1).tolist()


# Layers behind constant channels, and the tensors that take the channels' contribution.
EXACT: dict[str, tuple[nn.Module, tuple[str, ...]]] = {
    "into the bias of a convolution": (nn.Conv1d(5, 4, 3), ("bias",)),
    "grouped": (nn.Sequential(nn.Conv1d(5, 8, 1), nn.Conv1d(8, 4, 1, groups=2)), ("0.bias",)),
    "into the running mean": (nn.Sequential(nn.Conv1d(5, 4, 1, bias=False), nn.BatchNorm1d(4)), ("1.running_mean",)),
    "into a new bias": (nn.Conv1d(5, 4, 1, bias=False), ("bias",)),
    "through a concatenation": (TwoBranches(), ("bn.running_mean", "bn.running_mean")),
    "behind a depthwise layer": (nn.Sequential(nn.Conv1d(5, 5, 3, groups=5), nn.Conv1d(5, 4, 1)), ("1.bias",)),
    "circular border": (nn.Conv1d(5, 4, 3, padding=1, padding_mode="circular"), ("bias",)),
    "flattened": (nn.Sequential(nn.Flatten(), nn.Linear(40, 4)), ("1.bias",)),
    "not into a BatchNorm over another axis": (LinearOverChannels(), ("linear.bias",)),
    "into an RNN": (Recurrent(), ("gru.bias_ih_l0",)),
}


@cache
def prune_exact() -> tuple[PruneResult, list[float], list[float]]:
    """The result, and the errors of each layer's outputs with folding and without."""
    torch.manual_seed(0)
    case = make_constant(*(layer for layer, _ in EXACT.values()))
    result = prune_constant(case)
    plain = prune_channels(case.module, case.example, {1, 3})
    return result, measure_errors(case, result), measure_errors(case, plain)


@pytest.mark.parametrize("name", EXACT)
def test_constant_channels_fold_exactly(name: str) -> None:
    index = list(EXACT).index(name)
    result, errors, errors_without = prune_exact()
    prefix = f"layers.{index}."
    folds = [fold for fold in result.folds if f"{fold.layer}.".startswith(prefix)]
    assert tuple((fold.target or "").removeprefix(prefix) for fold in folds) == EXACT[name][1]
    assert all(fold.exact and fold.magnitude > 0 for fold in folds)
    assert errors[index] < 1e-12  # float64
    assert errors_without[index] > 1e-3


def test_zero_padded_border_is_told_and_still_better_than_nothing() -> None:
    torch.manual_seed(0)
    case = make_constant(nn.Conv1d(5, 4, 3, padding=1))
    result = prune_constant(case)
    (fold,) = result.folds
    assert not fold.exact
    assert fold.deviation > 0.01 * fold.magnitude
    plain = prune_channels(case.module, case.example, {1, 3})
    assert measure_errors(case, result)[0] < 0.5 * measure_errors(case, plain)[0]


def test_channels_that_are_not_constant_fold_their_mean() -> None:
    torch.manual_seed(0)
    case = raise_network(Constant(nn.Conv1d(5, 4, 1)), SHAPE)
    batch = make_samples(SHAPE, 64)
    result = prune_channels(case.module, case.example, {1, 3}, fold_batches=[batch])
    assert [fold.exact for fold in result.folds] == [False]
    with torch.no_grad():
        difference = case.module(batch) - result.module(batch)
    assert torch.allclose(difference.mean(0), torch.zeros(4, dtype=torch.float64), atol=1e-12)


def test_an_rnn_without_bias_is_not_folded() -> None:
    torch.manual_seed(0)
    (fold,) = prune_constant(make_constant(Recurrent(bias=False))).folds
    assert (fold.target, fold.exact) == (None, False)
    assert "without biases" in fold.note


def test_states_of_an_rnn_are_not_folded() -> None:
    case = raise_zoo("lstm_last_hidden")
    (layer,) = (layer for layer in case.units.layers if layer.kind == "LSTM")
    result = prune_channels(case.module, case.example, {int(layer.units[0])}, fold_batches=[case.example])
    assert [fold.note for fold in result.folds if fold.layer == layer.name] == [
        "recurrent states are not constant: not folded"
    ]


def test_a_bias_that_two_layers_share_is_left_alone() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Conv1d(5, 4, 1), nn.Conv1d(2, 4, 1)
            self.right.bias = self.left.bias

        def forward(self, x: Tensor) -> Tensor:
            return self.left(x) + self.right(x[:, 2:4])

    case = make_constant(Tied())
    result = prune_channels(case.module, case.example, {1}, fold_batches=[make_samples(SHAPE, 4)])
    assert [(fold.layer, fold.target) for fold in result.folds] == [("layers.0.left", None)]
    assert torch.equal(*(module.get_parameter("layers.0.left.bias") for module in (result.module, case.module)))


def test_the_module_folded_stays_as_it_was_and_batches_are_needed() -> None:
    case = make_constant(nn.Conv1d(5, 4, 1))
    before = {key: value.clone() for key, value in case.module.state_dict().items()}
    prune_constant(case)
    assert all(torch.equal(before[key], value) for key, value in case.module.state_dict().items())
    with pytest.raises(InputError, match="give at least one batch"):
        prune_constant(case, batches=0)


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("lite", 1e-12),  # pointwise convolutions behind depthwise ones: exact
        ("depthwise_multiplier", 1e-12),
        ("shared_conv", 0.5),  # zero-padded borders: better than nothing by half or more
        pytest.param("mobilenet_v2", 1e-12, marks=pytest.mark.slow),
        pytest.param("resnet20", 0.5, marks=pytest.mark.slow),
        pytest.param("shufflenet", 1e-12, marks=pytest.mark.slow),
    ],
)
def test_slimmed_zoo_networks_keep_their_outputs(name: str, error: float) -> None:
    case = raise_zoo(name)
    dead = draw_units(case.units, 1, ratio=0.5)
    slimmed = slim_units(case.module, case.units, dead)
    batch = make_samples(ZOO[name].sample_shape, 4, seed=5)
    measured = [make_samples(ZOO[name].sample_shape, 4, seed=6)]
    folded = prune_channels(slimmed, case.example, dead, fold_batches=measured)
    plain = prune_channels(slimmed, case.example, dead)
    with torch.no_grad():
        expected = flatten_outputs(slimmed(batch))
        errors = [
            float((flatten_outputs(result.module(batch)) - expected).abs().max() / expected.abs().max())
            for result in (folded, plain)
        ]
    assert errors[1] > 1e-3
    assert errors[0] < (error if error < 1e-3 else error * errors[1])
