"""How each family of aten functions carries labels: one rule per family, all listed in FUNCTION_RULES.

A rule gets the state and the call_function node and returns the labels of its output in the output's own nesting.
What only moves elements stands in `layout_rules`. `surgery_rules` holds the other half: what becomes of the arguments
of a node whose tensors shrink.

A function without a rule keeps all channels that it touches. To teach the engine one: add it to the family here that
treats channels alike, and to NODE_EDITS in `surgery_rules` if its arguments repeat a number of channels.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

from edgeprune.prune.labels import varying_axes
from edgeprune.prune.layout_rules import (
    Rule,
    aten,
    get_axis,
    label_concatenation,
    label_layout,
    label_narrow,
    label_padding,
    label_reshape,
    label_select,
    label_slice,
    label_stack,
    label_unbind,
    label_unflatten,
    rank_operand,
    resize_axis,
)
from edgeprune.prune.state import Propagation, map_shapes


def label_function(state: Propagation, node: fx.Node) -> Any:
    """Labels of a call_function node's output, by the rule of its target."""
    rule = FUNCTION_RULES.get(node.target)
    if rule is None and isinstance(node.target, torch._ops.OpOverload) and torch.Tag.pointwise in node.target.tags:
        rule = label_pointwise
    if rule is None:
        why = UNPRUNABLE.get(node.target, "is not known to the channel analysis")
        return state.pin_all(node, f"{describe_target(node.target)} {why}")
    return rule(state, node)


def describe_target(target: Any) -> str:
    """'softmax' of torch.ops.aten.softmax.int; with its namespace where that is not aten."""
    if isinstance(target, torch._ops.OpOverload):
        return target._schema.name.removeprefix("aten::")
    return str(getattr(target, "__name__", target))


def label_number(state: Propagation, node: fx.Node) -> int:
    """A node that computes a number: a tensor whose channel count the program computes with keeps its channels."""
    for source in state.get_tensor_inputs(node):
        labels = state.labels[source]
        counts_channels = node.target is not aten.sym_size.int or get_axis(labels, node.args[1]) in varying_axes(labels)
        if counts_channels:
            state.pin(labels, node, "the program computes with its number of channels")
    return int(state.get_shape(node))


# -- values change element by element


def label_pointwise(state: Propagation, node: fx.Node) -> Any:
    """Each output element depends on the same element of each operand: their labels are linked.

    An operand that is broadcast over the channels (size 1 there: a gain, an attention map) has one value for all of
    them: it stays, and nothing is linked.
    """
    shape = state.get_shape(node)
    operands = [state.labels[source] for source in state.get_tensor_inputs(node)]
    if not operands:
        return state.make_pinned(node, "computed from constants")
    operands = [labels.reshape((1,) * (len(shape) - labels.dim()) + tuple(labels.shape)) for labels in operands]
    main = max(operands, key=rank_operand)
    axes = varying_axes(main)
    for labels in operands:
        if labels is main:
            continue
        if axes and all(labels.size(axis) == 1 for axis in axes):
            state.pin(labels, node, "is broadcast over channels")
        else:
            state.link(main, labels)
    return main.expand(shape)


def label_cast(state: Propagation, node: fx.Node) -> Any:
    """type_as(x, other): x in another type."""
    return state.labels[node.all_input_nodes[0]]


def label_gated(state: Propagation, node: fx.Node) -> Any:
    """glu(x, dim): first half * sigmoid(second half); both lose the same channels."""
    arguments = state.get_arguments(node)
    first, second = state.labels[arguments["self"]].chunk(2, arguments["dim"])
    state.link(first, second)
    return first


# -- values along some axes are mixed


def _mix(state: Propagation, node: fx.Node, labels: torch.Tensor, axes: list[int], text: str) -> Any:
    """Output labels of an operation that mixes `axes` and may resize them; pins if channels lie there."""
    if set(axes) & set(varying_axes(labels)):
        return state.pin_all(node, text)

    def resize(shape: torch.Size) -> torch.Tensor:
        result = labels
        for axis in axes:
            result = resize_axis(result, axis, shape[axis])
        return result

    return map_shapes(state.get_shape(node), resize)


def make_spatial_rule(rank: int) -> Rule:
    """Pooling, resampling and bordering of the last `rank` axes."""

    def label_spatial(state: Propagation, node: fx.Node) -> Any:
        labels = state.labels[node.all_input_nodes[0]]
        axes = list(range(labels.dim() - rank, labels.dim()))
        return _mix(state, node, labels, axes, "mixes neighbouring channels")

    return label_spatial


def label_along_axes(state: Propagation, node: fx.Node) -> Any:
    """softmax, cumsum, roll, sort: the output keeps its shape and mixes the axes named by dim or dims."""
    arguments = state.get_arguments(node)
    labels = state.labels[arguments["self"]]
    axes = _get_axes(arguments, labels)
    return _mix(state, node, labels, axes, f"{describe_target(node.target)} runs over channels")


def label_reduction(state: Propagation, node: fx.Node) -> Any:
    """mean, sum, max, ... over the axes named by dim (all if none is)."""
    arguments = state.get_arguments(node)
    labels = state.labels[arguments["self"]]
    axes = _get_axes(arguments, labels)
    if set(axes) & set(varying_axes(labels)):
        return state.pin_all(node, f"{describe_target(node.target)} runs over channels")
    result = labels
    for axis in sorted(axes, reverse=True):
        result = result.narrow(axis, 0, 1) if arguments.get("keepdim") else result.select(axis, 0)
    return map_shapes(state.get_shape(node), lambda shape: result)


def _get_axes(arguments: dict[str, Any], labels: torch.Tensor) -> list[int]:
    dims = arguments.get("dim", arguments.get("dims"))
    if dims is None or dims == []:
        return list(range(labels.dim()))
    return [get_axis(labels, dim) for dim in (dims if isinstance(dims, (list, tuple)) else [dims])]


def label_constant(state: Propagation, node: fx.Node) -> Any:
    """zeros, full, arange, ...: a constant whose sizes stand in the program."""
    return state.make_pinned(node, "a constant of a fixed shape")


def label_item(state: Propagation, node: fx.Node) -> Any:
    """value[index] of a node with several outputs."""
    source, index = node.args
    value = state.labels[source] if isinstance(source, fx.Node) else None
    if not isinstance(value, (tuple, list)) or not isinstance(index, int):
        return state.pin_all(node, "indexes a tensor")
    return value[index]


# Each rule with the aten overloads that it is for, "packet.overload".
FAMILIES: tuple[tuple[Rule, str], ...] = (
    (
        label_layout,
        "permute.default transpose.int t.default numpy_T.default mT.default movedim.int movedim.intlist "
        "swapaxes.default flatten.using_ints unsqueeze.default squeeze.default squeeze.dim squeeze.dims "
        "repeat.default repeat_interleave.self_int flip.default chunk.default split.Tensor split_with_sizes.default",
    ),
    (label_reshape, "reshape.default view.default _unsafe_view.default expand.default"),
    (label_unflatten, "unflatten.int"),
    (label_slice, "slice.Tensor"),
    (label_narrow, "narrow.default"),
    (label_select, "select.int"),
    (label_unbind, "unbind.int"),
    (label_concatenation, "cat.default concat.default concatenate.default"),
    (label_stack, "stack.default"),
    (label_padding, "pad.default constant_pad_nd.default"),
    (
        label_pointwise,  # these lack torch's pointwise tag, in one version or another
        "clone.default contiguous.default detach.default alias.default to.dtype to.dtype_layout to.device "
        "_to_copy.default expand_as.default relu.default relu6.default hardtanh.default hardswish.default "
        "hardsigmoid.default silu.default selu.default elu.default celu.default mish.default leaky_relu.default "
        "gelu.default softplus.default softsign.default log_sigmoid.default dropout.default zeros_like.default "
        "ones_like.default full_like.default clamp.default where.self",
    ),
    (label_cast, "type_as.default"),
    (label_gated, "glu.default"),
    (
        label_along_axes,
        "softmax.int log_softmax.int _softmax.default _log_softmax.default cumsum.default cumprod.default "
        "logcumsumexp.default roll.default sort.default",
    ),
    (
        label_reduction,
        "mean.default mean.dim sum.default sum.dim_IntList amax.default amin.default max.default max.dim min.default "
        "min.dim prod.default prod.dim_int var.default var.dim var.correction std.default std.dim std.correction "
        "logsumexp.default linalg_vector_norm.default argmax.default argmin.default",
    ),
    (
        make_spatial_rule(1),
        "max_pool1d.default max_pool1d_with_indices.default avg_pool1d.default adaptive_avg_pool1d.default "
        "adaptive_max_pool1d.default upsample_nearest1d.default upsample_nearest1d.vec upsample_linear1d.default "
        "upsample_linear1d.vec reflection_pad1d.default replication_pad1d.default",
    ),
    (
        make_spatial_rule(2),
        "max_pool2d.default max_pool2d_with_indices.default avg_pool2d.default adaptive_avg_pool2d.default "
        "adaptive_max_pool2d.default upsample_nearest2d.default upsample_nearest2d.vec upsample_bilinear2d.default "
        "upsample_bilinear2d.vec upsample_bicubic2d.vec reflection_pad2d.default replication_pad2d.default",
    ),
    (
        make_spatial_rule(3),
        "max_pool3d.default avg_pool3d.default adaptive_avg_pool3d.default upsample_nearest3d.vec",
    ),
    (
        label_constant,
        "zeros.default ones.default full.default arange.default arange.start arange.start_step scalar_tensor.default "
        "eye.default empty.memory_format new_zeros.default new_ones.default new_full.default",
    ),
)


def get_target(name: str) -> Any:
    """'softmax.int' -> torch.ops.aten.softmax.int; None in a torch that lacks it."""
    packet, overload = name.split(".")
    return getattr(getattr(aten, packet, None), overload, None)


FUNCTION_RULES: dict[Any, Rule] = {
    get_target(name): rule for rule, names in FAMILIES for name in names.split() if get_target(name) is not None
} | {operator.getitem: label_item}

# Known operations that keep all channels of what they touch, with the reason that is printed.
_PRODUCT = "multiplies two activations"
UNPRUNABLE: dict[Any, str] = {
    get_target(name): why
    for name, why in {
        "matmul.default": _PRODUCT,
        "bmm.default": _PRODUCT,
        "mm.default": _PRODUCT,
        "baddbmm.default": _PRODUCT,
        "einsum.default": _PRODUCT,
        "scaled_dot_product_attention.default": "multiplies queries, keys and values",
        "multi_head_attention_forward.default": "multiplies queries, keys and values",
    }.items()
    if get_target(name) is not None
}
