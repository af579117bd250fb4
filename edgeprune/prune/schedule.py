"""The loop of every iterative method: prune a little, train until a rule says enough, look at the score, again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, fx

from edgeprune.prune.bench import Bench
from edgeprune.prune.dsp import draw_weights
from edgeprune.prune.hooks import HookChain
from edgeprune.prune.information import Kept
from edgeprune.prune.masks import MaskHook, measure_kept
from edgeprune.prune.stopping import RuleMaker
from edgeprune.prune.surgery import remove_units
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
    epsilon: float | None,
    rewind: str = "none",
    recipe: TrainSettings | None = None,
) -> ScheduleResult:
    """Prune and retrain `iterations` times, or (None) until the pruner has nothing left.

    step_epochs: epochs of a retraining, at most. stop, epsilon: the rule that ends it, see `stopping`. rewind: what the
    retraining goes on from, see `method_table`. recipe: of the retrainings; default: the bench's, shortened.

    Under an accuracy limit (Bench.limit) it ends at the first net that is not within the limit, and gives back the last
    one that was. Raises UnsupportedModelError where the rule cannot look at this net, or new weights cannot be drawn.
    """
    start = prepare_start(bench, rewind)
    rules = RuleMaker(stop, epsilon, start.dense, bench)
    settings = recipe or bench.shorten_recipe(step_epochs)
    state, best = State(start.dense), State(bench.base)
    origin, kept = start.origin, Kept()
    rows: list[Mapping[str, Any]] = []
    ended_by = "iterations"
    while iterations is None or len(rows) < iterations:
        pruned = pruner.prune(state, bench)
        if pruned is None:
            ended_by = "nothing left"
            break
        if pruned.removed is not None:
            kept = kept.remove(*pruned.removed)
            origin = None if origin is None else remove_units(origin, *pruned.removed)
        masks = pruned.state.masks
        rule = rules.make_rule(kept, masks)
        trained = bench.train(
            pruned.state.module if origin is None else origin,
            f"step {len(rows) + 1}",
            recipe=settings,
            hook=HookChain([MaskHook(masks), rule]) if masks else rule,
        )
        state = State(trained.module, masks)
        score = bench.score(state.module)
        is_within = bench.limit.allows(score) if bench.limit else None
        rows.append(
            {
                "step": len(rows) + 1,
                **describe_size(state),
                "epochs": len(trained.history),
                "stopped_by": stop if rule.has_fired else trained.stopped_by,
                "validation_metric": score,
                "within_limit": is_within,
                **({rule.figure: list(rule.history)} if rule.figure else {}),
                **pruned.figures,
            }
        )
        if is_within is False:
            ended_by = "accuracy limit"
            break
        best = state
    record = {"steps": rows, "ended_by": ended_by, "retraining_epochs": sum(row["epochs"] for row in rows)}
    return ScheduleResult(best, tuple(rows), ended_by, record)


@dataclass(frozen=True, eq=False)
class Start:
    """dense: the trained net that the first step prunes, and that rules compare with. origin: what retrainings go on
    from, None for the weights as they are."""

    dense: fx.GraphModule
    origin: fx.GraphModule | None


def prepare_start(bench: Bench, rewind: str) -> Start:
    """The bench's base; or (rewind "init") new weights and what the bench's recipe makes of them.

    Of the base's own initial weights nothing is known, so "init" draws others and trains them first.
    """
    if rewind == "init":
        drawn = draw_weights(bench.base, bench.seed, bench.factory)
        return Start(bench.train(drawn, "training from new weights").module, drawn)
    return Start(bench.base, bench.base if rewind == "warmup" else None)


def describe_size(state: State) -> dict[str, Any]:
    """Trainable parameters of a state (masked ones are still there), and with masks the share of weights they keep."""
    count = sum(parameter.numel() for parameter in state.module.parameters() if parameter.requires_grad)
    return {"parameters": count, "weights_left": measure_kept(state.masks) if state.masks else None}
