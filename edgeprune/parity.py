"""Do all forms of a program compute the same? Differences in LSB (steps of the output), against one table of limits.

Three comparisons:

- `compare_lockstep`: every op of an int8 program on its own, each executor fed the numpy reference's inputs, so that
  one op's rounding cannot hide in, or be blamed on, the next. This has limits for every executor.
- `compare_end_to_end`: the whole int8 program. Errors travel and grow, so only TFLite Micro, whose arithmetic the
  reference is, must be equal; for the others the differences and their effect on the decision are reported.
- `compare_float`: PyTorch against the exported float ONNX.

Rooms are not imported here: whoever calls brings the writers of the one-op models along.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeprune.errors import EdgepruneError, InputError
from edgeprune.executors import (
    MICRO_AVAILABLE,
    MICRO_INSTALL,
    Executor,
    LiteRTExecutor,
    MicroExecutor,
    OnnxExecutor,
)
from edgeprune.graph import Graph, Op, Quant, Tensor, count_op_macs, cut_op
from edgeprune.layout import from_nhwc
from edgeprune.progress import SILENT, Progress
from edgeprune.reference import dequantize_values, quantize_values, run_graph

MICRO = "tflite-micro"
LITERT_REFERENCE = "litert-reference"
LITERT_BUILTIN = "litert-builtin"
LITERT_XNNPACK = "litert-xnnpack"
ONNX_RUNTIME = "onnxruntime"
EXECUTORS = (MICRO, LITERT_REFERENCE, LITERT_BUILTIN, LITERT_XNNPACK, ONNX_RUNTIME)


@dataclass(frozen=True)
class Limit:
    """How far an executor may be from the reference on one op, and why not 0. lsb None: it has no kernel for it."""

    lsb: int | None
    reason: str


_EXACT = Limit(0, "")


def _limits(lsb: int | None, reason: str, *kinds: str) -> dict[str, Limit]:
    return {kind: Limit(lsb, reason) for kind in kinds}


_IN_FLOAT = "computed in float and rounded once; the reference rounds twice in fixed point"
_TABLE = "looked up in a table computed in float; TFLite Micro computes in fixed point"
_ROUNDS_ONCE = "rounds the rescaled sum once; TFLite Micro and CMSIS-NN round twice"
_FLOAT32_FACTORS = "computes the ratio of scales in float32; TFLite Micro in float64"
_FLOAT32_KINDS = ("mul", "prelu", "leaky_relu", "hard_swish")
# Every entry was seen to be needed: on random one-op programs, random networks or MLPerf Tiny's. Not listed: 0.
LIMITS: Mapping[str, Mapping[str, Limit]] = {
    MICRO: _limits(None, "TFLite Micro has no such kernel", "relu_n1_to_1"),
    LITERT_REFERENCE: {
        **_limits(1, _ROUNDS_ONCE, "fully_connected"),
        **_limits(1, _FLOAT32_FACTORS, *_FLOAT32_KINDS),
        **_limits(1, _TABLE, "logistic", "tanh"),
        **_limits(None, "LiteRT's set of reference kernels has no ELU", "elu"),
    },
    LITERT_BUILTIN: {
        **_limits(1, _ROUNDS_ONCE, "conv_2d", "depthwise_conv_2d", "fully_connected", "mean", "quantize"),
        **_limits(1, _FLOAT32_FACTORS, *_FLOAT32_KINDS),
        **_limits(1, _TABLE, "logistic", "tanh", "softmax"),
        **_limits(1, "computes expm1(x); TFLite Micro exp(x) - 1", "elu"),
    },
    LITERT_XNNPACK: {
        **_limits(1, _FLOAT32_FACTORS, *_FLOAT32_KINDS),
        **_limits(1, _IN_FLOAT, "conv_2d", "depthwise_conv_2d", "fully_connected", "mul", "mean"),
        **_limits(1, "rounds once, in fewer bits", "add", "sub", "leaky_relu", "quantize"),
        **_limits(1, _TABLE, "logistic", "tanh", "softmax"),
        **_limits(1, "rounds ties to even, after adding the zero point; TFLite Micro away from zero, before", "elu"),
    },
    ONNX_RUNTIME: {
        **_limits(1, _IN_FLOAT, "conv_2d", "depthwise_conv_2d", "fully_connected", "add", "sub", "mul"),
        **_limits(1, _IN_FLOAT, "average_pool_2d", "mean", "relu", "leaky_relu", "prelu", "logistic", "tanh"),
        **_limits(1, _IN_FLOAT, "hard_swish", "softmax", "quantize"),
        **_limits(1, "rounds ties to even; TFLite Micro away from zero", "elu"),
    },
}


def find_limit(kind: str, executor: str) -> Limit:
    """The table's entry for an op kind on an executor; 0 LSB where it has none."""
    return LIMITS[executor].get(kind, _EXACT)


def find_missing_kernels(graph: Graph, executor: str) -> tuple[str, ...]:
    """The program's op kinds that an executor has no kernel for: it cannot run the program whole."""
    return tuple(sorted({op.kind for op in graph.ops if find_limit(op.kind, executor).lsb is None}))


@dataclass(frozen=True)
class OpParity:
    """One op on one executor, fed the reference's inputs.

    max_lsb: largest difference; None if the executor did not run it, and `problem` says why.
    different, elements: how many of how many output values differ. limit_lsb, reason: from LIMITS.
    """

    layer: str
    kind: str
    executor: str
    max_lsb: int | None
    different: int
    elements: int
    limit_lsb: int | None
    reason: str
    problem: str
    passed: bool


@dataclass(frozen=True)
class LockstepParity:
    """All ops on all executors. unavailable: (executor, how to get it) for those that could not be asked."""

    samples: int
    rows: tuple[OpParity, ...]
    unavailable: tuple[tuple[str, str], ...]
    passed: bool

    def worst(self, executor: str) -> OpParity | None:
        """The executor's op to look at first: a failure, else the largest difference."""
        own = [row for row in self.rows if row.executor == executor]
        return max(own, key=lambda row: (not row.passed, row.max_lsb or 0, row.different), default=None)


@dataclass(frozen=True)
class EndToEndParity:
    """A whole int8 program on one executor against the reference.

    max_lsb, different, elements: over all outputs; max_lsb is None if the executor did not run the program, and
    `problem` says why. argmax_changes: samples whose first output has its largest value elsewhere. must_be_equal:
    whether a difference is a failure.
    """

    executor: str
    samples: int
    max_lsb: int | None
    different: int
    elements: int
    argmax_changes: int
    must_be_equal: bool
    problem: str
    passed: bool


@dataclass(frozen=True)
class FloatParity:
    """Float outputs of two forms of a network. limit: what `max_abs_error` may be; reason: where that comes from."""

    samples: int
    max_abs_error: float
    largest_output: float
    limit: float
    reason: str
    passed: bool


TfliteWriter = Callable[[Graph], bytes]
OnnxWriter = Callable[[Graph], Any]  # -> onnx.ModelProto

# What the ops may cost together, over all samples: 1 to 2 s in TFLite Micro's plain loops, and as much in the others.
LOCKSTEP_MACS = 500_000_000


def compare_lockstep(
    graph: Graph,
    samples_nhwc: np.ndarray,
    write_tflite: TfliteWriter,
    write_qdq_op: OnnxWriter,
    *,
    executors: Collection[str] = EXECUTORS,
    most_macs: int = LOCKSTEP_MACS,
    progress: Progress = SILENT,
) -> LockstepParity:
    """Every op of an int8 program on every executor, each op fed what the reference computed before it.

    samples_nhwc: float32 (N, ...) for the program's one input; fewer are used where `most_macs` would be exceeded.
    write_tflite, write_qdq_op: one-op graph -> model (`lower.write_tflite`, `quantize.write_qdq_op`).
    executors: of EXECUTORS; TFLite Micro is listed as unavailable where it is not installed.
    """
    unknown = [name for name in executors if name not in LIMITS]
    if unknown:
        raise InputError(f"executor {unknown[0]!r} has no limits; allowed: {', '.join(EXECUTORS)}")
    count = count_affordable_samples(graph, len(samples_nhwc), most_macs)
    inputs = _stored_inputs(graph, samples_nhwc[:count])
    known = {**inputs, **run_graph(graph, inputs, keep="all")}
    unavailable = () if MICRO_AVAILABLE or MICRO not in executors else ((MICRO, MICRO_INSTALL),)
    asked = [name for name in EXECUTORS if name in executors and name not in dict(unavailable)]
    rows: list[OpParity] = []
    with progress.step("parity, op by op", len(graph.ops)) as step:
        for index, op in enumerate(graph.ops):
            single = cut_op(graph, index)
            batches = [known[name] for name in single.inputs]
            for executor in asked:
                rows.append(
                    _compare_op(single, op, executor, batches, known[op.outputs[0]], write_tflite, write_qdq_op)
                )
            step.advance()
    return LockstepParity(count, tuple(rows), unavailable, all(row.passed for row in rows))


def _compare_op(
    single: Graph,
    op: Op,
    executor: str,
    inputs: list[np.ndarray],
    expected: np.ndarray,
    write_tflite: TfliteWriter,
    write_qdq_op: OnnxWriter,
) -> OpParity:
    limit = find_limit(op.kind, executor)
    head = (op.name, op.kind, executor)
    if limit.lsb is None:
        return OpParity(*head, None, 0, expected.size, None, limit.reason, limit.reason, passed=True)
    try:
        if executor == ONNX_RUNTIME:
            found = _run_onnx_op(single, write_qdq_op(single).SerializeToString(), inputs)
        else:
            (found,) = open_tflite(executor, write_tflite(single)).run(*inputs)
    except EdgepruneError as error:
        return OpParity(*head, None, 0, expected.size, limit.lsb, limit.reason, str(error), passed=False)
    largest, different = _difference_lsb(found, expected)
    passed = largest <= limit.lsb
    return OpParity(*head, largest, different, expected.size, limit.lsb, limit.reason, "", passed)


def open_tflite(executor: str, tflite: bytes) -> Executor:
    """The named executor on a TFLite file."""
    if executor == MICRO:
        return MicroExecutor(tflite)
    return LiteRTExecutor(tflite, executor.removeprefix("litert-"))


def _run_onnx_op(single: Graph, model: bytes, inputs: list[np.ndarray]) -> np.ndarray:
    """The op's stored output from a QDQ model with real-valued edges; values on the steps pass those unchanged."""
    tensors = [single.tensors[name] for name in single.inputs]
    reals = [_to_real(tensor, values) for tensor, values in zip(tensors, inputs, strict=True)]
    channels_first = [np.ascontiguousarray(np.moveaxis(real, -1, 1)) if real.ndim == 4 else real for real in reals]
    (found,) = OnnxExecutor(model).run(*channels_first)
    output = single.tensors[single.outputs[0]]
    return _to_stored(output, np.moveaxis(found, 1, -1) if found.ndim == 4 else found)


def compare_end_to_end(
    graph: Graph,
    samples_nhwc: np.ndarray,
    tflite: bytes,
    qdq_onnx: bytes | None = None,
    *,
    input_shape: tuple[int, ...] = (),
    executors: Collection[str] = EXECUTORS,
) -> tuple[EndToEndParity, ...]:
    """The whole int8 program on every executor that there is a file for.

    samples_nhwc: float32 (N, ...). tflite, qdq_onnx: both written from `graph`. input_shape: of one sample in PyTorch's
        layout, (C, T) or (C, H, W), for the ONNX file.
    An executor that is not installed has no row: `compare_lockstep` names it. Nor has one that lacks a kernel:
    `find_missing_kernels` says which.
    """
    inputs = _stored_inputs(graph, samples_nhwc)
    outputs = run_graph(graph, inputs)
    expected = [outputs[name] for name in graph.outputs]
    rows = []
    for executor in EXECUTORS:
        if executor not in executors or (executor == MICRO and not MICRO_AVAILABLE):
            continue
        if (executor == ONNX_RUNTIME and qdq_onnx is None) or find_missing_kernels(graph, executor):
            continue
        found: tuple[np.ndarray, ...] = ()
        problem = ""
        try:
            if executor == ONNX_RUNTIME and qdq_onnx is not None:
                reals = OnnxExecutor(qdq_onnx).run(from_nhwc(samples_nhwc, input_shape))
                tensors = [graph.tensors[name] for name in graph.outputs]
                pairs = zip(tensors, reals, strict=True)
                found = tuple(_to_stored(tensor, _like(real, tensor)) for tensor, real in pairs)
            else:
                found = open_tflite(executor, tflite).run(*inputs.values())
        except EdgepruneError as error:
            problem = str(error)
        rows.append(_summarise(executor, found, expected, problem))
    return tuple(rows)


def _summarise(
    executor: str, found: tuple[np.ndarray, ...], expected: list[np.ndarray], problem: str
) -> EndToEndParity:
    count = len(expected[0])
    elements = sum(output.size for output in expected)
    must_be_equal = executor == MICRO
    if problem:
        return EndToEndParity(executor, count, None, 0, elements, 0, must_be_equal, problem, passed=False)
    pairs = [_difference_lsb(mine, other) for mine, other in zip(found, expected, strict=True)]
    largest = max(pair[0] for pair in pairs)
    decided = (found[0].reshape(count, -1).argmax(axis=1), expected[0].reshape(count, -1).argmax(axis=1))
    return EndToEndParity(
        executor=executor,
        samples=count,
        max_lsb=largest,
        different=sum(pair[1] for pair in pairs),
        elements=elements,
        argmax_changes=int((decided[0] != decided[1]).sum()),
        must_be_equal=must_be_equal,
        problem="",
        passed=largest == 0 or not must_be_equal,
    )


# Per unit of the largest output. float32 carries 6e-8; sums of some thousand products in another order, through some
# tens of layers, were seen to reach 1e-5.
FLOAT_TOLERANCE = 1e-4


def compare_float(module: Any, onnx_model: bytes, samples: np.ndarray) -> FloatParity:
    """The network in PyTorch (eval mode) against its float ONNX file in ONNX Runtime.

    samples: float32 (N, C, ...).
    """
    import torch

    was_training = module.training
    module.eval()
    with torch.no_grad():
        results = module(torch.from_numpy(np.ascontiguousarray(samples, np.float32)))
    module.train(was_training)
    expected = [result.numpy() for result in (results if isinstance(results, (tuple, list)) else (results,))]
    found = OnnxExecutor(onnx_model).run(np.ascontiguousarray(samples, np.float32))
    error = max(float(np.abs(mine - other).max()) for mine, other in zip(found, expected, strict=True))
    largest = max(float(np.abs(output).max()) for output in expected)
    limit = FLOAT_TOLERANCE * max(1.0, largest)
    reason = "float32 sums in another order"
    # written so that a NaN fails
    return FloatParity(len(samples), error, largest, limit, reason, passed=error <= limit)


def _stored_inputs(graph: Graph, samples: np.ndarray) -> dict[str, np.ndarray]:
    if len(graph.inputs) != 1:
        raise InputError(f"{graph.name}: parity takes programs with one input, found {len(graph.inputs)}")
    if len(samples) == 0:
        raise InputError("parity needs at least one sample")
    (name,) = graph.inputs
    return {name: _to_stored(graph.tensors[name], samples)}


def count_affordable_samples(graph: Graph, available: int, most_macs: int) -> int:
    """How many of the available samples (one at least) a program may run on within so many multiply-accumulates.

    Each value that is written counts as ten, so that ops without multiply-accumulates have a limit, too.
    """
    macs = 0
    for op in graph.ops:
        macs += count_op_macs(graph, op) + 10 * graph.tensors[op.outputs[0]].element_count
    return int(np.clip(most_macs // max(macs, 1), 1, available))


def _quant(tensor: Tensor) -> Quant | None:
    return tensor.quant if tensor.dtype == "int8" else None


def _to_stored(tensor: Tensor, real: np.ndarray) -> np.ndarray:
    quant = _quant(tensor)
    return real if quant is None else quantize_values(real, quant)


def _to_real(tensor: Tensor, stored: np.ndarray) -> np.ndarray:
    quant = _quant(tensor)
    return stored if quant is None else dequantize_values(stored, quant)


def _like(real: np.ndarray, tensor: Tensor) -> np.ndarray:
    """An output of the ONNX file in the program's layout: (N, C, T) or (N, C, H, W) for a tensor of rank 4."""
    if len(tensor.shape) == 4:
        real = np.moveaxis(real, 1, -1).reshape(len(real), *tensor.shape[1:])
    return real


def _difference_lsb(found: np.ndarray, expected: np.ndarray) -> tuple[int, int]:
    """Largest difference and number of differing values. Real values (a float output) count in units of 1e-6."""
    if found.shape != expected.shape:
        raise EdgepruneError(f"outputs of shape {found.shape} cannot be compared with {expected.shape}")
    distance = np.abs(found.astype(np.float64) - expected.astype(np.float64))
    if expected.dtype == np.float32:
        distance = np.floor(distance / 1e-6)
    return int(distance.max(initial=0)), int((distance > 0).sum())
