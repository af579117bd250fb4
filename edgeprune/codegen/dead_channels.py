"""Exact removal of channels that an int8 program does not need: the result is the same to the bit for every input.

Imported models hold filters whose weights are all zero (the MLPerf Tiny person detector has 971 of them): what they put
out is known beforehand. A channel can go where every op that reads it can do without:

- A convolution or dense layer folds what the channel adds to its sums into its bias, (value - zero point) * weight. The
  accumulators are integers, so this is exact, wherever the channel adds the same at every position: its value is
  known and no border breaks it (padding stands for the zero point), or all of the weights for it are zero.
- Any other op carries the channel on: it can go if the channel that it becomes can go.

A producer that loses an output channel loses its filter, and so it goes on towards the input. Nothing is assumed about
borders: `known_values` knows each element of a map, and a map that differs at its edges is kept with all it needs.

Removable sets are found as the greatest fixed point: everything but inputs and outputs may go, until a rule objects.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from edgeprune.codegen.channel_links import link_channels
from edgeprune.codegen.known_values import KnownValues, find_known_values
from edgeprune.fixedpoint import INT32_MAX, INT32_MIN
from edgeprune.graph import Graph, Op, Quant, Tensor, choose_free_name, remove_unused_tensors, verify_graph
from edgeprune.lower.operand_rules import WEIGHTED_KINDS
from edgeprune.ops import OPS
from edgeprune.reference.call import Call
from edgeprune.reference.layers import pad_window, window_view


@dataclass(frozen=True)
class DeadChannels:
    """What became of one layer with weights.

    outputs, inputs: channels before. removed_outputs, removed_inputs: how many of them are gone. constant_outputs: how
    many were the same for every input; those that stayed are needed at a border or by an op that cannot do without.
    """

    layer: str
    kind: str
    outputs: int
    inputs: int
    removed_outputs: int
    removed_inputs: int
    constant_outputs: int


def remove_dead_channels(graph: Graph) -> tuple[Graph, tuple[DeadChannels, ...]]:
    """The same int8 program without the channels it can do without, and a row for each layer that changed.

    The new program's inputs and outputs are those of the old, in name, shape and every bit of every result.
    """
    known = find_known_values(graph)
    search = _Search(graph, known)
    search.run()
    if not any(dropped.any() for dropped in search.dropped.values()):
        return graph, ()
    smaller = _rewrite(graph, search)
    verify_graph(smaller)
    return smaller, _describe(graph, known, search)


@dataclass(frozen=True, eq=False)
class _Fold:
    """What each input channel adds to the sums of a convolution or dense layer.

    is_foldable: (outputs, inputs), whether it is the same at every position and for every input of the program.
    amount: (outputs, inputs), int64; meaningful where it is foldable.
    """

    is_foldable: np.ndarray
    amount: np.ndarray


class _Search:
    """The channels that may go, by activation: `dropped[name]` is bool over the last axis."""

    def __init__(self, graph: Graph, known: Mapping[str, KnownValues]) -> None:
        self.graph = graph
        self.dropped: dict[str, np.ndarray] = {}
        for name in (*graph.inputs, *(op.outputs[0] for op in graph.ops)):
            shape = graph.tensors[name].shape
            may_go = name not in graph.inputs and name not in graph.outputs and len(shape) > 1
            self.dropped[name] = np.full(shape[-1] if shape else 1, may_go)
        self.folds = {op.outputs[0]: _find_fold(op, graph, known) for op in graph.ops if _absorbs(op, graph)}
        self.links = {op.outputs[0]: link_channels(op, graph) for op in graph.ops}

    def run(self) -> None:
        """Ask every rule until none objects any more; each answer only shrinks the sets, so this ends."""
        while True:
            before = self._count()
            for op in reversed(self.graph.ops):
                self._restrict(op)
            if self._count() == before:
                for dropped in self.dropped.values():
                    dropped[0] &= not dropped.all()  # a tensor keeps one channel, whatever for
            if self._count() == before:
                return

    def _count(self) -> int:
        return sum(int(dropped.sum()) for dropped in self.dropped.values())

    def _restrict(self, op: Op) -> None:
        output = op.outputs[0]
        if output in self.folds:
            self._restrict_fold(op, self.folds[output])
            return
        links = self.links[output]
        covered = np.zeros(len(self.dropped[output]), bool)
        for position, name in enumerate(op.inputs):
            if name not in self.dropped:
                if op.kind == "concat":  # of a constant: rarely seen, and kept
                    self.dropped[output][:] = False
                continue
            if position not in links:
                self.dropped[name][:] = False
                continue
            link = links[position]
            carried = link >= 0
            covered |= carried
            self.dropped[output][carried] &= self.dropped[name][link[carried]]
            kept = link[carried & ~self.dropped[output]]
            self.dropped[name][kept] = False
        self.dropped[output] &= covered

    def _restrict_fold(self, op: Op, fold: _Fold) -> None:
        inputs, stays = self.dropped[op.inputs[0]], ~self.dropped[op.outputs[0]]
        inputs &= fold.is_foldable[stays].all(axis=0)
        bias = self.graph.tensors[op.inputs[2]].data
        assert bias is not None  # _absorbs
        folded = bias[stays] + fold.amount[np.ix_(stays, inputs)].sum(axis=1)
        if folded.min(initial=0) < INT32_MIN or folded.max(initial=0) > INT32_MAX:
            inputs &= (fold.amount == 0).all(axis=0)


def _absorbs(op: Op, graph: Graph) -> bool:
    """Whether the op is a dense product over its input's channels with constant weights: what folds into a bias."""
    if op.kind not in ("conv_2d", "fully_connected"):
        return False
    source, weight, bias = (graph.tensors[name] for name in op.inputs)
    if source.dtype != "int8" or source.is_constant or weight.data is None or bias.data is None:
        return False
    return op.kind == "fully_connected" or weight.shape[3] == source.shape[3]


def _find_fold(op: Op, graph: Graph, known: Mapping[str, KnownValues]) -> _Fold:
    source, weight = graph.tensors[op.inputs[0]], known[op.inputs[1]].values.astype(np.int64)
    channels, outputs = source.shape[-1], weight.shape[0]
    zero_point = 0 if source.quant is None else int(source.quant.zero_point[0])
    values = known[source.name].values.astype(np.int64) - zero_point
    is_known = known[source.name].is_known
    if not is_known.any():  # what is left: weights that are all zero
        seen, is_same = np.zeros((1, 1, channels), np.int64), np.zeros((1, channels), bool)
    elif op.kind == "fully_connected":
        seen = values.reshape(1, -1, channels)  # (positions, taps, channels)
        is_same = is_known.reshape(-1, channels)
    else:
        seen = _list_taps(op, graph, values, fill=0)
        # padding is known; a tap that meets nothing unknown and one value only
        is_same = _list_taps(op, graph, is_known, fill=True).all(axis=0) & (seen == seen[:1]).all(axis=0)
    taps = weight.reshape(outputs, -1, channels)
    is_foldable = ~((taps != 0) & ~is_same).any(axis=1)
    amount = (taps * np.where(is_same, seen[0], 0)).sum(axis=1)
    return _Fold(is_foldable, amount)


def _list_taps(op: Op, graph: Graph, values: np.ndarray, fill: float) -> np.ndarray:
    """What each tap of a convolution sees at each position: (positions, taps, channels)."""
    tensors = tuple(graph.tensors[name] for name in op.inputs)
    call = Call(op, tensors, graph.tensors[op.outputs[0]], (values,))
    kernel_size = (tensors[1].shape[1], tensors[1].shape[2])
    padded = pad_window(call, values, kernel_size, fill)
    windows = window_view(padded, kernel_size, op.attrs["stride"], op.attrs["dilation"])
    channels = values.shape[3]
    return windows.transpose(0, 1, 2, 4, 5, 3).reshape(-1, kernel_size[0] * kernel_size[1], channels)


# -- writing the smaller program


def _rewrite(graph: Graph, search: _Search) -> Graph:
    kept = {name: np.flatnonzero(~dropped) for name, dropped in search.dropped.items()}
    tensors = dict(graph.tensors)
    ops = []
    for op in graph.ops:
        constants = _slice_constants(op, graph, search, kept)
        names = {}
        for tensor in constants:
            name = tensor.name
            if len(graph.consumers(name)) > 1:  # other ops may lose other channels, or none
                name = choose_free_name(name, tensors)
            names[tensor.name] = name
            tensors[name] = replace(tensor, name=name)
        inputs = tuple(names.get(name, name) for name in op.inputs)
        attrs = _change_attributes(op, graph, kept)
        shape = OPS[op.kind].infer_shape(attrs, [tensors[name].shape for name in inputs])
        output = op.outputs[0]
        tensors[output] = replace(tensors[output], shape=shape)
        ops.append(replace(op, inputs=inputs, attrs=attrs))
    return remove_unused_tensors(replace(graph, tensors=tensors, ops=tuple(ops)))


def _slice_constants(op: Op, graph: Graph, search: _Search, kept: Mapping[str, np.ndarray]) -> tuple[Tensor, ...]:
    """The op's constants without the channels that are gone; only those that change."""
    outputs = kept[op.outputs[0]]
    channels = graph.tensors[op.outputs[0]].shape[-1]
    if op.kind in WEIGHTED_KINDS:
        source = op.inputs[0]
        if len(outputs) == channels and (source not in kept or len(kept[source]) == graph.tensors[source].shape[-1]):
            return ()
        return _slice_weights(op, graph, search, kept)
    sliced = []
    for name in dict.fromkeys(op.inputs):
        tensor = graph.tensors[name]
        if tensor.data is not None and tensor.shape[-1:] == (channels,) and len(outputs) < channels:
            sliced.append(Tensor.constant(name, tensor.data[..., outputs], tensor.quant))
    return tuple(sliced)


def _slice_weights(op: Op, graph: Graph, search: _Search, kept: Mapping[str, np.ndarray]) -> tuple[Tensor, ...]:
    outputs, inputs = kept[op.outputs[0]], kept[op.inputs[0]]
    source, weight, bias = (graph.tensors[name] for name in op.inputs)
    assert weight.data is not None  # only layers with constant weights lose channels
    assert bias.data is not None
    axis = 3 if op.kind == "depthwise_conv_2d" else 0
    data, sums = weight.data.take(outputs, axis), bias.data[outputs]
    fold = search.folds.get(op.outputs[0])
    if fold is not None:
        channels = source.shape[-1]
        data = data.reshape(*data.shape[:-1], -1, channels)[..., inputs].reshape(*data.shape[:-1], -1)
        gone = search.dropped[source.name]
        sums = (sums + fold.amount[np.ix_(outputs, np.flatnonzero(gone))].sum(axis=1)).astype(np.int32)
    return (
        Tensor.constant(weight.name, data, _slice_quant(weight.quant, axis, outputs)),
        Tensor.constant(bias.name, sums, _slice_quant(bias.quant, 0, outputs)),
    )


def _slice_quant(quant: Quant | None, axis: int, kept: np.ndarray) -> Quant | None:
    if quant is None or quant.axis != axis:
        return quant
    return Quant(quant.scale[kept], quant.zero_point[kept], axis)


def _change_attributes(op: Op, graph: Graph, kept: Mapping[str, np.ndarray]) -> Mapping[str, object]:
    """The attributes that count channels."""
    outputs = kept[op.outputs[0]]
    if len(outputs) == graph.tensors[op.outputs[0]].shape[-1] and op.kind != "strided_slice":
        return op.attrs
    if op.kind == "reshape":
        return {"shape": (*op.attrs["shape"][:-1], len(outputs))}
    if op.kind == "strided_slice" and op.inputs[0] in kept and op.attrs["stride"][-1] == 1:
        begin = int((kept[op.inputs[0]] < op.attrs["begin"][-1]).sum())
        bounds = {"begin": (*op.attrs["begin"][:-1], begin), "end": (*op.attrs["end"][:-1], begin + len(outputs))}
        return {**op.attrs, **bounds}
    return op.attrs


def _describe(graph: Graph, known: Mapping[str, KnownValues], search: _Search) -> tuple[DeadChannels, ...]:
    rows = []
    for op in graph.ops:
        if op.kind not in WEIGHTED_KINDS:
            continue
        gone, gone_inputs = search.dropped[op.outputs[0]], search.dropped.get(op.inputs[0], np.zeros(1, bool))
        if not gone.any() and not gone_inputs.any():
            continue
        is_known = known[op.outputs[0]].is_known.reshape(-1, len(gone)).all(axis=0)
        rows.append(
            DeadChannels(
                layer=op.name,
                kind=op.kind,
                outputs=len(gone),
                inputs=len(gone_inputs),
                removed_outputs=int(gone.sum()),
                removed_inputs=int(gone_inputs.sum()),
                constant_outputs=int(is_known.sum()),
            )
        )
    return tuple(rows)
