"""Stand series up: time from the columns to the rows, so that kernels and streaming know only rows.

A 1-D network is (1, 1, T, C) in the program. With height and width exchanged everywhere it is (1, T, 1, C): the bytes
lie in memory as before, every op computes the same numbers, and a step in time is a row. Nothing is done to programs
that have a feature map with more than one line.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from edgeprune.graph import Graph, Op, Tensor, verify_graph
from edgeprune.ops import AttributeValue

_SWAP = (0, 2, 1, 3)  # as a permutation of axes and as a renaming of them: it is its own inverse
_WEIGHTS = ("conv_2d", "depthwise_conv_2d")
_PER_AXIS = {"pad": ("paddings",), "strided_slice": ("begin", "end", "stride")}


def stand_up(graph: Graph) -> Graph:
    """The same program with time on the rows; the program itself where it is not one of series."""
    shapes = [tensor.shape for tensor in graph.tensors.values() if not tensor.is_constant and len(tensor.shape) == 4]
    if not shapes or any(shape[1] != 1 for shape in shapes) or all(shape[2] == 1 for shape in shapes):
        return graph
    if any(op.kind == "mean" and 3 in op.attrs["axes"] and not op.attrs["keep_dims"] for op in graph.ops):
        return graph  # what is left of (1, 1, T, C) is (1, 1, T), of (1, T, 1, C) it would be (1, T, 1)
    weights = {op.inputs[1] for op in graph.ops if op.kind in _WEIGHTS}
    broadcasts = [op for op in graph.ops if op.kind in ("add", "sub", "mul", "prelu")]
    operands = {name for op in broadcasts if len(graph.tensors[op.outputs[0]].shape) == 4 for name in op.inputs}
    flat = {name for op in broadcasts if len(graph.tensors[op.outputs[0]].shape) != 4 for name in op.inputs}
    if any(graph.tensors[name].is_constant for name in operands & flat):
        return graph  # one constant for maps and vectors
    tensors = {name: _swap_tensor(tensor, name in weights, name in operands) for name, tensor in graph.tensors.items()}
    ops = tuple(_swap_op(graph, op) for op in graph.ops)
    upright = replace(graph, tensors=tensors, ops=ops)
    verify_graph(upright)
    return upright


def _swap_tensor(tensor: Tensor, is_weight: bool, is_operand: bool) -> Tensor:
    if tensor.data is None:
        return replace(tensor, shape=_swap(tensor.shape)) if len(tensor.shape) == 4 else tensor
    data = tensor.data
    if is_operand and 2 <= data.ndim < 4:  # broadcast from the right: (T, C) means (1, 1, T, C)
        data = data.reshape((1,) * (4 - data.ndim) + data.shape)
    if not (is_weight or is_operand) or data.ndim != 4:
        return tensor
    swapped = np.ascontiguousarray(data.transpose(_SWAP))
    return replace(tensor, shape=swapped.shape, data=swapped)


def _swap_op(graph: Graph, op: Op) -> Op:
    rank = len(graph.tensors[op.inputs[0]].shape)
    attrs: dict[str, AttributeValue] = dict(op.attrs)
    for name in ("stride", "dilation", "kernel_size"):
        if name in attrs and op.kind not in _PER_AXIS:
            attrs[name] = (attrs[name][1], attrs[name][0])
    if rank == 4:
        for name in _PER_AXIS.get(op.kind, ()):
            attrs[name] = _swap(attrs[name])
        if op.kind == "concat":
            attrs["axis"] = _SWAP[attrs["axis"]]
        if op.kind == "mean":
            attrs["axes"] = tuple(sorted(_SWAP[axis] for axis in attrs["axes"]))
    if op.kind == "transpose" and rank == 4:
        attrs["perm"] = _swap(tuple(_SWAP[axis] for axis in attrs["perm"]))
    if op.kind == "reshape" and len(attrs["shape"]) == 4:
        attrs["shape"] = _swap(attrs["shape"])
    return replace(op, attrs=attrs)


def _swap(values: tuple[Any, ...]) -> tuple[Any, ...]:
    return values[0], values[2], values[1], values[3]
