"""A float program without some of its channels, cut out of the program itself: no second export of the network.

An export takes seconds, this takes hundredths of one. The result is the program that `export_onnx` and `read_onnx` make
of the pruned network, to the bit (`tests/test_sizing.py`), since removing channels only takes rows and columns out of
weights. Where channels do not simply follow the last axis (groups, channels that move to another axis) nothing is
guessed: the answer is None, and the network is exported instead.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from edgeprune.graph import Graph, Op, Tensor, infer_output_shape
from edgeprune.prune import ChannelUnits

Kept = np.ndarray  # indices of the channels that stay, along the last axis
_SAME = frozenset(
    {
        *("relu", "relu6", "relu_n1_to_1", "leaky_relu", "logistic", "tanh", "elu", "hard_swish"),
        *("max_pool_2d", "average_pool_2d"),
    }
)


class _CannotNarrowError(Exception):
    """What the channels do here is not followed."""


def narrow_graph(graph: Graph, units: ChannelUnits, removed: Collection[int]) -> Graph | None:
    """The program of the network without these units; None where it has to be exported anew.

    graph: the network's float program, NHWC, its ops named after the network's layers. units, removed: of the network;
    removed as `PruneResult.removed` has it.
    """
    mask = units.is_dead(removed)
    layers = {layer.name: np.flatnonzero(~mask[layer.units]) for layer in units.layers}
    try:
        return _Narrowing(graph, layers).run()
    except _CannotNarrowError:
        return None


class _Narrowing:
    """One program on its way; kept: of each activation so far."""

    def __init__(self, graph: Graph, layers: Mapping[str, Kept]) -> None:
        self.graph, self.layers = graph, layers
        self.kept: dict[str, Kept] = {name: self._all(name) for name in graph.inputs}
        self.tensors: dict[str, Tensor] = dict(graph.tensors)
        self.cut: dict[str, bytes] = {}

    def run(self) -> Graph:
        ops = []
        for op in self.graph.ops:
            kept, attrs = self._follow(op)
            ops.append(replace(op, attrs={**op.attrs, **attrs}))
            partial = replace(self.graph, tensors=self.tensors)
            shape = infer_output_shape(partial, ops[-1])
            for name in op.outputs:
                self.kept[name] = kept
                self.tensors[name] = replace(self.tensors[name], shape=shape)
        for name in self.graph.outputs:
            if self.tensors[name].shape != self.graph.tensors[name].shape:
                raise _CannotNarrowError
        return replace(self.graph, tensors=self.tensors, ops=tuple(ops))

    def _all(self, name: str) -> Kept:
        return np.arange(self.graph.tensors[name].shape[-1])

    def _is_whole(self, name: str) -> bool:
        return len(self.kept[name]) == self.graph.tensors[name].shape[-1]

    def _follow(self, op: Op) -> tuple[Kept, Mapping[str, Any]]:
        """The channels of the output that stay, and the attributes that change; cuts the op's constants."""
        if op.kind in _SAME:
            return self.kept[op.inputs[0]], {}
        follow = getattr(self, f"_follow_{op.kind}", None)
        if follow is not None:
            found: tuple[Kept, Mapping[str, Any]] = follow(op)
            return found
        if all(self.graph.tensors[name].is_constant or self._is_whole(name) for name in op.inputs):
            return self._all(op.outputs[0]), {}
        raise _CannotNarrowError

    def _find_layer(self, op: Op) -> Kept:
        """What stays of a layer with weights."""
        kept = self.layers.get(op.name, self.layers.get(op.name.partition("/")[0]))
        if kept is None or (len(kept) and kept[-1] >= self.graph.tensors[op.outputs[0]].shape[-1]):
            raise _CannotNarrowError
        return kept

    def _cut(self, name: str, *axes: tuple[int, Kept]) -> None:
        """Take rows out of a constant, which may be read by several ops that must agree on them."""
        data = self.graph.tensors[name].data
        if data is None:
            raise _CannotNarrowError
        for axis, kept in axes:
            data = np.take(data, kept, axis)
        if self.cut.setdefault(name, data.tobytes()) != data.tobytes():
            raise _CannotNarrowError
        self.tensors[name] = replace(self.graph.tensors[name], shape=data.shape, data=np.ascontiguousarray(data))

    def _follow_conv_2d(self, op: Op) -> tuple[Kept, Mapping[str, Any]]:
        x, weight, bias = op.inputs
        out, given = self._find_layer(op), self.kept[x]
        if self.graph.tensors[weight].shape[3] != self.graph.tensors[x].shape[-1]:  # groups
            if not self._is_whole(x) or len(out) != self.graph.tensors[op.outputs[0]].shape[-1]:
                raise _CannotNarrowError
            return out, {}
        self._cut(weight, (0, out), (3, given))
        self._cut(bias, (0, out))
        return out, {}

    def _follow_depthwise_conv_2d(self, op: Op) -> tuple[Kept, Mapping[str, Any]]:
        x, weight, bias = op.inputs
        multiplier = op.attrs["depth_multiplier"]
        out = (self.kept[x][:, None] * multiplier + np.arange(multiplier)).reshape(-1)
        self._cut(weight, (3, out))
        self._cut(bias, (0, out))
        return out, {}

    def _follow_fully_connected(self, op: Op) -> tuple[Kept, Mapping[str, Any]]:
        x, weight, bias = op.inputs
        out = self._find_layer(op)
        self._cut(weight, (0, out), (1, self._flatten(x)))
        self._cut(bias, (0, out))
        return out, {}

    def _flatten(self, name: str) -> Kept:
        """Of a map taken as one vector, the values that stay."""
        *positions, channels = self.graph.tensors[name].shape
        return (np.arange(int(np.prod(positions)))[:, None] * channels + self.kept[name]).reshape(-1)

    def _follow_add(self, op: Op) -> tuple[Kept, Mapping[str, Any]]:
        output = self.graph.tensors[op.outputs[0]].shape[-1]
        wide = [
            name
            for name in op.inputs
            if self.graph.tensors[name].data is None and self.graph.tensors[name].shape[-1] == output
        ]
        if not wide or any(not np.array_equal(self.kept[name], self.kept[wide[0]]) for name in wide):
            raise _CannotNarrowError
        for name in op.inputs:
            tensor = self.graph.tensors[name]
            if tensor.is_constant and tensor.shape and tensor.shape[-1] == output and output > 1:
                self._cut(name, (len(tensor.shape) - 1, self.kept[wide[0]]))
            elif name not in wide and tensor.shape and tensor.shape[-1] != 1:
                raise _CannotNarrowError
        return self.kept[wide[0]], {}

    _follow_sub = _follow_mul = _follow_prelu = _follow_add

    def _follow_mean(self, op: Op) -> tuple[Kept, Mapping[str, Any]]:
        (x,) = op.inputs
        last = len(self.graph.tensors[x].shape) - 1
        if last in op.attrs["axes"]:
            if not self._is_whole(x):
                raise _CannotNarrowError  # a mean over fewer channels is another mean
            return self._all(op.outputs[0]), {}
        return self.kept[x], {}

    def _follow_concat(self, op: Op) -> tuple[Kept, Mapping[str, Any]]:
        parts, first = [], 0
        is_last = op.attrs["axis"] == len(self.graph.tensors[op.outputs[0]].shape) - 1
        for name in op.inputs:
            if self.graph.tensors[name].is_constant:
                raise _CannotNarrowError
            parts.append(self.kept[name] + (first if is_last else 0))
            first += self.graph.tensors[name].shape[-1]
        if is_last:
            return np.concatenate(parts), {}
        if any(not np.array_equal(part, parts[0]) for part in parts):
            raise _CannotNarrowError
        return parts[0], {}

    def _follow_pad(self, op: Op) -> tuple[Kept, Mapping[str, Any]]:
        (x,) = op.inputs
        *others, (before, after) = op.attrs["paddings"]
        if not before and not after:
            return self.kept[x], {}
        out, first = self._find_partner(op), self.graph.tensors[x].shape[-1] + before
        inside = out[(out >= before) & (out < first)] - before
        if not np.array_equal(inside, self.kept[x]):
            raise _CannotNarrowError
        return out, {"paddings": (*others, (int((out < before).sum()), int((out >= first).sum())))}

    def _find_partner(self, op: Op) -> Kept:
        """What stays of channels that are padded to be added to a layer's: those that stay of the layer."""
        readers = self.graph.consumers(op.outputs[0])
        partners = [name for reader in readers for name in reader.inputs if name != op.outputs[0]]
        if len(readers) != 1 or readers[0].kind != "add" or len(partners) != 1:
            raise _CannotNarrowError
        producer = self.graph.producer(partners[0])
        if partners[0] in self.kept:
            return self.kept[partners[0]]
        if producer is None or producer.kind != "conv_2d":
            raise _CannotNarrowError
        return self._find_layer(producer)

    def _follow_reshape(self, op: Op) -> tuple[Kept, Mapping[str, Any]]:
        (x,) = op.inputs
        before, after = self.graph.tensors[x].shape, tuple(op.attrs["shape"])
        kept = self.kept[x]
        if self._is_whole(x):
            return self._all(op.outputs[0]), {}
        if before[-1] != after[-1]:
            if after[-1] != int(np.prod(before)):
                raise _CannotNarrowError
            kept = self._flatten(x)
        return kept, {"shape": (*after[:-1], len(kept))}

    def _follow_strided_slice(self, op: Op) -> tuple[Kept, Mapping[str, Any]]:
        (x,) = op.inputs
        kept, begin, end = self.kept[x], op.attrs["begin"], op.attrs["end"]
        if op.attrs["stride"][-1] != 1:
            if self._is_whole(x):
                return self._all(op.outputs[0]), {}
            raise _CannotNarrowError
        first, last = np.searchsorted(kept, (begin[-1], end[-1]))
        if first == last:
            raise _CannotNarrowError
        inside = kept[first:last] - begin[-1]
        return inside, {"begin": (*begin[:-1], int(first)), "end": (*end[:-1], int(last))}
