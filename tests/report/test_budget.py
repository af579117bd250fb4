"""Budgets: what is read, what is refused, which exit code follows."""

from __future__ import annotations

import pytest

from edgeprune.errors import InputError
from edgeprune.report import Metric, check_budgets, exit_code_of, parse_budgets


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("model_bytes=64K", 65536),
        ("model_bytes=1.5KiB", 1536),
        ("macs=2M", 2e6),
        ("parameters=900", 900),
        ("accuracy_drop=0.5pp", 0.5),
        ("accuracy=95%", 95),
        ("latency=20ms", 20_000),
        ("latency=1s", 1e6),
    ],
)
def test_limits_are_read_in_their_unit(text: str, limit: float) -> None:
    assert parse_budgets(text)[0].limit == limit


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model_bytes", "there is no '='"),
        ("modelbytes=3K", "Did you mean model_bytes?"),
        ("macs=2MB", "not a number of count"),
        ("latency=20", "not a number of microseconds"),
        ("macs=-2M", "not a number"),
        ("macs=1M,macs=2M", "given twice"),
    ],
)
def test_unreadable_budgets_say_what_is_allowed(text: str, expected: str) -> None:
    with pytest.raises(InputError, match=expected.replace("?", r"\?")):
        parse_budgets(text)


@pytest.mark.parametrize(
    ("budget", "metric", "state", "exit_code"),
    [
        ("macs=2M", Metric("macs", 2e6, "static"), "met", 0),
        ("macs=2M", Metric("macs", 2e6 + 1, "static"), "missed", 3),
        ("accuracy=95%", Metric("accuracy", 95.0, "static"), "met", 0),
        ("accuracy=95%", Metric("accuracy", 94.99, "static"), "missed", 3),
        ("latency=20ms", Metric("latency", None, None, "needs the firmware build"), "unavailable", 6),
    ],
)
def test_a_budget_is_met_missed_or_unavailable(budget: str, metric: Metric, state: str, exit_code: int) -> None:
    (result,) = check_budgets(parse_budgets(budget), {metric.name: metric})
    assert result.state == state
    assert exit_code_of([result]) == exit_code


def test_an_unavailable_figure_comes_before_a_missed_one() -> None:
    metrics = {"macs": Metric("macs", 9e9, "static"), "ram": Metric("ram", None, None, "no firmware")}
    assert exit_code_of(check_budgets(parse_budgets("macs=1,ram=1K"), metrics)) == 6
