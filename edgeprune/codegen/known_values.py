"""Which values of an int8 program are known before it runs: they are the same for every input.

A filter whose weights are all zero gives its requantised bias everywhere; what is computed from known values alone is
known, too. Knowledge is kept for each single element, so that nothing needs to be assumed about borders: a padded
convolution of a constant channel is a known map that differs at its edges, and becomes constant again where an
activation clamps it.

The values come from running the reference; which of them may be trusted comes from running the same op in float32 on
indicators (1: unknown), with 1 for every weight that is not zero: a result of 0 has met nothing unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from edgeprune.graph import Graph, Op, Tensor
from edgeprune.lower.operand_rules import WEIGHTED_KINDS
from edgeprune.reference import run_op

_BINARY_KINDS = ("add", "sub", "mul", "prelu")
# an unknown element makes exactly those unknown that the op, run on indicators, does not leave at 0
_SPREADING_KINDS = (
    *("max_pool_2d", "average_pool_2d", "mean"),
    *("concat", "pad", "reshape", "transpose", "strided_slice"),
)


@dataclass(frozen=True, eq=False)
class KnownValues:
    """One activation: `values` (of the tensor's shape) hold where `is_known`, and are anything elsewhere."""

    values: np.ndarray
    is_known: np.ndarray


def find_known_values(graph: Graph) -> Mapping[str, KnownValues]:
    """What is known of each tensor of an int8 program, constants (all of them known) and activations.

    Tensors that are not int8 count as unknown. Costs about two runs of the reference on one sample.
    """
    found: dict[str, KnownValues] = {}
    for name, tensor in graph.tensors.items():
        if tensor.data is not None:
            found[name] = KnownValues(tensor.data, np.ones(tensor.shape, bool))
    for name in graph.inputs:
        found[name] = _know_nothing(graph.tensors[name])
    for op in graph.ops:
        output = graph.tensors[op.outputs[0]]
        if output.dtype != "int8" or graph.tensors[op.inputs[0]].dtype != "int8":
            found[output.name] = _know_nothing(output)
            continue
        operands = [found[name] for name in op.inputs]
        is_known = ~_find_unknown(op, graph, operands)
        values = run_op(op, graph, [operand.values for operand in operands]) if is_known.any() else None
        found[output.name] = _know_nothing(output) if values is None else KnownValues(values, is_known)
    return found


def _know_nothing(tensor: Tensor) -> KnownValues:
    dtype = np.int8 if tensor.dtype == "int8" else np.float32
    return KnownValues(np.zeros(tensor.shape, dtype), np.zeros(tensor.shape, bool))


def _find_unknown(op: Op, graph: Graph, operands: list[KnownValues]) -> np.ndarray:
    """Which elements of the op's output depend on something unknown; bool, of the output's shape."""
    unknown = [~operand.is_known for operand in operands]
    shape = graph.tensors[op.outputs[0]].shape
    if op.kind in WEIGHTED_KINDS:
        used = operands[1].values != 0
        return _run_on_indicators(op, graph, [unknown[0], used, np.zeros(operands[2].values.shape)])
    if op.kind in _SPREADING_KINDS:
        return _run_on_indicators(op, graph, unknown)
    if op.kind == "softmax":  # over the last axis
        return np.broadcast_to(unknown[0].any(axis=-1, keepdims=True), shape)
    if op.kind in _BINARY_KINDS:
        either = unknown[0] | unknown[1]
        if op.kind == "mul":  # a known zero makes the product known
            either &= ~(_find_zeros(op.inputs[0], graph, operands[0]) | _find_zeros(op.inputs[1], graph, operands[1]))
        return np.broadcast_to(either, shape)
    return unknown[0]  # functions of one variable


def _find_zeros(name: str, graph: Graph, operand: KnownValues) -> np.ndarray:
    quant = graph.tensors[name].quant
    zero_point = 0 if quant is None else int(quant.zero_point[0])
    return operand.is_known & (operand.values == zero_point)


def _run_on_indicators(op: Op, graph: Graph, indicators: list[np.ndarray]) -> np.ndarray:
    """Where the op, in float32 over 0 and 1, gives something above 0."""
    attrs = {**op.attrs, "activation": "none"} if "activation" in op.attrs else op.attrs
    # names of their own: a layer of nn.Sequential is called "0"
    names = tuple(f"indicator {position}" for position in range(len(indicators)))
    plain = replace(op, attrs=attrs, inputs=names, outputs=("result",))
    values = [indicator.astype(np.float32) for indicator in indicators]
    # weights are constants to the reference, and so may be told from a batch
    is_constant = [graph.tensors[name].is_constant for name in op.inputs]
    tensors = {
        name: Tensor.constant(name, value) if constant else Tensor(name, value.shape)
        for name, value, constant in zip(names, values, is_constant, strict=True)
    }
    output = Tensor("result", graph.tensors[op.outputs[0]].shape)
    single = Graph("indicators", {**tensors, output.name: output}, (plain,), (), plain.outputs)
    result = run_op(plain, single, values)
    # means of ones are not quite 1, and 'lowest' padding is known and far below 0
    return result > 0
