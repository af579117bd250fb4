"""Float program + calibrated ranges -> int8 program.

Weights are symmetric int8 (-127..127), per output channel for convolutions and per tensor for fully connected layers
(older TFLite Micro ignores per-channel scales there). A bias is int32 in steps of input step x weight step, so that it
adds to the accumulator as it is; real accumulator = step_in * step_w * integer accumulator.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from edgeprune.errors import InputError, UnsupportedModelError
from edgeprune.graph import Graph, Op, Quant, Tensor, remove_unused_tensors, verify_graph
from edgeprune.quantize.scales import (
    CHANNEL_AXIS,
    LARGEST_RANGE,
    WEIGHTED_KINDS,
    bridge_fixed_scales,
    choose_scales,
)

WEIGHT_MAX = 127

# The integer bias and the integer accumulator may each fill half of int32.
ACCUMULATOR_LIMIT = 2.0**30

# The least ratio of accumulator step to output step; it keeps the multiplier and shift of dead channels ordinary. Its
# price is a rounding error of at most 255 * 2^-23 = 0.00003 output steps per product.
LEAST_MULTIPLIER = 2.0**-22

# Past this many output steps beyond what the products can undo, a bias only saturates the output.
SATURATING_STEPS = 512.0


def quantize_graph(graph: Graph, ranges: Mapping[str, tuple[float, float]]) -> Graph:
    """The int8 program, int8 at its inputs and outputs too.

    graph: float32. ranges: (low, high) of every activation, from `calibrate` of the same program.
    Raises InputError for missing ranges, NaN or absurd magnitudes, UnsupportedModelError for weights that are computed.
    """
    _check_float(graph)
    bridged, groups = bridge_fixed_scales(graph)
    quants = choose_scales(bridged, groups, ranges)
    tensors: dict[str, Tensor] = {}
    ops = []
    for name in bridged.inputs:
        tensors[name] = _quantize_operand(bridged.tensors[name], quants[name])
    for op in bridged.ops:
        operands = op.inputs
        if op.kind in WEIGHTED_KINDS:
            weight, bias = _quantize_layer(bridged, op, quants)
            weight, bias = _store(weight, op, tensors), _store(bias, op, tensors)
            operands = (op.inputs[0], weight.name, bias.name)
        for name in (*op.inputs, *op.outputs):
            if name in quants:
                tensors[name] = _quantize_operand(bridged.tensors[name], quants[name])
        ops.append(replace(op, inputs=operands))
    quantized = remove_unused_tensors(replace(bridged, tensors=tensors, ops=tuple(ops)))
    verify_graph(quantized)
    return quantized


def _check_float(graph: Graph) -> None:
    for tensor in graph.tensors.values():
        if tensor.dtype != "float32" or tensor.quant is not None:
            raise InputError(f"{tensor.name} is {tensor.dtype}; quantization starts from a float32 program")
        if tensor.data is not None and not (np.abs(tensor.data) <= LARGEST_RANGE).all():  # NaN compares false
            raise InputError(
                f"{tensor.name}: holds NaN, infinity or more than {LARGEST_RANGE:.0e}; train again or drop the layer"
            )


def _quantize_operand(tensor: Tensor, quant: Quant) -> Tensor:
    """The tensor as int8; a constant's values are rounded to its steps."""
    data = None
    if tensor.data is not None:
        steps = np.rint(tensor.data.astype(np.float64) / float(quant.scale[0])) + int(quant.zero_point[0])
        data = np.clip(steps, -128, 127).astype(np.int8)
    return Tensor(tensor.name, tensor.shape, "int8", data, quant)


def _quantize_layer(graph: Graph, op: Op, quants: Mapping[str, Quant]) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution or fully connected op, quantized for its input's and output's steps."""
    weight, bias = graph.tensors[op.inputs[1]], graph.tensors[op.inputs[2]]
    if weight.data is None or bias.data is None:
        raise UnsupportedModelError(f"{op.name} ({op.kind}): its weights are computed; int8 needs constant ones")
    axis = CHANNEL_AXIS[op.kind]
    input_step = float(quants[op.inputs[0]].scale[0])
    output_step = float(quants[op.outputs[0]].scale[0])
    real_weight = np.moveaxis(weight.data.astype(np.float64), axis, 0).reshape(weight.shape[axis], -1)
    real_bias = _clip_saturating_bias(real_weight, bias.data.astype(np.float64), input_step, output_step)
    weight_step = _choose_weight_steps(real_weight, real_bias, input_step, output_step)
    if op.kind == "fully_connected":
        weight_step = weight_step.max(keepdims=True)
    weight_step = weight_step.astype(np.float32).astype(np.float64)

    shape = [1] * weight.data.ndim
    shape[axis] = -1
    stored_weight = np.clip(np.rint(weight.data / weight_step.reshape(shape)), -WEIGHT_MAX, WEIGHT_MAX).astype(np.int8)
    bias_step = input_step * weight_step
    stored_bias = np.rint(real_bias / bias_step).astype(np.int32)
    zeros = np.zeros(len(weight_step), np.int32)
    per_channel = op.kind != "fully_connected"
    return (
        Tensor.constant(weight.name, stored_weight, Quant(weight_step, zeros, axis if per_channel else None)),
        Tensor.constant(bias.name, stored_bias, Quant(bias_step, zeros, 0 if per_channel else None)),
    )


def _clip_saturating_bias(weight: np.ndarray, bias: np.ndarray, input_step: float, output_step: float) -> np.ndarray:
    """Biases without the part that cannot change any output.

    No input moves a channel by more than sum|w| * 255 input steps. A bias beyond that plus the whole output range
    leaves the output saturated at the same end, however far beyond; clipped there, it fits int32 and the channel keeps
    its weights. weight: (channels, products).
    """
    bound = np.abs(weight).sum(axis=1) * 255 * input_step + SATURATING_STEPS * output_step
    return np.clip(bias, -bound, bound)


def _choose_weight_steps(weight: np.ndarray, bias: np.ndarray, input_step: float, output_step: float) -> np.ndarray:
    """The weight step of each channel (channels,): the largest weight becomes 127, unless integers would overflow.

    Larger steps are taken for a bias that would leave int32 (a dead channel: tiny weights, ordinary bias), for a sum of
    products that would, and for a multiplier out of reach.
    """
    sizes = np.abs(weight)
    return np.maximum.reduce(
        [
            sizes.max(axis=1, initial=0.0) / WEIGHT_MAX,
            np.abs(bias) / (input_step * ACCUMULATOR_LIMIT),
            sizes.sum(axis=1) * 255 / ACCUMULATOR_LIMIT,
            np.full(len(sizes), LEAST_MULTIPLIER * output_step / input_step),
        ]
    )


def _store(constant: Tensor, op: Op, tensors: dict[str, Tensor]) -> Tensor:
    """Put a layer's constant among the tensors, under another name if a layer that shares it needed other steps."""
    name = constant.name
    while name in tensors and not _is_same_constant(tensors[name], constant):
        name = f"{op.name}/{constant.name}" if name == constant.name else f"{name}_"
    tensors[name] = replace(constant, name=name)
    return tensors[name]


def _is_same_constant(first: Tensor, second: Tensor) -> bool:
    if first.data is None or second.data is None or first.quant is None or second.quant is None:
        return False
    return (
        first.data.tobytes() == second.data.tobytes()
        and first.data.dtype == second.data.dtype
        and np.array_equal(first.quant.scale, second.quant.scale)
    )
