"""Training by a function of the user's: their own loss and loader, for regression, autoencoders, distillation.

    def fit(context: TrainContext) -> nn.Module: ...

named with `--train package.module:fit`. It is called wherever edgeprune would train: it takes `context.module`, trains
it in place or a copy of it, and gives it back with the same parameters, by name and shape.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import fx, nn

from edgeprune.errors import EdgepruneError, InputError
from edgeprune.progress import SILENT, Progress
from edgeprune.prune.train_settings import TrainSettings
from edgeprune.prune.training import TrainResult


@dataclass(frozen=True, eq=False)
class TrainContext:
    """What a user's training function gets.

    module: the program to train, eval mode, on the CPU; its own copy. title: what is being trained ("Finetuned").
    x_train, y_train, x_val, y_val: the data set as edgeprune reads it, normalised, (N, C, ...) and (N,); the function
        may load its own instead. settings: the recipe, for what of it applies. progress: to report to.
    """

    module: fx.GraphModule
    title: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_val: np.ndarray | None
    y_val: np.ndarray | None
    settings: TrainSettings
    progress: Progress = SILENT


Trainer = Callable[[TrainContext], nn.Module]


def train_with(trainer: Trainer, context: TrainContext) -> TrainResult[fx.GraphModule]:
    """Let a user's function train the context's module; `history` of the result is empty, `best_epoch` 0.

    Raises InputError if the function fails, or if what it gives back is not the module it got with other weights.
    """
    name = getattr(trainer, "__name__", repr(trainer))
    module = copy.deepcopy(context.module)
    wanted = {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}
    started = time.monotonic()
    context.progress.note(f"{context.title}: trained by {name}")
    try:
        trained = trainer(replace(context, module=module))
    except EdgepruneError:
        raise
    except Exception as error:  # whatever a user's function raises
        raise InputError(f"--train: {name} failed: {type(error).__name__}: {error}") from error
    if not isinstance(trained, fx.GraphModule):
        raise InputError(
            f"--train: {name} gave back {type(trained).__name__}; it must give back context.module, trained"
        )
    found = {key: tuple(tensor.shape) for key, tensor in trained.state_dict().items()}
    if found != wanted:
        different = sorted(key for key in wanted.keys() | found.keys() if wanted.get(key) != found.get(key))
        raise InputError(
            f"--train: {name} gave back a module with other parameters ({', '.join(different[:3])}); it must give back "
            "context.module, trained"
        )
    for key, tensor in trained.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise InputError(f"--train: {name} gave back weights that are not finite ({key}); lower its learning rate")
    return TrainResult(trained.cpu().eval(), (), 0, "the user's function", time.monotonic() - started)
