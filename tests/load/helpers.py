"""Small things that the tests of this room share."""

import copy

import torch
from torch import Tensor, fx, nn


def flatten(outputs: Tensor | tuple[Tensor, ...]) -> Tensor:
    """All outputs as one vector."""
    return torch.cat([part.flatten() for part in ((outputs,) if isinstance(outputs, Tensor) else outputs)])


def list_nodes(module: fx.GraphModule) -> list[tuple[str, ...]]:
    """A program as text, to compare two."""
    return [(node.op, node.name, str(node.target), str(node.args), str(node.kwargs)) for node in module.graph.nodes]


def assert_trains_alike(first: nn.Module, second: nn.Module, samples: Tensor) -> None:
    """One train-mode pass of copies, with equal random numbers: outputs, gradients and buffers are equal to the bit."""
    first, second = copy.deepcopy(first).train(), copy.deepcopy(second).train()
    results = []
    for module in (first, second):
        torch.manual_seed(1)
        output = flatten(module(samples.clone()))
        output.square().sum().backward()
        results.append(output)
    assert torch.equal(*results)
    ours, theirs = dict(second.named_parameters()), dict(first.named_parameters())
    for name, parameter in ours.items():
        expected = theirs[name]
        assert parameter.requires_grad == expected.requires_grad, name
        assert (parameter.grad is None) == (expected.grad is None), name
        assert parameter.grad is None or torch.equal(parameter.grad, expected.grad), name
    buffers = dict(second.named_buffers())
    for name, buffer in first.named_buffers():
        assert name not in buffers or torch.equal(buffer, buffers[name]), name
