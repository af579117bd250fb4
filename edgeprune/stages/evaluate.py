"""How well each form does on the test set, which is opened here and nowhere before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
from torch import fx

from edgeprune.executors import Executor, LiteRTExecutor, OnnxExecutor, ReferenceExecutor, run_on_floats
from edgeprune.graph import Graph
from edgeprune.layout import to_nhwc
from edgeprune.measure import count_macs, count_parameters, profile_graph
from edgeprune.metrics import score_predictions
from edgeprune.prune import predict
from edgeprune.report import Variant
from edgeprune.stages.build import Programs
from edgeprune.stages.prepare import Job
from edgeprune.stages.prune import PrunedModel

FLOAT_BYTES = 4


def evaluate_variants(job: Job, base_graph: Graph, pruned: PrunedModel, programs: Programs) -> dict[str, Variant]:
    """Cost and scores of every form: base, what pruning went through, ONNX, TFLite float and int8 by each executor."""
    samples, labels = job.data.x_test, job.data.y_test
    variants: dict[str, Variant] = {}
    compiled = _describe_programs(programs)
    runs: list[tuple[str, Variant, Callable[[], np.ndarray]]] = []
    graphs = {"base": base_graph, "retrained": programs.float_graph}
    for key, (label, module) in pruned.variants.items():
        runs.append((key, _describe_module(label, module, job, graphs.get(key)), partial(predict, module, samples)))
    for key, (variant, executor) in compiled.items():
        batch = samples if isinstance(executor, OnnxExecutor) else to_nhwc(samples)
        runs.append((key, variant, partial(_first_output, executor, batch)))
    with job.progress.step("test set", total=len(runs)) as step:
        for key, variant, compute in runs:
            variants[key] = _with_scores(variant, compute(), labels) if job.is_scored else variant
            step.advance()
    return variants


def _describe_module(label: str, module: fx.GraphModule, job: Job, graph: Graph | None) -> Variant:
    counts = count_parameters(module)
    total = counts.trainable + counts.frozen
    return Variant(
        label=label,
        form="torch",
        executor="PyTorch",
        parameters=total,
        trainable_parameters=counts.trainable,
        frozen_parameters=counts.frozen,
        macs=count_macs(module, job.model.input_shape).total,
        weight_bytes=FLOAT_BYTES * total,
        peak_activation_bytes=None if graph is None else profile_graph(graph).peak_activation_bytes,
    )


def _describe_programs(programs: Programs) -> Mapping[str, tuple[Variant, Executor]]:
    float_profile, int8_profile = profile_graph(programs.float_graph), profile_graph(programs.int8_graph)

    def describe(
        label: str, form: str, executor: Executor, content: bytes, quantized: bool
    ) -> tuple[Variant, Executor]:
        profile = int8_profile if quantized else float_profile
        variant = Variant(
            label=label,
            form=form,
            executor=executor.name,
            parameters=profile.parameters,
            macs=profile.macs,
            weight_bytes=profile.weight_bytes,
            peak_activation_bytes=profile.peak_activation_bytes,
            file_bytes=len(content),
        )
        return variant, executor

    onnx_float, onnx_int8 = OnnxExecutor(programs.float32_onnx), OnnxExecutor(programs.int8_onnx)
    return {
        "onnx_float32": describe("ONNX float32", "onnx", onnx_float, programs.float32_onnx, False),
        "tflite_float32": describe(
            "TFLite float32",
            "tflite",
            LiteRTExecutor(programs.float32_tflite, "xnnpack"),
            programs.float32_tflite,
            False,
        ),
        # The reference is TFLite Micro's arithmetic, which the parity stage proves: what a microcontroller computes.
        "int8": describe("int8", "tflite", ReferenceExecutor(programs.int8_graph), programs.int8_tflite, True),
        "int8_xnnpack": describe(
            "int8, XNNPACK", "tflite", LiteRTExecutor(programs.int8_tflite, "xnnpack"), programs.int8_tflite, True
        ),
        "int8_onnxruntime": describe("int8, QDQ", "onnx", onnx_int8, programs.int8_onnx, True),
    }


def _first_output(executor: Executor, batch: np.ndarray) -> np.ndarray:
    return run_on_floats(executor, batch)[0]


def _with_scores(variant: Variant, outputs: np.ndarray, labels: np.ndarray) -> Variant:
    scores = score_predictions(labels, outputs.reshape(len(outputs), -1))
    return replace(
        variant,
        accuracy=scores.accuracy,
        macro_f1=scores.macro_f1,
        confusion_matrix=scores.confusion.tolist(),
        test_samples=scores.n,
    )
