"""Iterative magnitude pruning with masks: LTH (Frankle and Carbin 2019) and SAP (Diao et al. 2023).

Both hold the smallest weights at zero, step after step; they differ in how many. LTH takes a fixed share of what is
left; SAP asks the PQ index of what is left. Nothing gets smaller or faster by zeros. What is reported are the zeros,
and channels all of whose filters became zero are removed for real in the end.

Rewinding (none: as the InCoP paper; warmup: to the trained base, as its published code; init: to initial weights, as
LTH) is done in `schedule`.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, fx

from edgeprune.errors import UnsupportedModelError
from edgeprune.method_table import parse_norms
from edgeprune.prune.bench import Bench
from edgeprune.prune.masks import (
    MaskHook,
    apply_masks,
    describe_zeros,
    find_maskable,
    keep_all,
    measure_kept,
    remove_zero_units,
)
from edgeprune.prune.methods.base import Method, MethodResult, describe_pruning
from edgeprune.prune.pq_index import compute_lower_bound, compute_pq_index, count_prunable
from edgeprune.prune.schedule import Pruned, Pruner, State, run_schedule


class MaskPruner(Pruner):
    """Masks the smallest of the weights that are left, of each layer by itself or (scope "global") of all together.

    Every layer keeps at least one weight, its largest. Among equals the first ones go.
    """

    def __init__(self, scope: str) -> None:
        self._scope = scope

    @abstractmethod
    def count(self, weights: np.ndarray) -> tuple[int, dict[str, float]]:
        """How many of these (surviving) weights go, and the figures that say why."""

    def prune(self, state: State, bench: Bench) -> Pruned | None:
        layers = find_maskable(state.module).layers
        if not layers:
            raise UnsupportedModelError(
                "this model has no convolution or linear layer that trains: there is nothing to mask; use --method none"
            )
        masks = dict(state.masks) or keep_all(state.module)
        parameters = dict(state.module.named_parameters())
        after: dict[str, Tensor] = {}
        rows: list[dict[str, Any]] = []
        for group in [[name] for name in masks] if self._scope == "layer" else [list(masks)]:
            weights, before = [parameters[name].detach().cpu() for name in group], [masks[name] for name in group]
            left = torch.cat([weight[mask] for weight, mask in zip(weights, before, strict=True)]).numpy()
            count, why = self.count(left)
            changed = mask_smallest(weights, before, count)
            pruned = len(left) - sum(int(mask.sum()) for mask in changed)
            layer = layers[group[0]] if self._scope == "layer" else "all"
            rows.append({"layer": layer, "left_before": len(left), "pruned": pruned, **why})
            after.update(zip(group, changed, strict=True))
        total = sum(row["pruned"] for row in rows)
        if not total:
            return None
        figures: dict[str, Any] = {"pruned": total, "layers": rows}
        if "pq_index" in rows[0]:  # in one number: the mean over all weights
            left_before = sum(row["left_before"] for row in rows)
            figures["pq_index"] = sum(row["pq_index"] * row["left_before"] for row in rows) / left_before
        return Pruned(State(apply_masks(state.module, after), after), figures)


def mask_smallest(weights: Sequence[Tensor], masks: Sequence[Tensor], count: int) -> list[Tensor]:
    """The masks without the `count` smallest magnitudes of all kept weights; each tensor's largest stays."""
    magnitudes, tensors, positions = [], [], []
    for index, (weight, mask) in enumerate(zip(weights, masks, strict=True)):
        kept = np.flatnonzero(mask.numpy())
        values = weight.abs().numpy().reshape(-1)[kept]
        order = np.argsort(values, kind="stable")[:-1]
        magnitudes.append(values[order])
        tensors.append(np.full(len(order), index))
        positions.append(kept[order])
    chosen = np.argsort(np.concatenate(magnitudes), kind="stable")[:count]
    tensor, position = np.concatenate(tensors)[chosen], np.concatenate(positions)[chosen]
    after = [mask.clone() for mask in masks]
    for index, mask in enumerate(after):
        mask.view(-1)[torch.from_numpy(position[tensor == index])] = False
    return after


@final
class FixedShare(MaskPruner):
    """LTH: floor(share * d) of the d weights left."""

    def __init__(self, scope: str, share: float) -> None:
        super().__init__(scope)
        self._share = share

    def count(self, weights: np.ndarray) -> tuple[int, dict[str, float]]:
        return math.floor(self._share * len(weights) + 1e-9 * len(weights)), {}  # 0.29 * 100 is 28.999999999999996


@final
class IndexedShare(MaskPruner):
    """SAP: c = floor(d min(gamma (1 - r/d), beta)) of the d weights left, r from their PQ index."""

    def __init__(self, scope: str, p: float, q: float) -> None:
        super().__init__(scope)
        self._p, self._q = p, q

    def count(self, weights: np.ndarray) -> tuple[int, dict[str, float]]:
        index = compute_pq_index(weights, self._p, self._q)
        r = compute_lower_bound(index, len(weights), self._p, self._q)
        return count_prunable(r, len(weights)), {"pq_index": index, "r": r}


@dataclass(frozen=True)
class MagnitudeMethod(Method):
    """What LTH and SAP share; the options are those of `method_table`."""

    retrain: str
    iterations: int
    step_epochs: int
    scope: str
    rewind: str
    stop: str
    epsilon: float | None

    @abstractmethod
    def make_pruner(self) -> MaskPruner:
        """What decides how many weights go."""

    def run(self, bench: Bench) -> MethodResult:
        """Prune and retrain in iterations, remove the channels that became zero, and (retrain "finetune") train on."""
        schedule = run_schedule(
            bench,
            self.make_pruner(),
            iterations=self.iterations,
            step_epochs=self.step_epochs,
            stop=self.stop,
            epsilon=self.epsilon,
            rewind=self.rewind,
        )
        module, masks = schedule.state.module, schedule.state.masks
        variants: dict[str, tuple[str, fx.GraphModule]] = {}
        record: dict[str, Any] = dict(schedule.record)
        removed = 0
        if masks:
            variants["masked"] = (f"{1 - measure_kept(masks):.0%} of the weights zero", module)
            removal = remove_zero_units(module, masks, bench)
            if removal is not None:
                module, masks, removed = removal.module, removal.masks, len(removal.pruning.removed)
                record |= {**describe_pruning(removal.pruning), "removal_is_exact": removal.is_exact}
                variants["pruned"] = ("zero channels removed", module)
        if masks and self.retrain == "finetune":
            module = bench.train(module, "fine-tuning", hook=MaskHook(masks)).module
            variants["retrained"] = ("fine-tuned", module)
        record["masks"] = describe_zeros(module, removed)
        return MethodResult(module, variants or {"unpruned": ("nothing pruned", module)}, record)


@final
@dataclass(frozen=True)
class Lth(MagnitudeMethod):
    """Iterative magnitude pruning as in the lottery ticket hypothesis: `step` of what is left, in each iteration."""

    step: float

    def make_pruner(self) -> MaskPruner:
        return FixedShare(self.scope, self.step)


@final
@dataclass(frozen=True)
class Sap(MagnitudeMethod):
    """Sparsity-informed adaptive pruning: the PQ index says how many of the weights that are left go."""

    pq: str

    def make_pruner(self) -> MaskPruner:
        return IndexedShare(self.scope, *parse_norms(self.pq))
