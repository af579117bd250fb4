"""What becomes of layer attributes and of node arguments when channels are removed.

The other half of `module_rules` and `function_rules`: those say which channels belong together, these rewrite the
numbers that stand in the program (features, groups, sizes, bounds).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from edgeprune.prune.function_rules import aten, get_target
from edgeprune.prune.units import TensorUnits

# -- layers


def fix_layer(layer: nn.Module) -> None:
    """The attributes of a layer that repeat the shapes of its (new) parameters."""
    if isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        outputs, inputs = layer.weight.size(0), layer.weight.size(1)
        if layer.groups == layer.in_channels and layer.groups > 1:
            layer.groups = outputs // (layer.out_channels // layer.in_channels)  # depthwise: one group per channel
        layer.in_channels, layer.out_channels = inputs * layer.groups, outputs
    elif isinstance(layer, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
        layer.in_channels, layer.out_channels = layer.weight.shape[0], layer.weight.shape[1] * layer.groups
    elif isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = layer.weight.shape
    elif isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
        for values in (layer.weight, layer.running_mean):
            if isinstance(values, torch.Tensor):
                layer.num_features = values.numel()
    elif isinstance(layer, nn.GroupNorm):
        if layer.weight is not None and layer.weight.numel() != layer.num_channels:
            layer.num_channels = layer.num_groups = layer.weight.numel()
    elif isinstance(layer, nn.PReLU):
        layer.num_parameters = layer.weight.numel()
    elif isinstance(layer, nn.RNNBase):
        layer.input_size = dict(layer.named_parameters())["weight_ih_l0"].shape[1]
        layer.hidden_size = dict(layer.named_parameters())["weight_hh_l0"].shape[1]


# -- nodes


class NodeEditor:
    """Rewrites the arguments of one node. `dead`: bool by unit id, see ChannelUnits.is_dead."""

    def __init__(self, node: fx.Node, tensors: Any, dead: np.ndarray) -> None:
        self.node = node
        self.tensors = tensors
        self.dead = dead

    @property
    def output(self) -> Any:
        """TensorUnits of the node's output, or a tuple of them."""
        return self.tensors[self.node.name]

    @property
    def input(self) -> TensorUnits:
        """TensorUnits of the node's first input."""
        return self.tensors[self.node.args[0].name]  # type: ignore[union-attr]

    def get_kept(self, tensor: TensorUnits, axis: int) -> np.ndarray:
        """bool (size,): which indices along an axis stay."""
        if tensor.axis != axis:
            return np.ones(tensor.shape[axis], bool)
        return ~self.dead[tensor.ids]

    def shrinks(self, tensor: TensorUnits) -> bool:
        """Whether the tensor loses channels."""
        return tensor.axis is not None and bool(self.dead[tensor.ids].any())

    def get_argument(self, index: int, name: str, default: Any = None) -> Any:
        """An argument of the node by position or by name, or its default."""
        if len(self.node.args) > index:
            return self.node.args[index]
        return self.node.kwargs.get(name, default)

    def set_arguments(self, *arguments: Any, target: Any = None) -> None:
        """New arguments behind the first one (the tensor); those beyond, and `target`, stay where not given."""
        node = self.node
        if target is None:
            node.args = (node.args[0], *arguments, *node.args[1 + len(arguments) :])
        else:
            node.target, node.args, node.kwargs = target, (node.args[0], *arguments), {}

    def get_axis(self, index: int = 1, default: int = 0) -> int:
        """The argument `dim` as a whole number from 0."""
        return int(self.get_argument(index, "dim", default)) % len(self.input.shape)


def _edit_sizes(editor: NodeEditor) -> None:
    """reshape(x, sizes), expand(x, sizes): the size of the channel axis."""
    output = editor.output
    if editor.shrinks(output):
        sizes = list(editor.get_argument(1, "size"))
        if sizes[output.axis] != -1:
            sizes[output.axis] = int(editor.get_kept(output, output.axis).sum())
        editor.set_arguments(sizes)


def _edit_unflatten(editor: NodeEditor) -> None:
    """unflatten(x, dim, sizes): the size of the channel axis, if it is among the new ones."""
    output = editor.output
    dim = editor.get_axis()
    sizes = list(editor.get_argument(2, "sizes"))
    if editor.shrinks(output) and dim <= output.axis < dim + len(sizes):
        sizes[output.axis - dim] = int(editor.get_kept(output, output.axis).sum())
        editor.set_arguments(dim, sizes)


def _edit_split(editor: NodeEditor) -> None:
    """chunk, split: pieces of unequal sizes from now on."""
    dim = editor.get_axis(2)
    if editor.shrinks(editor.input) and editor.input.axis == dim:
        sizes = [int(editor.get_kept(piece, dim).sum()) for piece in editor.output]
        editor.set_arguments(sizes, dim, target=aten.split_with_sizes.default)


def _edit_slice(editor: NodeEditor) -> None:
    """slice(x, dim, start, end): bounds among the kept channels."""
    dim = editor.get_axis()
    if editor.shrinks(editor.input) and editor.input.axis == dim:
        kept = editor.get_kept(editor.input, dim)
        bounds = slice(editor.get_argument(2, "start"), editor.get_argument(3, "end"))
        start, end, _ = bounds.indices(len(kept))
        editor.set_arguments(dim, int(kept[:start].sum()), int(kept[:end].sum()), target=aten.slice.Tensor)


def _edit_narrow(editor: NodeEditor) -> None:
    """narrow(x, dim, start, length)."""
    dim = editor.get_axis()
    if editor.shrinks(editor.input) and editor.input.axis == dim:
        kept = editor.get_kept(editor.input, dim)
        start = int(editor.get_argument(2, "start")) % len(kept)
        end = start + int(editor.get_argument(3, "length"))
        editor.set_arguments(dim, int(kept[:start].sum()), int(kept[start:end].sum()))


def _edit_select(editor: NodeEditor) -> None:
    """select(x, dim, index): the index among the kept channels (the channel itself is pinned)."""
    dim = editor.get_axis()
    if editor.shrinks(editor.input) and editor.input.axis == dim:
        kept = editor.get_kept(editor.input, dim)
        index = int(editor.get_argument(2, "index")) % len(kept)
        editor.set_arguments(dim, int(kept[:index].sum()))


def _edit_padding(editor: NodeEditor) -> None:
    """pad(x, pad, ...): how many of the padded channels stay."""
    output = editor.output
    amounts = list(editor.get_argument(1, "pad"))
    if editor.shrinks(output):
        position = 2 * (len(output.shape) - 1 - output.axis)  # pad lists the last axis first
        if position < len(amounts):
            kept = editor.get_kept(output, output.axis)
            before, after = amounts[position : position + 2]
            amounts[position : position + 2] = [int(kept[:before].sum()), int(kept[len(kept) - after :].sum())]
            editor.set_arguments(amounts)


def _edit_squeeze(editor: NodeEditor) -> None:
    """squeeze: exactly the axes that it dropped on the example, or a channel axis down to one would go too."""
    shape = editor.input.shape
    if editor.shrinks(editor.input):
        named = editor.get_argument(1, "dim")
        axes = range(len(shape)) if named is None else named if isinstance(named, (list, tuple)) else [named]
        dropped = [axis % len(shape) for axis in axes if shape[axis] == 1]
        editor.set_arguments(dropped, target=aten.squeeze.dims)


NODE_EDITS: dict[Any, Callable[[NodeEditor], None]] = {
    get_target(name): edit
    for edit, names in (
        (_edit_sizes, "reshape.default view.default _unsafe_view.default expand.default"),
        (_edit_unflatten, "unflatten.int"),
        (_edit_split, "chunk.default split.Tensor split_with_sizes.default"),
        (_edit_slice, "slice.Tensor"),
        (_edit_narrow, "narrow.default"),
        (_edit_select, "select.int"),
        (_edit_padding, "pad.default constant_pad_nd.default"),
        (_edit_squeeze, "squeeze.default squeeze.dim squeeze.dims"),
    )
    for name in names.split()
    if get_target(name) is not None
}
