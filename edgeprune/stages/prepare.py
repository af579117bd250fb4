"""First stage: read the target, the data and the model, and refuse what does not fit together."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from edgeprune.artifacts import Dataset, LoadedModel, Normalization, fit_normalization
from edgeprune.config import load_config_beside
from edgeprune.disk import explain_write_error
from edgeprune.errors import InputError, UnsupportedModelError
from edgeprune.load import find_dataset, load_dataset, load_model, split_train
from edgeprune.progress import Progress
from edgeprune.settings import CompileSettings
from edgeprune.target import Target, load_target


@dataclass(frozen=True, eq=False)
class Job:
    """What every later stage works on.

    data: normalised samples, as they go into the network.
    train_indices, validation_indices: into data.x_train; no validation samples where nothing watches them.
    """

    settings: CompileSettings
    target: Target
    model: LoadedModel
    data: Dataset
    normalization: Normalization
    train_indices: np.ndarray
    validation_indices: np.ndarray
    output: Path
    progress: Progress
    notes: list[str]

    @property
    def example(self) -> torch.Tensor:
        """A batch of two samples, as exports trace it: (2, C, ...). A batch of one would be taken for a constant."""
        return torch.from_numpy(np.resize(self.data.x_train, (2, *self.data.sample_shape)))

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
    train_indices, validation_indices = split_for(settings, data)
    return Job(settings, target, model, data, normalization, train_indices, validation_indices, output, progress, notes)


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


def split_for(settings: CompileSettings, data: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Train and validation indices: 20 % of the training samples are held back where something watches them."""
    if settings.recipe.get("early_stopping", "none") == "none" or settings.method == "none":
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
