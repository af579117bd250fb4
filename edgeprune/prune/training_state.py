"""All that changes while a network trains, in one place, so that it can be put away and taken up again to the bit."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field
from typing import Any

import torch
from torch import nn

from edgeprune.prune.checkpoint import BestState, copy_state
from edgeprune.prune.epoch_figures import Epoch
from edgeprune.prune.epochs import Judge
from edgeprune.prune.hooks import TrainingHook


@dataclass(eq=False)
class TrainingState:
    """What a training holds between two epochs.

    shuffler: draws the order of the samples. seconds: spent in earlier runs of the same training.
    """

    module: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.ReduceLROnPlateau
    judge: Judge
    hook: TrainingHook
    best: BestState
    shuffler: torch.Generator
    history: list[Epoch] = field(default_factory=list)
    seconds: float = 0.0

    def capture(self) -> dict[str, Any]:
        """A copy that later epochs do not change."""
        return {
            "module": copy_state(self.module),
            "optimizer": copy.deepcopy(self.optimizer.state_dict()),
            "schedule": dict(self.schedule.state_dict()),
            "judge": self.judge.get_state(),
            "hook": copy.deepcopy(self.hook.get_state()),
            "best": dict(self.best.tensors),
            "best_epoch": self.best.epoch,
            "history": [list(astuple(epoch)) for epoch in self.history],
            "random": _get_random_states(),
            "shuffler": self.shuffler.get_state(),
            "seconds": self.seconds,
        }

    def restore(self, content: Mapping[str, Any]) -> None:
        """Take up what `capture` gave, in a training of the same settings whose hook has begun."""
        self.hook.set_state(content["hook"])
        self.module.load_state_dict(content["module"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.schedule.load_state_dict(content["schedule"])
        self.judge.set_state(content["judge"])
        self.best.tensors, self.best.epoch = dict(content["best"]), content["best_epoch"]
        self.history[:] = [Epoch(*row) for row in content["history"]]
        _set_random_states(content["random"])
        self.shuffler.set_state(content["shuffler"])
        self.seconds = content["seconds"]


def _get_random_states() -> list[torch.Tensor]:
    """Of the CPU's generator, and of CUDA's where there is one: dropout draws from them."""
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state()] if torch.cuda.is_available() else [])]


def _set_random_states(states: list[torch.Tensor]) -> None:
    torch.set_rng_state(states[0])
    if len(states) > 1 and torch.cuda.is_available():
        torch.cuda.set_rng_state(states[1])
