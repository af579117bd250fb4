"""How functions that move elements without changing them carry labels: they run on the labels themselves.

Where the arguments of such a function repeat the number of channels, `surgery_rules` rewrites them; what it could not
rewrite (a size or bound that the program computes) is pinned here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from edgeprune.prune.labels import shrink, spread, varying_axes
from edgeprune.prune.state import Propagation

aten = torch.ops.aten

Rule = Callable[[Propagation, fx.Node], Any]


def get_axis(labels: torch.Tensor, axis: Any) -> int:
    """An axis counted from 0."""
    return int(axis) % max(labels.dim(), 1)


def label_layout(state: Propagation, node: fx.Node) -> Any:
    """The operation itself, run on the labels."""
    target = aten.reshape.default if node.target in (aten.view.default, aten._unsafe_view.default) else node.target
    return state.make_rectangular(state.run_on_labels(node, target))


def label_reshape(state: Propagation, node: fx.Node) -> Any:
    """A layout operation with sizes among its arguments: a computed size of a channel axis can't be rewritten."""
    result = label_layout(state, node)
    sizes = node.args[1]
    for axis in varying_axes(result):
        if not isinstance(sizes, (list, tuple)) or len(sizes) != result.dim() or not isinstance(sizes[axis], int):
            state.pin(result, node, "the size of its channel axis is computed by the program")
    return result


def label_unflatten(state: Propagation, node: fx.Node) -> Any:
    """unflatten(x, dim, sizes)."""
    result = label_layout(state, node)
    if varying_axes(result) and not all(isinstance(size, int) for size in node.args[2]):  # type: ignore[union-attr]
        state.pin(result, node, "the size of its channel axis is computed by the program")
    return result


def label_slice(state: Propagation, node: fx.Node) -> Any:
    """slice(x, dim, start, end, step): over channels with whole numbers and step 1 only."""
    arguments = state.get_arguments(node)
    labels = state.labels[arguments["self"]]
    if get_axis(labels, arguments["dim"]) in varying_axes(labels):
        bounds = (arguments["start"], arguments["end"])
        if arguments["step"] != 1 or not all(bound is None or isinstance(bound, int) for bound in bounds):
            state.pin(labels, node, "a slice of channels with a step or a computed bound")
    return label_layout(state, node)


def label_narrow(state: Propagation, node: fx.Node) -> Any:
    """narrow(x, dim, start, length): over channels with whole numbers only."""
    arguments = state.get_arguments(node)
    labels = state.labels[arguments["self"]]
    if get_axis(labels, arguments["dim"]) in varying_axes(labels) and not (
        isinstance(arguments["start"], int) and isinstance(arguments["length"], int)
    ):
        state.pin(labels, node, "a slice of channels with a computed bound")
    return label_layout(state, node)


def label_select(state: Propagation, node: fx.Node) -> Any:
    """select(x, dim, index): a channel picked by its number stays; the others may go."""
    arguments = state.get_arguments(node)
    labels = state.labels[arguments["self"]]
    if get_axis(labels, arguments["dim"]) in varying_axes(labels):
        if not isinstance(arguments["index"], int):
            return state.pin_all(node, "picks a channel by a computed number")
        state.pin(state.run_on_labels(node), node, "picked by its channel number")
    return label_layout(state, node)


def label_unbind(state: Propagation, node: fx.Node) -> Any:
    """unbind(x, dim): taking channels apart one by one keeps them all."""
    arguments = state.get_arguments(node)
    labels = state.labels[arguments["self"]]
    if get_axis(labels, arguments["dim"]) in varying_axes(labels):
        state.pin(labels, node, "channels are taken apart one by one")
    return label_layout(state, node)


def label_concatenation(state: Propagation, node: fx.Node) -> Any:
    """cat(tensors, dim). Along another axis than the channels', the operands' channels must agree."""
    arguments = state.get_arguments(node)
    operands = [state.labels[source] for source in arguments["tensors"]]
    axis = get_axis(operands[0], arguments["dim"])
    varying = [varying_axes(labels) for labels in operands]
    if any(axis in axes for axes in varying) or not any(varying):
        return _join(operands, axis)
    return _agree(state, [labels.narrow(axis, 0, 1) for labels in operands], state.get_shape(node))


def _join(operands: list[torch.Tensor], axis: int) -> torch.Tensor:
    """Concatenated label arrays; axes along which no operand varies stay broadcast."""
    rank = operands[0].dim()
    varying = {axis}.union(*(varying_axes(labels) for labels in operands))
    still = [other for other in range(rank) if other not in varying]
    shape = list(operands[0].shape)
    shape[axis] = sum(labels.size(axis) for labels in operands)
    small = operands
    for other in still:
        small = [labels.narrow(other, 0, 1) for labels in small]
    return torch.cat(small, axis).expand(shape)


def _agree(state: Propagation, operands: list[torch.Tensor], shape: torch.Size) -> torch.Tensor:
    """All operands linked with the one that stands for them, broadcast to `shape`."""
    main = max(operands, key=rank_operand)
    for labels in operands:
        state.link(main, labels)
    return main.expand(shape)


def rank_operand(labels: torch.Tensor) -> tuple[bool, int, int]:
    """The operand whose labels stand for all: one with a channel axis, not a parameter with a label per element."""
    return len(varying_axes(labels)) == 1, labels.numel(), shrink(labels).numel()


def label_stack(state: Propagation, node: fx.Node) -> Any:
    """stack(tensors, dim): the operands' channels must agree."""
    arguments = state.get_arguments(node)
    operands = [state.labels[source] for source in arguments["tensors"]]
    axis = int(arguments["dim"]) % (operands[0].dim() + 1)
    return _agree(state, [labels.unsqueeze(axis) for labels in operands], state.get_shape(node))


def label_padding(state: Propagation, node: fx.Node) -> Any:
    """pad(x, pad, mode, value): padded channels are new ones, constant and free to go."""
    arguments = state.get_arguments(node)
    labels = state.labels[arguments["self"]]
    amounts, constant = arguments["pad"], arguments.get("mode", "constant") == "constant"
    varying = varying_axes(labels)
    shape = state.get_shape(node)
    for index in range(len(amounts) // 2):
        axis = labels.dim() - 1 - index
        before, after = amounts[2 * index], amounts[2 * index + 1]
        if axis not in varying:
            labels = resize_axis(labels, axis, shape[axis])
        elif (before, after) != (0, 0):
            if not constant or before < 0 or after < 0:
                return state.pin_all(node, "pads over channels with their own values, or crops them")
            parts = [
                spread(state.make_fresh(before), _replace_size(labels.shape, axis, before), axis),
                labels,
                spread(state.make_fresh(after), _replace_size(labels.shape, axis, after), axis),
            ]
            labels = _join([part for part in parts if part.size(axis)], axis)
    return labels


def _replace_size(shape: torch.Size, axis: int, size: int) -> list[int]:
    return [size if other == axis else length for other, length in enumerate(shape)]


def resize_axis(labels: torch.Tensor, axis: int, size: int) -> torch.Tensor:
    """An axis along which the labels do not vary, at another size."""
    return labels.narrow(axis, 0, 1).expand(_replace_size(labels.shape, axis, size))
