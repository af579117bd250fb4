"""Budgets: limits on measured figures, and what to say when one is missed.

    --budget model_bytes=64K,arena_bytes=16K,macs=2M,accuracy_drop=1pp

A figure is a `Metric` with the method it was got by. A metric without a value cannot meet a budget: that is
"measurement unavailable" (exit code 6), never a silent pass.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from edgeprune.errors import BudgetMissedError, InputError, MeasurementUnavailableError

# How a figure was got, strongest first (DESIGN: every number says how it was got).
METHODS = ("device", "emulated_instructions", "modelled_cycles", "host", "static")


@dataclass(frozen=True)
class MetricKind:
    """What a figure counts: its unit, whether less or more is better, and a sentence for people."""

    unit: str
    better: str  # 'lower' or 'higher'
    meaning: str


METRIC_KINDS: Mapping[str, MetricKind] = {
    "model_bytes": MetricKind("bytes", "lower", "size of model_int8.tflite"),
    "arena_bytes": MetricKind(
        "bytes", "lower", "largest sum of int8 activations alive at once, inputs and outputs too"
    ),
    "parameters": MetricKind("count", "lower", "weights and biases of the compiled model"),
    "macs": MetricKind("count", "lower", "multiply-accumulates of one inference"),
    "flops": MetricKind("count", "lower", "2 x macs"),
    "accuracy": MetricKind("percent", "higher", "int8 accuracy on the test set"),
    "macro_f1": MetricKind("percent", "higher", "int8 macro-F1 on the test set"),
    "accuracy_drop": MetricKind("percentage points", "lower", "base accuracy minus int8 accuracy"),
    "macro_f1_drop": MetricKind("percentage points", "lower", "base macro-F1 minus int8 macro-F1"),
    "flash": MetricKind("bytes", "lower", "code and constants of the firmware"),
    "ram": MetricKind("bytes", "lower", "arena, variables, peak stack, input and output of the firmware"),
    "instructions": MetricKind("count", "lower", "executed by one inference on the target"),
    "cycles": MetricKind("count", "lower", "of one inference on the target"),
    "latency": MetricKind("microseconds", "lower", "time of one inference on the target"),
}

_SUFFIXES: Mapping[str, Mapping[str, float]] = {
    "bytes": {"": 1, "B": 1, "K": 1024, "KB": 1024, "KIB": 1024, "M": 1024**2, "MB": 1024**2, "MIB": 1024**2},
    "count": {"": 1, "K": 1e3, "M": 1e6, "G": 1e9},
    "microseconds": {"US": 1, "MS": 1e3, "S": 1e6},
    "percent": {"%": 1},
    "percentage points": {"PP": 1, "%": 1},
}
_EXAMPLES = {
    "bytes": "64K (K is 1024)",
    "count": "2M (M is 1,000,000)",
    "microseconds": "20ms",
    "percent": "95%",
    "percentage points": "1pp",
}


@dataclass(frozen=True)
class Metric:
    """One figure of the compiled model; `value` None with the `reason` where it could not be had."""

    name: str
    value: float | None
    method: str | None
    reason: str = ""


@dataclass(frozen=True)
class Budget:
    """A limit on one metric, in the metric's unit."""

    name: str
    limit: float


@dataclass(frozen=True)
class BudgetResult:
    """A budget held against its metric. `state` is 'met', 'missed' or 'unavailable'."""

    name: str
    limit: float
    value: float | None
    unit: str
    state: str
    message: str


def parse_budgets(text: str, flag: str = "--budget") -> tuple[Budget, ...]:
    """Read `name=limit,name=limit` of an option; raises InputError that names the entry and what is allowed.

    >>> parse_budgets("model_bytes=64K,accuracy_drop=1pp")
    (Budget(name='model_bytes', limit=65536.0), Budget(name='accuracy_drop', limit=1.0))
    """
    return tuple(
        Budget(name, parse_quantity(quantity, METRIC_KINDS[name].unit, f"{flag} {name}"))
        for name, quantity in split_entries(text, flag, "name=limit, such as model_bytes=64K")
    )


def split_entries(text: str, flag: str, form: str) -> Iterator[tuple[str, str]]:
    """The figures' names and what is said of each in `name=...,name=...`; raises InputError for what is no such entry.

    form: how an entry is written, with an example.
    """
    seen: set[str] = set()
    for entry in filter(None, (part.strip() for part in text.split(","))):
        name, separator, value = (part.strip() for part in entry.partition("="))
        if not separator:
            raise InputError(f"{flag} {entry}: there is no '='. Write {form}.")
        if name not in METRIC_KINDS:
            nearest = difflib.get_close_matches(name, METRIC_KINDS, 1)
            hint = f" Did you mean {nearest[0]}?" if nearest else ""
            raise InputError(f"{flag} {name}: no such figure.{hint} Allowed: {', '.join(METRIC_KINDS)}.")
        if name in seen:
            raise InputError(f"{flag} {name} is given twice; keep one of them.")
        seen.add(name)
        yield name, value


def parse_quantity(text: str, unit: str, where: str) -> float:
    """A number with the unit's suffix, such as '64K' bytes; in units of `unit`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z%]*)", text)
    suffixes = _SUFFIXES[unit]
    if match is None or match.group(2).upper() not in suffixes:
        raise InputError(f"{where}={text}: not a number of {unit}. Write it like {_EXAMPLES[unit]}.")
    return float(match.group(1)) * suffixes[match.group(2).upper()]


def check_budgets(budgets: Sequence[Budget], metrics: Mapping[str, Metric]) -> tuple[BudgetResult, ...]:
    """Hold every budget against its metric."""
    return tuple(_check_budget(budget, metrics[budget.name]) for budget in budgets)


def _check_budget(budget: Budget, metric: Metric) -> BudgetResult:
    kind = METRIC_KINDS[budget.name]
    limit = format_quantity(budget.limit, kind.unit)
    if metric.value is None:
        message = f"{budget.name}: a limit of {limit} was asked for, but the figure is unavailable: {metric.reason}"
        return BudgetResult(budget.name, budget.limit, None, kind.unit, "unavailable", message)
    value = format_quantity(metric.value, kind.unit)
    met = metric.value <= budget.limit if kind.better == "lower" else metric.value >= budget.limit
    relation = {("lower", True): "within", ("lower", False): "over", ("higher", True): "at least"}.get(
        (kind.better, met), "under"
    )
    state = "met" if met else "missed"
    return BudgetResult(
        budget.name, budget.limit, metric.value, kind.unit, state, f"{budget.name}: {value}, {relation} {limit}"
    )


def exit_code_of(results: Sequence[BudgetResult]) -> int:
    """0, 3 (missed) or 6 (unavailable), by the precedence of the exit codes."""
    states = {result.state for result in results}
    if "unavailable" in states:
        return MeasurementUnavailableError.exit_code
    return BudgetMissedError.exit_code if "missed" in states else 0


def format_quantity(value: float, unit: str) -> str:
    """A figure for people.

    >>> format_quantity(23144, "bytes"), format_quantity(1234567, "count"), format_quantity(96.5, "percent")
    ('23,144 B', '1,234,567', '96.50 %')
    """
    if unit == "bytes":
        return f"{value:,.0f} B"
    if unit == "count":
        return f"{value:,.0f}"
    if unit == "microseconds":
        return f"{value / 1000:,.3f} ms" if value >= 1000 else f"{value:,.1f} us"
    return f"{value:.2f} {'pp' if unit == 'percentage points' else '%'}"
