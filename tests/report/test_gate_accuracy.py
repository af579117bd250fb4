"""Accuracy against the baseline: McNemar's test by hand, and what no test can tell."""

from __future__ import annotations

from math import comb
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.report.gate import compare_with_baseline, hold_report
from edgeprune.report.mcnemar import (
    ALPHA,
    LEAST_DIFFERING,
    AccuracyTest,
    compare_paired,
    compare_unpaired,
    pack_correct,
    unpack_correct,
)
from edgeprune.report.tolerance import parse_tolerances
from edgeprune.report.verdict import MetricComparison
from tests.report.gate_sample import make_report

OTHER = "fedcba9876543210" * 4


def make_answers(b: int, c: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """(before, now) of n samples: b newly wrong, c newly right, the others right both times."""
    before, now = np.ones(n, bool), np.ones(n, bool)
    now[:b] = False
    before[b : b + c] = False
    return before, now


def compare(now: dict[str, Any], before: dict[str, Any], tolerance: str = "") -> MetricComparison:
    result = compare_with_baseline(now, before, parse_tolerances(tolerance))
    return next(metric for metric in result.metrics if metric.name == "accuracy")


def compare_answers(b: int, c: int, n: int, tolerance: str = "") -> MetricComparison:
    before, now = make_answers(b, c, n)
    return compare(make_report(correct=now), make_report(correct=before), tolerance)


@pytest.mark.parametrize(
    ("b", "c", "p"),
    [
        (1, 8, 20 / 512),  # 2 (C(9,0) + C(9,1)) / 2^9 = 0.0390625
        (8, 1, 20 / 512),
        (0, 5, 2 / 32),
        (0, 6, 2 / 64),
        (2, 8, 112 / 1024),  # 2 (1 + 10 + 45) / 2^10
        (3, 3, 1.0),
        (0, 0, 1.0),
        (25, 10, 2 * sum(comb(35, k) for k in range(11)) / 2**35),
    ],
)
def test_mcnemar_by_hand(b: int, c: int, p: float) -> None:
    test = compare_paired(*make_answers(b, c, 50))
    assert (test.n, test.b, test.c) == (50, b, c)
    assert test.p == pytest.approx(p, rel=1e-12)  # scipy sums in another order
    assert test.is_evidence == (p < 0.05)


@pytest.mark.parametrize(
    ("b", "c", "n", "tolerance", "verdict"),
    [
        (0, 0, 200, "", "same"),
        (5, 0, 200, "", "no evidence of change"),  # -2.5 pp, p = 0.0625
        (6, 0, 200, "", "worse"),  # -3 pp, p = 0.03125
        (6, 0, 200, "accuracy=3pp", "within tolerance"),  # evidence, but no more than was allowed
        (6, 0, 200, "accuracy=2.9pp", "worse"),
        (0, 6, 200, "", "better"),
        (8, 1, 200, "", "worse"),  # -3.5 pp, p = 0.039
        (8, 2, 200, "", "no evidence of change"),  # -3 pp, p = 0.109
        (4, 4, 200, "", "no evidence of change"),  # the same accuracy by other samples
        (40, 10, 1000, "accuracy=5pp", "within tolerance"),
        (5, 0, 5, "", "no evidence of change"),  # everything wrong, and still too few to tell
    ],
)
def test_worse_needs_evidence_and_more_than_the_tolerance(b: int, c: int, n: int, tolerance: str, verdict: str) -> None:
    metric = compare_answers(b, c, n, tolerance)
    assert metric.verdict == verdict, metric.describe()
    assert metric.test is not None
    assert metric.reason == metric.test.describe()


def test_no_evidence_passes_and_is_printed_with_its_figures() -> None:
    before, now = make_answers(8, 2, 200)
    result = hold_report(make_report(correct=now), (), make_report(correct=before))
    assert result.exit_code == 0
    assert "1 without evidence of change" in result.outcome
    accuracy = next(metric for metric in result.metrics if metric.name == "accuracy")
    assert accuracy.reason == "McNemar, n = 200: 8 newly wrong, 2 newly right, p = 0.109"


def test_it_is_said_when_too_few_samples_differ_to_tell_anything() -> None:
    assert 2 * 0.5 ** (LEAST_DIFFERING - 1) > ALPHA > 2 * 0.5**LEAST_DIFFERING
    assert "fewer than 6 samples differ, which can never be evidence" in compare_answers(5, 0, 200).reason
    assert "can never" not in compare_answers(6, 0, 200).reason
    assert "can never" not in compare_answers(0, 0, 200).reason


def test_other_test_samples_are_not_paired() -> None:
    before, now = make_answers(6, 0, 200)
    baseline, report = make_report(correct=before), make_report(correct=now)
    report["data"]["sha256"] = report["variants"]["int8"]["test_sha256"] = OTHER
    metric = compare(report, baseline)
    assert metric.test is not None
    assert not metric.test.is_paired
    # 200 of 200 against 194 of 200: 2 C(200,6)/C(400,6) by the hypergeometric distribution
    assert metric.test.p == pytest.approx(2 * comb(200, 6) / comb(400, 6), rel=1e-9)  # scipy works with logarithms
    assert metric.verdict == "worse"
    assert metric.reason.startswith("not paired: the test samples are not the same; Fisher's exact test, n = 200")


def test_new_training_samples_do_not_spoil_the_pairing() -> None:
    before, now = make_answers(6, 0, 200)
    report = make_report(correct=now)
    report["data"]["sha256"] = OTHER  # of all samples; the digest of the test samples is as it was
    test = compare(report, make_report(correct=before)).test
    assert test is not None
    assert test.is_paired


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"correct": None}, "the baseline does not say which samples were right"),
        ({"correct": "AAAA"}, "a report's list of right answers is damaged"),
        ({"correct": "?"}, "a report's list of right answers is damaged"),
        ({"test_samples": 41, "accuracy": 30 / 41}, "the test samples are not the same"),
    ],
)
def test_a_baseline_without_answers_is_compared_unpaired(changes: dict[str, Any], reason: str) -> None:
    baseline = make_report()
    baseline["variants"]["int8"] |= changes
    metric = compare(make_report({"accuracy": 70.0}), baseline)
    assert reason in metric.reason
    assert metric.verdict == "no evidence of change"


def test_the_same_accuracy_without_answers_is_the_same() -> None:
    baseline, report = make_report(), make_report()
    del baseline["variants"]["int8"]["correct"]
    assert compare(report, baseline).verdict == "same"


def test_accuracies_of_other_classes_are_refused() -> None:
    report = make_report(data={"class_names": ["a", "b", "c"]})
    result = hold_report(report, (), make_report())
    assert result.exit_code == 6
    assert "different classes" in result.outcome


def test_a_model_without_scores_is_compared_by_its_costs() -> None:
    unscored = make_report({"accuracy": None, "macro_f1": None, "accuracy_drop": None, "macro_f1_drop": None})
    unscored["variants"]["int8"] |= {"accuracy": None, "correct": None, "test_samples": 0}
    assert hold_report(unscored, (), unscored).exit_code == 0
    assert hold_report(unscored, (), make_report()).exit_code == 6


def test_fisher_by_hand() -> None:
    # 3 of 4 against 1 of 4: the table of the lady tasting tea, p = 34/70
    test = compare_unpaired(3, 4, 1, 4, "why")
    assert test == AccuracyTest("Fisher", 4, None, None, pytest.approx(34 / 70), "why")


@given(st.lists(st.booleans(), min_size=1, max_size=70))
def test_answers_come_back_from_the_report(answers: list[bool]) -> None:
    packed = pack_correct(np.array(answers))
    unpacked = unpack_correct(packed, len(answers))
    assert unpacked is not None
    assert unpacked.tolist() == answers
    assert unpack_correct(packed, len(answers) + 8) is None
