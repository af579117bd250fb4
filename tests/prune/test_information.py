"""Information flow and gradient flow (papers.md P4, equations 2 and 3) against numpy and formulas written out."""

from __future__ import annotations

import copy
import functools

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

from edgeprune.errors import UnsupportedModelError
from edgeprune.load import raise_module
from edgeprune.prune import find_units, remove_units
from edgeprune.prune.information import (
    GradientFlow,
    InformationFlow,
    Kept,
    find_consecutive_layers,
    measuring,
    split_evenly,
    standardize,
)


class Small(nn.Module):
    """Two convolutions and a head; relu between."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(2, 4, 3)
        self.second = nn.Conv1d(4, 3, 2)
        self.head = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.second(torch.relu(self.first(x)))).mean(-1))


class Joined(nn.Module):
    """A residual, a concatenation, a gate, a layer called twice, batch norms and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv1d(2, 4, 3, padding=1)
        self.norm = nn.BatchNorm1d(4)
        self.inner = nn.Conv1d(4, 4, 3, padding=1)
        self.gate = nn.Conv1d(4, 4, 1)
        self.depthwise = nn.Conv1d(8, 8, 3, groups=8, padding=1)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        stem = torch.relu(self.norm(self.stem(x)))
        total = torch.relu(self.inner(stem) + stem)
        again = self.inner(total)
        gated = again * torch.sigmoid(self.gate(total))
        return self.head(self.dropout(self.depthwise(torch.cat([gated, stem], 1)).view(x.shape[0], 8, -1).mean(-1)))


@functools.cache
def small() -> fx.GraphModule:
    torch.manual_seed(1)
    return raise_module(Small().eval(), torch.zeros(2, 2, 9))


@functools.cache
def joined() -> fx.GraphModule:
    torch.manual_seed(2)
    return raise_module(Joined().eval(), torch.zeros(2, 2, 9))


def make_samples(count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(count, 2, 9, generator=generator), torch.arange(count) % 2


def correlate(x: np.ndarray, layer: nn.Module) -> np.ndarray:
    """A valid Conv1d of stride 1 as an einsum over windows."""
    weight, bias = (getattr(layer, name).detach().double().numpy() for name in ("weight", "bias"))
    windows = np.lib.stride_tricks.sliding_window_view(x, weight.shape[-1], axis=-1)
    return np.asarray(np.einsum("nctk,ock->not", windows, weight) + bias[:, None])


def test_information_flow_of_a_small_net_by_hand() -> None:
    module = small()
    x, y = make_samples(30)
    phi = InformationFlow(module).measure(module, x, y)
    assert list(phi) == ["first -> second", "second -> head"]
    first = correlate(x.double().numpy(), module.first)
    second = correlate(np.maximum(first, 0), module.second)
    pooled = np.maximum(second, 0).mean(-1)
    head = pooled @ module.head.weight.detach().double().numpy().T + module.head.bias.detach().double().numpy()
    for name, before, after in (
        ("first -> second", first.mean(-1), second.mean(-1)),
        ("second -> head", second.mean(-1), head),
    ):
        channels = before.shape[1]
        expected = np.corrcoef(before, after, rowvar=False)[:channels, channels:]  # E of standardised products
        assert phi[name].shape == expected.shape
        # single-precision convolutions, sums of some ten products
        np.testing.assert_allclose(phi[name].numpy(), expected, atol=2e-6)


def test_gradient_flow_is_the_masked_gradient_written_out() -> None:
    module = small()
    x, y = make_samples(300)  # three chunks of 100
    flow = GradientFlow(module)
    phi = flow.measure(module, x, y)
    assert list(phi) == ["first.weight", "second.weight", "head.weight"]
    # cross-entropy over the softmax of a linear head: dL/dW = (P - Y)^T F / N
    first = correlate(x.double().numpy(), module.first)
    features = np.maximum(correlate(np.maximum(first, 0), module.second), 0).mean(-1)
    logits = features @ module.head.weight.detach().double().numpy().T + module.head.bias.detach().double().numpy()
    likely = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = (likely - np.eye(2)[y.numpy()]).T @ features / 300
    np.testing.assert_allclose(phi["head.weight"].numpy(), expected, atol=1e-7)
    # and by differences, for a weight in the middle
    weight = copy.deepcopy(module).double()
    values = []
    for step in (1e-6, -2e-6):
        with torch.no_grad():
            weight.second.weight[1, 2, 0] += step
            values.append(float(nn.functional.cross_entropy(weight(x.double()), y)))
    assert float(phi["second.weight"][1, 2, 0]) == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-3)
    mask = torch.rand(module.head.weight.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    zero = {name: torch.zeros_like(gradient) for name, gradient in phi.items()}
    masks = {"head.weight": mask, "first.weight": torch.zeros_like(phi["first.weight"], dtype=torch.bool)}
    reference = {**phi, "head.weight": 3 * phi["head.weight"]}
    left = float((expected[mask.numpy()] ** 2).sum()), float(phi["second.weight"].square().sum())
    distance = flow.compute_distance(phi, reference, Kept(), masks)
    assert distance == pytest.approx(np.sqrt(4 * left[0] / (9 * left[0] + left[1])), rel=1e-5)
    assert flow.compute_distance(zero, phi, Kept(), masks) == pytest.approx(1)
    assert flow.compute_distance(phi, zero, Kept(), masks) == float("inf")


def test_class_weights_count() -> None:
    module = small()
    x, y = make_samples(20)
    weights = torch.tensor([1.0, 3.0])
    phi = GradientFlow(module, weights).measure(module, x, y)
    fresh = copy.deepcopy(module)
    nn.functional.cross_entropy(fresh(x), y, weights).backward()
    torch.testing.assert_close(phi["second.weight"].float(), fresh.second.weight.grad)


@pytest.mark.parametrize("kind", [InformationFlow, GradientFlow])
def test_what_is_removed_does_not_count(kind: type) -> None:
    """A channel that does nothing: masked away or cut out, the flow over all else stays what it was."""
    module = copy.deepcopy(small())
    with torch.no_grad():
        module.first.weight[2].zero_()
        module.first.bias[2].zero_()
        module.second.weight[:, 2].zero_()
    x, y = make_samples(24)
    flow = kind(module)
    reference = flow.measure(module, x, y)
    masks = {name: parameter != 0 for name, parameter in module.named_parameters() if parameter.dim() > 1}
    assert flow.compute_distance(reference, reference, Kept(), masks) == 0
    spoiled = {name: tensor.clone() for name, tensor in reference.items()}
    for tensor in spoiled.values():
        tensor += 1
    assert flow.compute_distance(spoiled, reference, Kept(), masks) > 0.5
    if kind is InformationFlow:  # only what touches the empty filter is spoiled
        spoiled = {name: tensor.clone() for name, tensor in reference.items()}
        spoiled["first -> second"][2] += 1
        assert flow.compute_distance(spoiled, reference, Kept(), masks) == 0

    units = find_units(module, x)
    unit = int(next(layer for layer in units.layers if layer.name == "first").units[2])
    pruned = remove_units(module, units, {unit})
    kept = Kept().remove(units, {unit})
    assert flow.compute_distance(flow.measure(pruned, x, y), reference, kept, {}) < 1e-5  # rounding
    units = find_units(pruned, x)  # a second step: positions are still those of the dense net
    second = {int(next(layer for layer in units.layers if layer.name == "first").units[2])}
    assert kept.remove(units, second).indices[("first.weight", 0)].tolist() == [0, 1]
    assert kept.remove(units, second).indices[("second.weight", 1)].tolist() == [0, 1]
    left = flow.measure(remove_units(pruned, units, second), x, y)
    assert flow.compute_distance(left, reference, kept.remove(units, second), {}) > 0


def test_consecutive_layers_are_found_through_sums_concatenations_and_gates() -> None:
    names = {node.name: str(node.target) for node in joined().graph.nodes}
    pairs = [(names[a], names[b]) for a, b in find_consecutive_layers(joined())]
    assert sorted(pairs) == sorted(
        [
            ("stem", "inner"),
            ("stem", "inner"),  # the second call of `inner` reads the sum of stem and first call
            ("inner", "inner"),
            ("stem", "gate"),
            ("inner", "gate"),
            ("inner", "depthwise"),
            ("gate", "depthwise"),
            ("stem", "depthwise"),
            ("depthwise", "head"),
        ]
    )


def test_measuring_leaves_the_net_as_it_was_and_draws_nothing() -> None:
    module = copy.deepcopy(joined()).train()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    x, y = make_samples(30)
    random = torch.get_rng_state()
    for flow in (InformationFlow(module), GradientFlow(module)):
        first, second = flow.measure(module, x, y), flow.measure(copy.deepcopy(module).eval(), x, y)
        assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(torch.get_rng_state(), random)  # no dropout
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    assert all(part.training for part in module.modules())
    assert module.norm.track_running_stats
    assert all(parameter.grad is None for parameter in module.parameters())


def test_batch_norms_use_the_samples_at_hand() -> None:
    x = torch.randn(8, 3, 5, generator=torch.Generator().manual_seed(0)) * 4 + 2
    norm = nn.BatchNorm1d(3, affine=False)
    with measuring(norm):
        value = norm(x)
    expected = (x - x.mean((0, 2), keepdim=True)) / (x.var((0, 2), correction=0, keepdim=True) + norm.eps).sqrt()
    torch.testing.assert_close(value, expected)


def test_recurrent_layers_are_in_training_mode_without_dropout() -> None:
    layer = nn.GRU(3, 4, num_layers=2, dropout=0.5).eval()
    x = torch.ones(5, 2, 3)
    with measuring(layer):
        assert layer.training
        assert torch.equal(layer(x)[0], layer(x)[0])
    assert not layer.training
    assert layer.dropout == 0.5


def test_constant_channels_flow_nowhere() -> None:
    features = torch.tensor([[1.0, 5.0], [3.0, 5.0 + 1e-6]], dtype=torch.float64)
    assert standardize(features).tolist() == [[-1.0, 0.0], [1.0, 0.0]]


def test_no_chunk_is_a_lone_sample() -> None:
    assert [len(part) for part in split_evenly(torch.arange(129), 128)] == [65, 64]


def test_a_net_without_consecutive_layers_is_refused() -> None:
    module = raise_module(nn.Sequential(nn.Flatten(), nn.Linear(18, 2)).eval(), torch.zeros(2, 2, 9))
    with pytest.raises(UnsupportedModelError, match="incop-gf, accuracy or epochs"):
        InformationFlow(module)
