"""The rules that a program must keep to run right as TFLite on a target.

A rule is a function `(op, graph, target) -> str | None` that says what it found against the rule. Its docstring is the
rule and, after the first full stop, the way out: messages and the manual's page of supported ops are made from it. The
rules hold for the kernels of LiteRT 2.3 and of TFLite Micro (November 2026). What is beyond most of them was seen to be
refused, to crash or to give wrong results, and `tests/lower/test_constraints.py` sees it again; a few are conventions
of edgeprune (batch axis first, constant weights) or guard older releases (dense weights per tensor).

They are asked of the float program before it is quantized and of the int8 program after.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np

from edgeprune.graph import Graph, Op, Quant
from edgeprune.lower.operand_rules import WEIGHTED_KINDS
from edgeprune.ops import OPS
from edgeprune.target import Target

Constraint = Callable[[Op, Graph, Target], str | None]


@dataclass(frozen=True)
class Violation:
    """A rule that an op breaks.

    found: what it has, rule: what is allowed, way_out: what to do; the last two are the constraint's docstring.
    """

    op: str
    kind: str
    target: str
    found: str
    rule: str
    way_out: str

    @property
    def message(self) -> str:
        """All of it as one line."""
        return f"{self.op} ({self.kind}): {self.found}; {self.target}: {self.rule} {self.way_out}"


def check_supported(graph: Graph, target: Target, exempt: Collection[Constraint] = ()) -> tuple[Violation, ...]:
    """Every rule that the program breaks on this target, in the order of its ops; empty if all is well.

    exempt: rules that are not asked.
    """
    violations = []
    for op in graph.ops:
        for constraint in (*EVERY_OP, *BY_KIND.get(op.kind, ())):
            found = None if constraint in exempt else constraint(op, graph, target)
            if found is not None:
                rule, way_out = _split_docstring(constraint)
                violations.append(Violation(op.name, op.kind, target.name, found, rule, way_out))
    return tuple(violations)


def describe_constraints() -> str:
    """The page of supported ops, in Markdown: the kinds, and what each must keep to."""
    lines = ["# Supported ops", "", "Every op:", ""]
    lines += [f"- {' '.join(_split_docstring(constraint))}" for constraint in EVERY_OP]
    for kind in OPS:
        lines += ["", f"## {kind}", ""]
        rules = BY_KIND.get(kind, ())
        lines += [f"- {' '.join(_split_docstring(constraint))}" for constraint in rules] or ["No rules of its own."]
    return "\n".join(lines) + "\n"


def _split_docstring(constraint: Constraint) -> tuple[str, str]:
    """The rule and the way out."""
    text = " ".join((inspect.getdoc(constraint) or "").split())
    rule, _, way_out = text.partition(". ")
    return f"{rule}.", way_out


# -- every op


def types_are_known(op: Op, graph: Graph, _target: Target) -> str | None:
    """Values are float32 or int8. Quantize with int8 activations, and keep integer arithmetic out of the network."""
    for name in (*op.inputs[:1], *op.outputs):
        if graph.tensors[name].dtype not in ("float32", "int8"):
            return f"{name} is {graph.tensors[name].dtype}"
    return None


def batch_stays_first(op: Op, graph: Graph, _target: Target) -> str | None:
    """The first axis is the batch, and each sample is computed by itself. Work on the other axes only."""
    touched = {
        "concat": lambda attrs: attrs["axis"] == 0,
        "mean": lambda attrs: 0 in attrs["axes"],
        "pad": lambda attrs: attrs["paddings"][0] != (0, 0),
        "transpose": lambda attrs: attrs["perm"][0] != 0,
        "softmax": lambda attrs: len(graph.tensors[op.inputs[0]].shape) < 2,
    }
    if op.kind in touched and touched[op.kind](op.attrs):
        return "it works along the first axis"
    for name in op.outputs:
        if graph.tensors[name].shape[:1] != (1,):
            return f"its result has the shape {graph.tensors[name].shape}, for one sample"
    return None


def axes_are_few(op: Op, graph: Graph, _target: Target) -> str | None:
    """Tensors have at most 6 axes. Merge axes with a reshape."""
    return _count_axes(op, graph, 6)


# -- single kinds


def weights_are_constant(op: Op, graph: Graph, _target: Target) -> str | None:
    """Weights and biases are constants. Compute them before export, or replace the layer by mul and add."""
    for name in op.inputs[1:]:
        if not graph.tensors[name].is_constant:
            return f"{name} is computed at run time"
    return None


def slopes_are_constant(op: Op, graph: Graph, _target: Target) -> str | None:
    """The slopes are constants. Use a trained parameter, or leaky_relu."""
    name = op.inputs[1]
    return None if graph.tensors[name].is_constant else f"{name} is computed at run time"


def weights_are_symmetric(op: Op, graph: Graph, _target: Target) -> str | None:
    """int8 weights have the zero point 0 and biases are int32. Quantize the weights symmetrically."""
    weight, bias = (graph.tensors[name] for name in op.inputs[1:3])
    if weight.quant is None:
        return None
    if weight.quant.zero_point.any():
        return f"{weight.name} has the zero point {int(np.abs(weight.quant.zero_point).max())}"
    return None if bias.dtype == "int32" else f"{bias.name} is {bias.dtype}"


def dense_has_one_scale(op: Op, graph: Graph, target: Target) -> str | None:
    """On microcontrollers int8 weights of dense layers have one scale for all outputs. Quantize them per tensor: older
    releases of TFLite Micro compute with the first scale only, without a word."""
    quant = graph.tensors[op.inputs[1]].quant
    if quant is None or len(quant.scale) == 1 or not target.is_microcontroller:
        return None
    return f"{op.inputs[1]} has {len(quant.scale)} scales"


def sums_fit_32_bits(op: Op, graph: Graph, _target: Target) -> str | None:
    """The sum of an int8 layer's products fits 32 bits for every input. Pool before the layer, or split it."""
    source, weight, bias = (graph.tensors[name] for name in op.inputs)
    if source.quant is None or weight.data is None or bias.data is None or weight.dtype != "int8":
        return None
    axis = 3 if op.kind == "depthwise_conv_2d" else 0
    others = tuple(index for index in range(weight.data.ndim) if index != axis)
    zero_point = int(source.quant.zero_point[0])
    largest_input = max(127 - zero_point, zero_point + 128)
    sums = np.abs(weight.data.astype(np.int64)).sum(axis=others) * largest_input
    largest = int((sums + np.abs(bias.data.astype(np.int64))).max())
    return None if largest < 2**31 else f"the sum can reach {largest:,}"


def copies_keep_the_scale(op: Op, graph: Graph, _target: Target) -> str | None:
    """An op that only moves or selects int8 values has one scale for inputs and output. Give all of them the same
    scale, or put a quantize op between."""
    output = graph.tensors[op.outputs[0]].quant
    for name in op.inputs:
        if not _is_same_scale(graph.tensors[name].quant, output):
            return f"{name} and {op.outputs[0]} have different scales"
    return None


def probabilities_have_a_fixed_scale(op: Op, graph: Graph, _target: Target) -> str | None:
    """The int8 result has the scale 1/256 and the zero point -128, for tanh 1/128 and 0. Quantize the output so."""
    expected = Quant.per_tensor(1 / 128, 0) if op.kind == "tanh" else Quant.per_tensor(1 / 256, -128)
    quant = graph.tensors[op.outputs[0]].quant
    if quant is None or _is_same_scale(quant, expected):
        return None
    return f"{op.outputs[0]} has the scale {quant.scale[0]:.6g} and the zero point {int(quant.zero_point[0])}"


def pads_at_most_5_axes(op: Op, graph: Graph, _target: Target) -> str | None:
    """Padding works on at most 5 axes. Merge axes with a reshape before it."""
    return _count_axes(op, graph, 5)


def transposes_at_most_5_axes(op: Op, graph: Graph, target: Target) -> str | None:
    """On microcontrollers transpose works on at most 5 axes. Merge axes with a reshape before it."""
    return _count_axes(op, graph, 5) if target.is_microcontroller else None


def slices_at_most_4_axes(op: Op, graph: Graph, target: Target) -> str | None:
    """On microcontrollers strided_slice works on at most 4 axes. Merge axes with a reshape before it."""
    return _count_axes(op, graph, 4) if target.is_microcontroller else None


def slopes_have_at_most_4_axes(op: Op, graph: Graph, target: Target) -> str | None:
    """On microcontrollers prelu works on at most 4 axes. Merge axes with a reshape before it: TFLite Micro stops the
    whole program otherwise."""
    return _count_axes(op, graph, 4) if target.is_microcontroller else None


def joins_at_most_10_tensors(op: Op, _graph: Graph, target: Target) -> str | None:
    """On microcontrollers concat joins at most 10 tensors. Join them in groups."""
    return f"it joins {len(op.inputs)}" if target.is_microcontroller and len(op.inputs) > 10 else None


def relu6_keeps_the_scale(op: Op, graph: Graph, target: Target) -> str | None:
    """On microcontrollers a relu6 op of its own has one scale for input and output. Fuse it into the layer before it,
    which needs no such rule: TFLite Micro does not rescale, and its result would be wrong."""
    return copies_keep_the_scale(op, graph, target) if target.is_microcontroller else None


def hard_tanh_is_fused(_op: Op, _graph: Graph, target: Target) -> str | None:
    """On microcontrollers clipping to -1..1 exists only fused into another layer. Place it right after a convolution,
    dense layer, add, sub or mul, or use relu6 or tanh."""
    return "it stands alone" if target.is_microcontroller else None


def _count_axes(op: Op, graph: Graph, limit: int) -> str | None:
    for name in (*op.inputs, *op.outputs):
        if len(graph.tensors[name].shape) > limit:
            return f"{name} has {len(graph.tensors[name].shape)} axes"
    return None


def _is_same_scale(first: Quant | None, second: Quant | None) -> bool:
    if first is None or second is None:
        return first is second
    return (first.scale[0], first.zero_point[0]) == (second.scale[0], second.zero_point[0])


EVERY_OP: tuple[Constraint, ...] = (types_are_known, batch_stays_first, axes_are_few)

_WEIGHTED: tuple[Constraint, ...] = (weights_are_constant, weights_are_symmetric, sums_fit_32_bits)

BY_KIND: Mapping[str, tuple[Constraint, ...]] = {
    **dict.fromkeys(WEIGHTED_KINDS, _WEIGHTED),
    "fully_connected": (*_WEIGHTED, dense_has_one_scale),
    "max_pool_2d": (copies_keep_the_scale,),
    "average_pool_2d": (copies_keep_the_scale,),
    "concat": (copies_keep_the_scale, joins_at_most_10_tensors),
    "pad": (copies_keep_the_scale, pads_at_most_5_axes),
    "reshape": (copies_keep_the_scale,),
    "transpose": (copies_keep_the_scale, transposes_at_most_5_axes),
    "strided_slice": (copies_keep_the_scale, slices_at_most_4_axes),
    "relu6": (relu6_keeps_the_scale,),
    "relu_n1_to_1": (hard_tanh_is_fused,),
    "prelu": (slopes_are_constant, slopes_have_at_most_4_axes),
    "logistic": (probabilities_have_a_fixed_scale,),
    "softmax": (probabilities_have_a_fixed_scale,),
    "tanh": (probabilities_have_a_fixed_scale,),
}
