"""--fit: the most accurate network within limits on latency, RAM, flash.

Widths are searched by what they cost on this target (`prune.widths`), asked of the code generator, without a training.
The few that remain are built once before they are trained: where the built firmware and the prediction differ, the
search goes on with limits moved by just that. Then they are trained, quantized, scored on validation samples and
measured (the loop is in `pipeline`), and the best of those that fit is taken.

Candidates: at the limits, by cost; at the limits, the same share of every layer; and by cost at three quarters of the
way from the narrowest network to the limits, which on few validation samples may be as good. Where none of them fits
and is good enough, wider ones follow, beyond the limits: they show what would have to give.

Nothing is kept for going on after an interruption but what is cached by content anyhow: the plans, the figures, the
trainings. The same command goes the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from torch import fx

from edgeprune.errors import InputError, MeasurementUnavailableError
from edgeprune.executors import ReferenceExecutor, run_on_floats
from edgeprune.layout import arrange_samples
from edgeprune.metrics import score_predictions
from edgeprune.progress import Step
from edgeprune.prune import AccuracyLimit, Bench
from edgeprune.prune.methods.base import describe_pruning
from edgeprune.prune.methods.dsp import FINETUNING_EPOCHS
from edgeprune.prune.methods.structured import finish
from edgeprune.prune.widths import WidthPoint, Widths, search_uniform, search_widths
from edgeprune.stages.build import Exported, Programs, export_network
from edgeprune.stages.fit_sizing import Figures, WidthSizer, describe_rig, measure_program
from edgeprune.stages.fit_start import FitStart, make_start
from edgeprune.stages.prepare import Job
from edgeprune.stages.prune import PrunedModel, make_bench, note_limit

BY_COST, UNIFORM, NARROWEST, AS_IT_IS = "by cost", "same share of each layer", "one channel a layer", "as it is"
LOWER = 0.75  # of the way from the narrowest network to the limits
# of the way from the limits to the network as it is
BEYOND = ((1 / 3, "a third beyond the limits"), (2 / 3, "two thirds beyond the limits"))
# Before a training: built figures move the limits so often. After one that missed: so often another.
ROUNDS, RETRIES = 3, 1
SLACK = 0.01  # a built figure that is nearer to its limit needs no further round
# how much instructions and cycles may depend on the values of the one sample that is run
VALUE_MARGIN: Mapping[str, float] = {"latency": 0.003, "cycles": 0.003, "instructions": 0.003}


@dataclass(frozen=True)
class Candidate:
    """Widths worth a training.

    title: family and place of its limits, for people. removed: units of the start. limits: those it was searched for.
    predicted: without a compiler. kept: share of the scores, as in `WidthPoint`.
    """

    title: str
    family: str
    removed: frozenset[int]
    limits: Mapping[str, float]
    predicted: Figures
    kept: float


@dataclass(frozen=True, eq=False)
class Trial:
    """A candidate as it came out: trained, quantized, scored on validation samples, built and run.

    score: int8, of the metric asked for. loss: mean cross-entropy of the int8 outputs, which parts equal scores.
    """

    candidate: Candidate
    pruned: PrunedModel
    widths: Mapping[str, int]
    measured: Figures
    score: float
    loss: float
    parameters: int
    trainings: int
    fits: bool


class FitSearch:
    """One search: what was planned and tried so far.

    limits: of the budgets by name. base: figures of the model as it is. reference: the base's score, float.
    path: all widths whose cost was asked for on the way, for the report.
    """

    def __init__(self, job: Job, exported: Exported) -> None:
        self.job, self.exported = job, exported
        self.limits = {budget.name: budget.limit for budget in job.settings.fit}
        self.bench: Bench = make_bench(job)
        self.metric = job.settings.metric
        self.reference = self.bench.score(self.bench.base, self.metric)
        self.base_sizer = WidthSizer(job, self.bench.base, exported)
        self.base, reason = self.base_sizer.measure_whole()
        require_figures(job, self.limits, self.base, reason)
        self.trials: list[Trial] = []
        self.path: list[Mapping[str, Any]] = []

    @property
    def accuracy_limit(self) -> AccuracyLimit | None:
        return self.bench.limit

    @cached_property
    def start(self) -> FitStart:
        """After the method's own sparse training, where it has one."""
        return make_start(self.job.settings.method, self.job.settings.fit_options, self.bench)

    @cached_property
    def sizer(self) -> WidthSizer:
        module = self.start.module
        if module is self.bench.base:
            return self.base_sizer
        return WidthSizer(self.job, module, export_network(self.job, module))

    @cached_property
    def widths(self) -> Widths:
        groups = [group.units for group in self.start.units.groups]
        return Widths(groups, self.start.scores, self.start.removed)

    @cached_property
    def narrowest(self) -> WidthPoint:
        """One channel in every layer that can be pruned."""
        removed = self.widths.collect(self.widths.narrowest)
        return WidthPoint(removed, self.hold(self._remember(removed), self.limits), 0.0)

    def hold(self, figures: Figures, limits: Mapping[str, float]) -> dict[str, float]:
        """Figure / limit, of each limit."""
        return {name: float(figures[name] or 0) / limit for name, limit in limits.items()}

    def fits(self, figures: Figures) -> bool:
        """Whether all limits are kept."""
        return self.measure_miss(figures) <= 1

    def measure_miss(self, figures: Figures) -> float:
        """The largest figure / limit."""
        return max(self.hold(figures, self.limits).values())

    def allows(self, trial: Trial) -> bool:
        """Whether it fits and is as accurate as asked for."""
        return trial.fits and (self.accuracy_limit is None or self.accuracy_limit.allows(trial.score))

    def propose(self) -> Iterator[Candidate]:
        """What to train next; each is planned when it is asked for, by what became of those before it."""
        if self.fits(self.base):
            yield Candidate(AS_IT_IS, AS_IT_IS, frozenset(), self.limits, self.base, 1.0)
            return
        note_limits(self)
        if self.narrowest.fits:
            at_limits = self._plan(BY_COST, BY_COST, self.limits)
            yield from self._new(at_limits)
            yield from self._new(self._plan(UNIFORM, UNIFORM, self.limits))
            floor = {name: ratio * self.limits[name] for name, ratio in self.narrowest.ratios.items()}
            lower = {name: floor[name] + LOWER * (limit - floor[name]) for name, limit in self.limits.items()}
            begin = None if at_limits is None else at_limits.removed
            yield from self._new(self._plan(f"{BY_COST}, {LOWER:.0%} of the limits", BY_COST, lower, begin))
            yield from self._retry()
        else:
            yield Candidate(
                NARROWEST, NARROWEST, self.narrowest.removed, self.limits, self._remember(self.narrowest.removed), 0.0
            )
        if not any(self.allows(trial) for trial in self.trials):
            for share, title in BEYOND:
                wider = {}
                for name, limit in self.limits.items():
                    low = limit * max(1.0, self.narrowest.ratios[name])
                    wider[name] = low + share * max(0.0, float(self.base[name] or 0) - low)
                yield from self._new(self._plan(f"{BY_COST}, {title}", BY_COST, wider))

    def prune(self, candidate: Candidate) -> PrunedModel:
        """Take the candidate's channels out and retrain with the method's recipe."""
        settings = self.job.settings
        base = {"base": ("Base", self.bench.base)}
        record: dict[str, Any] = {
            "method": settings.method,
            "retrain": settings.retrain,
            "options": settings.fit_options,
        }
        if candidate.family == AS_IT_IS:
            return PrunedModel(self.bench.base, base, record)
        retrain = "scratch" if settings.retrain == "both" else str(settings.retrain)
        bench = replace(self.bench, base=self.start.module, recipe=self._choose_recipe(retrain))
        result = bench.prune(self.start.module, candidate.removed)
        before = len(bench.trainings)
        done = finish(bench, result.module, result.removed, retrain, describe_pruning(result))
        for row in bench.trainings[before:]:
            row["title"] = f"{row['title']} ({candidate.title})"
        record |= {**self.start.record, **done.record, "trainings": bench.trainings}
        return PrunedModel(done.module, {**base, **self.start.variants, **done.variants}, record)

    def _choose_recipe(self, retrain: str) -> Any:
        recipe = self.bench.recipe
        is_short = self.job.settings.method == "dsp" and retrain == "finetune"
        return replace(recipe, epochs=min(recipe.epochs, FINETUNING_EPOCHS)) if is_short else recipe

    def judge(self, candidate: Candidate, pruned: PrunedModel, programs: Programs) -> Trial:
        """Score the int8 program on validation samples, build and run it."""
        figures = measure_program(self.job, programs.int8_graph)
        score, loss = self._score(programs)
        module = require_pruned(pruned)
        widths = {row["layer"]: row["after"] for row in pruned.record.get("widths", ())}
        trial = Trial(
            candidate=candidate,
            pruned=pruned,
            widths=widths,
            measured=figures,
            score=score,
            loss=loss,
            parameters=sum(parameter.numel() for parameter in module.parameters()),
            trainings=sum(row["title"].endswith(f"({candidate.title})") for row in self.bench.trainings),
            fits=self.fits(figures),
        )
        self.trials.append(trial)
        self.job.progress.note(
            f"--fit: {candidate.title}: validation {self.metric.replace('_', '-')} {100 * score:.2f} %, "
            f"{'fits' if trial.fits else 'does not fit'}"
        )
        return trial

    def choose(self) -> Trial:
        """The best by validation score of those that fit; else the one that misses by the least."""
        fitting = [trial for trial in self.trials if trial.fits]
        if fitting:
            return max(fitting, key=lambda trial: (trial.score, -trial.loss, trial.candidate.kept))
        return min(self.trials, key=lambda trial: self.measure_miss(trial.measured))

    def _score(self, programs: Programs) -> tuple[float, float]:
        samples, labels = self.job.x_validation, self.job.y_validation
        executor = ReferenceExecutor(programs.int8_graph)
        outputs = self.job.cache.reuse_array(
            "outputs",
            {"program": programs.int8_tflite, "executor": "reference", "samples": samples},
            lambda: run_on_floats(executor, arrange_samples(samples, programs.input_shape))[0],
        )
        logits = outputs.reshape(len(outputs), -1)
        scores = score_predictions(labels, logits)
        return (scores.accuracy if self.metric == "accuracy" else scores.macro_f1), cross_entropy(logits, labels)

    def _remember(self, removed: frozenset[int]) -> Figures:
        return self.sizer.predict(removed)

    def _new(self, candidate: Candidate | None) -> Iterator[Candidate]:
        """The candidate, unless there is none or its widths were tried."""
        if candidate is not None and all(candidate.removed != trial.candidate.removed for trial in self.trials):
            yield candidate

    def _retry(self) -> Iterator[Candidate]:
        """Once more, with limits tightened, where the trained network turned out larger than the built one said."""
        for trial in [trial for trial in self.trials if not trial.fits][:RETRIES]:
            candidate = trial.candidate
            tighter = {
                name: limit * min(1.0, float(candidate.predicted[name] or 1) / float(trial.measured[name] or 1))
                for name, limit in candidate.limits.items()
            }
            yield from self._new(self._plan(f"{candidate.title}, once more", BY_COST, tighter, candidate.removed))

    def _plan(
        self, title: str, family: str, limits: Mapping[str, float], begin: frozenset[int] | None = None
    ) -> Candidate | None:
        """Widths within the limits by prediction and by a build before training; None where there are none."""
        inputs = {
            **describe_rig(self.job),
            "program": self.sizer.exported.model,
            "scores": sorted(self.start.scores.items()),
            "groups": [group.units for group in self.start.units.groups],
            "removed": sorted(self.start.removed),
            "family": family,
            "limits": dict(limits),
            "begin": None if begin is None else sorted(begin),
        }

        def make() -> Any:
            with self.job.progress.step(f"fit: widths {title}") as step:
                return self._search(family, limits, begin, step)

        found = self.job.cache.reuse_json("fit-widths", inputs, make)
        self.path += [{"family": family, **point} for point in found["path"]]
        if found["removed"] is None:
            return None
        return Candidate(title, family, frozenset(found["removed"]), limits, found["predicted"], found["kept"])

    def _search(
        self, family: str, limits: Mapping[str, float], begin: frozenset[int] | None, step: Step
    ) -> dict[str, Any]:
        """The plan as plain data."""
        bounds = {name: limit * (1 - VALUE_MARGIN.get(name, 0)) for name, limit in limits.items()}
        factors = dict.fromkeys(limits, 1.0)  # built / predicted, of what was built last
        searches: Mapping[str, Callable[..., list[WidthPoint]]] = {BY_COST: search_widths, UNIFORM: search_uniform}
        search = searches[family]
        path: list[WidthPoint] = []
        best: WidthPoint | None = None

        def cost(removed: frozenset[int]) -> dict[str, float]:
            figures = self._remember(removed)
            ratios = self.hold({name: float(figures[name] or 0) * factors[name] for name in limits}, bounds)
            step.advance(1, worst=max(ratios.values()))
            return ratios

        for _ in range(ROUNDS):
            found = search(self.widths, cost) if begin is None else search_widths(self.widths, cost, begin)
            path += found
            if not found[-1].fits:
                break
            built = self.sizer.measure(found[-1].removed)
            predicted = self._remember(found[-1].removed)
            worst = max(self.hold(built, bounds).values())
            if worst <= 1 and (best is None or found[-1].kept > best.kept):
                best = found[-1]
            moved = {name: float(built[name] or 0) / float(predicted[name] or 1) for name in limits}
            if (1 - SLACK <= worst <= 1) or moved == factors:
                break
            factors, begin = moved, found[-1].removed
        points = [
            {"kept": point.kept, "figures": self._remember(point.removed)}
            for point in {point.removed: point for point in path}.values()
        ]
        if best is None:
            return {"removed": None, "predicted": {}, "kept": 0.0, "path": points}
        return {
            "removed": sorted(best.removed),
            "predicted": self._remember(best.removed),
            "kept": best.kept,
            "path": points,
        }


def begin_fit(job: Job, base: Exported) -> FitSearch:
    """Build and run the model as it is; nothing is trained yet.

    Raises InputError without labels, MeasurementUnavailableError where a figure cannot be had that a limit is set on.
    """
    if not job.is_scored:
        raise InputError(
            "--fit looks for the most accurate model, and this one is no classifier of labelled data: give data with "
            "labels, or name a fixed strength and hold it with --budget"
        )
    search = FitSearch(job, base)
    if search.accuracy_limit is not None:
        note_limit(job, search.accuracy_limit)
    return search


def require_figures(job: Job, limits: Mapping[str, float], figures: Figures, reason: str) -> None:
    """Raise MeasurementUnavailableError for a limit on what this target has no figure of."""
    missing = [name for name in limits if figures[name] is None]
    if missing:
        reasons = {
            "latency": f"{job.target.name} states no clock or has no cycle model; name a board of `edgeprune targets`",
            "cycles": f"there is no cycle model for {job.target.core}; limit instructions instead",
        }
        why = reason or reasons.get(missing[0], "the firmware was not run")
        raise MeasurementUnavailableError(f"--fit {missing[0]}: there is no such figure for {job.target.name}: {why}")


def require_pruned(pruned: PrunedModel) -> fx.GraphModule:
    """The candidate's network."""
    assert pruned.module is not None  # it was made from a PyTorch program
    return pruned.module


def note_limits(search: FitSearch) -> None:
    """Say how far the model is from its limits."""
    ratios = search.hold(search.base, search.limits)
    far = ", ".join(f"{name} {ratio:.2f} x" for name, ratio in ratios.items())
    search.job.progress.note(f"--fit: the model as it is takes of its limits: {far}")


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean over samples; logits (N, classes), labels (N,)."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    picked = shifted[np.arange(len(labels)), labels]
    return float((np.log(np.exp(shifted).sum(axis=1)) - picked).mean())
