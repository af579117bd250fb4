"""The figures of one epoch of training."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Epoch:
    """Figures of one epoch.

    loss, accuracy: over the training samples, in train mode; the loss with its extra terms.
    validation_loss, validation_metric: under early stopping, else None.
    task_loss: over the training samples, without extra terms.
    """

    loss: float
    accuracy: float
    learning_rate: float
    validation_loss: float | None = None
    validation_metric: float | None = None
    task_loss: float | None = None
