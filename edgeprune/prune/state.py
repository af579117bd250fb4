"""What the rules of channel analysis work on: the labels found so far, and what a rule may ask and say.

A rule takes a `Propagation` and a node and returns the labels of the node's output. It may make fresh labels (a
convolution makes its output channels), link labels, pin labels with a reason, and say along which labels a parameter
is sliced. A node without a rule pins everything it touches: an unknown operation is never wrong, only unprunable.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from edgeprune.load.raising_layers import bind_arguments
from edgeprune.prune.labels import LabelPool, shrink, varying_axes


def map_shapes(shapes: Any, make: Any) -> Any:
    """`make(shape)` for each tensor of a recorded value, in the value's own nesting."""
    if isinstance(shapes, torch.Size):
        return make(shapes)
    if isinstance(shapes, tuple):
        return tuple(map_shapes(item, make) for item in shapes)
    return None


def iterate_labels(labels: Any) -> Iterator[torch.Tensor]:
    """All label arrays in a node's value, whatever its nesting."""
    if isinstance(labels, torch.Tensor):
        yield labels
    elif isinstance(labels, (tuple, list)):
        for item in labels:
            yield from iterate_labels(item)


@dataclass(frozen=True, eq=False)
class LayerLabels:
    """A layer that makes channels: a convolution, a linear layer, an RNN."""

    name: str
    kind: str
    parameter: str  # the weight that holds one filter per channel
    axis: int  # along this axis
    labels: torch.Tensor  # int64 (output channels,)


class Propagation:
    """The state of one pass of labels over a program; see the module's docstring. Made by `propagation.propagate`."""

    def __init__(self, module: fx.GraphModule, shapes: Mapping[fx.Node, Any]) -> None:
        self.module = module
        self.pool = LabelPool()
        self.labels: dict[fx.Node, Any] = {}  # node -> labels, or a tuple of them, or an int
        self.slices: dict[tuple[str, int], torch.Tensor] = {}  # (parameter, axis) -> label per index
        self.filters: dict[tuple[str, int], torch.Tensor] = {}  # the slices among them that make channels
        self.elements: dict[str, torch.Tensor] = {}  # bare parameter -> label per element
        self.layers: dict[str, LayerLabels] = {}
        self._shapes = shapes
        named = [*module.named_parameters(), *module.named_buffers()]
        self._tensor_names = {id(tensor): name for name, tensor in named}  # shared tensors have one name
        self._module_names = {id(part): name for name, part in module.named_modules()}

    # -- what a rule asks

    def get_shape(self, node: fx.Node) -> Any:
        """The shape of a node's value on the example: torch.Size, or a tuple of them, or an int."""
        return self._shapes[node]

    def get_tensor_inputs(self, node: fx.Node) -> list[fx.Node]:
        """The input nodes that hold one tensor."""
        return [source for source in node.all_input_nodes if isinstance(self.labels[source], torch.Tensor)]

    def get_arguments(self, node: fx.Node) -> dict[str, Any]:
        """All arguments of an aten node by their schema names, defaults filled in."""
        return bind_arguments(node.target, node)  # type: ignore[arg-type]  # rules stand for aten overloads only

    def run_on_labels(self, node: fx.Node, target: Any = None) -> Any:
        """The node's own operation (or `target` in its place), applied to labels instead of values."""
        args = fx.node.map_arg(node.args, lambda source: self.labels[source])
        kwargs = fx.node.map_arg(node.kwargs, lambda source: self.labels[source])
        run: Any = target or node.target
        return run(*args, **kwargs)

    # -- what a rule says

    def link(self, first: torch.Tensor, second: torch.Tensor) -> None:
        """See LabelPool.link."""
        self.pool.link(first, second)

    def make_fresh(self, count: int) -> torch.Tensor:
        """See LabelPool.make_fresh."""
        return self.pool.make_fresh(count)

    def make_rectangular(self, labels: Any) -> Any:
        """LabelPool.make_rectangular for one or several label arrays."""
        if isinstance(labels, torch.Tensor):
            return self.pool.make_rectangular(labels)
        if isinstance(labels, (tuple, list)):
            return tuple(self.make_rectangular(item) for item in labels)
        return labels

    def pin(self, labels: Any, node: fx.Node, text: str) -> None:
        """Pin one or several label arrays."""
        for array in iterate_labels(labels):
            self.pool.pin(array, node.name, text)

    def make_pinned(self, node: fx.Node, text: str) -> Any:
        """Pinned labels for the whole output of a node."""
        reason = self.pool.make_reason(node.name, text)
        return map_shapes(self.get_shape(node), lambda shape: reason.reshape([1] * len(shape)).expand(shape))

    def pin_all(self, node: fx.Node, text: str) -> Any:
        """Pin the inputs of a node and return pinned labels for its output."""
        for source in node.all_input_nodes:
            self.pin(self.labels[source], node, text)
        return self.make_pinned(node, text)

    def get_channels(self, labels: torch.Tensor, axis: int, node: fx.Node) -> torch.Tensor:
        """The label vector along `axis`, int64 (size,); labels that vary along another axis are pinned."""
        axis %= labels.dim()
        size = labels.size(axis)
        if any(other != axis for other in varying_axes(labels)):
            text = "its channels lie along an axis that this layer mixes"
            self.pin(labels, node, text)
            return self.pool.make_reason(node.name, text).expand(size)
        return shrink(labels).reshape(-1).expand(size)

    def slice_parameter(self, layer: nn.Module, attribute: str, axis: int, labels: torch.Tensor) -> None:
        """The parameter or buffer `attribute` of `layer` is sliced along `axis` by `labels`.

        A tensor shared between uses links their labels. An absent bias is noted too: folding may create it.
        """
        tensor = getattr(layer, attribute, None)
        if tensor is None:
            key = (f"{self._module_names[id(layer)]}.{attribute}", axis)
        else:
            key = (self._tensor_names[id(tensor)], axis)
        if key in self.slices:
            self.link(self.slices[key], labels)
        else:
            self.slices[key] = labels.clone()

    def add_filters(self, node: fx.Node, layer: nn.Module, attribute: str, axis: int, labels: torch.Tensor) -> None:
        """`attribute` of `layer` holds the filters that make channels: one per index along `axis`.

        Frozen filters (requires_grad False) are the user's own, such as LITE's hand-crafted ones: they stay.
        """
        self.slice_parameter(layer, attribute, axis, labels)
        tensor = getattr(layer, attribute)
        self.filters.setdefault((self._tensor_names[id(tensor)], axis), labels)
        if not tensor.requires_grad:
            self.pin(labels, node, "frozen: requires_grad is False")

    def add_layer(self, layer: nn.Module, attribute: str, axis: int, labels: torch.Tensor) -> None:
        """Note a layer whose output channels carry `labels`; the first use of a shared layer counts."""
        name = self._module_names[id(layer)]
        parameter = self._tensor_names[id(getattr(layer, attribute))]
        self.layers.setdefault(name, LayerLabels(name, type(layer).__name__, parameter, axis, labels))

    # -- bare tensors

    def label_attribute(self, name: str) -> Any:
        """Labels of a parameter or buffer that the program reads by itself: one per element, till links join them."""
        tensor: Any = self.module
        for part in name.split("."):
            tensor = getattr(tensor, part)
        if not isinstance(tensor, torch.Tensor):
            return None
        key = self._tensor_names.get(id(tensor), name)
        if key not in self.elements:
            self.elements[key] = self.make_fresh(tensor.numel()).reshape(tensor.shape)
        return self.elements[key]
