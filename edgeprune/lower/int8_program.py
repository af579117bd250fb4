"""A full-int8 TFLite file that others made -> the int8 program to compile, checked to the last scale.

What the rest of edgeprune may rely on afterwards, whatever the bytes were: one int8 input, int8 activations throughout,
constant weights with a scale per output channel, rescaling factors in range, sizes that fit a workstation, and one run
of the reference without complaint. Other people's interpreters never see the bytes: they get what `write_tflite` makes
of the program.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from edgeprune.errors import InputError, UnsupportedModelError
from edgeprune.fixedpoint import FixedPointError
from edgeprune.graph import Graph, GraphError, Op, Quant, Tensor, count_op_macs, remove_unused_tensors
from edgeprune.lower.operand_rules import WEIGHTED_KINDS, WINDOWED_KINDS
from edgeprune.lower.tflite_edges import strip_edges
from edgeprune.lower.tflite_file import parse_tflite
from edgeprune.lower.tflite_reader import read_records
from edgeprune.reference import run_graph, run_op

Result = TypeVar("Result")

HOW_TO_CONVERT = (
    "convert with full integer quantization to int8: in TensorFlow a representative_dataset, "
    "target_spec.supported_ops = [TFLITE_BUILTINS_INT8] and inference_input_type = inference_output_type = tf.int8"
)
# Far beyond any microcontroller, and what a workstation runs in seconds and a gigabyte.
MAX_ACTIVATION_BYTES = 16 * 2**20
MAX_WEIGHT_BYTES = 64 * 2**20
MAX_PATCHES = 128 * 2**20
MAX_MACS = 20_000_000_000
# One step of a sum becomes this many steps of the output at most: an int8 output has 255.
MAX_RESCALING = 2.0**15
# TFLite Micro refuses a bias whose scale is off by more than this part of the output's (kernel_util.cc).
BIAS_SCALE_TOLERANCE = 0.02


@dataclass(frozen=True, eq=False)
class Int8Program:
    """The program, and what a reader of the report should know about how it came out of its file."""

    graph: Graph
    notes: tuple[str, ...]


def read_int8_program(data: bytes) -> Int8Program:
    """Read a full-int8 file; float32 and uint8 conversions at its edges are taken off.

    Raises InputError for damaged or senseless files, UnsupportedModelError, naming layer and operator, for what is no
    full-int8 program or has no form here.
    """
    file, notes = strip_edges(parse_tflite(data))
    graph = _remove_unread_ops(read_records(file))
    _check_types(graph)
    _check_edges(graph)
    check_sizes(graph)
    graph = _settle_weights(_fold_constants(graph))
    for op in graph.ops:
        _check_rescaling(op, graph)
    _try_out(graph)
    return Int8Program(graph, (*notes, *_find_notes(graph)))


def _remove_unread_ops(graph: Graph) -> Graph:
    """Without the ops whose result nothing reads, such as unused parts of a SPLIT."""
    wanted, kept = set(graph.outputs), []
    for op in reversed(graph.ops):
        if wanted.intersection(op.outputs):
            wanted.update(op.inputs)
            kept.append(op)
    return remove_unused_tensors(replace(graph, ops=tuple(reversed(kept))))


def _check_types(graph: Graph) -> None:
    for op in graph.ops:
        for name in (*op.inputs[:1], *op.outputs):
            dtype = graph.tensors[name].dtype
            if dtype == "int16":
                raise UnsupportedModelError(
                    f"{op.name} ({op.kind}): {name} is int16 (16x8 quantization); allowed are int8 activations, "
                    f"int8 weights and int32 biases; {HOW_TO_CONVERT}"
                )
            if dtype != "int8":
                raise UnsupportedModelError(
                    f"{op.name} ({op.kind}): {name} is {dtype}; all of the network must be int8; give the PyTorch "
                    f"model, which edgeprune quantizes itself, or {HOW_TO_CONVERT}"
                )


def _check_edges(graph: Graph) -> None:
    if len(graph.inputs) != 1:
        raise UnsupportedModelError(
            f"the file has {len(graph.inputs)} inputs ({', '.join(graph.inputs[:4])}); allowed: 1; join them to one"
        )
    for name in (*graph.inputs, *graph.outputs):
        tensor = graph.tensors[name]
        if tensor.dtype != "int8" or tensor.quant is None or tensor.is_constant:
            raise UnsupportedModelError(
                f"{name}, an input or output, is {'constant' if tensor.is_constant else tensor.dtype}; allowed: int8 "
                f"with a scale; {HOW_TO_CONVERT}"
            )
    if not graph.ops or set(graph.outputs) & set(graph.inputs):
        raise UnsupportedModelError("the file computes nothing between its input and its output; export the network")
    if len(set(graph.outputs)) < len(graph.outputs):
        raise InputError("the TFLite file names an output twice; convert the model again")


def check_sizes(graph: Graph) -> None:
    """Raise UnsupportedModelError for a program that would take gigabytes or minutes to run once."""
    macs = 0
    for op in graph.ops:
        for name in (*op.inputs, *op.outputs):
            tensor = graph.tensors[name]
            limit = MAX_WEIGHT_BYTES if tensor.is_constant else MAX_ACTIVATION_BYTES
            if tensor.byte_count > limit:
                raise UnsupportedModelError(
                    f"{op.name} ({op.kind}): {name} is {tensor.shape}, {tensor.byte_count:,} bytes; allowed: "
                    f"{limit:,}; use a smaller input"
                )
        if op.kind in WINDOWED_KINDS:
            _check_window(op, graph)
        macs += count_op_macs(graph, op)
        if macs > MAX_MACS:
            raise UnsupportedModelError(
                f"{op.name} ({op.kind}): up to here the network takes {macs:,} multiply-accumulates; allowed: "
                f"{MAX_MACS:,}; use a smaller network"
            )


def _check_window(op: Op, graph: Graph) -> None:
    """A window that reaches far beyond its map, or maps that are huge once cut into windows."""
    source, output = graph.tensors[op.inputs[0]].shape, graph.tensors[op.outputs[0]].shape
    kernel = op.attrs.get("kernel_size") or graph.tensors[op.inputs[1]].shape[1:3]
    extents = [
        (size - 1) * dilation + 1 for size, dilation in zip(kernel, op.attrs.get("dilation", (1, 1)), strict=True)
    ]
    padded = (source[1] + extents[0]) * (source[2] + extents[1]) * source[3]
    taken = output[1] * output[2] * kernel[0] * kernel[1] * (source[3] if op.kind == "conv_2d" else 1)
    if padded > MAX_PATCHES or taken > MAX_PATCHES:
        raise UnsupportedModelError(
            f"{op.name} ({op.kind}): its window spans {extents[0]} x {extents[1]} over a map of {source[1]} x "
            f"{source[2]}, {max(padded, taken):,} values to gather; allowed: {MAX_PATCHES:,}; use a smaller window"
        )


def _fold_constants(graph: Graph) -> Graph:
    """Ops over constants alone, computed now: converters leave them where shapes were computed."""
    tensors, ops = dict(graph.tensors), []
    for op in graph.ops:
        if not all(tensors[name].is_constant for name in op.inputs):
            ops.append(op)
            continue
        (output,) = op.outputs
        if output in graph.outputs:
            raise UnsupportedModelError(
                f"{output}, an output, does not depend on the input; export the network without it"
            )
        folded = replace(graph, tensors=tensors)
        values = _guard(run_op, op, folded, [folded.tensors[name].data for name in op.inputs])
        tensors[output] = replace(tensors[output], data=values)
    return remove_unused_tensors(replace(graph, tensors=tensors, ops=tuple(ops)))


# -- weights


def _settle_weights(graph: Graph) -> Graph:
    """A scale for each output channel of convolutions, biases with the scale that their sums have."""
    changed: dict[str, Tensor] = {}
    for op in graph.ops:
        if op.kind not in WEIGHTED_KINDS:
            continue
        source, weight, bias = (graph.tensors[name] for name in op.inputs)
        output = graph.tensors[op.outputs[0]]
        if not weight.is_constant or not bias.is_constant:
            raise UnsupportedModelError(
                f"{op.name} ({op.kind}): its weights are computed at run time; allowed: constants; use trained weights"
            )
        if source.quant is None or weight.quant is None or output.quant is None:
            raise InputError(f"{op.name} ({op.kind}): a tensor has no scale; convert the model again")
        axis = {"depthwise_conv_2d": 3}.get(op.kind, 0)
        if weight.quant.axis not in (None, axis):
            raise UnsupportedModelError(
                f"{op.name} ({op.kind}): its weights have scales along axis {weight.quant.axis}; allowed: one, or one "
                f"per output channel (axis {axis}); {HOW_TO_CONVERT}"
            )
        scales = weight.quant.scale
        if op.kind != "fully_connected" and len(scales) == 1:
            scales = np.repeat(scales, weight.shape[axis])
        quant = weight.quant if op.kind == "fully_connected" else Quant(scales, np.zeros(len(scales)), axis)
        with np.errstate(over="ignore", under="ignore"):
            expected = source.quant.scale[0] * scales
        if not (np.isfinite(expected).all() and (expected > 0).all()):
            raise InputError(
                f"{op.name} ({op.kind}): input scale x weight scale is {expected.min():g} to {expected.max():g}, no "
                "scale of a sum; convert the model again"
            )
        _check_bias_scale(op, bias, expected, float(output.quant.scale[0]))
        sums = Quant(expected, np.zeros(len(scales)), None if op.kind == "fully_connected" and len(scales) == 1 else 0)
        changed[weight.name] = replace(weight, quant=quant)
        earlier = changed.get(bias.name)
        if earlier is not None and earlier.quant is not None and not np.array_equal(earlier.quant.scale, expected):
            raise UnsupportedModelError(
                f"{op.name} ({op.kind}): it shares the bias {bias.name} with a layer of another scale; convert again"
            )
        changed[bias.name] = replace(bias, quant=sums)
    return graph.with_tensors(changed.values())


def _check_bias_scale(op: Op, bias: Tensor, expected: np.ndarray, scale_out: float) -> None:
    if bias.quant is None:
        return
    found = bias.quant.scale
    if len(found) not in (1, len(expected)):
        raise InputError(f"{op.name} ({op.kind}): its bias has {len(found)} scales, expected {len(expected)}")
    with np.errstate(over="ignore"):
        off = np.abs(found.astype(np.float64) - expected) / scale_out
    if len(found) == len(expected) and off.max() > BIAS_SCALE_TOLERANCE:
        raise InputError(
            f"{op.name} ({op.kind}): its bias has the scale {found[off.argmax()]:.6g}; expected is input scale x "
            f"weight scale, {expected[off.argmax()]:.6g}; convert the model again"
        )


# -- arithmetic


def _check_rescaling(op: Op, graph: Graph) -> None:
    """Raise unless the factor from the op's sums to its output's steps is a number that fixed point holds."""
    quants = [graph.tensors[name].quant for name in (*op.inputs, *op.outputs)]
    scales = [quant.scale.astype(np.float64) for quant in quants if quant is not None]
    if len(scales) < len(quants):
        raise InputError(f"{op.name} ({op.kind}): a tensor has no scale; convert the model again")
    source, output = scales[0][0], scales[-1][0]
    if op.kind in (*WEIGHTED_KINDS, "mul", "prelu"):
        factor = float((source * scales[1]).max() / output)
        factor = max(factor, source / output) if op.kind == "prelu" else factor
    else:
        factor = max(float(scale[0]) for scale in scales[:-1]) / output
    if op.kind == "leaky_relu":
        factor *= max(1.0, abs(op.attrs["alpha"]))
    if op.kind in ("softmax", "logistic", "tanh"):
        factor = max(source, source * abs(op.attrs.get("beta", 1.0)))
    if not factor < MAX_RESCALING:
        raise UnsupportedModelError(
            f"{op.name} ({op.kind}): one step of its input weighs {factor:.3g} steps of its output; allowed: below "
            f"{MAX_RESCALING:g}; check the ranges that the model was quantized with"
        )


def _try_out(graph: Graph) -> None:
    """One run of the reference: it refuses what its arithmetic, TFLite Micro's, does not cover."""
    (name,) = graph.inputs
    values = np.random.default_rng(0).integers(-128, 128, graph.tensors[name].shape).astype(np.int8)
    _guard(run_graph, graph, values)


def _guard(run: Callable[..., Result], *arguments: object) -> Result:
    """What the reference computes; InputError for a graph that makes no sense to it."""
    try:
        return run(*arguments)
    except (GraphError, FixedPointError) as error:
        raise InputError(f"the TFLite file contradicts itself: {error}; convert the model again") from error


def _find_notes(graph: Graph) -> tuple[str, ...]:
    split = [
        op.name
        for op in graph.ops
        if op.kind == "fully_connected" and len((graph.tensors[op.inputs[1]].quant or _ONE).scale) > 1
    ]
    if not split:
        return ()
    return (
        f"dense layers with a scale per output ({', '.join(split[:3])}{', ...' if len(split) > 3 else ''}): TFLite "
        "Micro computes them right in recent releases, older ones use the first scale for all, without a word",
    )


_ONE = Quant.per_tensor(1.0, 0)
