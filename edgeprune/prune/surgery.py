"""Removing channels: parameters sliced, layer attributes and node arguments rewritten, in a new module."""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from edgeprune.errors import InputError
from edgeprune.prune.surgery_rules import NODE_EDITS, NodeEditor, fix_layer
from edgeprune.prune.units import ChannelUnits, TensorUnits, guard_units, iterate_tensors


def remove_units(module: fx.GraphModule, units: ChannelUnits, dead: Collection[int]) -> fx.GraphModule:
    """A new module without the dead units; the one passed in stays as it is.

    Shared parameters stay shared, requires_grad stays, node and module names stay. On inputs where the removed
    channels are zero the new module computes what the old one did.

    Raises InputError where an id is no unit, or where a tensor would lose its last channel (see guard_units).
    """
    dead = frozenset(dead)
    mask = units.is_dead(dead)
    if guard_units(units, dead) != dead:
        raise InputError("a tensor would lose all its channels; pass the units through guard_units first")
    pruned = copy.deepcopy(module)
    _slice_parameters(pruned, units, mask)
    for layer in pruned.modules():
        fix_layer(layer)
    for node in pruned.graph.nodes:
        edit = NODE_EDITS.get(node.target) if node.op == "call_function" else None
        if edit is not None:
            edit(NodeEditor(node, units.tensors, mask))
        if "val" in node.meta:
            node.meta["val"] = _narrow_value(node.meta["val"], units.tensors[node.name], mask)
    pruned.graph.lint()
    pruned.recompile()
    return pruned


def _slice_parameters(module: nn.Module, units: ChannelUnits, dead: np.ndarray) -> None:
    """Every parameter and buffer without the indices of dead units."""
    tensors: dict[str, torch.Tensor] = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    kept: dict[str, list[tuple[int, np.ndarray]]] = {}
    for (name, axis), ids in units.slices.items():
        if name in tensors and dead[ids].any():
            kept.setdefault(name, []).append((axis, np.flatnonzero(~dead[ids])))
    replacements: dict[int, torch.Tensor] = {}
    for name, axes in kept.items():
        old = tensors[name]
        new = old.detach()
        for axis, indices in axes:
            new = new.index_select(axis, torch.from_numpy(indices).to(new.device))
        new = new.clone(memory_format=torch.contiguous_format)
        is_parameter = isinstance(old, nn.Parameter)
        replacements[id(old)] = nn.Parameter(new, requires_grad=old.requires_grad) if is_parameter else new
    for part in module.modules():  # every holder of a shared tensor
        for attribute, tensor in [*part._parameters.items(), *part._buffers.items()]:
            if id(tensor) in replacements:
                setattr(part, attribute, replacements[id(tensor)])


def _narrow_value(value: Any, tensors: Any, dead: np.ndarray) -> Any:
    """A recorded example value (a fake tensor, or several) at its new size.

    An LSTM's is flat, (output, h, c), where the module gives (output, (h, c)): only the order counts.
    """
    parts = list(iterate_tensors(tensors))
    if isinstance(value, torch.Tensor) and len(parts) == 1:
        return _narrow_tensor(value, parts[0], dead)
    if isinstance(value, (tuple, list)) and len(value) == len(parts):
        return type(value)(_narrow_tensor(item, part, dead) for item, part in zip(value, parts, strict=True))
    return value


def _narrow_tensor(value: torch.Tensor, tensor: TensorUnits, dead: np.ndarray) -> torch.Tensor:
    if tensor.axis is None:
        return value
    return value.narrow(tensor.axis, 0, int((~dead[tensor.ids]).sum()))
