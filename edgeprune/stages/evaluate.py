"""How well each form does on the test set, which is opened here and nowhere before."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
from torch import fx

from edgeprune.executors import Executor, LiteRTExecutor, OnnxExecutor, ReferenceExecutor, run_on_floats
from edgeprune.graph import Graph
from edgeprune.layout import arrange_samples
from edgeprune.measure import Profile, count_macs, count_parameters, profile_graph
from edgeprune.metrics import score_predictions
from edgeprune.prune import predict
from edgeprune.prune.checkpoint import digest_module
from edgeprune.report import Variant
from edgeprune.report.mcnemar import pack_correct
from edgeprune.stages.build import Programs
from edgeprune.stages.firmware import FirmwareResult
from edgeprune.stages.prepare import Job
from edgeprune.stages.prune import PrunedModel

FLOAT_BYTES = 4


def evaluate_variants(
    job: Job,
    base_graph: Graph | None,
    pruned: PrunedModel,
    programs: Programs,
    firmware: FirmwareResult | None,
) -> dict[str, Variant]:
    """Cost and scores of every form: base, what pruning went through, ONNX, TFLite float and int8 by each executor."""
    samples, labels = job.data.x_test, job.data.y_test
    variants: dict[str, Variant] = {}
    compiled = _describe_programs(programs)
    runs: list[tuple[str, Variant, Callable[[], np.ndarray], object]] = []
    graphs = {"base": base_graph, "retrained": programs.float_graph}
    arranged = arrange_samples(samples, programs.input_shape)
    for key, (label, module) in pruned.variants.items():
        variant = _describe_module(label, module, job, graphs.get(key))
        runs.append((key, variant, partial(predict, module, samples), digest_module(module)))
    for key, (variant, executor, content) in compiled.items():
        batch = samples if isinstance(executor, OnnxExecutor) else arranged
        runs.append((key, variant, partial(_first_output, executor, batch), content))
    data = job.data.sha256
    with job.progress.step("test set", total=len(runs)) as step:
        for key, variant, compute, source in runs:
            if job.is_scored:
                inputs = {"program": source, "executor": variant.executor, "data": data}
                variant = _with_scores(variant, job.cache.reuse_array("outputs", inputs, compute), labels)
            variants[key] = variant
            step.advance()
    if firmware is not None and firmware.is_run:
        variants["firmware"] = _score_firmware(job, programs, firmware, variants["int8"])
    if job.is_scored:
        variants["int8"] = replace(variants["int8"], test_sha256=_digest_samples(samples, labels))
    return variants


def _digest_samples(samples: np.ndarray, labels: np.ndarray) -> str:
    """What two reports must share for their answers to be paired: the test samples, and their order."""
    digest = hashlib.sha256(repr((samples.dtype.str, samples.shape)).encode())
    for array in (samples, labels):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _score_firmware(job: Job, programs: Programs, firmware: FirmwareResult, int8: Variant) -> Variant:
    """The firmware's own outputs on the test samples that it has run."""
    measured = firmware.measured
    assert measured is not None  # it has outputs
    count = len(firmware.outputs)
    variant = replace(
        int8,
        label="firmware",
        form="firmware",
        executor=f"{measured['core']} in {measured['emulator']}",
        file_bytes=measured["flash_bytes"],
        peak_activation_bytes=firmware.section["arena_bytes"],
        note="" if count == len(job.data.x_test) else f"the first {count:,} of {len(job.data.x_test):,} test samples",
    )
    if not job.is_scored:
        return variant
    first = programs.int8_graph.tensors[programs.int8_graph.outputs[0]].element_count
    return _with_scores(variant, firmware.outputs[:, :first].astype(np.float32), job.data.y_test[:count])


def _describe_module(label: str, module: fx.GraphModule, job: Job, graph: Graph | None) -> Variant:
    counts = count_parameters(module)
    total = counts.total
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


def _describe_programs(programs: Programs) -> Mapping[str, tuple[Variant, Executor, bytes]]:
    integers = profile_graph(programs.int8_graph)
    floats = None if programs.float_graph is None else profile_graph(programs.float_graph)
    # 'int8' is what a microcontroller computes: the reference is TFLite Micro's arithmetic, which `verify` has proven
    forms: Mapping[str, tuple[str, Callable[[bytes], Executor], bytes | None, Profile | None]] = {
        "onnx_float32": ("ONNX float32", OnnxExecutor, programs.float32_onnx, floats),
        "tflite_float32": ("TFLite float32", _open_xnnpack, programs.float32_tflite, floats),
        "int8": ("int8", lambda _content: ReferenceExecutor(programs.int8_graph), programs.int8_tflite, integers),
        "int8_xnnpack": ("int8, XNNPACK", _open_xnnpack, programs.int8_tflite, integers),
        "int8_onnxruntime": ("int8, QDQ", OnnxExecutor, programs.int8_onnx, integers),
    }
    return {
        key: (*_describe(label, open_executor(content), content, profile), content)
        for key, (label, open_executor, content, profile) in forms.items()
        if content is not None and profile is not None
    }


def _open_xnnpack(content: bytes) -> Executor:
    return LiteRTExecutor(content, "xnnpack")


def _describe(label: str, executor: Executor, content: bytes, profile: Profile) -> tuple[Variant, Executor]:
    is_reference = isinstance(executor, ReferenceExecutor)
    variant = Variant(
        label=label,
        form="onnx" if isinstance(executor, OnnxExecutor) else "tflite",
        executor="reference (TFLite Micro's arithmetic)" if is_reference else executor.name,
        parameters=profile.parameters,
        macs=profile.macs,
        weight_bytes=profile.weight_bytes,
        peak_activation_bytes=profile.peak_activation_bytes,
        file_bytes=len(content),
    )
    return variant, executor


def _first_output(executor: Executor, batch: np.ndarray) -> np.ndarray:
    return run_on_floats(executor, batch)[0]


def _with_scores(variant: Variant, outputs: np.ndarray, labels: np.ndarray) -> Variant:
    logits = outputs.reshape(len(outputs), -1)
    scores = score_predictions(labels, logits)
    return replace(
        variant,
        accuracy=scores.accuracy,
        macro_f1=scores.macro_f1,
        confusion_matrix=scores.confusion.tolist(),
        test_samples=scores.n,
        correct=pack_correct(logits.argmax(axis=1) == labels),
    )
