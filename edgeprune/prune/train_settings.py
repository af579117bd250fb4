"""How to train: the settings of one training run, checked."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgeprune.errors import InputError

OPTIMIZERS = ("adam", "sgd")
SCHEDULES = ("plateau", "none")
EARLY_STOPPING = ("none", "accuracy", "macro_f1")
CLASS_WEIGHTS = ("none", "balanced")
DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class TrainSettings:
    """Settings of `train_model`; the defaults are the recipe of the DSP paper (arXiv 2602.12744 and its code).

    epochs: passes over the training samples, at most.
    batch_size: samples per step. A batch of one sample cannot pass a batch norm after global pooling, so a lone last
        sample joins the batch before it.
    optimizer: "adam", or "sgd" with `momentum`. weight_decay: L2, added to the gradient.
    learning_rate: at the start. schedule: "plateau" multiplies it by `plateau_factor` whenever the training loss (the
        validation loss under early stopping) has not fallen for `plateau_patience` epochs, down to
        `min_learning_rate`; "none" keeps it.
    early_stopping: "accuracy" or "macro_f1" on validation samples: stop after `patience` epochs without a better
        value, and give back the best epoch. "none": give back the epoch of the lowest training loss.
    class_weights: "balanced" weighs a sample of class c by N / (classes x N_c).
    seed: of the shuffling and of dropout. Equal seeds give equal weights on one machine with one number of threads.
    time_limit_s: stop after the epoch in which so many seconds are over; the result then depends on the machine.
    device: "auto" takes CUDA where there is one.
    """

    epochs: int = 1500
    batch_size: int = 64
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    momentum: float = 0.9
    schedule: str = "plateau"
    plateau_factor: float = 0.5
    plateau_patience: int = 50
    min_learning_rate: float = 1e-4
    early_stopping: str = "none"
    patience: int = 10
    class_weights: str = "none"
    seed: int = 0
    time_limit_s: float | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        for name, allowed in (
            ("optimizer", OPTIMIZERS),
            ("schedule", SCHEDULES),
            ("early_stopping", EARLY_STOPPING),
            ("class_weights", CLASS_WEIGHTS),
            ("device", DEVICES),
        ):
            value = getattr(self, name)
            if value not in allowed:
                raise InputError(f"training: {name} is {value!r}; allowed: {', '.join(allowed)}")
        for name, smallest in (("epochs", 1), ("batch_size", 2), ("plateau_patience", 0), ("patience", 1)):
            value = getattr(self, name)
            if value < smallest:
                raise InputError(f"training: {name} is {value}; it must be at least {smallest}")
        for name, low, high in (
            ("learning_rate", 0.0, math.inf),
            ("plateau_factor", 0.0, 1.0),
            ("time_limit_s", 0.0, math.inf),
        ):
            value = getattr(self, name)
            if value is not None and not low < value < high:
                raise InputError(f"training: {name} is {value}; allowed: more than {low:g} and less than {high:g}")
        for name in ("weight_decay", "min_learning_rate"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise InputError(f"training: {name} is {value}; it must be a finite number, 0 or more")
        if not 0 <= self.momentum < 1:
            raise InputError(f"training: momentum is {self.momentum}; allowed: from 0 to less than 1")
