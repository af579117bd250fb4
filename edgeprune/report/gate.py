"""The gate: is this report good enough to ship? Budgets, parity, and every figure against an earlier report's.

    compare_with_baseline   figure by figure: better, same, within tolerance, worse, no evidence of change, refused
    hold_report             the same with budgets and parity: what `edgeprune gate` answers
    describe_gate           the result as plain data: `--json`, and the section `baseline` of report.json

Exit codes (by `errors.combine_exit_codes`): 1 parity failed; 6 a figure that the baseline has is missing, or was got by
a weaker method; 4 worse than the baseline; 3 over budget; 0 otherwise.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeprune.errors import (
    BudgetMissedError,
    InputError,
    MeasurementUnavailableError,
    ParityError,
    combine_exit_codes,
)
from edgeprune.report.budget import (
    METRIC_KINDS,
    Budget,
    BudgetResult,
    Metric,
    check_budgets,
    exit_code_of,
    format_quantity,
)
from edgeprune.report.compare import Difference, LayerChanges, list_differences, trace_change
from edgeprune.report.mcnemar import compare_accuracies
from edgeprune.report.tolerance import Tolerance
from edgeprune.report.verdict import (
    BETTER,
    NO_EVIDENCE,
    REFUSED,
    SAME,
    VERDICT_EXIT_CODES,
    WITHIN,
    WORSE,
    MetricComparison,
    compare_metric,
)

Document = Mapping[str, Any]


@dataclass(frozen=True)
class GateResult:
    """What the gate found. layers: for each figure that got worse, where; differences: what was done differently."""

    model: str
    target: str
    baseline: Mapping[str, Any]
    metrics: tuple[MetricComparison, ...]
    layers: tuple[LayerChanges, ...]
    differences: tuple[Difference, ...]
    budgets: tuple[BudgetResult, ...]
    failed_parity: tuple[str, ...]
    checked_parity: tuple[str, ...]
    notes: tuple[str, ...]
    exit_code: int
    outcome: str


def compare_with_baseline(
    document: Document, baseline: Document, tolerances: Mapping[str, Tolerance] | None = None
) -> GateResult:
    """Compare a report with an earlier one, figure by figure; budgets and parity are left out.

    document, baseline: as `document.read_report` gives them, or `record.to_json`. tolerances: by `parse_tolerances`.
    Raises InputError where the two are of different targets: no figure of theirs could be compared.
    """
    return _finish(document, (), _compare(document, baseline, tolerances or {}), with_parity=False)


def hold_report(
    document: Document,
    budgets: Sequence[Budget] = (),
    baseline: Document | None = None,
    tolerances: Mapping[str, Tolerance] | None = None,
) -> GateResult:
    """Hold a report against budgets, its own parity checks and, if there is one, a baseline.

    The budgets that the report was compiled with hold too; one of the same name in `budgets` replaces it. A compile
    that failed for another reason than its budgets, or a baseline that is replaced here, fails the gate as well.
    Raises InputError where there is nothing to hold the report against, and as `compare_with_baseline` does.
    """
    recorded = {item["name"]: Budget(item["name"], item["limit"]) for item in document["budgets"]}
    merged = {**recorded, **{budget.name: budget for budget in budgets}}
    if not merged and baseline is None:
        raise InputError("there is nothing to hold the report against: give --budget, or --baseline, or both")
    if baseline is None and tolerances:
        raise InputError("--tolerance is for comparisons with a baseline; give --baseline, or leave it out")
    metrics = {
        name: Metric(name, item["value"], item["method"], item["reason"]) for name, item in document["metrics"].items()
    }
    missing = {name: Metric(name, None, None, "the report has no such figure") for name in merged}
    checked = check_budgets(tuple(merged.values()), {**missing, **metrics})
    compared = None if baseline is None else _compare(document, baseline, tolerances or {})
    result = _finish(document, checked, compared, with_parity=True)
    if _is_left_unsaid(document, result, has_baseline=baseline is not None):
        code = combine_exit_codes([result.exit_code, document["exit_code"]])
        outcome = f"The compile itself ended with exit code {document['exit_code']}: {document['outcome']}"
        return dataclasses.replace(result, exit_code=code, outcome=outcome)
    return result


def _is_left_unsaid(document: Document, result: GateResult, *, has_baseline: bool) -> bool:
    """Whether the report's own exit code stands for something that this gate has not judged anew."""
    code = document["exit_code"]
    if code in (0, ParityError.exit_code, result.exit_code):
        return False
    states = {item["state"] for item in document["budgets"]}
    failures = {"unavailable": MeasurementUnavailableError.exit_code, "missed": BudgetMissedError.exit_code}
    by_budgets = combine_exit_codes(failures.get(state, 0) for state in states) == code
    by_baseline = has_baseline and document.get("baseline", {}).get("exit_code") == code
    return not (by_budgets or by_baseline)


def add_baseline(document: Document, result: GateResult) -> dict[str, Any]:
    """The report with the comparison in it: its section `baseline`, the exit code of both, the outcome of both."""
    code = combine_exit_codes([document["exit_code"], result.exit_code])
    outcome = f"{document['outcome'].rstrip('.')}. {result.outcome}"
    return {**document, "baseline": describe_gate(result), "exit_code": code, "outcome": outcome}


def describe_gate(result: GateResult) -> dict[str, Any]:
    """The result as plain data, for `--json` and for report.json (`$defs/baseline` of schema.json)."""
    described = dataclasses.asdict(result)
    del described["failed_parity"], described["checked_parity"]
    described["parity"] = {"checked": list(result.checked_parity), "failed": list(result.failed_parity)}
    described["metrics"] = [_describe_metric(metric) for metric in result.metrics]
    described["layers"] = [describe_layer_changes(changes) for changes in result.layers]
    return {**described, **{name: list(described[name]) for name in ("differences", "budgets", "notes")}}


def describe_worst_layers(result: GateResult, metric: str, count: int = 5) -> list[str]:
    """The layers that a figure got worse in, a line each, largest increase first; [] where there are none.

    'wide (conv_2d): 2,056 → 3,512 instructions, +1,456, kernel A → B'
    """
    changes = next((changes for changes in result.layers if changes.metric == metric), None)
    if changes is None:
        return []
    counted = changes.of.replace("_", " ")
    lines = []
    for layer in [layer for layer in changes.layers if layer.change > 0][:count]:
        moved = f"{layer.before or 0:,} → {layer.now or 0:,} {counted}, {layer.change:+,}"
        lines.append(f"{layer.layer} ({layer.kind}): {moved}" + (f", {layer.remark}" if layer.remark else ""))
    return lines


def describe_layer_changes(changes: LayerChanges) -> dict[str, Any]:
    """Where a figure moved, as plain data."""
    layers = [{**dataclasses.asdict(layer), "change": layer.change, "remark": layer.remark} for layer in changes.layers]
    parts = [dataclasses.asdict(part) for part in changes.parts]
    return {**dataclasses.asdict(changes), "layers": layers, "parts": parts}


def _describe_metric(metric: MetricComparison) -> dict[str, Any]:
    described = dataclasses.asdict(metric)
    described["tolerance"] = None if metric.tolerance is None else metric.tolerance.describe()
    described["message"] = metric.describe()
    return described


@dataclass(frozen=True)
class _Compared:
    baseline: Mapping[str, Any]
    metrics: tuple[MetricComparison, ...]
    layers: tuple[LayerChanges, ...]
    differences: tuple[Difference, ...]
    notes: tuple[str, ...]


def _compare(document: Document, baseline: Document, tolerances: Mapping[str, Tolerance]) -> _Compared:
    new, old = document["target"]["name"], baseline["target"]["name"]
    if new != old:
        raise InputError(
            f"the report is for {new}, the baseline for {old}: their figures cannot be compared. Name a baseline for "
            f"{new}; `edgeprune diff` shows two targets side by side."
        )
    test = compare_accuracies(document, baseline)
    metrics = tuple(
        compare_metric(name, document, baseline, tolerances, test)
        for name in METRIC_KINDS
        if name in document["metrics"] or name in baseline["metrics"]
    )
    traced = (trace_change(metric.name, document, baseline) for metric in metrics if metric.got_worse)
    notes = []
    if baseline["exit_code"] == ParityError.exit_code:
        notes.append("the baseline itself failed its parity checks: take the report of a release as the baseline")
    if document["model"]["name"] != baseline["model"]["name"]:
        notes.append(f"the baseline is of another model: {baseline['model']['name']}, now {document['model']['name']}")
    told = {
        "model": baseline["model"]["name"],
        "model_sha256": baseline["model"]["sha256"],
        "edgeprune_version": baseline["edgeprune_version"],
        "outcome": baseline["outcome"],
    }
    layers = tuple(changes for changes in traced if changes is not None and (changes.layers or changes.parts))
    return _Compared(told, metrics, layers, list_differences(document, baseline), tuple(notes))


def _finish(
    document: Document, budgets: tuple[BudgetResult, ...], compared: _Compared | None, *, with_parity: bool
) -> GateResult:
    checks = document["parity"].get("checks", ()) if with_parity else ()
    failed = _list_failed_parity(document) if with_parity else ()
    metrics = () if compared is None else compared.metrics
    codes = [ParityError.exit_code if failed else 0, exit_code_of(budgets)]
    codes += [VERDICT_EXIT_CODES.get(metric.verdict, 0) for metric in metrics]
    return GateResult(
        model=document["model"]["name"],
        target=document["target"]["name"],
        baseline={} if compared is None else compared.baseline,
        metrics=metrics,
        layers=() if compared is None else compared.layers,
        differences=() if compared is None else compared.differences,
        budgets=budgets,
        failed_parity=failed,
        checked_parity=tuple(check["name"] for check in checks),
        notes=() if compared is None else compared.notes,
        exit_code=combine_exit_codes(codes),
        outcome=_say_outcome(metrics, () if compared is None else compared.layers, budgets, failed),
    )


def _list_failed_parity(document: Document) -> tuple[str, ...]:
    """Names of the checks that failed; a report that says so without naming one is believed."""
    failed = tuple(check["name"] for check in document["parity"].get("checks", ()) if not check["passed"])
    if not failed and (not document["parity"].get("passed", True) or document["exit_code"] == ParityError.exit_code):
        return (document["outcome"],)
    return failed


def _say_outcome(
    metrics: Sequence[MetricComparison],
    layers: Sequence[LayerChanges],
    budgets: Sequence[BudgetResult],
    failed_parity: Sequence[str],
) -> str:
    """The result in one sentence, worst first."""
    refused = [metric.describe() for metric in metrics if metric.verdict == REFUSED]
    unavailable = [result.message for result in budgets if result.state == "unavailable"]
    worse = [_say_worse(metric, layers) for metric in metrics if metric.verdict == WORSE]
    missed = [result.message for result in budgets if result.state == "missed"]
    parts = []
    for title, items in (
        ("parity failed", list(failed_parity)),
        ("cannot be judged", [*refused, *unavailable]),
        ("worse than the baseline", worse),
        ("over budget", missed),
    ):
        if items:
            parts.append(f"{title}: {'; '.join(items)}")
    if parts:
        return ". ".join(part[0].upper() + part[1:] for part in parts)
    counted = {verdict: sum(metric.verdict == verdict for metric in metrics) for verdict in (BETTER, SAME, WITHIN)}
    unproven = sum(metric.verdict == NO_EVIDENCE for metric in metrics)
    told = [f"{count} {verdict}" for verdict, count in counted.items() if count]
    told += [f"{unproven} without evidence of change"] if unproven else []
    told += [f"{len(budgets)} budget{'s' if len(budgets) != 1 else ''} met"] if budgets else []
    where = " against the baseline" if metrics else ""
    return f"Passed{where}: {', '.join(told) or 'no figure could be compared'}"


def _say_worse(metric: MetricComparison, layers: Sequence[LayerChanges]) -> str:
    """'instructions 8,347 → 11,202 (see layer wide)'"""
    assert metric.baseline is not None and metric.value is not None  # noqa: PT018  it has been compared
    before, now = (format_quantity(value, metric.unit) for value in (metric.baseline, metric.value))
    grown = [
        layer.layer
        for changes in layers
        if changes.metric == metric.name
        for layer in changes.layers
        if layer.change > 0
    ]
    return f"{metric.name} {before} → {now}" + (f" (see layer {grown[0]})" if grown else "")
