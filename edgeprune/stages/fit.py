"""--fit: the most accurate network within limits on latency, RAM, flash.

Widths are planned by what they cost on this target, without a training (`fit_plan`). The few that remain are trained,
quantized, scored on validation samples, built and run (the loop is in `pipeline`); the best of those that fit is taken.

Candidates: at the limits, by cost; at the limits, the same share of every layer; and by cost at three quarters of the
way from the narrowest network to the limits, which on few validation samples may be as good. One that misses a limit
once it is trained is followed by a narrower one. Where none fits and is accurate enough, wider ones follow, beyond the
limits: they show what would have to give. A model that fits as it is, is not pruned.

Nothing is noted for the case of an interruption: plans, figures and trainings are found by content, so the same command
goes the same way and waits for nothing twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from edgeprune.errors import InputError, MeasurementUnavailableError
from edgeprune.executors import ReferenceExecutor, run_on_floats
from edgeprune.layout import arrange_samples
from edgeprune.metrics import score_predictions
from edgeprune.prune import AccuracyLimit, TrainSettings
from edgeprune.prune.methods.base import describe_pruning
from edgeprune.prune.methods.dsp import FINETUNING_EPOCHS
from edgeprune.prune.methods.structured import finish
from edgeprune.stages.build import Exported, Programs, export_network
from edgeprune.stages.fit_plan import BY_COST, UNIFORM, Candidate, Limits, WidthPlanner, hold
from edgeprune.stages.fit_sizing import Figures, WidthSizer, measure_program
from edgeprune.stages.fit_start import make_start
from edgeprune.stages.prepare import Job
from edgeprune.stages.prune import PrunedModel, make_bench, note_limit

AS_IT_IS, NARROWEST = "as it is", "one channel a layer"
LOWER = 0.75  # of the way from the narrowest network to the limits
# of the way from the limits to the network as it is
BEYOND = ((1 / 3, "a third beyond the limits"), (2 / 3, "two thirds beyond the limits"))
RETRIES = 1  # of candidates that miss a limit, or stay far from all of them, once they are trained
WASTE = 0.9  # of the limits: a candidate planned for them that takes less could be wider


@dataclass(frozen=True, eq=False)
class Trial:
    """A candidate as it came out: trained, quantized, scored on validation samples, built and run.

    score: int8, of the metric asked for. loss: mean cross-entropy of the int8 outputs, which parts equal scores.
    """

    candidate: Candidate
    pruned: PrunedModel
    measured: Figures
    score: float
    loss: float
    fits: bool


class FitSearch:
    """One search: what was tried so far.

    limits: of the budgets by name. base: figures of the model as it is. reference: its score in float32.
    """

    def __init__(self, job: Job, exported: Exported) -> None:
        self.job = job
        self.limits: Limits = {budget.name: budget.limit for budget in job.settings.fit}
        self.bench = make_bench(job)
        self.metric = job.settings.metric
        self.reference = self.bench.score(self.bench.base, self.metric)
        self._base_sizer = WidthSizer(job, self.bench.base, exported)
        self.base, reason = self._base_sizer.measure_whole()
        require_figures(job, self.limits, self.base, reason)
        self.trials: list[Trial] = []

    @property
    def accuracy_limit(self) -> AccuracyLimit | None:
        """What --accuracy-drop allows, if it was given."""
        return self.bench.limit

    @cached_property
    def planner(self) -> WidthPlanner:
        """Plans from what the method starts with: it is trained here, if it has a training of its own."""
        start = make_start(self.job.settings.method, self.job.settings.fit_options, self.bench)
        if start.module is self.bench.base:
            return WidthPlanner(self.job, start, self._base_sizer)
        sizer = WidthSizer(self.job, start.module, export_network(self.job, start.module))
        return WidthPlanner(self.job, start, sizer)

    @cached_property
    def narrowest(self) -> Candidate:
        """What nothing is narrower than."""
        return self.planner.plan_narrowest(NARROWEST, self.limits)

    def measure_miss(self, figures: Figures) -> float:
        """The largest figure / limit; at most 1 where all limits are kept."""
        return max(hold(figures, self.limits).values())

    def allows(self, trial: Trial) -> bool:
        """Whether it fits and is as accurate as was asked for."""
        return trial.fits and (self.accuracy_limit is None or self.accuracy_limit.allows(trial.score))

    def propose(self) -> Iterator[Candidate]:
        """What to train next; each is planned when it is asked for, by what became of those before it."""
        if self.measure_miss(self.base) <= 1:
            yield Candidate(AS_IT_IS, frozenset(), self.limits, self.base, self.base, 1.0)
            return
        far = ", ".join(f"{name} {ratio:.2f} x" for name, ratio in hold(self.base, self.limits).items())
        self.job.progress.note(f"--fit: the model as it is takes {far} of what is allowed")
        floor = self.narrowest.predicted
        if self.measure_miss(floor) <= 1:
            at_limits = self.planner.plan(BY_COST, BY_COST, self.limits)
            yield from self._skip_known(at_limits)
            yield from self._skip_known(self.planner.plan(UNIFORM, UNIFORM, self.limits))
            lower = self._interpolate(floor, self.limits, LOWER)
            begin = None if at_limits is None else at_limits.removed
            title = f"{BY_COST}, {LOWER:.0%} of the limits"
            yield from self._skip_known(self.planner.plan(title, BY_COST, lower, begin))
            yield from self._retry()
        else:
            yield self.narrowest
        if not any(self.allows(trial) for trial in self.trials):
            reachable = {name: max(limit, floor[name] or 0.0) for name, limit in self.limits.items()}
            for share, where in BEYOND:
                wider = self._interpolate(reachable, self.base, share)
                yield from self._skip_known(self.planner.plan(f"{BY_COST}, {where}", BY_COST, wider))

    def _interpolate(self, low: Figures, high: Figures, share: float) -> Limits:
        """Limits on the way from low to high; those of which high is below low stay at low."""
        ends = {name: (low[name] or 0.0, high[name] or 0.0) for name in self.limits}
        return {name: start + share * max(0.0, end - start) for name, (start, end) in ends.items()}

    def _skip_known(self, candidate: Candidate | None) -> Iterator[Candidate]:
        """The candidate, unless there is none or its widths were tried."""
        if candidate is not None and all(candidate.removed != trial.candidate.removed for trial in self.trials):
            yield candidate

    def _retry(self) -> Iterator[Candidate]:
        """Limits moved by what the trained network takes more, or less, than the one that was built before.

        Both happen: the ranges of a layer's activations decide whether it can have the quick kernel.
        """
        for trial in [trial for trial in self.trials if not trial.fits or self._is_wasteful(trial)][:RETRIES]:
            candidate = trial.candidate
            moved = {
                name: limit * (candidate.built[name] or 0.0) / (trial.measured[name] or 1.0)
                for name, limit in candidate.limits.items()
            }
            plan = self.planner.plan(f"{candidate.title}, once more", BY_COST, moved, candidate.removed)
            yield from self._skip_known(plan)

    def _is_wasteful(self, trial: Trial) -> bool:
        return trial.candidate.title == BY_COST and self.measure_miss(trial.measured) < WASTE

    def prune(self, candidate: Candidate) -> PrunedModel:
        """Take the candidate's channels out and retrain with the method's recipe."""
        settings = self.job.settings
        base = {"base": ("Base", self.bench.base)}
        record: dict[str, Any] = {
            "method": settings.method,
            "retrain": settings.retrain,
            "options": settings.fit_options,
        }
        if candidate.title == AS_IT_IS:
            return PrunedModel(self.bench.base, base, record)
        start = self.planner.start
        retrain = "scratch" if settings.retrain == "both" else str(settings.retrain)
        bench = replace(self.bench, base=start.module, recipe=self._choose_recipe(retrain))
        result = bench.prune(start.module, candidate.removed)
        before = len(bench.trainings)
        done = finish(bench, result.module, result.removed, retrain, describe_pruning(result))
        for row in bench.trainings[before:]:
            row["title"] += name_suffix(candidate)
        record |= {**start.record, **done.record, "trainings": bench.trainings}
        return PrunedModel(done.module, {**base, **start.variants, **done.variants}, record)

    def _choose_recipe(self, retrain: str) -> TrainSettings:
        recipe = self.bench.recipe
        is_short = self.job.settings.method == "dsp" and retrain == "finetune"
        return replace(recipe, epochs=min(recipe.epochs, FINETUNING_EPOCHS)) if is_short else recipe

    def judge(self, candidate: Candidate, pruned: PrunedModel, programs: Programs) -> None:
        """Score the int8 program on validation samples, build and run it, and note the trial."""
        measured = measure_program(self.job, programs.int8_graph)
        score, loss = self._score(programs)
        fits = self.measure_miss(measured) <= 1
        self.trials.append(Trial(candidate, pruned, measured, score, loss, fits))
        name = self.metric.replace("_", "-")
        self.job.progress.note(
            f"--fit, {candidate.title}: validation {name} {100 * score:.2f} %, {'fits' if fits else 'does not fit'}"
        )

    def _score(self, programs: Programs) -> tuple[float, float]:
        samples, labels = self.job.x_validation, self.job.y_validation
        executor = ReferenceExecutor(programs.int8_graph)  # the arithmetic of the firmware
        outputs = self.job.cache.reuse_array(
            "fit-outputs",
            {"program": programs.int8_tflite, "samples": samples},
            lambda: run_on_floats(executor, arrange_samples(samples, programs.input_shape))[0],
        )
        logits = outputs.reshape(len(outputs), -1)
        scores = score_predictions(labels, logits)
        return (scores.accuracy if self.metric == "accuracy" else scores.macro_f1), cross_entropy(logits, labels)

    def choose(self) -> Trial:
        """The best by validation score of those that fit; else the one that misses by the least."""
        fitting = [trial for trial in self.trials if trial.fits]
        if fitting:
            return max(fitting, key=lambda trial: (trial.score, -trial.loss, trial.candidate.kept))
        return min(self.trials, key=lambda trial: self.measure_miss(trial.measured))


def begin_fit(job: Job, base: Exported) -> FitSearch:
    """Build and run the model as it is; nothing is trained yet.

    Raises InputError without labels, MeasurementUnavailableError where a figure cannot be had that a limit is set on.
    """
    if not job.is_scored:
        raise InputError(
            "--fit looks for the most accurate model, and this one is no classifier of labelled data: give data with "
            "labels, or a fixed strength that --budget is held against"
        )
    search = FitSearch(job, base)
    if search.accuracy_limit is not None:
        note_limit(job, search.accuracy_limit)
    return search


def require_figures(job: Job, limits: Limits, figures: Figures, reason: str) -> None:
    """Raise MeasurementUnavailableError for a limit on what this target has no figure of."""
    missing = next((name for name in limits if figures[name] is None), None)
    if missing is None:
        return
    if reason:
        why = reason
    elif figures["cycles"] is None:
        why = f"there is no cycle model for {job.target.core}; limit instructions instead"
    else:
        why = "it states no clock; name a board of `edgeprune targets`, or a .toml with clock_hz"
    raise MeasurementUnavailableError(f"--fit {missing}: there is no such figure for {job.target.name}: {why}")


def name_suffix(candidate: Candidate) -> str:
    """What sets the trainings of a candidate apart."""
    return f" ({candidate.title})"


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean over samples; logits (N, classes), labels (N,)."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    picked = shifted[np.arange(len(labels)), labels]
    return float((np.log(np.exp(shifted).sum(axis=1)) - picked).mean())
