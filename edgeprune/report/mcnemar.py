"""Are two accuracies different, or is it chance? Exact tests on the test samples of two reports.

Paired, where both reports classified the same samples: McNemar's test on the samples that just one of them got right
(Q. McNemar, Psychometrika 12, 1947; exact form: b of b + c falls is binomial with 1/2 where nothing has changed).
Unpaired, where they did not: Fisher's exact test on the counts of right and wrong.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

ALPHA = 0.05
# 2 * 0.5**6 = 0.031 is the first two-sided p below ALPHA: with fewer samples that differ, no split can be evidence
LEAST_DIFFERING = 6


@dataclass(frozen=True)
class AccuracyTest:
    """What a test of two accuracies says.

    name: 'McNemar' (paired) or 'Fisher' (unpaired). n: test samples of the new report.
    b: right in the baseline and wrong now; c: wrong in the baseline and right now; None where not paired.
    p: two-sided. reason: why the samples could not be paired.
    """

    name: str
    n: int
    b: int | None
    c: int | None
    p: float
    reason: str = ""

    @property
    def is_paired(self) -> bool:
        return self.b is not None and self.c is not None

    @property
    def is_evidence(self) -> bool:
        """Whether a difference so large would be rare (p below ALPHA) if nothing had changed."""
        return self.p < ALPHA

    def describe(self) -> str:
        """The test in one sentence, for people."""
        if self.b is None or self.c is None:
            return f"not paired: {self.reason}; Fisher's exact test, n = {self.n:,}, p = {self.p:.3g}"
        text = f"McNemar, n = {self.n:,}: {self.b:,} newly wrong, {self.c:,} newly right, p = {self.p:.3g}"
        if 0 < self.b + self.c < LEAST_DIFFERING:
            return f"{text}; fewer than {LEAST_DIFFERING} samples differ, which can never be evidence"
        return text


def pack_correct(correct: np.ndarray) -> str:
    """Which samples were classified rightly, bool (n,), as base64 of their bits (numpy.packbits: first sample first).

    >>> pack_correct(np.array([True, False, True]))
    'oA=='
    """
    return base64.b64encode(np.packbits(np.asarray(correct, bool)).tobytes()).decode()


def unpack_correct(text: str, count: int) -> np.ndarray | None:
    """The bool (count,) that `pack_correct` was given; None where the text is not of so many samples.

    >>> unpack_correct("oA==", 3).tolist()
    [True, False, True]
    """
    try:
        packed = np.frombuffer(base64.b64decode(text, validate=True), np.uint8)
    except (ValueError, binascii.Error):
        return None
    if len(packed) != -(-count // 8):
        return None
    return np.unpackbits(packed, count=count).astype(bool)


def compare_paired(before: np.ndarray, now: np.ndarray) -> AccuracyTest:
    """McNemar's exact two-sided test; before, now: bool (n,), whether each sample was classified rightly.

    >>> compare_paired(np.array([True] * 1 + [False] * 8), np.array([False] * 1 + [True] * 8)).p
    0.0390625
    """
    from scipy.stats import binomtest

    b, c = int(np.sum(before & ~now)), int(np.sum(~before & now))
    p = 1.0 if b + c == 0 else float(binomtest(b, b + c, 0.5).pvalue)
    return AccuracyTest("McNemar", len(now), b, c, p)


def compare_unpaired(right_before: int, n_before: int, right_now: int, n_now: int, reason: str) -> AccuracyTest:
    """Fisher's exact two-sided test on right and wrong of two sets of samples."""
    from scipy.stats import fisher_exact

    table = [[right_before, n_before - right_before], [right_now, n_now - right_now]]
    return AccuracyTest("Fisher", n_now, None, None, float(fisher_exact(table).pvalue), reason)


def compare_accuracies(document: Mapping[str, Any], baseline: Mapping[str, Any]) -> AccuracyTest | None:
    """The test for the int8 accuracies of two reports, paired if it can be; None where one of them scored nothing."""
    now, before = document["variants"].get("int8"), baseline["variants"].get("int8")
    if now is None or before is None or not _is_scored(now) or not _is_scored(before):
        return None
    reason = _explain_unpaired(document, baseline, now, before)
    if not reason:
        correct_before, correct_now = (unpack_correct(item["correct"], item["test_samples"]) for item in (before, now))
        if correct_before is not None and correct_now is not None:
            return compare_paired(correct_before, correct_now)
        reason = "a report's list of right answers is damaged"
    return compare_unpaired(
        _count_right(before), before["test_samples"], _count_right(now), now["test_samples"], reason
    )


def _explain_unpaired(
    document: Mapping[str, Any], baseline: Mapping[str, Any], now: Mapping[str, Any], before: Mapping[str, Any]
) -> str:
    """Why the two reports' answers cannot be compared sample by sample; '' where they can."""
    same_data = document["data"]["sha256"] == baseline["data"]["sha256"]
    same_test = now.get("test_sha256") is not None and now.get("test_sha256") == before.get("test_sha256")
    if not (same_data or same_test) or now["test_samples"] != before["test_samples"]:
        return "the test samples are not the same"
    for name, variant in (("the baseline", before), ("the report", now)):
        if variant.get("correct") is None:
            return f"{name} does not say which samples were right"
    return ""


def _is_scored(variant: Mapping[str, Any]) -> bool:
    return variant["accuracy"] is not None and bool(variant.get("test_samples"))


def _count_right(variant: Mapping[str, Any]) -> int:
    return round(variant["accuracy"] * variant["test_samples"])
