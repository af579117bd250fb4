"""`edgeprune train`: a reference network on a dataset, saved ready for compile."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgeprune.artifacts import fit_normalization
from edgeprune.cache import Cache, find_cache_folder
from edgeprune.config import FILE_NAME
from edgeprune.disk import write_file_atomically
from edgeprune.load import load_dataset, raise_module, save_model, split_train
from edgeprune.measure import count_parameters
from edgeprune.metrics import score_predictions
from edgeprune.models import build_model, check_sample_shape
from edgeprune.progress import Progress
from edgeprune.prune import TrainSettings, predict, train_model
from edgeprune.settings import TrainingRun
from edgeprune.stages.prepare import make_example, probe_folder


def train_reference_model(run: TrainingRun, progress: Progress) -> dict[str, Any]:
    """Train, save, and write an edgeprune.toml that names the data unless there is one; returns a summary.

    The summary holds architecture, parameters, epochs, accuracy and macro_f1 on the test set, and the path.
    """
    settings = TrainSettings(**{"epochs": 500, **run.training, "seed": run.seed})
    probe_folder(run.output.parent)
    raw = load_dataset(run.data)
    normalization = fit_normalization(run.normalization, raw.x_train)
    data = raw.normalized(normalization)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.seed)
        network = build_model(run.architecture, in_channels=data.sample_shape[0], classes=len(data.class_names))
    check_sample_shape(run.architecture, data.sample_shape)
    example = make_example(data)
    module = raise_module(network, example)
    chosen, held_back = np.arange(len(data.y_train)), np.array([], dtype=np.int64)
    if settings.early_stopping != "none":
        chosen, held_back = split_train(data.y_train, seed=run.seed)
    trained = train_model(
        module,
        data.x_train[chosen],
        data.y_train[chosen],
        settings,
        x_val=data.x_train[held_back],
        y_val=data.y_train[held_back],
        progress=progress,
        checkpoints=Cache(find_cache_folder()).trainings,
        title=f"train {run.architecture}",
    )
    module = trained.module
    save_model(
        module,
        example,
        run.output,
        normalization=normalization,
        class_names=data.class_names,
        architecture=run.architecture,
    )
    write_config_beside(run)
    scores = score_predictions(data.y_test, predict(module, data.x_test))
    counts = count_parameters(module)
    return {
        "architecture": run.architecture,
        "path": str(run.output),
        "parameters": counts.total,
        "trainable_parameters": counts.trainable,
        "epochs": len(trained.history),
        "seed": run.seed,
        "test_samples": scores.n,
        "accuracy": scores.accuracy,
        "macro_f1": scores.macro_f1,
    }


def write_config_beside(run: TrainingRun) -> None:
    """An edgeprune.toml beside the model that names its data; one that is there already stays as it is."""
    path = run.output.parent / FILE_NAME
    if path.exists():
        return
    spec = run.data
    if not spec.startswith("ucr:"):
        spec = Path(os.path.relpath(Path(spec).resolve(), path.parent.resolve())).as_posix()
    quoted = spec.replace("\\", "\\\\").replace('"', '\\"')
    write_file_atomically(path, f'[data]\npath = "{quoted}"\n'.encode())
