"""First stage: read the target, the data and the model, and refuse what does not fit together."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgeprune.artifacts import Dataset, LoadedModel, Normalization, fit_normalization
from edgeprune.cache import Cache, find_cache_folder
from edgeprune.config import load_config_beside
from edgeprune.disk import explain_write_error
from edgeprune.errors import InputError, UnsupportedModelError
from edgeprune.executors import OnnxExecutor, run_on_floats
from edgeprune.load import find_dataset, load_dataset, load_model, split_train
from edgeprune.lower.tensorflow_converter import require_tensorflow
from edgeprune.progress import Progress
from edgeprune.prune import TrainSettings, predict
from edgeprune.report.document import read_report
from edgeprune.report.tolerance import parse_tolerances
from edgeprune.settings import CompileSettings
from edgeprune.target import Target, load_target


@dataclass(frozen=True, eq=False)
class Job:
    """What every later stage works on.

    data: normalised samples, as they go into the network.
    train_indices, validation_indices: into data.x_train; no validation samples where nothing watches them.
    training: the recipe of every training of this compile.
    is_scored: whether the model classifies this data, so that it has an accuracy.
    cache: where results of earlier runs are found. baseline: the earlier report to compare with.
    checked_on, tested_on: what the samples of lockstep and end-to-end parity are called in the report.
    """

    settings: CompileSettings
    target: Target
    model: LoadedModel
    data: Dataset
    normalization: Normalization
    train_indices: np.ndarray
    validation_indices: np.ndarray
    training: TrainSettings
    output: Path
    progress: Progress
    notes: list[str]
    is_scored: bool
    cache: Cache
    baseline: Mapping[str, Any] | None = None
    checked_on: str = "calibration samples"
    tested_on: str = "test samples"

    @property
    def example(self) -> torch.Tensor:
        """A batch of two samples, as exports trace it: (2, C, ...). A batch of one would be taken for a constant."""
        return make_example(self.data)

    @property
    def x_train(self) -> np.ndarray:
        """Samples to train on: (N, C, T) or (N, C, H, W)."""
        return self.data.x_train[self.train_indices]

    @property
    def y_train(self) -> np.ndarray:
        return self.data.y_train[self.train_indices]

    @property
    def x_validation(self) -> np.ndarray:
        """Samples that decide when to stop; empty where nothing watches them."""
        return self.data.x_train[self.validation_indices]

    @property
    def y_validation(self) -> np.ndarray:
        return self.data.y_train[self.validation_indices]


def prepare_job(settings: CompileSettings, progress: Progress) -> Job:
    """Read everything and check that it fits; nothing is written but a probe of the output folder."""
    target = load_target(settings.target)
    if settings.fit and not target.is_microcontroller:
        raise InputError(
            f"--fit does not go with {target.name}: widths are searched by the cost of the firmware that is made for "
            "microcontrollers (`edgeprune targets`)"
        )
    training = TrainSettings(**settings.recipe)  # checks every value before anything is read
    if settings.converter == "tensorflow":
        require_tensorflow()
    output = settings.output or Path("build") / f"{settings.model.stem}-{target.name}"
    probe_folder(output)
    config = load_config_beside(settings.model, settings.config)
    raw = load_dataset(find_dataset(settings.model, settings.data, config))
    model = load_model(
        settings.model,
        factory=settings.factory,
        allow_pickle=settings.allow_pickle,
        input_shape=raw.sample_shape,
    )
    notes = [*raw.notes, *model.notes]
    normalization = choose_normalization(settings.normalization, model, raw, notes)
    data = raw.normalized(normalization)
    check_fit(model, data)
    if model.module is None and settings.method != "none":
        raise UnsupportedModelError(
            f"{settings.model.name} is an ONNX file, which can be quantized and deployed but not pruned; "
            "add --method none, or give the PyTorch model (edgeprune.save_model)"
        )
    is_scored = check_head(settings, model, data, notes)
    train_indices, validation_indices = split_for(settings, data)
    return Job(
        settings=settings,
        target=target,
        model=model,
        data=data,
        normalization=normalization,
        train_indices=train_indices,
        validation_indices=validation_indices,
        training=training,
        output=output,
        progress=progress,
        notes=notes,
        is_scored=is_scored,
        cache=open_cache(settings),
        baseline=read_baseline(settings, target),
    )


def read_baseline(settings: CompileSettings, target: Target) -> Mapping[str, Any] | None:
    """The report that the settings name; raises InputError for a damaged one, or one of another target."""
    if settings.baseline is None:
        return None
    baseline = read_report(settings.baseline)
    if baseline["target"]["name"] != target.name:
        raise InputError(
            f"--baseline {settings.baseline}: it is of {baseline['target']['name']}, this compile is for "
            f"{target.name}; give a report of the same target"
        )
    parse_tolerances(settings.tolerances)
    return baseline


def open_cache(settings: CompileSettings) -> Cache:
    """The cache that the settings name; one that keeps nothing where they forbid it."""
    return Cache(find_cache_folder(settings.cache) if settings.use_cache else None)


def choose_normalization(wanted: str | None, model: LoadedModel, raw: Dataset, notes: list[str]) -> Normalization:
    """What the user asked for, else what the model file records, else none (and say so)."""
    recorded = model.info.normalization
    if wanted is None:
        if recorded is None:
            notes.append(
                "the model file records no normalization: values go into the network as they stand in the data; "
                "name the one of the training with --normalization, or in edgeprune.save_model(normalization=...)"
            )
        return recorded or Normalization()
    if recorded is not None and recorded.kind == wanted:
        return recorded  # per_channel: the figures of the training, not those of this data
    if recorded is not None:
        notes.append(f"normalization {wanted} was asked for; the model file records {recorded.kind}")
    return fit_normalization(wanted, raw.x_train)


def check_fit(model: LoadedModel, data: Dataset) -> None:
    """Raise InputError unless the samples have the shape that the model takes."""
    if tuple(model.input_shape) != data.sample_shape:
        raise InputError(
            f"{model.name} takes samples of shape {tuple(model.input_shape)}, {data.source} holds {data.sample_shape} "
            "(channels first); use the data that the model was trained on, or export the model again for this shape"
        )


def check_head(settings: CompileSettings, model: LoadedModel, data: Dataset, notes: list[str]) -> bool:
    """Whether the head is a classifier of the data's classes; refuses what edgeprune's own training cannot train.

    Raises InputError for labels that do not fit the head, UnsupportedModelError for a head that is no classifier's.
    """
    trains_itself = settings.method != "none" and settings.train is None
    classes = len(data.class_names)
    if not classes:
        if trains_itself:
            raise InputError(
                f"{data.source} holds no labels, which --method {settings.method} needs to train; add y_train and "
                "y_test, bring your own training with --train pkg.module:function, or take --method none"
            )
        notes.append("the data holds no labels: the model has no accuracy here; parity and noise are measured")
        return False
    outputs = run_on_samples(model, data.x_train[:2])
    if outputs.reshape(len(outputs), -1).shape[1] == classes:
        return True
    given = f"{model.name}: {len(outputs)} samples give an output of shape {outputs.shape}"
    found = f"{given}, {data.source} has {classes} classes"
    if settings.train is not None:
        notes.append(f"{found}: it is no classifier of them and has no accuracy here; parity and noise are measured")
        return False
    if trains_itself and outputs.ndim != 2:
        raise UnsupportedModelError(
            f"{found}: the head is no classifier's. Bring your own training with --train pkg.module:function, or "
            "deploy it as it is with --method none and data without labels"
        )
    raise InputError(
        f"{found}; use the data that the model was trained for; for a model that is no classifier, data without labels"
    )


def run_on_samples(model: LoadedModel, samples: np.ndarray) -> np.ndarray:
    """The first output for samples (N, C, ...), whatever form the model came in."""
    if model.module is not None:
        return predict(model.module, samples)
    return run_on_floats(OnnxExecutor(model.onnx_bytes or b""), samples)[0]


def make_example(data: Dataset) -> torch.Tensor:
    """A batch of two samples, (2, C, ...), also of data that has only one."""
    return torch.from_numpy(np.resize(data.x_train, (2, *data.sample_shape)))


def split_for(settings: CompileSettings, data: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Train and validation indices: 20 % of the training samples are held back where something watches them."""
    if not settings.watches_validation or not data.class_names:
        return np.arange(len(data.y_train)), np.array([], dtype=np.int64)
    return split_train(data.y_train, seed=settings.seed)


def probe_folder(folder: Path) -> None:
    """Raise InputError unless a file can be written into `folder`: before an hour of training, not after it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder, prefix=".probe.")
        os.close(handle)
        os.unlink(name)
    except OSError as error:
        raise InputError(f"{folder}: {explain_write_error(error)}") from error
