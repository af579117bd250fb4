"""Widths for given limits, planned without a training: searched by prediction, checked by a build.

Where the built firmware and the prediction differ, the search goes on from where it was with limits moved by just that
much, so that what is trained fits, and wastes little. Plans are cached by content.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from edgeprune.progress import Step
from edgeprune.prune.widths import WidthPoint, Widths, search_uniform, search_widths
from edgeprune.stages.fit_sizing import Figures, WidthSizer, describe_setting
from edgeprune.stages.fit_start import FitStart
from edgeprune.stages.prepare import Job

BY_COST, UNIFORM = "by cost", "same share of each layer"
SEARCHES: Mapping[str, Callable[..., list[WidthPoint]]] = {BY_COST: search_widths, UNIFORM: search_uniform}
ROUNDS = 3  # of searching and building, at most
TIGHTER = 0.005  # of the limits, with each further round: a prediction of a neighbour is off by as much
NEAR = 0.99  # of a limit: a build that takes so much of it needs no further round
# how much latency, cycles and instructions may depend on the values of the one sample that is run
VALUE_MARGIN: Mapping[str, float] = {"latency": 0.003, "cycles": 0.003, "instructions": 0.003}

Limits = Mapping[str, float]  # by the names of budgets, in their units


@dataclass(frozen=True)
class Candidate:
    """Widths worth a training.

    title: for people. removed: units of the start. limits: those it was planned for. predicted: without a compiler.
    built: with the weights before the training, or the prediction where it was not built. kept: share of the scores,
    as in `WidthPoint`.
    """

    title: str
    removed: frozenset[int]
    limits: Limits
    predicted: Figures
    built: Figures
    kept: float


@dataclass(frozen=True, eq=False)
class WidthPlanner:
    """Plans for one start.

    path: all widths that a plan went through, as the report has them.
    """

    job: Job
    start: FitStart
    sizer: WidthSizer
    path: list[Mapping[str, Any]] = field(default_factory=list)

    @cached_property
    def widths(self) -> Widths:
        """The groups of layers that can lose channels."""
        groups = [group.units for group in self.start.units.groups]
        return Widths(groups, self.start.scores, self.start.removed)

    def plan_narrowest(self, title: str, limits: Limits) -> Candidate:
        """One channel in every layer that can be pruned, predicted."""
        counts = self.widths.narrowest
        removed = self.widths.collect(counts)

        figures: Figures = self.job.cache.reuse_json(
            "fit-narrowest", self._describe_start(), lambda: self.sizer.predict(removed)
        )
        return Candidate(title, removed, limits, figures, figures, self.widths.kept(counts))

    def plan(self, title: str, family: str, limits: Limits, begin: frozenset[int] | None = None) -> Candidate | None:
        """Widths within the limits, built too; None where none were found.

        begin: widths to go on from. The figures that are limited must be there (`require_figures`).
        """
        inputs = {
            **self._describe_start(),
            "family": family,
            "limits": dict(limits),
            "begin": None if begin is None else sorted(begin),
        }

        def make() -> Any:
            with self.job.progress.step(f"fit: widths, {title}") as step:
                return self._search(family, limits, begin, step)

        found = self.job.cache.reuse_json("fit-widths", inputs, make)
        self.path.extend({"family": family, **point} for point in found["path"])
        best = found["best"]
        if best is None:
            return None
        return Candidate(title, frozenset(best["removed"]), limits, best["predicted"], best["built"], best["kept"])

    def _describe_start(self) -> dict[str, Any]:
        return {
            **describe_setting(self.job),
            "program": self.sizer.exported.model,
            "groups": [group.units for group in self.start.units.groups],
            "scores": sorted(self.start.scores.items()),
            "removed": sorted(self.start.removed),
        }

    def _search(self, family: str, limits: Limits, begin: frozenset[int] | None, step: Step) -> dict[str, Any]:
        """A plan as plain data."""
        bounds = {name: limit * (1 - VALUE_MARGIN.get(name, 0)) for name, limit in limits.items()}
        aim = 1.0
        factors = dict.fromkeys(limits, 1.0)  # built / predicted, of what was built last
        path: list[WidthPoint] = []
        best: dict[str, Any] | None = None

        def cost(removed: frozenset[int]) -> dict[str, float]:
            figures = self.sizer.predict(removed)
            ratios = {name: factors[name] * ratio / aim for name, ratio in hold(figures, bounds).items()}
            step.advance(1, worst=max(ratios.values()))
            return ratios

        for number in range(ROUNDS):
            aim = 1 - TIGHTER * number
            path += search_widths(self.widths, cost, begin) if begin else SEARCHES[family](self.widths, cost)
            point = path[-1]
            if not point.fits or point.removed == begin:  # nothing is found, or nothing else
                break
            predicted, built = self.sizer.predict(point.removed), self.sizer.measure(point.removed)
            worst = max(hold(built, bounds).values())
            if worst <= 1 and (best is None or point.kept > best["kept"]):
                best = {"removed": sorted(point.removed), "predicted": predicted, "built": built, "kept": point.kept}
            moved = {name: ratio / hold(predicted, bounds)[name] for name, ratio in hold(built, bounds).items()}
            if NEAR <= worst <= 1 or moved == factors:
                break
            factors, begin = moved, point.removed
        points = {point.removed: point for point in path}.values()
        return {
            "best": best,
            "path": [{"kept": point.kept, "figures": self.sizer.predict(point.removed)} for point in points],
        }


def hold(figures: Figures, limits: Limits) -> dict[str, float]:
    """Figure / limit, of each limit; 1 is at the limit."""
    return {name: (figures[name] or 0.0) / limit for name, limit in limits.items()}
