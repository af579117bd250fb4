"""One scale and zero point for every activation, keeping the rules of TFLite's int8 kernels.

Rules (TFLite "8-bit quantization specification", https://ai.google.dev/edge/litert/models/quantization_spec):

- Zero is always exactly representable: the range is widened to hold it.
- concat, pooling, pad, reshape, transpose and slice copy stored values, so inputs and output share one scale: groups
  by union-find, the range of a group is the union of its members' ranges.
- softmax and logistic write scale 1/256, zero point -128, tanh 1/128 and 0, whatever is asked. Where such a tensor
  meets another scale (in a concat), a `quantize` op stands between.

Two rules are ours; they only bite where calibration found a tensor without values, or a step finer than what the op's
inputs carry:

- A tensor that was 0 in every sample has no range of its own; its step is derived from the op that writes it.
- A step must not be so fine that integer arithmetic overflows, or that a kernel aborts (`LEAST_STEPS` below).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from edgeprune.errors import EdgepruneError, InputError
from edgeprune.graph import Graph, Op, Quant, Tensor, verify_graph

# Kernels that ignore the output's scale and write this one.
FIXED_OUTPUTS: Mapping[str, Quant] = {
    "softmax": Quant.per_tensor(1 / 256, -128),
    "logistic": Quant.per_tensor(1 / 256, -128),
    "tanh": Quant.per_tensor(1 / 128, 0),
}
# One input, whose stored values go to the output as they are.
# relu6 and relu_n1_to_1 (on their own, not fused) because TFLite Micro's RELU6 clamps without rescaling.
SHARING_KINDS = (
    *("max_pool_2d", "average_pool_2d", "pad", "reshape", "transpose", "strided_slice"),
    *("relu6", "relu_n1_to_1"),
)
WEIGHTED_KINDS = ("conv_2d", "depthwise_conv_2d", "fully_connected")

# The output channel's axis in a weight.
CHANNEL_AXIS = {"conv_2d": 0, "depthwise_conv_2d": 3, "fully_connected": 0}

# softmax aborts in TFLite below 2^-26 (its multiplier must exceed 1) and exp, logistic and tanh are flat to 1e-4 of an
# output step over 255 such steps: nothing is lost.
LEAST_INPUT_STEP = 2.0**-20

# A tensor whose whole range is below this was 0 but for rounding; products of two such steps leave float32.
LEAST_RANGE = 2.0**-50
LARGEST_RANGE = 2.0**50

# A real accumulator spans at most this many output steps: it is shifted left by at most one bit more than its
# multiplier's size, and must stay inside int32 together with a bias as large.
ACCUMULATOR_STEPS = 2.0**28


class ScaleGroups:
    """Which activations share a scale. Union-find over tensor names; a group may have a fixed scale."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}
        self._fixed: dict[str, Quant] = {}

    def find(self, name: str) -> str:
        """The name that stands for the group of `name`."""
        while (parent := self._parent.get(name, name)) != name:
            name = parent
        return name

    def unite(self, first: str, second: str) -> None:
        """Make one group of two; at most one of them has a fixed scale, or both the same."""
        first, second = self.find(first), self.find(second)
        if first != second:
            fixed = self._fixed.pop(first, None)
            if fixed is not None:
                self._fixed[second] = fixed
            self._parent[first] = second

    def fix(self, name: str, quant: Quant) -> None:
        """Give the group of `name` this scale."""
        self._fixed[self.find(name)] = quant

    def fixed(self, name: str) -> Quant | None:
        """The fixed scale of the group of `name`, if it has one."""
        return self._fixed.get(self.find(name))


def bridge_fixed_scales(graph: Graph) -> tuple[Graph, ScaleGroups]:
    """The program with a `quantize` op before each concat that mixes fixed and free scales, and its scale groups."""
    groups = ScaleGroups()
    ops: list[Op] = []
    tensors = dict(graph.tensors)
    for op in graph.ops:
        output = op.outputs[0]
        if op.kind in FIXED_OUTPUTS:
            groups.fix(output, FIXED_OUTPUTS[op.kind])
        elif op.kind in SHARING_KINDS:
            groups.unite(op.inputs[0], output)
        elif op.kind == "concat":
            inputs = list(op.inputs)
            if not _all_fixed_alike(groups, inputs):
                for place, name in enumerate(inputs):
                    if groups.fixed(name) is not None:
                        bridge = _name_unused(f"{name}/requantized", tensors)
                        tensors[bridge] = replace(tensors[name], name=bridge)
                        ops.append(Op("quantize", f"{op.name}/requantize_{place}", (name,), (bridge,)))
                        inputs[place] = bridge
            for name in inputs:
                groups.unite(name, output)
            op = replace(op, inputs=tuple(inputs))
        ops.append(op)
    bridged = replace(graph, tensors=tensors, ops=tuple(ops))
    verify_graph(bridged)
    return bridged, groups


def _all_fixed_alike(groups: ScaleGroups, names: Iterable[str]) -> bool:
    fixed = [groups.fixed(name) for name in names]
    if any(quant is None for quant in fixed):
        return False
    return len({(float(quant.scale[0]), int(quant.zero_point[0])) for quant in fixed if quant is not None}) == 1


def _name_unused(name: str, tensors: Mapping[str, Tensor]) -> str:
    while name in tensors:
        name += "_"
    return name


def choose_quant(low: float, high: float) -> Quant:
    """int8 steps over [low, high], widened to hold 0; the zero point is the nearest step to real 0.

    >>> quant = choose_quant(0.0, 127.5)
    >>> float(quant.scale[0]), int(quant.zero_point[0])
    (0.5, -128)
    """
    low, high = min(low, 0.0), max(high, 0.0)
    scale = float(np.float32((high - low) / 255.0))
    return Quant.per_tensor(scale, int(np.clip(round(-128 - low / scale), -128, 127)))


def choose_scales(graph: Graph, groups: ScaleGroups, ranges: Mapping[str, tuple[float, float]]) -> dict[str, Quant]:
    """The quantization of every activation, and of the constant operands of element-wise ops and concat.

    graph, groups: of `bridge_fixed_scales`. ranges: of `calibrate`.
    Raises InputError for a range that is missing, not finite or beyond what int8 scales can express.
    """
    members: dict[str, list[str]] = {}
    for name in _scaled_tensors(graph):
        members.setdefault(groups.find(name), []).append(name)
    quants: dict[str, Quant] = {}  # by group
    for group, names in members.items():
        fixed = groups.fixed(group)
        spans = [_range_of(graph, name, ranges) for name in names]
        low, high = min(0.0, *(span[0] for span in spans)), max(0.0, *(span[1] for span in spans))
        if fixed is not None:
            quants[group] = fixed
        elif high - low >= LEAST_RANGE:
            quants[group] = choose_quant(low, high)
    _derive_missing(graph, groups, quants)
    _widen_steps(graph, groups, quants)
    return {name: quants[group] for group, names in members.items() for name in names}


def _scaled_tensors(graph: Graph) -> list[str]:
    """Activations and the constants that are operands like them, each once, in order."""
    names = dict.fromkeys(graph.inputs)
    for op in graph.ops:
        operands = op.inputs[:1] if op.kind in WEIGHTED_KINDS else op.inputs
        names.update(dict.fromkeys([*operands, *op.outputs]))
    return list(names)


def _range_of(graph: Graph, name: str, ranges: Mapping[str, tuple[float, float]]) -> tuple[float, float]:
    tensor = graph.tensors[name]
    producer = graph.producer(name)
    if tensor.data is not None:
        low, high = (float(tensor.data.min()), float(tensor.data.max())) if tensor.data.size else (0.0, 0.0)
    elif producer is not None and producer.kind == "quantize" and name not in ranges:
        return _range_of(graph, producer.inputs[0], ranges)  # a bridge of ours
    elif name in ranges:
        low, high = ranges[name]
    else:
        raise InputError(f"{name}: calibration gave no range for this tensor; calibrate the same program")
    if not (low <= high and max(abs(low), abs(high)) <= LARGEST_RANGE):
        raise InputError(
            f"{name}: its values span {low:g} to {high:g}; int8 quantization takes finite values up to "
            f"{LARGEST_RANGE:.0e}. Check the weights and whether the samples are normalised"
        )
    return low, high


def _derive_missing(graph: Graph, groups: ScaleGroups, quants: dict[str, Quant]) -> None:
    """Give groups that were 0 in every sample a step of the size that the op writing them works in."""
    for name in graph.inputs:
        quants.setdefault(groups.find(name), Quant.per_tensor(1 / 128, 0))
    for op in graph.ops:
        operands = op.inputs[:1] if op.kind in WEIGHTED_KINDS else op.inputs
        known = [float(quants[group].scale[0]) for name in operands if (group := groups.find(name)) in quants]
        step = max(known, default=1 / 128)
        for name in operands:  # constants that are all 0
            quants.setdefault(groups.find(name), Quant.per_tensor(step, 0))
        if op.kind in WEIGHTED_KINDS:
            # 256 accumulator steps, the usual ratio, to one output step
            largest_weight = float(np.abs(_weight(graph, op)).max(initial=0.0))
            step = np.clip(step * largest_weight / 127 * 256, LEAST_RANGE / 255, LARGEST_RANGE / 255) or step
        quants.setdefault(groups.find(op.outputs[0]), Quant.per_tensor(float(step), 0))


def _widen_steps(graph: Graph, groups: ScaleGroups, quants: dict[str, Quant]) -> None:
    """Widen steps that are finer than the arithmetic around them allows, until all of them hold."""
    for _ in range(len(graph.ops) + 1):  # steps only grow, and each round settles at least one more op
        changed = False
        for op in graph.ops:
            for name, least in _least_steps(graph, op, groups, quants).items():
                group = groups.find(name)
                if float(quants[group].scale[0]) < least and groups.fixed(group) is None:
                    # rounded up: float32 must not fall short of the bound again
                    wide = np.nextafter(np.float32(least), np.float32(np.inf))
                    quants[group] = Quant(np.array([wide]), quants[group].zero_point)
                    changed = True
        if not changed:
            return
    raise EdgepruneError(f"{graph.name}: no int8 scales satisfy every op; this is a fault of edgeprune")


def _least_steps(graph: Graph, op: Op, groups: ScaleGroups, quants: Mapping[str, Quant]) -> dict[str, float]:
    """The finest step that the op's arithmetic allows for its tensors, where it has such a bound."""
    steps = [float(quants[group].scale[0]) if (group := groups.find(name)) in quants else 0.0 for name in op.inputs]
    output = op.outputs[0]
    if op.kind in WEIGHTED_KINDS:
        weight = np.abs(_weight(graph, op).astype(np.float64))
        axes = tuple(axis for axis in range(weight.ndim) if axis != CHANNEL_AXIS[op.kind])
        return {output: float(weight.sum(axis=axes).max(initial=0.0)) * 255 * steps[0] / ACCUMULATOR_STEPS}
    if op.kind in ("add", "sub"):
        # both are brought to 2^20 steps of twice the larger scale; TFLite aborts if that is not rescaled downwards
        return {output: 2 * max(steps) * 2.0**-17}
    if op.kind == "mul":
        return {output: steps[0] * steps[1] * 255**2 / ACCUMULATOR_STEPS}
    if op.kind == "hard_swish":
        return {output: steps[0] / 64}  # TFLite works in 1/128 of an input step and only shifts right from there
    if op.kind in ("softmax", "logistic", "tanh"):
        return {op.inputs[0]: LEAST_INPUT_STEP / max(float(op.attrs.get("beta", 1.0)), 2.0**-10)}
    if op.kind == "leaky_relu":
        return {output: steps[0] * max(1.0, abs(float(op.attrs["alpha"]))) * 255 / ACCUMULATOR_STEPS}
    if op.kind == "prelu":
        return {output: steps[0] * max(1.0, steps[1] * 255) * 255 / ACCUMULATOR_STEPS}
    if op.kind in ("mean", "relu", "elu", "quantize"):
        return {output: steps[0] * 255 / ACCUMULATOR_STEPS}
    return {}


def _weight(graph: Graph, op: Op) -> np.ndarray:
    data = graph.tensors[op.inputs[1]].data
    if data is None:
        raise EdgepruneError(f"{op.name} ({op.kind}): its weights are not constant; edgeprune quantizes constant ones")
    return data
