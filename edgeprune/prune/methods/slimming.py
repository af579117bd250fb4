"""Network slimming (Liu et al. 2017) and proximal network slimming (Bui et al. 2023).

Both train the base with sparse BatchNorm scales, remove the channels whose scales are small (or exactly zero) and, if
asked, train what is left. The sparse training has all of the recipe's epochs: sparsity needs them, so nothing stops it
early and the last epoch counts. A removed channel is not nothing: at gamma = 0 it is act(beta), which is folded into
the next layers.

Ours:
- The papers train from scratch, with scales that start at .5; `start` "trained" goes on from the base, with its own
  scales. "scratch" does as the papers.
- lambda is that of the papers, for their training: CIFAR-10, 160 epochs of 782 steps, the learning rate cut to a tenth
  at 50 and 75 %, which makes 66,000 full steps. What the penalty takes off a scale grows with rate x lambda x steps; a
  small series set has 300 steps, in which the papers' 1e-4 and 4.5e-3 change nothing. So a training of S steps gets
  lambda x 66,000 / S; of fewer than 300 steps, what 300 get. In 100 steps all scales of the EEG CNN went to zero
  together, before the loss could hold those that matter.
- The sparse training is by SGD at the papers' rate, whatever optimizer the recipe has for the other trainings: Adam
  divides the penalty by the size of the gradient and so makes all scales smaller alike. A recipe of SGD has its own
  rate and momentum here too.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from edgeprune.prune.batchnorm import recalibrate_batchnorm
from edgeprune.prune.bench import Bench
from edgeprune.prune.dsp import draw_weights
from edgeprune.prune.epochs import split_batches
from edgeprune.prune.methods.base import Method, MethodResult, describe_pruning
from edgeprune.prune.methods.structured import finish, list_asked
from edgeprune.prune.prox_slimming import ProxHook
from edgeprune.prune.pruning import PruneResult
from edgeprune.prune.selection import select_lowest
from edgeprune.prune.slimming import Scales, SlimmingHook, require_scales
from edgeprune.prune.train_settings import TrainSettings
from edgeprune.prune.units import find_units, guard_units

FIRST_SCALE = 0.5  # of BatchNorm, when training from scratch; the authors' code
SGD: Mapping[str, Any] = {"optimizer": "sgd", "learning_rate": 0.1, "momentum": 0.9}
PAPER_STEPS = 66_000  # 160 epochs x 782 steps x (.5 + .25 x .1 + .25 x .01)
FEWEST_STEPS = 300


@dataclass(frozen=True)
class Slimming(Method):
    """Liu et al. 2017, arXiv 1708.06519; options: see `method_table`.

    The share `ratio` of the units with the lowest scores goes, of all together or of each layer; the scores are the
    scales themselves, not relative to their layer. A layer keeps at least one channel.
    """

    retrain: str
    ratio: float
    scope: str
    sparsity_weight: float
    start: str

    def run(self, bench: Bench) -> MethodResult:
        units = find_units(bench.base, bench.example)
        scales = require_scales(bench.base, units, "slimming")
        weight = fit_weight(self.sparsity_weight, bench)
        sparse = bench.train(
            _choose_start(bench, scales, self.start),
            "sparse training",
            recipe=make_sparse_recipe(bench),
            hook=SlimmingHook(scales, weight),
        ).module
        scores = scales.score_units(dict(sparse.named_parameters()))
        dead = select_lowest(units, scores, self.ratio, self.scope, relative=False)
        pruning = bench.prune(sparse, dead, asked=list_asked(units, self.ratio, self.scope))
        threshold = max((scores[unit] for unit in dead), default=None)
        record = {"penalty_weight": weight, "threshold": threshold, **_describe_scales(scales, scores)}
        return _finish(bench, sparse, pruning, self.retrain, record)


@dataclass(frozen=True)
class ProxSlimming(Method):
    """Bui et al. 2023, arXiv 2301.08137; options: see `method_table`.

    As in the paper, channels are judged by xi, not gamma: a unit goes when all its xi are exactly 0. gamma is set to
    xi first, so that what goes is a constant. Where all units of a layer are at 0, that of the largest |gamma| stays,
    with its gamma (ours).
    """

    retrain: str
    sparsity_weight: float
    prox_weight: float
    start: str

    def run(self, bench: Bench) -> MethodResult:
        units = find_units(bench.base, bench.example)
        scales = require_scales(bench.base, units, "prox-slimming")
        weight = fit_weight(self.sparsity_weight, bench)
        hook = ProxHook(scales, weight, self.prox_weight, bench.seed if self.start == "scratch" else None)
        trained = bench.train(
            _choose_start(bench, scales, self.start),
            "proximal training",
            recipe=make_sparse_recipe(bench),
            hook=hook,
        ).module
        xi = {name: value.cpu() for name, value in hook.xi.items()}
        gammas = dict(trained.named_parameters())
        scores = scales.score_units(xi)
        zeros = [unit for unit, score in scores.items() if score == 0]
        dead = guard_units(units, zeros, scales.score_units(gammas))
        sparse = _set_scales(trained, xi, scales, spared=frozenset(zeros) - dead)
        sparse = recalibrate_batchnorm(sparse, bench.x_train)
        emptied = [layer.name for layer in units.layers if np.isin(layer.units, list(set(zeros) - dead)).any()]
        note_extremes(bench, zeros, emptied)
        record = {"penalty_weight": weight, "emptied_layers": emptied, **_describe_scales(scales, scores)}
        return _finish(bench, sparse, bench.prune(sparse, dead), self.retrain, record)


def make_sparse_recipe(bench: Bench) -> TrainSettings:
    """The bench's recipe for a sparse training: all its epochs, by SGD."""
    changes = {} if bench.recipe.optimizer == "sgd" else SGD
    return bench.shorten_recipe(bench.recipe.epochs, **changes)


def fit_weight(weight: float, bench: Bench) -> float:
    """lambda for a training by the bench's recipe that takes as much off the scales as `weight` does in the papers'."""
    batches = sum(1 for _ in split_batches(torch.arange(len(bench.y_train)), bench.recipe.batch_size))
    return weight * PAPER_STEPS / max(bench.recipe.epochs * batches, FEWEST_STEPS)


def note_extremes(bench: Bench, zeros: Sequence[int], emptied: Sequence[str]) -> None:
    """Tell the user when prox-slimming found nothing to remove, or nothing to keep."""
    if not zeros:
        bench.progress.note(
            "prox-slimming: no scale became zero, so nothing is removed; raise --sparsity-weight or --epochs"
        )
    elif emptied:
        bench.progress.note(
            f"prox-slimming: all scales of {', '.join(emptied)} became zero, one channel each was kept; "
            "for more accuracy lower --sparsity-weight or raise --epochs"
        )


def _choose_start(bench: Bench, scales: Scales, start: str) -> fx.GraphModule:
    """The base, or the same net with new weights and scales at FIRST_SCALE."""
    if start == "trained":
        return bench.base
    fresh = draw_weights(bench.base, bench.seed, bench.factory)
    parameters = dict(fresh.named_parameters())
    with torch.no_grad():
        for name in scales.units:
            parameters[name][scales.make_mask(name, parameters[name]) != 0] = FIRST_SCALE
    return fresh


def _set_scales(
    module: fx.GraphModule, values: Mapping[str, Tensor], scales: Scales, spared: frozenset[int]
) -> fx.GraphModule:
    """A copy with these scales, but for those of the spared units."""
    changed = copy.deepcopy(module)
    parameters = dict(changed.named_parameters())
    with torch.no_grad():
        for name, ids in scales.units.items():
            taken = torch.from_numpy(~np.isin(ids, list(spared)))
            parameters[name][taken] = values[name][taken]
    return changed


def _describe_scales(scales: Scales, scores: Mapping[int, float]) -> dict[str, Any]:
    return {
        "judged_units": len(scales.judged),
        "zero_scores": sum(score == 0 for score in scores.values()),
        "scores": sorted(scores.values()),
        "kept_without_scales": [{"layer": layer, "reason": reason} for layer, reason in scales.unjudged],
    }


def _finish(
    bench: Bench,
    sparse: fx.GraphModule,
    pruning: PruneResult,
    retrain: str,
    record: Mapping[str, Any],
) -> MethodResult:
    """Retrain as asked; the sparse net is a state worth a line of its own."""
    bench.progress.note(f"{len(pruning.removed)} of {record['judged_units']} units removed")
    result = finish(bench, pruning.module, pruning.removed, retrain, {**describe_pruning(pruning), **record})
    return replace(result, variants={"sparse": ("Sparse-trained", sparse), **result.variants})
