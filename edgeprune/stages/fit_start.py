"""What --fit starts from: the network that channels are taken out of, the score of each, and what is gone already.

A method with a criterion scores the trained base. A method that trains sparsely first (dsp, slimming, prox-slimming)
does so, and what it finds to be of no use is gone; of the rest, those go first that its own scores (dsp: the L1 norms
of what it trained) put last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import fx

from edgeprune.prune import Bench, ChannelUnits, L1Norm, check_classifier, find_units, guard_units, make_method
from edgeprune.prune.losses import balance_classes
from edgeprune.prune.methods.base import MethodResult
from edgeprune.prune.methods.filters import FilterPruning
from edgeprune.prune.observed import find_observed_tensors
from edgeprune.prune.slimming import require_scales
from edgeprune.prune.sparsity import find_inactive_units, measure_activity
from edgeprune.prune.taylor import TaylorScore


@dataclass(frozen=True, eq=False)
class FitStart:
    """Where the search of widths begins.

    module: raised, not pruned. units: its own. scores: unit -> what it matters; without one it stays. removed: gone
    already. variants, record: of the method, as in MethodResult; empty where it trained nothing.
    """

    module: fx.GraphModule
    units: ChannelUnits
    scores: Mapping[int, float]
    removed: frozenset[int]
    variants: Mapping[str, tuple[str, fx.GraphModule]]
    record: Mapping[str, Any]


def make_start(method: str, options: Mapping[str, Any], bench: Bench) -> FitStart:
    """Score the base's channels by the method, after its own sparse training where it has one.

    options: of the method, those that --fit leaves it (`method_table.FIT_OPTIONS`).
    """
    if method == "dsp":
        return _start_dsp(make_method(method, "none", **options).run(bench), bench)
    if method in ("slimming", "prox-slimming"):
        share = {"ratio": 0.0} if method == "slimming" else {}
        return _start_slimming(make_method(method, "none", **options, **share).run(bench), bench, method)
    units = find_units(bench.base, bench.example)
    return FitStart(bench.base, units, _score(method, bench, units), frozenset(), {}, {})


def _score(method: str, bench: Bench, units: ChannelUnits) -> dict[int, float]:
    if method == "static":  # new weights follow: which channels go is of no account
        return {unit: 1.0 for group in units.groups for unit in group.units}
    if method == "taylor":
        classes = check_classifier(bench.base, bench.x_train, bench.y_train)
        balanced = bench.recipe.class_weights == "balanced"
        weights = balance_classes(bench.y_train, classes) if balanced else None
        return TaylorScore(bench.x_train, bench.y_train, weights).score_units(bench.base, units)
    filters = make_method(method)
    assert isinstance(filters, FilterPruning)  # settings refuse what has no scores
    return filters.make_criterion(bench).score_units(bench.base, units)


def _start_dsp(result: MethodResult, bench: Bench) -> FitStart:
    label, module = result.variants["pretrained"]
    units = find_units(module, bench.example)
    activities = measure_activity(module, find_observed_tensors(module, units), bench.x_train)
    removed = guard_units(units, find_inactive_units(units, activities))
    scores = L1Norm().score_units(module, units)
    return FitStart(module, units, scores, removed, {"pretrained": (label, module)}, result.record)


def _start_slimming(result: MethodResult, bench: Bench, method: str) -> FitStart:
    label, module = result.variants["sparse"]
    units = find_units(module, bench.example)
    scales = require_scales(module, units, method)
    scores = scales.score_units(dict(module.named_parameters()))
    removed = guard_units(units, [unit for unit, score in scores.items() if score == 0], scores)
    return FitStart(module, units, scores, removed, {"sparse": (label, module)}, result.record)
