"""Hooks: what a pruning method does inside `train_model`, besides minimising the loss.

A penalty (DSP), masks that keep zeros at zero (LTH, SAP), a proximal step (prox-slimming), ranks that are cut (DPRP), a
rule that ends a training (InCoP): each is a `TrainingHook` with the few parts it needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from edgeprune.prune.epoch_figures import Epoch


class TrainingHook:
    """What a method does in a training; every part does nothing unless overridden.

    observed: names of the nodes whose tensors `compute_loss` reads; needs a raised program.
    keeps_last: the state after the last epoch is the result, not the best epoch's.
    schedules_by_task: the learning rate follows the loss without the hook's term.
    """

    observed: tuple[str, ...] = ()
    keeps_last: bool = False
    schedules_by_task: bool = False

    def begin(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Before the first epoch. `module` is the copy that is trained, on its device: take its parameters here."""

    def compute_loss(self, tensors: Mapping[str, Tensor]) -> Tensor | None:
        """A term to add to a batch's loss, a scalar; `tensors` holds the observed nodes' values by name."""
        return None

    def adjust_gradients(self) -> None:
        """After the backward pass, before the optimizer's step."""

    def adjust_parameters(self) -> None:
        """After the optimizer's step."""

    def end_epoch(self, epoch: Epoch) -> bool:
        """After each epoch, module in train mode; True ends the training. `epoch` holds its figures."""
        return False

    def get_figures(self) -> dict[str, float | str]:
        """Figures of the last epoch for the progress bar."""
        return {}

    def get_state(self) -> dict[str, Any]:
        """What a resumed training needs beyond weights and optimizer: tensors, numbers, texts, lists and dicts."""
        return {}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Take back what `get_state` gave; called after `begin`, before weights and optimizer are restored.

        A hook that changes shapes of parameters brings them to those of the state here.
        """

    def describe(self) -> str:
        """All that decides what this hook does: an interrupted training goes on only where it is the same."""
        return type(self).__name__


class HookChain(TrainingHook):
    """Several hooks, in order; the training ends when one of them says so."""

    def __init__(self, hooks: Sequence[TrainingHook]) -> None:
        self._hooks = tuple(hooks)
        self.observed = tuple(dict.fromkeys(name for hook in self._hooks for name in hook.observed))
        self.keeps_last = any(hook.keeps_last for hook in self._hooks)
        self.schedules_by_task = any(hook.schedules_by_task for hook in self._hooks)

    def begin(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        for hook in self._hooks:
            hook.begin(module, optimizer)

    def compute_loss(self, tensors: Mapping[str, Tensor]) -> Tensor | None:
        terms = [term for hook in self._hooks if (term := hook.compute_loss(tensors)) is not None]
        return torch.stack(terms).sum() if terms else None

    def adjust_gradients(self) -> None:
        for hook in self._hooks:
            hook.adjust_gradients()

    def adjust_parameters(self) -> None:
        for hook in self._hooks:
            hook.adjust_parameters()

    def end_epoch(self, epoch: Epoch) -> bool:
        answers = [hook.end_epoch(epoch) for hook in self._hooks]  # each hook sees every epoch
        return any(answers)

    def get_figures(self) -> dict[str, float | str]:
        return {name: value for hook in self._hooks for name, value in hook.get_figures().items()}

    def get_state(self) -> dict[str, Any]:
        return {str(index): hook.get_state() for index, hook in enumerate(self._hooks)}

    def set_state(self, state: Mapping[str, Any]) -> None:
        for index, hook in enumerate(self._hooks):
            hook.set_state(state[str(index)])

    def describe(self) -> str:
        return " + ".join(hook.describe() for hook in self._hooks)
