"""First stage for an int8 program that others made: read it, and find or draw the samples it is proven on.

There is no network in such a file, so there is nothing to prune, to retrain or to compare with: the report leaves these
parts out. Without a dataset the program runs on random inputs, which prove the arithmetic and measure its cost, and say
nothing of an accuracy; the report calls them what they are.
"""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np

from edgeprune.artifacts import Dataset, LoadedModel, ModelInfo, Normalization
from edgeprune.config import load_config_beside
from edgeprune.errors import InputError, UnsupportedModelError
from edgeprune.graph import Graph, Quant
from edgeprune.layout import arrange_samples, sample_shape_of
from edgeprune.load import load_dataset, look_for_dataset, read_model_file
from edgeprune.lower import Int8Program, check_supported, read_int8_program, write_tflite
from edgeprune.lower.constraints import dense_has_one_scale
from edgeprune.progress import Progress
from edgeprune.prune import TrainSettings
from edgeprune.reference import dequantize_values, quantize_values
from edgeprune.settings import CompileSettings
from edgeprune.stages.build import Programs
from edgeprune.stages.manifest import find_recorded_normalization
from edgeprune.stages.prepare import Job, choose_normalization, open_cache, probe_folder, read_baseline
from edgeprune.stages.prune import PrunedModel
from edgeprune.target import Target, load_target

RANDOM_INPUTS = 64
MOST_RANDOM_BYTES = 64 * 2**20  # of float32 samples
SATURATED_SHARE = 0.02

UNPRUNED = PrunedModel(
    None,
    {},
    {"method": "none", "reason": "the model came as an int8 TFLite program, which holds no network to prune"},
)


def prepare_program(settings: CompileSettings, progress: Progress) -> tuple[Job, Programs]:
    """Read a full-int8 .tflite and its data, if there is any; nothing is written but a probe of the output folder.

    Raises InputError or UnsupportedModelError that names the file.
    """
    settings = _settle_settings(settings)
    target = load_target(settings.target)
    output = settings.output or Path("build") / f"{settings.model.stem}-{target.name}"
    probe_folder(output)
    content = read_model_file(settings.model)
    program = _read(settings.model.name, content, target)
    notes = [
        f"{settings.model.name} is a finished int8 program and is deployed as it is. To prune and retrain it, or to "
        "compare it with its float form, compile the PyTorch model (.pt) it was made from",
        *program.notes,
    ]
    data, normalization, is_scored = _find_samples(settings, program.graph, notes)
    model = LoadedModel(
        name=settings.model.stem,
        format="tflite",
        sha256=hashlib.sha256(content).hexdigest(),
        input_shape=data.sample_shape,
        module=None,
        onnx_bytes=None,
        info=ModelInfo(),
    )
    is_random = data.source.startswith("random")
    samples = data.x_test if is_random else data.x_train
    job = Job(
        settings=settings,
        target=target,
        model=model,
        data=data,
        normalization=normalization,
        train_indices=np.arange(0 if is_random else len(data.y_train)),
        validation_indices=np.array([], dtype=np.int64),
        training=TrainSettings(**settings.recipe),
        output=output,
        progress=progress,
        notes=notes,
        is_scored=is_scored,
        cache=open_cache(settings),
        baseline=read_baseline(settings, target),
        checked_on="random inputs" if is_random else "training samples",
        tested_on="random inputs" if is_random else "test samples",
    )
    # from here on everybody works on what edgeprune wrote: no interpreter is given other people's bytes
    programs = Programs(
        int8_graph=program.graph,
        int8_tflite=write_tflite(program.graph),
        calibration_nhwc=arrange_samples(samples, _input_of(program.graph)[0]),
    )
    return job, programs


def _settle_settings(settings: CompileSettings) -> CompileSettings:
    """Without what an int8 program has no use for; raises InputError for what was meant for a network."""
    is_asked_to_prune = settings.method not in (CompileSettings.method, "none")
    if is_asked_to_prune or settings.train is not None:
        raise InputError(
            f"{settings.model.name} is an int8 TFLite program, which can be deployed but not pruned or trained; leave "
            "out --method and --train, or compile the PyTorch model (.pt)"
        )
    return dataclasses.replace(
        settings, method="none", method_options={}, retrain="none", accuracy_drop=None, training={}
    )


def _read(name: str, content: bytes, target: Target) -> Int8Program:
    try:
        program = read_int8_program(content)
    except (InputError, UnsupportedModelError) as error:
        raise type(error)(f"{name}: {error}") from error
    # dense layers with a scale per output are right here and in recent runtimes; the reader's note says so
    violations = check_supported(program.graph, target, exempt=(dense_has_one_scale,))
    if violations:
        raise UnsupportedModelError(f"{name}: {'; '.join(violation.message for violation in violations)}")
    return program


def _input_of(graph: Graph) -> tuple[tuple[int, ...], Quant]:
    tensor = graph.tensors[graph.inputs[0]]
    assert tensor.quant is not None  # read_int8_program
    return tensor.shape, tensor.quant


def _find_samples(settings: CompileSettings, graph: Graph, notes: list[str]) -> tuple[Dataset, Normalization, bool]:
    """Samples, how they are normalised, and whether the program classifies them."""
    shape, quant = _input_of(graph)
    spec = look_for_dataset(settings.model, settings.data, load_config_beside(settings.model, settings.config))
    if spec is None:
        notes.append(
            f"no dataset was given: the program was proven and measured on random int8 inputs (seed {settings.seed}), "
            "which say nothing of its accuracy; give the test set with --data"
        )
        return draw_samples(shape, quant, settings.seed), Normalization(), False
    raw = load_dataset(spec)
    notes += raw.notes
    try:
        recorded = find_recorded_normalization(settings.model)
    except InputError:
        recorded = None  # somebody else's manifest.json
    stand_in = LoadedModel(
        settings.model.stem, "tflite", "", raw.sample_shape, None, None, ModelInfo(normalization=recorded)
    )
    normalization = choose_normalization(settings.normalization, stand_in, raw, notes)
    data = raw.normalized(normalization)
    _warn_of_saturation(arrange_samples(data.x_test[:256], shape), quant, notes)
    return data, normalization, _is_classifier(graph, data, notes)


def draw_samples(shape: tuple[int, ...], quant: Quant, seed: int) -> Dataset:
    """Random inputs, evenly over all of int8, as the real values that they stand for."""
    sample_shape = sample_shape_of(shape)
    size = int(np.prod(sample_shape))
    count = int(np.clip(MOST_RANDOM_BYTES // (4 * size), 1, RANDOM_INPUTS))
    stored = np.random.default_rng(seed).integers(-128, 128, (count, *sample_shape)).astype(np.int8)
    samples = dequantize_values(stored, quant)
    labels = np.zeros(count, np.int64)
    return Dataset("random inputs", samples, labels, samples, labels, (), f"random int8 inputs, seed {seed}")


def _warn_of_saturation(samples: np.ndarray, quant: Quant, notes: list[str]) -> None:
    """A note where samples and the input's range don't fit: a forgotten normalization shows here."""
    stored = quantize_values(samples, quant)
    share = float(np.mean((stored == -128) | (stored == 127)))
    low, high = dequantize_values(np.array([-128, 127], np.int8), quant)
    steps = len(np.unique(stored))
    if share > SATURATED_SHARE or steps < 16:
        notes.append(
            f"the model's input covers {low:.4g} to {high:.4g}; the samples lie in {samples.min():.4g} to "
            f"{samples.max():.4g}: {100 * share:.0f} % are at its ends, {steps} of 256 steps are used. If that is not "
            "meant, the data is not normalised as in training (--normalization)"
        )


def _is_classifier(graph: Graph, data: Dataset, notes: list[str]) -> bool:
    """Whether the first output has a value for each class; raises InputError for labels that do not fit it."""
    classes, outputs = len(data.class_names), graph.tensors[graph.outputs[0]].element_count
    if not classes:
        notes.append("the data holds no labels: the model has no accuracy here; parity and cost are measured")
        return False
    if outputs != classes:
        raise InputError(
            f"the model gives {outputs} values for a sample, {data.source} has {classes} classes; use the data that "
            "the model was made for; for a model that is no classifier, data without labels"
        )
    return True
