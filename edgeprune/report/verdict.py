"""One figure of two reports: better, same, within tolerance, worse, no evidence of change, refused or not compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from edgeprune.errors import MeasurementUnavailableError, RegressionError
from edgeprune.report.budget import METHODS, METRIC_KINDS, format_quantity
from edgeprune.report.mcnemar import AccuracyTest
from edgeprune.report.tolerance import MEASURED, Tolerance, choose_tolerance

Document = Mapping[str, Any]

BETTER, SAME, WITHIN, WORSE = "better", "same", "within tolerance", "worse"
NO_EVIDENCE, REFUSED, NOT_COMPARED = "no evidence of change", "refused", "not compared"
VERDICT_EXIT_CODES = {WORSE: RegressionError.exit_code, REFUSED: MeasurementUnavailableError.exit_code}

# Compared only on demand: what a report alone cannot tell from chance, or what follows from another figure.
_ON_DEMAND = {
    "flops": "it is 2 x macs",
    "macro_f1": "there is no paired test of it; --tolerance macro_f1=1pp compares it all the same",
    "accuracy_drop": "it is relative to each report's own base; accuracy itself is compared",
    "macro_f1_drop": "it is relative to each report's own base; accuracy itself is compared",
}


@dataclass(frozen=True)
class MetricComparison:
    """One figure, before and now. change: value - baseline; tolerance: None where none applies."""

    name: str
    unit: str
    better: str
    baseline: float | None
    value: float | None
    baseline_method: str | None
    method: str | None
    change: float | None
    tolerance: Tolerance | None
    verdict: str
    reason: str = ""
    test: AccuracyTest | None = None

    @property
    def got_worse(self) -> bool:
        """Whether the figure moved the wrong way at all."""
        if not self.change or self.verdict in (REFUSED, NOT_COMPARED):
            return False
        return (self.change > 0) == (self.better == "lower")

    def describe(self) -> str:
        """The comparison in one sentence."""
        text = f"{self.name}: {self.verdict}"
        if self.baseline is not None and self.value is not None:
            before, now = (format_quantity(value, self.unit) for value in (self.baseline, self.value))
            text += f", {before} → {now}" if before != now else f", {now}"
            moved = format_change(self.change, self.baseline, self.unit)
            text += f" ({moved})" if moved else ""
        if self.tolerance is not None and self.verdict in (WITHIN, WORSE):
            text += f", tolerance {self.tolerance.describe()}"
        return f"{text}: {self.reason}" if self.reason else text


def compare_metric(
    name: str,
    document: Document,
    baseline: Document,
    tolerances: Mapping[str, Tolerance],
    test: AccuracyTest | None,
) -> MetricComparison:
    """Judge one figure of two reports. tolerances: those asked for; test: of the two accuracies."""
    now, before = (report["metrics"].get(name, {}) for report in (document, baseline))
    value, reference = now.get("value"), before.get("value")
    method, old_method = now.get("method"), before.get("method")

    def conclude(verdict: str, reason: str = "", tolerance: Tolerance | None = None) -> MetricComparison:
        kind = METRIC_KINDS[name]
        change = None if value is None or reference is None else value - reference
        shown = test if name == "accuracy" else None
        return MetricComparison(
            name,
            kind.unit,
            kind.better,
            reference,
            value,
            old_method,
            method,
            change,
            tolerance,
            verdict,
            reason,
            shown,
        )

    if reference is None and value is None:
        return conclude(NOT_COMPARED, now.get("reason", ""))
    if reference is None or old_method is None:
        return conclude(NOT_COMPARED, f"the baseline has none: {before.get('reason') or 'no such figure'}")
    if value is None or method is None:
        return conclude(REFUSED, f"the baseline has it, this report has none: {now.get('reason') or 'no such figure'}")
    rank, old_rank = METHODS.index(method), METHODS.index(old_method)
    if rank > old_rank:
        return conclude(REFUSED, f"got by {method}, which is weaker than the baseline's {old_method}")
    if rank < old_rank:
        return conclude(NOT_COMPARED, f"got by {method}, the baseline's by {old_method}: a new baseline is due")
    if name in _ON_DEMAND and name not in tolerances:
        return conclude(NOT_COMPARED, _ON_DEMAND[name])
    if name.startswith(("accuracy", "macro_f1")) and document["data"]["class_names"] != baseline["data"]["class_names"]:
        return conclude(REFUSED, "the two reports are of data with different classes")
    tolerance = choose_tolerance(name, method, tolerances)
    if name == "accuracy":
        return _judge_accuracy(conclude, value - reference, tolerance, test)
    worsening = (value - reference) * (1 if METRIC_KINDS[name].better == "lower" else -1)
    if worsening == 0:
        return conclude(SAME, "", tolerance)
    # the rounding of a division must not turn a change of just the tolerance into more than it
    if worsening > tolerance.allow(reference) * (1 + 1e-12):
        return conclude(WORSE, "", tolerance)
    is_time = METRIC_KINDS[name].unit == "microseconds" and method in MEASURED
    if worsening > 0 or (is_time and -worsening <= tolerance.allow(reference)):
        return conclude(WITHIN, "", tolerance)
    return conclude(BETTER, "", tolerance)


def _judge_accuracy(
    conclude: Callable[..., MetricComparison], change: float, tolerance: Tolerance, test: AccuracyTest | None
) -> MetricComparison:
    """Worse only with evidence, and only by more than the tolerance: both, so that neither noise nor a trifle fails."""
    if test is None:
        return conclude(REFUSED, "a report does not say on how many samples", tolerance)
    unmoved = (test.b, test.c) == (0, 0) if test.is_paired else change == 0
    if unmoved:
        verdict = SAME
    elif not test.is_evidence:
        verdict = NO_EVIDENCE
    elif change >= 0:
        verdict = BETTER
    else:
        # accuracies are kept to 1e-6 percentage points
        verdict = WORSE if -change > tolerance.amount + 1e-6 else WITHIN
    return conclude(verdict, test.describe(), tolerance)


def format_change(change: float | None, baseline: float | None, unit: str) -> str:
    """A change for people; '' where nothing moved.

    >>> format_change(-512, 1024, "bytes"), format_change(-0.5, 96.0, "percent")
    ('-512 B, -50.00 %', '-0.50 pp')
    """
    if not change or baseline is None:
        return ""
    unit = "percentage points" if unit == "percent" else unit
    amount = f"{'+' if change > 0 else '-'}{format_quantity(abs(change), unit)}"
    return amount if unit == "percentage points" or not baseline else f"{amount}, {100 * change / baseline:+.2f} %"
