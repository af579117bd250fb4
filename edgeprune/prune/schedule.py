"""The loop of every iterative method: prune a little, train until a rule says enough, look at the score, again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, fx

from edgeprune.prune.bench import Bench
from edgeprune.prune.train_settings import TrainSettings
from edgeprune.prune.units import ChannelUnits


@dataclass(frozen=True, eq=False)
class State:
    """A net on its way: its module, and for unstructured pruning its masks.

    masks: parameter name -> bool tensor of the parameter's shape, True where a weight is kept; empty where channels are
    removed for real.
    """

    module: fx.GraphModule
    masks: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Pruned:
    """One step's pruning, not retrained.

    figures: plain values for the step's row in the report. removed: of structured pruning, the units of the module
    before the step, and the ids of those that went (a PruneResult's `removed`); None where only masks changed.
    """

    state: State
    figures: Mapping[str, Any] = field(default_factory=dict)
    removed: tuple[ChannelUnits, frozenset[int]] | None = None


class Pruner(ABC):
    """What a method does in one iteration; a deterministic function of state, bench and its own settings."""

    @abstractmethod
    def prune(self, state: State, bench: Bench) -> Pruned | None:
        """One step further, not retrained; None where nothing is left to prune."""


@dataclass(frozen=True, eq=False)
class ScheduleResult:
    """What a schedule leaves behind.

    state: the last one (under an accuracy limit: the last one within it; the base if none was).
    steps: one row of plain values for each iteration. ended_by: "iterations", "accuracy limit" or "nothing left".
    record: `steps`, `ended_by` and the settings, for the report.
    """

    state: State
    steps: tuple[Mapping[str, Any], ...]
    ended_by: str
    record: Mapping[str, Any] = field(default_factory=dict)


def run_schedule(
    bench: Bench,
    pruner: Pruner,
    *,
    iterations: int | None,
    step_epochs: int,
    stop: str,
    epsilon: float,
    rewind: str = "none",
    recipe: TrainSettings | None = None,
) -> ScheduleResult:
    """Prune and retrain `iterations` times, or (None) until the pruner has nothing left.

    step_epochs: epochs of a retraining, at most. stop, epsilon: the rule that ends it, see `stopping`. rewind: what the
    retraining goes on from, see `method_table`. recipe: of the retrainings; default: the bench's, shortened.
    """
    raise NotImplementedError  # being written


__all__ = ["Pruned", "Pruner", "ScheduleResult", "State", "run_schedule"]
