"""The units of pruning: sets of channels, across layers, that can only be removed together."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import fx

from edgeprune.errors import EdgepruneError, InputError
from edgeprune.prune.labels import Components, Reason, shrink, varying_axes
from edgeprune.prune.propagation import propagate
from edgeprune.prune.state import Propagation

PINNED = -1  # stands where a channel belongs to no unit: it stays


@dataclass(frozen=True, eq=False)
class Layer:
    """A layer that makes channels.

    name: its module path. kind: its class, such as Conv1d. parameter: its weight; axis: the weight's axis with one
    index per channel. units: int64 (channels,), unit of each output channel, PINNED where it stays.
    reasons: why, each with the number of channels it holds for.
    """

    name: str
    kind: str
    parameter: str
    axis: int
    units: np.ndarray
    reasons: tuple[tuple[str, int], ...]

    @property
    def width(self) -> int:
        """Output channels (of an RNN: hidden size)."""
        return len(self.units)

    @property
    def fixed(self) -> str | None:
        """Why no channel of this layer can go; None where one can."""
        return "; ".join(reason for reason, _ in self.reasons) if (self.units == PINNED).all() else None


@dataclass(frozen=True, eq=False)
class TensorUnits:
    """Units of one activation: `ids` along `axis`, int64 (shape[axis],); axis None: one id (1,) for all of it.

    shape: on the example that the units were found with.
    """

    shape: tuple[int, ...]
    axis: int | None
    ids: np.ndarray


@dataclass(frozen=True)
class CoupledGroup:
    """Units made by the same layers: `layers` by name, `units` by id, ascending."""

    layers: tuple[str, ...]
    units: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class ChannelUnits:
    """What can be removed from a program, found by `find_units`. Unit ids are 0 .. count - 1, in program order.

    layers: every layer that makes channels. slices: (parameter or buffer, axis) -> unit per index. filters: the keys
    of `slices` that make channels. tensors: node name -> TensorUnits, a tuple of them for several outputs, or None.
    """

    count: int
    layers: tuple[Layer, ...]
    slices: Mapping[tuple[str, int], np.ndarray]
    filters: frozenset[tuple[str, int]]
    tensors: Mapping[str, Any]

    @property
    def pinned(self) -> tuple[tuple[str, str], ...]:
        """(layer, reason) for each layer of which some channels cannot go; the reason counts them where not all."""
        rows = []
        for layer in self.layers:
            for reason, channels in layer.reasons:
                part = "" if channels == layer.width else f"{channels} of {layer.width} channels: "
                rows.append((layer.name, part + reason))
        return tuple(rows)

    def members(self, unit: int) -> tuple[tuple[str, int, int], ...]:
        """(parameter or buffer, axis, index) of everything that goes with a unit."""
        return self._members.get(unit, ())

    def producers(self, unit: int) -> tuple[tuple[str, int, int], ...]:
        """(weight, axis, index) of the filters that make the unit's channels."""
        return tuple(member for member in self.members(unit) if member[:2] in self.filters)

    @cached_property
    def _members(self) -> dict[int, tuple[tuple[str, int, int], ...]]:
        members: dict[int, list[tuple[str, int, int]]] = {}
        for (parameter, axis), ids in self.slices.items():
            for index, unit in enumerate(ids.tolist()):
                if unit != PINNED:
                    members.setdefault(unit, []).append((parameter, axis, index))
        return {unit: tuple(rows) for unit, rows in members.items()}

    @cached_property
    def groups(self) -> tuple[CoupledGroup, ...]:
        """The prunable units, by the set of layers that make them; in program order."""
        made_by: dict[int, list[str]] = {}
        for layer in self.layers:
            for unit in dict.fromkeys(layer.units.tolist()):
                if unit != PINNED:
                    made_by.setdefault(unit, []).append(layer.name)
        groups: dict[tuple[str, ...], list[int]] = {}
        for unit in sorted(made_by):
            groups.setdefault(tuple(made_by[unit]), []).append(unit)
        return tuple(CoupledGroup(layers, tuple(units)) for layers, units in groups.items())

    def node_units(self, node_name: str, dim: int = 1) -> np.ndarray:
        """Unit id per index of a node's output along `dim`, int64 (size,); PINNED where the channel stays.

        Raises EdgepruneError where the node is unknown, has several outputs, or its channels lie along another axis.
        """
        tensor = self.tensors.get(node_name)
        if not isinstance(tensor, TensorUnits):
            raise EdgepruneError(f"{node_name}: not a node with one tensor; nodes: {', '.join(self.tensors)}")
        axis = dim % len(tensor.shape)
        if tensor.axis not in (None, axis):
            raise EdgepruneError(f"{node_name}: its channels lie along axis {tensor.axis}, not {axis}")
        return np.broadcast_to(tensor.ids, (tensor.shape[axis],)).copy()

    def is_dead(self, dead: Collection[int]) -> np.ndarray:
        """bool (count + 1,): indexed by unit id, True for the dead ones; the last entry stands for PINNED (-1).

        Raises InputError for an id that is no unit.
        """
        mask = np.zeros(self.count + 1, bool)
        for unit in dead:
            if not 0 <= unit < self.count:
                raise InputError(f"unit {unit}: not a unit of this model; units are 0 to {self.count - 1}")
            mask[unit] = True
        return mask


def find_units(module: fx.GraphModule, example: torch.Tensor | Sequence[torch.Tensor]) -> ChannelUnits:
    """Find the units of a raised program.

    module: call_module nodes on torch.nn layers, pure aten functions otherwise (load.raise_module makes it).
    example: a batch of two or more samples, (N, C, T) or (N, C, H, W); moved to the module's device and type.
    The module is run once, in eval mode, and left as it was.
    """
    state = propagate(module, example)
    components = _resolve_boxes(state)
    slices = {key: components.get_units(labels) for key, labels in state.slices.items()}
    for name, labels in state.elements.items():
        tensor = _describe_tensor(labels, components)
        if tensor.shape and (tensor.ids != PINNED).any():
            axis = tensor.axis or 0
            slices[(name, axis)] = np.broadcast_to(tensor.ids, (tensor.shape[axis],)).copy()
    layers = tuple(
        Layer(
            layer.name,
            layer.kind,
            layer.parameter,
            layer.axis,
            components.get_units(layer.labels),
            _count_reasons(layer.name, components.get_reasons(layer.labels)),
        )
        for layer in state.layers.values()
    )
    tensors = {node.name: _describe_value(labels, components) for node, labels in state.labels.items()}
    return ChannelUnits(components.unit_count, layers, slices, frozenset(state.filters), tensors)


def _resolve_boxes(state: Propagation) -> Components:
    """Components after which every bare parameter stays a box; one that would not is pinned."""
    for (name, _), labels in state.slices.items():
        if name in state.elements:
            for both in (labels, state.elements[name]):
                state.pool.pin(both, name, "a layer's weight that the program also reads by itself")
    while True:
        components = state.pool.resolve()
        torn = [labels for labels in state.elements.values() if len(_varying(components.get_units(labels))) > 1]
        if not torn:
            return components
        for labels in torn:
            state.pool.pin(labels, "bare parameter", "would not stay a box")


def _varying(ids: np.ndarray) -> list[int]:
    return varying_axes(torch.from_numpy(np.ascontiguousarray(ids)))


def _describe_tensor(labels: torch.Tensor, components: Components) -> TensorUnits:
    """Labels (which may still differ within one unit) as units along one axis."""
    ids = components.get_units(shrink(labels))
    axes = _varying(ids)
    if len(axes) > 1:
        raise EdgepruneError(f"units vary along the axes {axes} of one tensor")
    axis = axes[0] if axes else None
    first = tuple(slice(None) if other == axis else slice(0, 1) for other in range(ids.ndim))
    return TensorUnits(tuple(labels.shape), axis, ids[first].reshape(-1))


def _describe_value(labels: Any, components: Components) -> Any:
    if isinstance(labels, torch.Tensor):
        return _describe_tensor(labels, components)
    if isinstance(labels, (tuple, list)):
        return tuple(_describe_value(item, components) for item in labels)
    return None


def _count_reasons(layer: str, reasons: Sequence[Reason | None]) -> tuple[tuple[str, int], ...]:
    """Each reason of a layer's channels with its count; where it arose, if that is not the layer itself."""
    nodes: dict[str, list[str]] = {}
    for reason in reasons:
        if reason is not None:
            nodes.setdefault(reason.text, []).append(reason.node)
    rows = []
    for text, where in nodes.items():
        others = [node for node in dict.fromkeys(where) if node not in (layer.replace(".", "_"), "output")]
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        rows.append((f"{text} (at {others[0]}{more})" if others else text, len(where)))
    return tuple(rows)


def iterate_tensors(value: Any) -> Iterator[TensorUnits]:
    """All tensors of a node's value, whatever its nesting."""
    if isinstance(value, TensorUnits):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from iterate_tensors(item)


def guard_units(
    units: ChannelUnits, dead: Collection[int], scores: Mapping[int, float] | None = None
) -> frozenset[int]:
    """The units that can go while every tensor and parameter keeps at least one channel.

    Where a tensor would lose all its channels, its unit of the highest score stays (the first one without scores).
    """
    mask = units.is_dead(dead)
    vectors = [tensor.ids for value in units.tensors.values() for tensor in iterate_tensors(value)]
    for ids in (*vectors, *units.slices.values()):
        if len(ids) and mask[ids].all():
            order = sorted(set(ids.tolist()), key=lambda unit: (-(scores or {}).get(unit, 0.0), unit))
            mask[order[0]] = False
    return frozenset(np.flatnonzero(mask[:-1]).tolist())
