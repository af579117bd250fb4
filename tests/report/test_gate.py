"""The gate: every verdict, every exit code, and which of several wins."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.errors import InputError
from edgeprune.report import METRIC_KINDS, load_schema, parse_budgets
from edgeprune.report.gate import add_baseline, compare_with_baseline, describe_gate, hold_report
from edgeprune.report.tolerance import parse_tolerances
from edgeprune.report.verdict import MetricComparison
from tests.report.gate_sample import FIGURES, make_report


def compare(name: str, now: dict[str, Any], before: dict[str, Any], tolerance: str = "") -> MetricComparison:
    result = compare_with_baseline(now, before, parse_tolerances(tolerance))
    return next(metric for metric in result.metrics if metric.name == name)


@pytest.mark.parametrize(
    ("name", "now", "tolerance", "verdict"),
    [
        ("flash", 12_000, "", "same"),
        ("flash", 12_001, "", "worse"),  # exact figures have no tolerance of their own
        ("flash", 11_999, "", "better"),
        ("flash", 12_120, "flash=1%", "within tolerance"),  # 1 % of 12,000 is 120
        ("flash", 12_121, "flash=1%", "worse"),
        ("flash", 12_512, "flash=512", "within tolerance"),
        ("flash", 13_024, "flash=1K", "within tolerance"),
        ("flash", 13_025, "flash=1K", "worse"),
        ("instructions", 10_100, "instructions=1%", "within tolerance"),
        ("instructions", 10_101, "instructions=1%", "worse"),
        ("instructions", 9950, "instructions=1%", "better"),  # a count is exact: less is better, however little
        ("instructions", 10_050, "flash=1%", "worse"),  # another figure's tolerance
        ("latency", 1000.5, "", "worse"),  # modelled: exact
        ("latency", 1100, "latency=0.1ms", "within tolerance"),
        ("macro_f1", 73.4, "", "not compared"),
        ("macro_f1", 73.5, "macro_f1=0.5pp", "within tolerance"),
        ("macro_f1", 73.4, "macro_f1=0.5pp", "worse"),
        ("macro_f1", 75.0, "macro_f1=0.5pp", "better"),
        ("accuracy_drop", 9.0, "", "not compared"),
        ("accuracy_drop", 1.1, "accuracy_drop=0.5pp", "worse"),
        ("flops", 9999, "", "not compared"),
    ],
)
def test_a_figure_is_judged_against_the_baseline(name: str, now: float, tolerance: str, verdict: str) -> None:
    metric = compare(name, make_report({name: now}), make_report(), tolerance)
    assert metric.verdict == verdict, metric
    assert metric.change == pytest.approx(now - FIGURES[name][0])  # of floats
    assert (metric.verdict == "not compared") == bool(metric.reason)


@pytest.mark.parametrize("method", ["host", "device"])
@pytest.mark.parametrize(
    ("now", "verdict"),
    [(1100.0, "within tolerance"), (1100.1, "worse"), (900.0, "within tolerance"), (899.9, "better")],
)
def test_a_measured_time_has_a_tolerance_both_ways(method: str, now: float, verdict: str) -> None:
    methods = {"latency": method}
    assert compare("latency", make_report({"latency": now}, methods), make_report({}, methods)).verdict == verdict


METHODS = ("device", "emulated_instructions", "modelled_cycles", "host", "static")


@pytest.mark.parametrize("now", METHODS)
@pytest.mark.parametrize("before", METHODS)
def test_a_weaker_method_is_refused(now: str, before: str) -> None:
    report, baseline = make_report(methods={"latency": now}), make_report(methods={"latency": before})
    result = hold_report(report, (), baseline)
    metric = next(metric for metric in result.metrics if metric.name == "latency")
    rank = METHODS.index(now) - METHODS.index(before)
    assert metric.verdict == ("refused" if rank > 0 else "not compared" if rank < 0 else "same")
    assert result.exit_code == (6 if rank > 0 else 0)
    if rank > 0:
        assert f"got by {now}, which is weaker than the baseline's {before}" in result.outcome
    elif rank < 0:
        assert "a new baseline is due" in metric.reason


def test_a_figure_that_only_the_baseline_has_is_refused() -> None:
    result = hold_report(make_report({"ram": None}), (), make_report())
    assert result.exit_code == 6
    assert "ram: refused: the baseline has it, this report has none: no emulator" in result.outcome


def test_a_figure_that_the_report_does_not_even_name_is_refused() -> None:
    report = make_report()
    del report["metrics"]["ram"]
    assert hold_report(report, (), make_report()).exit_code == 6


@pytest.mark.parametrize("is_named", [True, False])
def test_a_figure_that_the_baseline_lacks_is_new(is_named: bool) -> None:
    baseline = make_report({"ram": None})
    if not is_named:
        del baseline["metrics"]["ram"]
    result = hold_report(make_report(), (), baseline)
    assert result.exit_code == 0
    assert "the baseline has none" in next(metric.reason for metric in result.metrics if metric.name == "ram")


def test_a_baseline_for_another_target_is_an_error() -> None:
    with pytest.raises(InputError, match="the report is for cortex-m4, the baseline for cortex-m7"):
        compare_with_baseline(make_report(), make_report(target={"name": "cortex-m7"}))


def test_a_baseline_of_a_cost_of_zero_has_no_percentage() -> None:
    metric = compare("parameters", make_report({"parameters": 5}), make_report({"parameters": 0}), "parameters=1%")
    assert metric.verdict == "worse"
    assert metric.describe() == "parameters: worse, 0 → 5 (+5), tolerance 1 %"


@pytest.mark.parametrize(
    ("changes", "budgets", "failed", "exit_code"),
    [
        ({}, "flash=1M", False, 0),
        ({"flash": 12_001}, "flash=1M", False, 4),
        ({}, "flash=11K", False, 3),
        ({"flash": 12_001}, "ram=1K", False, 4),  # 4 before 3
        ({"ram": None}, "ram=1K", False, 6),  # 6 before 3
        ({"ram": None, "flash": 12_001}, "macs=1", False, 6),  # 6 before 4 before 3
        ({"ram": None, "flash": 12_001}, "macs=1", True, 1),  # 1 before all
    ],
)
def test_the_first_of_1_6_4_3_is_the_exit_code(
    changes: dict[str, float | None], budgets: str, failed: bool, exit_code: int
) -> None:
    report = make_report(changes)
    if failed:
        report["parity"]["checks"][0]["passed"] = report["parity"]["passed"] = False
    result = hold_report(report, parse_budgets(budgets), make_report())
    assert result.exit_code == exit_code
    assert result.outcome.startswith("Passed") == (exit_code == 0)


def test_a_report_that_ended_with_a_parity_failure_never_passes() -> None:
    report = make_report(exit_code=1, outcome="Parity failed: firmware")
    assert hold_report(report, parse_budgets("flash=1M")).exit_code == 1


def test_budgets_of_the_compile_hold_until_they_are_replaced() -> None:
    recorded = {"name": "flash", "limit": 1024.0, "value": 12_000, "unit": "bytes", "state": "missed", "message": ""}
    report = make_report(budgets=[recorded])
    assert hold_report(report).exit_code == 3
    assert hold_report(report, parse_budgets("ram=1M")).exit_code == 3
    assert hold_report(report, parse_budgets("flash=1M")).exit_code == 0


@pytest.mark.parametrize("exit_code", [3, 4, 6])
def test_a_compile_that_failed_for_another_reason_fails_the_gate(exit_code: int) -> None:
    report = make_report(exit_code=exit_code, outcome="Nothing fits")
    result = hold_report(report, parse_budgets("flash=1M"))
    assert result.exit_code == exit_code
    assert result.outcome == f"The compile itself ended with exit code {exit_code}: Nothing fits"


@pytest.mark.parametrize(("with_baseline", "exit_code"), [(True, 0), (False, 4)])
def test_an_earlier_regression_stands_until_another_baseline_is_given(with_baseline: bool, exit_code: int) -> None:
    report = make_report({"flash": 12_001})
    report = add_baseline(report, compare_with_baseline(report, make_report()))
    released = make_report({"flash": 12_500})
    assert hold_report(report, parse_budgets("ram=1M"), released if with_baseline else None).exit_code == exit_code


def test_a_budget_on_a_missing_figure_is_unavailable() -> None:
    report = make_report()
    del report["metrics"]["cycles"]
    result = hold_report(report, parse_budgets("cycles=1M"))
    assert result.exit_code == 6
    assert "the report has no such figure" in result.outcome


def test_a_gate_that_would_check_nothing_is_an_error() -> None:
    with pytest.raises(InputError, match="nothing to hold the report against"):
        hold_report(make_report())
    with pytest.raises(InputError, match="--tolerance is for comparisons"):
        hold_report(make_report(), parse_budgets("flash=1M"), None, parse_tolerances("flash=1%"))


def test_a_better_model_passes() -> None:
    result = hold_report(make_report({"flash": 9000, "ram": 1000, "latency": 500}), (), make_report())
    assert result.exit_code == 0
    assert result.outcome == "Passed against the baseline: 3 better, 7 same"


@given(
    changes=st.dictionaries(
        st.sampled_from([name for name in FIGURES if name != "accuracy"]), st.none() | st.floats(0, 1e12)
    ),
    methods=st.dictionaries(st.sampled_from(sorted(FIGURES)), st.sampled_from(METHODS)),
    tolerated=st.sets(st.sampled_from(sorted(METRIC_KINDS))),
)
def test_a_report_is_the_same_as_itself(
    changes: dict[str, float | None], methods: dict[str, str], tolerated: set[str]
) -> None:
    report = make_report(changes, methods)
    report = json.loads(json.dumps(report))
    tolerances = parse_tolerances(
        ",".join(f"{name}={'1pp' if METRIC_KINDS[name].unit.startswith('percent') else '1%'}" for name in tolerated)
    )
    result = hold_report(report, (), report, tolerances)
    assert result.exit_code == 0
    assert {metric.verdict for metric in result.metrics} <= {"same", "not compared"}
    assert result.layers == ()
    assert result.differences == ()


def test_what_the_gate_found_is_part_of_the_report() -> None:
    report, baseline = make_report({"flash": 12_001}), make_report()
    result = compare_with_baseline(report, baseline)
    document = add_baseline(report, result)
    jsonschema.validate(document, load_schema())
    assert document["exit_code"] == 4
    assert document["outcome"].startswith("ok. Worse than the baseline: flash 12,000 B → 12,001 B")
    assert document["baseline"] == json.loads(json.dumps(describe_gate(result)))
    assert report["baseline"] == {}  # the document given stays as it was


def test_a_report_with_a_parity_failure_keeps_its_exit_code_beside_a_regression() -> None:
    result = compare_with_baseline(make_report({"flash": 12_001}), make_report())
    assert add_baseline(make_report(exit_code=1), result)["exit_code"] == 1
    assert add_baseline(make_report(exit_code=3), result)["exit_code"] == 4


def test_a_baseline_that_failed_or_is_of_another_model_is_noted() -> None:
    result = compare_with_baseline(make_report(), make_report(exit_code=1, model={"name": "other"}))
    assert len(result.notes) == 2
    assert "failed its parity checks" in result.notes[0]
    assert "other, now model" in result.notes[1]
