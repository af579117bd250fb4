"""Each step of the export is held against the one before it, on random samples.

The steps rewrite float32 programs without changing what they compute, so only the order of sums may differ.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime

from edgeprune.errors import InputError, ParityError
from edgeprune.export.onnx_checks import find_input
from edgeprune.graph import Graph
from edgeprune.layout import to_nhwc
from edgeprune.reference import run_graph

# Relative to the largest output: float32 sums of up to some 10,000 products, rounded in another order in each of up to
# some 50 layers. A wrong layout or a wrongly folded layer gives above 1e-2.
TOLERANCE = 1e-4
_SEED = 20


def run_random_samples(model: onnx.ModelProto, sample_shape: Sequence[int]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Random samples (N, *sample_shape), as many as the model's batch says, and the model's outputs for them.

    A free batch gets 2, so that samples that mix are found; or 1, where the model's author has fixed that without
    saying so. Raises InputError if the model doesn't run, or computes NaN or infinity.
    """
    batch = find_input(model).type.tensor_type.shape.dim[0]
    count = batch.dim_value if batch.HasField("dim_value") else 2
    samples = np.random.default_rng(_SEED).standard_normal((count, *sample_shape)).astype(np.float32)
    try:
        outputs = run_onnx(model, samples)
    except InputError:
        if batch.HasField("dim_value"):
            raise
        samples = samples[:1]
        outputs = run_onnx(model, samples)
    for index, output in enumerate(outputs):
        if not np.isfinite(output).all():
            raise InputError(
                f"the model computes NaN or infinity (output {index}) from normally distributed samples. "
                "Check its weights; train it again"
            )
    return samples, outputs


def run_onnx(model: onnx.ModelProto, samples: np.ndarray) -> list[np.ndarray]:
    """All outputs of ONNX Runtime. Raises InputError if it can't load or run the model."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # fatal only: what goes wrong comes as an exception
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    # as written: a fused kernel would be a third program
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return [np.asarray(output) for output in session.run(None, {session.get_inputs()[0].name: samples})]
    except Exception as error:  # ONNX Runtime has a dozen error classes without a common base
        line = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"ONNX Runtime can't run the model: {line}. Export it again") from error


def check_step(step: str, expected: Sequence[np.ndarray], after: onnx.ModelProto, samples: np.ndarray) -> None:
    """Hold a model against what it computed before a step. Raises ParityError naming the step.

    A model for a batch of 1 is run on one sample at a time.
    """
    batch = find_input(after).type.tensor_type.shape.dim[0]
    try:
        if batch.HasField("dim_value") and batch.dim_value == 1:
            runs = [run_onnx(after, samples[index : index + 1]) for index in range(len(samples))]
            found = [np.concatenate(parts) for parts in zip(*runs, strict=True)]
        else:
            found = run_onnx(after, samples)
    except InputError as error:
        raise ParityError(f"{step}: the result does not run. {error}") from error
    require_close(step, expected, found)


def check_graph(graph: Graph, samples: np.ndarray, expected: Sequence[np.ndarray]) -> None:
    """Hold the program, run by the numpy reference, against ONNX Runtime's outputs (channels first)."""
    outputs = run_graph(graph, to_nhwc(samples))
    found = [outputs[name] for name in graph.outputs]
    wanted = [array.reshape(-1, 1) if array.ndim < 2 else to_nhwc(array) for array in expected]
    require_close("reading ONNX as a program", wanted, found)


def require_close(step: str, expected: Sequence[np.ndarray], found: Sequence[np.ndarray]) -> None:
    """Raise ParityError naming the step unless all outputs agree within TOLERANCE."""
    for index, (wanted, got) in enumerate(zip(expected, found, strict=True)):
        if wanted.shape != got.shape:
            raise ParityError(f"{step}: output {index} had the shape {wanted.shape} and has {got.shape} now")
        scale = max(0.1, float(np.abs(wanted).max(initial=0.0)))
        error = float(np.abs(wanted.astype(np.float64) - got).max(initial=0.0))
        if not error <= TOLERANCE * scale:
            raise ParityError(
                f"{step}: output {index} changed by up to {error:.3g} where values reach {scale:.3g}; "
                f"allowed is {TOLERANCE:g} of that"
            )
