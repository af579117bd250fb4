"""One epoch of training: the pass over the samples, its figures, and whether it is the best so far."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgeprune.metrics import score_predictions
from edgeprune.prune.devices import Device
from edgeprune.prune.epoch_figures import Epoch
from edgeprune.prune.hooks import TrainingHook
from edgeprune.prune.inference import predict
from edgeprune.prune.train_settings import TrainSettings

Loss = Callable[[Tensor, Tensor], Tensor]  # (logits, labels) -> mean over the batch


def run_epoch(
    network: nn.Module,
    inputs: tuple[Tensor, ...],
    y: Tensor,
    optimizer: torch.optim.Optimizer,
    loss: Loss,
    hook: TrainingHook,
    batch_size: int,
    shuffler: torch.Generator,
    device: Device,
) -> tuple[float, float, float]:
    """One pass over the shuffled samples; gives back the mean loss with and without the hook's term, and the accuracy.

    All in train mode.

    inputs: what the network takes, each with all samples along axis 0. y: labels (N,).
    """
    total, total_extra = torch.zeros((), device=y.device), torch.zeros((), device=y.device)
    hits = torch.zeros((), dtype=torch.int64, device=y.device)
    for batch in split_batches(torch.randperm(len(y), generator=shuffler).to(y.device), batch_size):
        labels = y[batch]
        outputs = network(*(part[batch] for part in inputs))
        logits, tensors = (outputs[0], outputs[1:]) if isinstance(outputs, (tuple, list)) else (outputs, ())
        value = loss(logits, labels)
        extra = hook.compute_loss(dict(zip(hook.observed, tensors, strict=True)))
        if extra is not None:
            value = value + extra
            total_extra += extra.detach() * len(batch)
        optimizer.zero_grad()
        device.backward(value)
        hook.adjust_gradients()
        optimizer.step()
        hook.adjust_parameters()
        total += value.detach() * len(batch)
        hits += (logits.detach().argmax(dim=1) == labels).sum()
    return float(total) / len(y), float(total - total_extra) / len(y), float(hits) / len(y)


def split_batches(order: Tensor, batch_size: int) -> Iterator[Tensor]:
    """Consecutive parts of `order`; a lone last sample joins the part before, since batch norm cannot train on one.

    >>> [len(part) for part in split_batches(torch.arange(129), 64)]
    [64, 65]
    """
    ends = list(range(batch_size, len(order) - 1, batch_size))
    return iter(torch.tensor_split(order, ends))


class Judge:
    """Tells whether an epoch is the best so far.

    Without early stopping: the lowest training loss. With it: the highest validation metric, and among equals (small
    validation sets reach 1.0 soon) the lowest validation loss.
    """

    def __init__(
        self, settings: TrainSettings, view: nn.Module, loss: Loss, x: np.ndarray | None, y: np.ndarray | None
    ) -> None:
        self._settings, self._view, self._loss, self._x, self._y = settings, view, loss, x, y
        self._best: tuple[float, float] | None = None
        self.improved = False
        self.epochs_since_best = 0

    def judge(self, epoch: Epoch) -> Epoch:
        """The epoch with its validation figures; sets `improved` and `epochs_since_best`."""
        rank = (-epoch.loss, 0.0)
        if self._settings.early_stopping != "none":
            assert self._x is not None, "train_model checks it"
            assert self._y is not None, "train_model checks it"
            logits = predict(self._view, self._x)
            scores = score_predictions(self._y, logits)
            metric = scores.accuracy if self._settings.early_stopping == "accuracy" else scores.macro_f1
            device = next(self._view.parameters()).device
            with torch.no_grad():
                value = float(self._loss(torch.tensor(logits).to(device), torch.tensor(self._y).to(device)))
            epoch = replace(epoch, validation_loss=value, validation_metric=metric)
            rank = (metric, -value)
        self.improved = self._best is None or rank > self._best
        self.epochs_since_best = 0 if self.improved else self.epochs_since_best + 1
        if self.improved:
            self._best = rank
        return epoch

    def get_state(self) -> dict[str, Any]:
        """What a resumed training needs."""
        return {"best": None if self._best is None else list(self._best), "epochs_since_best": self.epochs_since_best}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Take back what `get_state` gave."""
        self._best = None if state["best"] is None else (state["best"][0], state["best"][1])
        self.epochs_since_best = state["epochs_since_best"]


def describe(epoch: Epoch, settings: TrainSettings) -> dict[str, float | str]:
    """The figures a progress bar shows."""
    figures: dict[str, float | str] = {"loss": epoch.loss, "accuracy": epoch.accuracy}
    if epoch.validation_metric is not None:
        figures[f"validation {settings.early_stopping}"] = epoch.validation_metric
    return figures
