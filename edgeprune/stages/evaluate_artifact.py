"""`edgeprune evaluate`: any model or artifact on the test samples of a dataset."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.artifacts import Dataset, LoadedModel, ModelInfo, Normalization
from edgeprune.config import load_config_beside
from edgeprune.errors import InputError
from edgeprune.executors import (
    Executor,
    LiteRTExecutor,
    MicroExecutor,
    OnnxExecutor,
    ReferenceExecutor,
    run_on_floats,
)
from edgeprune.graph import Graph
from edgeprune.layout import arrange_samples
from edgeprune.load import find_dataset, load_dataset, load_model, read_model_file
from edgeprune.lower import read_tflite, write_tflite
from edgeprune.lower.int8_program import check_sizes
from edgeprune.lower.tflite_schema import FILE_IDENTIFIER
from edgeprune.metrics import score_predictions
from edgeprune.prune import predict
from edgeprune.stages.manifest import find_recorded_normalization
from edgeprune.stages.prepare import check_fit, choose_normalization

TFLITE_EXECUTORS: dict[str, Callable[[bytes, Graph], Executor]] = {
    "tflite-micro": lambda content, _graph: MicroExecutor(content),
    "litert": lambda content, _graph: LiteRTExecutor(content, "xnnpack"),
    "litert-reference": lambda content, _graph: LiteRTExecutor(content, "reference"),
    "reference": lambda _content, graph: ReferenceExecutor(graph),
}


def evaluate_artifact(
    path: Path,
    *,
    data: str | None = None,
    normalization: str | None = None,
    factory: str | None = None,
    allow_pickle: Sequence[str] = (),
    executor: str | None = None,
) -> dict[str, Any]:
    """Scores of an artifact on a test set.

    executor: a key of TFLITE_EXECUTORS, for .tflite files only. normalization: by default what the model file, or the
    manifest beside the artifact, records.

    Raises InputError for what does not fit together.
    """
    config = load_config_beside(path)
    raw = load_dataset(find_dataset(path, data, config))
    if not raw.class_names:
        raise InputError(f"{raw.source} holds no labels, so nothing can be scored; add y_train and y_test")
    content = _read_start(path)
    if content[4:8] == FILE_IDENTIFIER:
        name, outputs, labels, used = _run_tflite(path, raw, normalization, executor)
    else:
        if executor is not None:
            raise InputError(f"--executor {executor} is for .tflite files; {path.name} is none")
        model = load_model(path, factory=factory, allow_pickle=tuple(allow_pickle), input_shape=raw.sample_shape)
        recorded = model if model.info.normalization is not None else _with_manifest(model, path)
        used = choose_normalization(normalization, recorded, raw, [])
        samples = raw.normalized(used)
        check_fit(model, samples)
        labels = samples.y_test
        if model.module is not None:
            name, outputs = "PyTorch", predict(model.module, samples.x_test)
        else:
            runner = OnnxExecutor(model.onnx_bytes or b"")
            name, outputs = runner.name, run_on_floats(runner, samples.x_test)[0]
    outputs = outputs.reshape(len(outputs), -1)
    if outputs.shape[1] != len(raw.class_names):
        raise InputError(
            f"{path.name} gives {outputs.shape[1]} values for a sample, {raw.source} has {len(raw.class_names)} "
            "classes; use the data that the model was made for"
        )
    scores = score_predictions(labels, outputs)
    return {
        "artifact": path.name,
        "data": raw.name,
        "samples": scores.n,
        "executor": name,
        "normalization": used.kind,
        "class_names": list(raw.class_names),
        "accuracy": scores.accuracy,
        "macro_f1": scores.macro_f1,
        "confusion_matrix": scores.confusion.tolist(),
    }


def _run_tflite(
    path: Path, raw: Dataset, normalization: str | None, executor: str | None
) -> tuple[str, np.ndarray, np.ndarray, Normalization]:
    graph = read_tflite(read_model_file(path))
    check_sizes(graph)
    content = write_tflite(graph)  # interpreters crash on damaged files: they get what edgeprune wrote
    chosen = executor or ("tflite-micro" if graph.is_quantized else "litert")
    if chosen not in TFLITE_EXECUTORS:
        raise InputError(f"--executor is {chosen!r}; allowed: {', '.join(TFLITE_EXECUTORS)}")
    runner = TFLITE_EXECUTORS[chosen](content, graph)
    stand_in = LoadedModel(path.stem, "onnx", "", raw.sample_shape, None, None, ModelInfo())
    used = choose_normalization(normalization, _with_manifest(stand_in, path), raw, [])
    samples = raw.normalized(used)
    batch = arrange_samples(samples.x_test, graph.tensors[graph.inputs[0]].shape)
    return runner.name, run_on_floats(runner, batch)[0], samples.y_test, used


def _with_manifest(model: LoadedModel, path: Path) -> LoadedModel:
    """The same model with the normalization that the manifest beside its file records, if there is one."""
    recorded = find_recorded_normalization(path)
    return model if recorded is None else dataclasses.replace(model, info=ModelInfo(normalization=recorded))


def _read_start(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(8)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); name a .pt, .onnx or .tflite file") from error
