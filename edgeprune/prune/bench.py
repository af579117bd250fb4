"""The bench that every method works at: one protocol, so that methods can be compared.

The same data split, the same trained base, the same recipe, the same way to train and to score.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import fx

from edgeprune.metrics import score_predictions
from edgeprune.progress import SILENT, Progress
from edgeprune.prune.batchnorm import recalibrate_batchnorm
from edgeprune.prune.hooks import TrainingHook
from edgeprune.prune.inference import predict
from edgeprune.prune.pruning import PruneResult, prune_channels
from edgeprune.prune.train_settings import TrainSettings
from edgeprune.prune.training import TrainResult, train_model
from edgeprune.prune.user_training import TrainContext, Trainer, train_with

FOLD_BATCH_SIZE = 256

Factory = Callable[[int], fx.GraphModule]  # seed -> the unpruned net with new weights, raised


@dataclass(frozen=True)
class AccuracyLimit:
    """How much worse than the base a pruned net may be, on validation samples.

    metric: "accuracy" or "macro_f1". drop: a fraction, 0.01 for 1 percentage point. reference: the base's value.
    """

    metric: str
    drop: float
    reference: float

    def allows(self, score: float) -> bool:
        """Whether a score is within the limit; 1e-9 for 0.95 - 0.01, which is not 0.94 in binary."""
        return score >= self.reference - self.drop - 1e-9


@dataclass(frozen=True, eq=False)
class Bench:
    """What a method gets.

    base: the trained program, raised, eval mode; methods leave it as it is.
    x_train, y_train: float32 (N, C, ...), integers (N,). x_val, y_val: held-out training samples, empty where nothing
        watches them.
    recipe: of every training that is not a short one between steps.
    factory: draws new weights for a model whose layers cannot reset themselves. trainer: the user's own training.
    limit: where a schedule ends and a search looks, if the user named one.
    checkpoints: folder of trainings under way, from which an interrupted run goes on; None: none are kept.
    trainings: a row for every training done so far, for the report.
    """

    base: fx.GraphModule
    x_train: np.ndarray
    y_train: np.ndarray
    x_val: np.ndarray
    y_val: np.ndarray
    recipe: TrainSettings
    factory: Factory | None = None
    trainer: Trainer | None = None
    limit: AccuracyLimit | None = None
    progress: Progress = SILENT
    checkpoints: Path | None = None
    trainings: list[dict[str, Any]] = field(default_factory=list)

    @property
    def seed(self) -> int:
        """Of everything that is drawn."""
        return self.recipe.seed

    @property
    def example(self) -> torch.Tensor:
        """A batch of two samples, (2, C, ...)."""
        return torch.from_numpy(np.resize(self.x_train, (2, *self.x_train.shape[1:])))

    @property
    def fold_batches(self) -> Iterable[torch.Tensor]:
        """The training samples in batches, to measure what removed channels contributed."""
        return torch.split(torch.from_numpy(self.x_train), FOLD_BATCH_SIZE)

    def shorten_recipe(self, epochs: int, **changes: Any) -> TrainSettings:
        """The recipe for a training of exactly so many epochs: no early stopping, unless `changes` says so."""
        return replace(self.recipe, **{"epochs": epochs, "early_stopping": "none", **changes})

    def train(
        self,
        module: fx.GraphModule,
        title: str,
        *,
        recipe: TrainSettings | None = None,
        hook: TrainingHook | None = None,
    ) -> TrainResult[fx.GraphModule]:
        """Train a copy of `module` with the recipe, or with the user's function where there is one and no hook."""
        settings = recipe or self.recipe
        if self.trainer is not None and hook is None:
            result = train_with(
                self.trainer,
                TrainContext(
                    module, title, self.x_train, self.y_train, self.x_val, self.y_val, settings, self.progress
                ),
            )
        else:
            result = train_model(
                module,
                self.x_train,
                self.y_train,
                settings,
                x_val=self.x_val,
                y_val=self.y_val,
                hook=hook,
                progress=self.progress,
                checkpoints=self.checkpoints,
                title=title,
            )
        self.trainings.append({"title": title, **describe_training(result), "seconds": round(result.seconds, 3)})
        return result

    def prune(self, module: fx.GraphModule, dead: Iterable[int], **options: Any) -> PruneResult:
        """Remove units of `find_units(module, bench.example)`; constants folded, batch norms recalibrated."""
        result = prune_channels(module, self.example, frozenset(dead), fold_batches=self.fold_batches, **options)
        return replace(result, module=recalibrate_batchnorm(result.module, self.x_train))

    def score(self, module: fx.GraphModule, metric: str | None = None) -> float:
        """Accuracy or macro-F1 (default: the limit's, else accuracy) on validation samples, training ones without."""
        x, y = (self.x_val, self.y_val) if len(self.y_val) else (self.x_train, self.y_train)
        scores = score_predictions(y, predict(module, x))
        wanted = metric or (self.limit.metric if self.limit else "accuracy")
        return scores.accuracy if wanted == "accuracy" else scores.macro_f1


def describe_training(result: TrainResult[fx.GraphModule]) -> dict[str, Any]:
    """How a training went, for the report."""
    if not result.history:
        return {"stopped_by": result.stopped_by}
    kept = result.history[result.best_epoch - 1]
    return {
        "epochs": len(result.history),
        "best_epoch": result.best_epoch,
        "stopped_by": result.stopped_by,
        "loss": kept.loss,
        "validation_metric": kept.validation_metric,
    }
