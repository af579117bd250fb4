"""Tolerances: what is read, what is refused, what holds where none was given."""

from __future__ import annotations

import pytest

from edgeprune.errors import InputError
from edgeprune.report.tolerance import Tolerance, choose_tolerance, parse_tolerances


@pytest.mark.parametrize(
    ("text", "baseline", "allowed", "words"),
    [
        ("instructions=1%", 20_000, 200, "1 %"),
        ("instructions=0.5%", 20_000, 100, "0.5 %"),
        ("instructions=2K", 20_000, 2000, "2,000"),
        ("flash=2K", 20_000, 2048, "2,048 B"),
        ("latency=0.1ms", 20_000, 100, "100.0 us"),
        ("latency=5%", 20_000, 1000, "5 %"),
        ("accuracy=0.5pp", 96, 0.5, "0.50 pp"),
        ("accuracy_drop=1pp", 2, 1, "1.00 pp"),
        ("flash=0%", 20_000, 0, "none"),
    ],
)
def test_amounts_are_read_in_the_figures_unit(text: str, baseline: float, allowed: float, words: str) -> None:
    (tolerance,) = parse_tolerances(text).values()
    assert tolerance.allow(baseline) == allowed
    assert tolerance.describe() == words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("flash", "there is no '='"),
        ("flsh=1%", "Did you mean flash?"),
        ("flash=1%,flash=2%", "given twice"),
        ("accuracy=1%", "write percentage points, such as 0.5pp"),
        ("flash=1pp", "percentage points are for accuracies"),
        ("flash=-1%", "not a number of bytes"),
        ("latency=20", "not a number of microseconds"),
        ("accuracy=much", "not a number of percentage points"),
    ],
)
def test_unreadable_tolerances_say_what_is_allowed(text: str, expected: str) -> None:
    with pytest.raises(InputError, match=expected.replace("?", r"\?")):
        parse_tolerances(text)


@pytest.mark.parametrize(
    ("name", "method", "percent"),
    [
        ("latency", "host", 10),
        ("latency", "device", 10),
        ("latency", "modelled_cycles", 0),
        ("flash", "static", 0),
        ("instructions", "emulated_instructions", 0),
        ("accuracy", "host", 0),  # computed on this host, but no time
    ],
)
def test_only_measured_times_have_a_tolerance_of_their_own(name: str, method: str, percent: float) -> None:
    assert choose_tolerance(name, method, {}).amount == percent
    given = {name: Tolerance(name, 3.0, is_relative=True)}
    assert choose_tolerance(name, method, given) is given[name]
