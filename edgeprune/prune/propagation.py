"""Labels carried through a raised program, node by node."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx, nn

from edgeprune.prune.function_rules import label_function, label_number
from edgeprune.prune.module_rules import label_module
from edgeprune.prune.state import Propagation


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """The module in eval mode without gradients; each sub-module's own mode is put back afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, training in modes:
            part.training = training


class _ShapeRecorder(fx.Interpreter):
    """Runs a program and keeps the shape of each node's value."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.shapes: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        self.shapes[n] = _describe_value(value)
        return value


def _describe_value(value: Any) -> Any:
    """Tensor -> its shape (torch.Size), sequence -> tuple, int -> itself, anything else -> None."""
    if isinstance(value, torch.Tensor):
        return value.shape
    if isinstance(value, (tuple, list)):
        return tuple(_describe_value(item) for item in value)
    return value if isinstance(value, int) else None


def propagate(module: fx.GraphModule, example: torch.Tensor | Sequence[torch.Tensor]) -> Propagation:
    """Labels of every node, parameter and layer of a raised program.

    example: a batch of inputs, (N, C, T) or (N, C, H, W), or a sequence of inputs; two samples are best, so that the
    batch axis is not mistaken for one of size 1.
    """
    recorder = _ShapeRecorder(module)
    some = next(module.parameters(), torch.empty(0))
    inputs = [example] if isinstance(example, torch.Tensor) else example
    with evaluation_mode(module):
        recorder.run(*(value.to(some.device, some.dtype if value.is_floating_point() else None) for value in inputs))
    state = Propagation(module, recorder.shapes)
    for node in module.graph.nodes:
        labels = _label_node(state, node)
        # A bare parameter may still have a label per element: what it meets first decides which of its axes is the
        # channels'. Everything else is a box from here on.
        state.labels[node] = labels if node.op == "get_attr" else state.make_rectangular(labels)
    return state


def _label_node(state: Propagation, node: fx.Node) -> Any:
    if node.op == "placeholder":
        return state.make_pinned(node, "model input")
    if node.op == "get_attr":
        return state.label_attribute(str(node.target))
    if node.op == "output":
        for source in node.all_input_nodes:
            state.pin(state.labels[source], node, "model output")
        return None
    if isinstance(state.get_shape(node), int):
        return label_number(state, node)
    if node.op == "call_module":
        return label_module(state, node)
    if node.op == "call_function":
        return label_function(state, node)
    return state.pin_all(node, f"{node.op} {node.target} is not known to the channel analysis")
