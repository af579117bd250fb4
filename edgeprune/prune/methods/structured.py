"""What methods share that remove whole channels by a score: pruning in steps, and what follows the pruning."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from torch import fx

from edgeprune.prune.bench import Bench
from edgeprune.prune.criteria import Criterion
from edgeprune.prune.dsp import draw_pruned_weights
from edgeprune.prune.methods.base import MethodResult, describe_pruning
from edgeprune.prune.pruning import prune_channels
from edgeprune.prune.schedule import Pruned, Pruner, ScheduleResult, State
from edgeprune.prune.selection import LeftOver, select_lowest
from edgeprune.prune.units import PINNED, ChannelUnits, find_units


class ChannelPruner(Pruner):
    """Removes the units of lowest score, step by step; scored anew before each step.

    criterion: what scores. shares: of the base's units, those gone after each step, rising; a step in which no whole
    channel falls due is skipped. scope: as in `select_lowest`, for the shares.
    """

    def __init__(self, criterion: Criterion, shares: Sequence[float], scope: str) -> None:
        self._criterion, self._shares, self._scope = criterion, tuple(shares), scope
        self._step = 0
        self._groups: Sequence[frozenset[int]] = ()  # of the base, those of its units that have a score
        self._origins: dict[int, frozenset[int]] = {}  # unit before the last step -> units of the base
        self._last: tuple[ChannelUnits, frozenset[int]] | None = None  # units before the last step, and what went
        self._removed: list[frozenset[int]] = [frozenset()]  # after each step, in units of the base

    def prune(self, state: State, bench: Bench) -> Pruned | None:
        units = find_units(state.module, bench.example)
        scores = self._criterion.score_units(state.module, units)
        if self._last is None:
            self._origins = {unit: frozenset((unit,)) for unit in range(units.count)}
            self._groups = [frozenset(group.units) & scores.keys() for group in units.groups]
        else:
            self._origins = trace_units(self._origins, *self._last, units)
            wholes = self._origins.keys() - find_halves(self._origins)
            scores = {unit: score for unit, score in scores.items() if unit in wholes}
        left = [
            LeftOver(tuple(unit for unit in sorted(scores) if self._origins[unit] & group), len(group))
            for group in self._groups
        ]
        dead: frozenset[int] = frozenset()
        while not dead and self._step < len(self._shares):
            share = self._shares[self._step]
            dead = select_lowest(units, scores, share, self._scope, relative=self._criterion.relative, left=left)
            self._step += 1
        if not dead:
            return None
        result = bench.prune(state.module, dead)
        self._last = (units, result.removed)
        self._removed.append(self._removed[-1].union(*(self._origins[unit] for unit in result.removed)))
        before, after = (len(removed) for removed in self._removed[-2:])
        share = after / sum(len(group) for group in self._groups)
        figures = {"removed_units": after - before, "removed_share": share}
        return Pruned(State(result.module), figures, (units, result.removed))

    def get_removed(self, result: ScheduleResult) -> frozenset[int]:
        """What is gone from the net that a schedule gave back, in units of the base."""
        return self._removed[sum(row["within_limit"] is not False for row in result.steps)]


def trace_units(
    origins: Mapping[int, frozenset[int]], before: ChannelUnits, dead: Collection[int], after: ChannelUnits
) -> dict[int, frozenset[int]]:
    """Unit of a pruned program -> units of the base that it stands for.

    origins: the same for the program before the pruning. before, after: units of the two programs. dead: what was
    removed, in units of the program before. Units may have grown together, or apart: a grouped convolution that is left
    with one channel a group is a depthwise one. A unit with channels that were pinned before is left out.
    """
    alive = ~before.is_dead(dead)
    traced: dict[int, frozenset[int]] = {}
    freed: set[int] = set()
    for key in before.filters:
        ids = before.slices[key]
        for old, new in zip(ids[alive[ids]].tolist(), after.slices[key].tolist(), strict=True):
            if new == PINNED:
                continue
            if old in origins:
                traced[new] = traced.get(new, frozenset()) | origins[old]
            else:
                freed.add(new)
    return {unit: sources for unit, sources in traced.items() if unit not in freed}


def find_halves(origins: Mapping[int, frozenset[int]]) -> frozenset[int]:
    """Units that stand for a part of a unit of the base: a base without them cannot be made, so they stay."""
    counts = Counter(origin for sources in origins.values() for origin in sources)
    return frozenset(unit for unit, sources in origins.items() if any(counts[origin] > 1 for origin in sources))


def finish(
    bench: Bench, pruned: fx.GraphModule, removed: frozenset[int], retrain: str, record: Mapping[str, Any]
) -> MethodResult:
    """Retrain a pruned net with the bench's recipe.

    removed: in units of the base. retrain: "finetune", "scratch" (new weights in the pruned shape) or "none".
    """
    variants: dict[str, tuple[str, fx.GraphModule]] = {"pruned": ("Pruned", pruned)}
    if retrain == "none":
        return MethodResult(pruned, variants, record)
    label, start = "Finetuned", pruned
    if retrain == "scratch":
        label = "Scratch-trained"
        start = draw_pruned_weights(bench.base, bench.example, removed, bench.seed, bench.factory)
    trained = bench.train(start, label).module
    variants["retrained"] = (label, trained)
    return MethodResult(trained, variants, record)


def finish_schedule(
    bench: Bench, pruner: ChannelPruner, schedule: ScheduleResult, retrain: str, asked: Collection[str] | None
) -> MethodResult:
    """Retrain what a schedule gave back, and account for it.

    asked: as in `prune_channels`. Nothing is retrained where nothing was pruned. Under an accuracy limit a final
    retraining that leaves the limit is not deployed: the net is, as the schedule left it.
    """
    removed = pruner.get_removed(schedule)
    account = prune_channels(bench.base, bench.example, removed, asked=asked)
    record = {**describe_pruning(account), **schedule.record}
    pruned = schedule.state.module
    result = finish(bench, pruned, removed, retrain if removed else "none", record)
    if result.module is pruned or bench.limit is None or bench.limit.allows(bench.score(result.module)):
        return result
    bench.progress.note("the final retraining left the accuracy limit; the net before it is deployed")
    variants = dict(result.variants)
    label, retrained = variants.pop("retrained")
    variants = {label.lower(): (label, retrained), **variants}
    return MethodResult(pruned, variants, {**record, "retraining_rejected": True})


def list_asked(units: ChannelUnits, ratio: float, scope: str) -> list[str] | None:
    """The layers that a report must account for: all, where every layer is to lose a share of its channels."""
    return [layer.name for layer in units.layers] if ratio and scope == "layer" else None


__all__ = ["ChannelPruner", "find_halves", "finish", "finish_schedule", "list_asked", "trace_units"]
