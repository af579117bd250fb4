"""How each kind of layer carries labels: one small function per kind, listed in MODULE_RULES.

A rule gets the state, the call_module node, the layer and the labels of its (first) input, and returns the labels of
its output in the output's own nesting.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn

from edgeprune.prune.labels import spread, varying_axes
from edgeprune.prune.state import Propagation, map_shapes


def label_module(state: Propagation, node: fx.Node) -> Any:
    """Labels of a call_module node's output, by the rule of its layer."""
    layer = state.module.get_submodule(str(node.target))
    rule = MODULE_RULES.get(type(layer))
    source = node.args[0] if node.args else None
    labels = state.labels[source] if isinstance(source, fx.Node) else None
    if rule is None or not isinstance(labels, torch.Tensor) or len(node.all_input_nodes) != 1:
        return state.pin_all(node, f"{type(layer).__name__} is not known to the channel analysis")
    return rule(state, node, layer, labels)


def label_convolution(state: Propagation, node: fx.Node, layer: Any, labels: torch.Tensor) -> torch.Tensor:
    """Conv1d/2d/3d. Weight (out, in / groups, *kernel).

    Depthwise (groups == in): output channels follow the input channels, `multiplier` of them each. Grouped: all groups
    lose the same positions, inputs and outputs, since every group keeps the same number of channels.
    """
    shape = state.get_shape(node)
    inputs = state.get_channels(labels, 1 - (layer.weight.dim() - labels.dim()), node)
    if layer.groups == 1:
        state.slice_parameter(layer, "weight", 1, inputs)
        outputs = state.make_fresh(layer.out_channels)
    elif layer.groups == layer.in_channels:
        outputs = inputs.repeat_interleave(layer.out_channels // layer.groups)
    else:
        by_group = inputs.reshape(layer.groups, -1)
        state.link(by_group, by_group[:1])
        state.slice_parameter(layer, "weight", 1, by_group[0])
        outputs = state.make_fresh(layer.out_channels // layer.groups).repeat(layer.groups)
    state.add_filters(node, layer, "weight", 0, outputs)
    state.slice_parameter(layer, "bias", 0, outputs)
    state.add_layer(layer, "weight", 0, outputs)
    return spread(outputs, shape, len(shape) - layer.weight.dim() + 1)


def label_transposed_convolution(state: Propagation, node: fx.Node, layer: Any, labels: torch.Tensor) -> Any:
    """ConvTranspose1d/2d/3d without groups. Weight (in, out, *kernel)."""
    if layer.groups != 1:
        return state.pin_all(node, "a transposed convolution with groups is not pruned")
    shape = state.get_shape(node)
    inputs = state.get_channels(labels, 1 - (layer.weight.dim() - labels.dim()), node)
    outputs = state.make_fresh(layer.out_channels)
    state.slice_parameter(layer, "weight", 0, inputs)
    state.add_filters(node, layer, "weight", 1, outputs)
    state.slice_parameter(layer, "bias", 0, outputs)
    state.add_layer(layer, "weight", 1, outputs)
    return spread(outputs, shape, len(shape) - layer.weight.dim() + 1)


def label_linear(state: Propagation, node: fx.Node, layer: nn.Linear, labels: torch.Tensor) -> torch.Tensor:
    """Linear over the last axis. Weight (out, in).

    Where the channels lie along another axis (a linear layer over time, say) they pass through, and the layer's own
    features stay: a tensor has one axis of channels.
    """
    shape = state.get_shape(node)
    last = len(shape) - 1
    axes = varying_axes(labels)
    if axes and axes != [last]:
        text = "its input has channels along another axis"
        outputs = state.pool.make_reason(node.name, text).expand(layer.out_features)
        result = labels.narrow(last, 0, 1).expand(shape)
    else:
        state.slice_parameter(layer, "weight", 1, state.get_channels(labels, last, node))
        outputs = state.make_fresh(layer.out_features)
        result = spread(outputs, shape, last)
    state.add_filters(node, layer, "weight", 0, outputs)
    state.slice_parameter(layer, "bias", 0, outputs)
    state.add_layer(layer, "weight", 0, outputs)
    return result


def label_batch_norm(state: Propagation, node: fx.Node, layer: nn.Module, labels: torch.Tensor) -> torch.Tensor:
    """BatchNorm1d/2d/3d: one value per channel of axis 1 in each of its tensors."""
    channels = state.get_channels(labels, 1, node)
    for attribute in ("weight", "bias", "running_mean", "running_var"):
        if getattr(layer, attribute) is not None:
            state.slice_parameter(layer, attribute, 0, channels)
    return spread(channels, state.get_shape(node), 1)


def label_layer_norm(state: Propagation, node: fx.Node, layer: nn.LayerNorm, labels: torch.Tensor) -> Any:
    """LayerNorm mixes its normalised (last) axes: channels along another axis pass through."""
    first = labels.dim() - len(layer.normalized_shape)
    if any(axis >= first for axis in varying_axes(labels)):
        return state.pin_all(node, "LayerNorm normalises over channels")
    return labels


def label_group_norm(state: Propagation, node: fx.Node, layer: nn.GroupNorm, labels: torch.Tensor) -> Any:
    """GroupNorm with one channel per group works channel by channel; any other mixes channels."""
    if layer.num_groups != layer.num_channels:
        return state.pin_all(node, "GroupNorm normalises over the channels of a group")
    channels = state.get_channels(labels, 1, node)
    for attribute in ("weight", "bias"):
        if getattr(layer, attribute) is not None:
            state.slice_parameter(layer, attribute, 0, channels)
    return spread(channels, state.get_shape(node), 1)


def label_prelu(state: Propagation, node: fx.Node, layer: nn.PReLU, labels: torch.Tensor) -> torch.Tensor:
    """PReLU: one slope for all channels, or one per channel of axis 1."""
    if layer.num_parameters == 1:
        return labels
    channels = state.get_channels(labels, 1, node)
    state.slice_parameter(layer, "weight", 0, channels)
    return spread(channels, state.get_shape(node), 1)


def label_recurrent(state: Propagation, node: fx.Node, layer: nn.RNNBase, labels: torch.Tensor) -> Any:
    """RNN, GRU, LSTM over the last axis. weight_ih (gates * hidden, in), weight_hh (gates * hidden, hidden).

    torch has one hidden size for all layers and directions, so all of them lose the same hidden channels.
    """
    if layer.proj_size:
        return state.pin_all(node, "an LSTM with projections is not pruned")
    gates = {nn.LSTM: 4, nn.GRU: 3, nn.RNN: 1}[type(layer)]
    inputs = state.get_channels(labels, labels.dim() - 1, node)
    hidden = state.make_fresh(layer.hidden_size)
    directions = ("", "_reverse") if layer.bidirectional else ("",)
    for level in range(layer.num_layers):
        for direction in directions:
            suffix = f"_l{level}{direction}"
            state.slice_parameter(layer, f"weight_ih{suffix}", 1, inputs)
            state.slice_parameter(layer, f"weight_hh{suffix}", 1, hidden)
            state.add_filters(node, layer, f"weight_ih{suffix}", 0, hidden.repeat(gates))
            state.add_filters(node, layer, f"weight_hh{suffix}", 0, hidden.repeat(gates))
            for bias in (f"bias_ih{suffix}", f"bias_hh{suffix}") if layer.bias else ():
                state.slice_parameter(layer, bias, 0, hidden.repeat(gates))
        inputs = hidden.repeat(len(directions))
    state.add_layer(layer, "weight_hh_l0", 1, hidden)

    def spread_last(shape: torch.Size) -> torch.Tensor:
        """The sequence has all directions' channels in its last axis, a state one direction's."""
        return spread(hidden.repeat(shape[-1] // len(hidden)), shape, len(shape) - 1)

    return map_shapes(state.get_shape(node), spread_last)


def label_elementwise(state: Propagation, node: fx.Node, layer: nn.Module, labels: torch.Tensor) -> torch.Tensor:
    """Dropout: each element by itself (in eval mode, where pruning is exact)."""
    return labels


ModuleRule = Callable[[Propagation, fx.Node, Any, torch.Tensor], Any]

MODULE_RULES: dict[type[nn.Module], ModuleRule] = {
    nn.Conv1d: label_convolution,
    nn.Conv2d: label_convolution,
    nn.Conv3d: label_convolution,
    nn.ConvTranspose1d: label_transposed_convolution,
    nn.ConvTranspose2d: label_transposed_convolution,
    nn.ConvTranspose3d: label_transposed_convolution,
    nn.Linear: label_linear,
    nn.BatchNorm1d: label_batch_norm,
    nn.BatchNorm2d: label_batch_norm,
    nn.BatchNorm3d: label_batch_norm,
    nn.LayerNorm: label_layer_norm,
    nn.GroupNorm: label_group_norm,
    nn.PReLU: label_prelu,
    nn.RNN: label_recurrent,
    nn.GRU: label_recurrent,
    nn.LSTM: label_recurrent,
    nn.Dropout: label_elementwise,
    nn.Dropout1d: label_elementwise,
    nn.Dropout2d: label_elementwise,
    nn.Dropout3d: label_elementwise,
    nn.AlphaDropout: label_elementwise,
    nn.FeatureAlphaDropout: label_elementwise,
}
