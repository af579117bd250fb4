"""Rewriting a program so that the target's kernels take it, without changing what it computes.

Done on the float program, before quantization: every form is then written from the same operations.
"""

from __future__ import annotations

from dataclasses import replace

from edgeprune.graph import Graph, Op, Tensor, run_passes
from edgeprune.ops import OPS

# TFLite Micro, kernels/concatenation.cc: constexpr int kMaxInputNum = 10
MOST_CONCAT_INPUTS = 10


def legalize(graph: Graph) -> Graph:
    """The same program in operations that TFLite Micro's kernels take."""
    return run_passes(graph, (split_wide_concats,))


def split_wide_concats(graph: Graph) -> Graph:
    """Join more than ten tensors in steps: TFLite Micro's concat takes ten at most (LITE joins more).

    The first ten are joined, then the result with the next nine, and so on; as concat shares one scale with its inputs,
    no value changes.
    """
    tensors = dict(graph.tensors)
    ops: list[Op] = []
    for op in graph.ops:
        if op.kind == "concat":
            ops.extend(_split_concat(op, tensors))
        else:
            ops.append(op)
    return replace(graph, tensors=tensors, ops=tuple(ops))


def _split_concat(op: Op, tensors: dict[str, Tensor]) -> list[Op]:
    steps: list[Op] = []
    inputs = op.inputs
    while len(inputs) > MOST_CONCAT_INPUTS:
        chosen = inputs[:MOST_CONCAT_INPUTS]
        joined = replace(
            tensors[op.outputs[0]],
            name=f"{op.outputs[0]}/part{len(steps)}",
            shape=OPS["concat"].infer_shape(op.attrs, [tensors[name].shape for name in chosen]),
        )
        tensors[joined.name] = joined
        steps.append(replace(op, name=f"{op.name}/part{len(steps)}", inputs=chosen, outputs=(joined.name,)))
        inputs = (joined.name, *inputs[MOST_CONCAT_INPUTS:])
    return [*steps, replace(op, inputs=inputs)]
