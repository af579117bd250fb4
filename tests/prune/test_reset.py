"""Training from scratch starts from new weights, and only from those that were trainable."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgeprune.errors import UnsupportedModelError
from edgeprune.load import raise_module
from edgeprune.models import build_model
from edgeprune.prune.reset import reset_parameters


def test_trainable_layers_are_new_and_handcrafted_filters_stay() -> None:
    lite = raise_module(build_model("lite", in_channels=1, classes=3).eval(), torch.zeros(2, 1, 24))
    with torch.no_grad():
        lite(torch.randn(4, 1, 24))
        for layer in lite.modules():
            if isinstance(layer, nn.BatchNorm1d):
                layer.running_mean += 1
                layer.weight *= 3
                layer.bias += 1
    before = {name: parameter.detach().clone() for name, parameter in lite.named_parameters()}
    fresh = reset_parameters(lite, seed=1)
    for name, parameter in fresh.named_parameters():
        assert torch.equal(parameter, before[name]) != parameter.requires_grad, name
        assert torch.equal(lite.get_parameter(name), before[name]), "the input stays as it was"
    for layer in fresh.modules():
        if isinstance(layer, nn.BatchNorm1d):
            assert torch.equal(layer.running_mean, torch.zeros_like(layer.running_mean))
            assert torch.equal(layer.weight, torch.ones_like(layer.weight))


def test_the_seed_alone_decides() -> None:
    net = raise_module(build_model("fcn", in_channels=1, classes=2, widths=(4, 4, 4)).eval(), torch.zeros(2, 1, 24))
    state = torch.get_rng_state()
    first = reset_parameters(net, seed=5)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(3)
    again, other = reset_parameters(first, seed=5), reset_parameters(first, seed=6)
    weights = [model.get_parameter("head.weight") for model in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_buffers_and_frozen_parts_of_a_layer_stay() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 2)
            self.linear.bias.requires_grad_(False)
            self.register_buffer("window", torch.arange(3.0))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(x * self.window)

    net = Net()
    fresh = reset_parameters(net, seed=0)
    assert torch.equal(fresh.linear.bias, net.linear.bias)
    assert torch.equal(fresh.window, net.window)
    assert not torch.equal(fresh.linear.weight, net.linear.weight)


def test_a_bare_trainable_parameter_is_refused() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(4))
            self.linear = nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(x * self.scale)

    net = raise_module(Net().eval(), torch.zeros(2, 4))
    with pytest.raises(UnsupportedModelError, match=r"parameter scale \(4,\): no layer says how.*--retrain finetune"):
        reset_parameters(net, seed=0)
    net.get_parameter("scale").requires_grad_(False)
    assert torch.equal(reset_parameters(net, seed=0).get_parameter("scale"), torch.ones(4))
