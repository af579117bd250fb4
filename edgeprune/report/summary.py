"""The figures at the head of the page: what is shipped, against what went in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgeprune.report.budget import format_quantity
from edgeprune.report.plotting import Document

METHOD_WORDS: Mapping[str, str] = {
    "device": "measured on the device",
    "emulated_instructions": "counted in an emulator",
    "modelled_cycles": "modelled cycles, not measured",
    "host": "on the machine that compiled",
    "static": "counted in the files",
}
BADGES: Mapping[int, str] = {
    0: "Pass",
    1: "Fail: parity or fault",
    3: "Fail: over budget",
    4: "Fail: regression",
    5: "Fail: model not supported",
    6: "Fail: a figure could not be had",
}
# title, metric, and where the figure of the model as given is: of a variant, or of the base firmware
_HEADLINES = (
    ("Accuracy", "accuracy", "variant", "accuracy"),
    ("Flash", "flash", "firmware", "flash_bytes"),
    ("RAM", "ram", "firmware", "ram_bytes"),
    ("Latency", "latency", "firmware", "latency_ms"),
    ("Instructions", "instructions", "firmware", "instructions"),
    ("Parameters", "parameters", "variant", "parameters"),
    ("MACs", "macs", "variant", "macs"),
    ("Model file", "model_bytes", "none", ""),
)
_TO_METRIC = {"accuracy": 100.0, "latency_ms": 1000.0}  # fractions to per cent, ms to us


@dataclass(frozen=True)
class Headline:
    """One big figure. change: against `before`, in words; direction: 'good', 'bad' or ''. method: how it was got."""

    title: str
    value: str
    before: str
    change: str
    direction: str
    method: str


@dataclass(frozen=True)
class BudgetBar:
    """A budget as a bar: `fill` and `limit_at` in per cent of the track. state: 'met', 'missed' or 'unavailable'."""

    name: str
    value: str
    limit: str
    state: str
    fill: float
    limit_at: float
    message: str


def name_badge(document: Document) -> str:
    """Pass or fail, in two or three words."""
    return BADGES.get(document["exit_code"], "Fail")


def list_headlines(document: Document) -> list[Headline]:
    """The figures there are, in order; one that could not be had is left out, unless a budget asks for it."""
    asked = {result["name"] for result in document["budgets"]}
    found = []
    for title, name, place, key in _HEADLINES:
        metric = document["metrics"].get(name)
        if metric is None or (metric["value"] is None and name not in asked):
            continue
        if metric["value"] is None:
            found.append(Headline(title, "unknown", "", "", "", metric["reason"]))
            continue
        before = _find_before(document, place, key)
        change, direction = _describe_change(metric, before)
        found.append(
            Headline(
                title,
                format_quantity(metric["value"], metric["unit"]),
                "" if before is None else format_quantity(before, metric["unit"]),
                change,
                direction,
                METHOD_WORDS.get(metric["method"], str(metric["method"])),
            )
        )
    return found


def list_budget_bars(document: Document) -> list[BudgetBar]:
    """Each budget's value against its limit."""
    bars = []
    for result in document["budgets"]:
        value, limit = result["value"], result["limit"]
        most = max(value or 0, limit) or 1
        bars.append(
            BudgetBar(
                result["name"],
                "unknown" if value is None else format_quantity(value, result["unit"]),
                format_quantity(limit, result["unit"]),
                result["state"],
                100 * max(value or 0, 0) / most,
                100 * limit / most,
                result["message"],
            )
        )
    return bars


def _find_before(document: Document, place: str, key: str) -> float | None:
    if place == "variant":
        value = (document["variants"].get("base") or {}).get(key)
    elif place == "firmware":
        value = ((document["firmware"].get("base") or {}).get("measured") or {}).get(key)
    else:
        value = None
    return None if value is None else value * _TO_METRIC.get(key, 1)


def _describe_change(metric: Mapping[str, Any], before: float | None) -> tuple[str, str]:
    """The change in words, and whether it is a good one."""
    if before is None:
        return "", ""
    difference = metric["value"] - before
    if metric["unit"] == "percent":
        words = f"{difference:+.2f} pp"
        is_same = abs(difference) < 0.005
    else:
        words = f"{100 * difference / before:+.1f} %" if before else ""
        is_same = not before or abs(difference / before) < 0.0005
    if is_same:
        return "unchanged", ""
    is_good = (difference < 0) == (metric["better"] == "lower")
    return words.replace("-", "−"), "good" if is_good else "bad"
