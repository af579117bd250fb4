"""The section `fit` of the report: what was asked, what was tried, what came of it."""

from __future__ import annotations

from typing import Any

from edgeprune.report.budget import METRIC_KINDS, format_quantity
from edgeprune.stages.fit import AS_IT_IS, NARROWEST, FitSearch, Trial, name_suffix
from edgeprune.stages.fit_plan import hold

FITS, AS_GIVEN, OVER, INACCURATE = "fits", "fits as it is", "does not fit", "fits, not accurate enough"


def describe_fit(search: FitSearch) -> dict[str, Any]:
    """All of the search as plain data; `missed`: a sentence where the command must not end well."""
    chosen, limit = search.choose(), search.accuracy_limit
    return {
        "budgets": [
            {"name": name, "limit": value, "unit": METRIC_KINDS[name].unit} for name, value in search.limits.items()
        ],
        "metric": search.metric,
        "reference": search.reference,
        "drop": None if limit is None else limit.drop,
        "base": {
            "measured": dict(search.base),
            "validation_metric": search.reference,
            "parameters": sum(parameter.numel() for parameter in search.bench.base.parameters()),
            "fits": search.measure_miss(search.base) <= 1,
        },
        "candidates": [_describe(search, trial, trial is chosen) for trial in search.trials],
        "path": [] if chosen.candidate.title == AS_IT_IS else search.planner.path,
        "trainings": len(search.bench.trainings),
        "outcome": name_outcome(search, chosen),
        "missed": explain_miss(search, chosen),
    }


def _describe(search: FitSearch, trial: Trial, is_chosen: bool) -> dict[str, Any]:
    candidate, module = trial.candidate, trial.pruned.module
    assert module is not None  # it was made from a PyTorch program
    return {
        "title": candidate.title,
        "limits": dict(candidate.limits),
        "widths": {row["layer"]: row["after"] for row in trial.pruned.record.get("widths", ())},
        "kept": candidate.kept,
        "predicted": dict(candidate.predicted),
        "built": dict(candidate.built),
        "measured": dict(trial.measured),
        "validation_metric": trial.score,
        "validation_loss": trial.loss,
        "parameters": sum(parameter.numel() for parameter in module.parameters()),
        "trainings": sum(row["title"].endswith(name_suffix(candidate)) for row in search.bench.trainings),
        "fits": trial.fits,
        "within_drop": search.accuracy_limit is None or search.accuracy_limit.allows(trial.score),
        "chosen": is_chosen,
    }


def name_outcome(search: FitSearch, chosen: Trial) -> str:
    """In two or three words."""
    if not chosen.fits:
        return OVER
    if not search.allows(chosen):
        return INACCURATE
    return AS_GIVEN if chosen.candidate.title == AS_IT_IS else FITS


def explain_miss(search: FitSearch, chosen: Trial) -> str:
    """The nearest miss, and what would have to give; empty where the search ended well."""
    if search.allows(chosen):
        return ""
    metric = search.metric.replace("_", "-")
    limit = search.accuracy_limit
    if not chosen.fits:
        ratios = hold(chosen.measured, search.limits)
        name = max(ratios, key=lambda key: ratios[key])
        figure, allowed = (_format(name, value) for value in (chosen.measured[name] or 0.0, search.limits[name]))
        sentence = f"--fit {name}: the nearest miss takes {figure}, {allowed} are allowed ({ratios[name]:.2f} x)"
        narrowest = next((trial for trial in search.trials if trial.candidate.title == NARROWEST), None)
        if narrowest is not None:
            floors = [key for key, ratio in hold(narrowest.measured, search.limits).items() if ratio > 1]
            figures = ", ".join(f"{key} {_format(key, narrowest.measured[key] or 0.0)}" for key in floors)
            sentence += f"; with one channel in every layer it still takes {figures}"
        return sentence
    assert limit is not None  # without one, whatever fits is allowed
    sentence = (
        f"--accuracy-drop: of what fits, the best has a validation {metric} of {100 * chosen.score:.2f} %, "
        f"{100 * (limit.reference - chosen.score):.2f} pp below the base; {100 * limit.drop:g} pp are allowed"
    )
    enough = [trial for trial in search.trials if limit.allows(trial.score)]
    if not enough:
        return sentence
    nearest = min(enough, key=lambda trial: search.measure_miss(trial.measured))
    figures = ", ".join(f"{name}={_format(name, nearest.measured[name] or 0.0)}" for name in search.limits)
    return f"{sentence}; accurate enough ({100 * nearest.score:.2f} %) is one with {figures}"


def _format(name: str, value: float) -> str:
    return format_quantity(value, METRIC_KINDS[name].unit)
