"""Tolerances: how much worse than the baseline a figure may be.

    --tolerance instructions=1%,flash=2K,accuracy=0.5pp

Per cent of the baseline, or an amount in the figure's own unit. Without one, a figure that always comes out the same
for the same files (bytes, counts, modelled cycles) may not get worse at all; a measured time may, by MEASURED_TIME.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from edgeprune.errors import InputError
from edgeprune.report.budget import METRIC_KINDS, format_quantity, parse_quantity, split_entries

# A median time on a busy machine moves by several per cent between two runs of the same file; on a device it does too,
# with its temperature and governor.
MEASURED_TIME_PERCENT = 10.0
MEASURED = ("host", "device")
_PERCENTAGES = ("percent", "percentage points")


@dataclass(frozen=True)
class Tolerance:
    """How much worse a figure may be. amount: in per cent of the baseline if is_relative, else in the figure's unit."""

    name: str
    amount: float
    is_relative: bool

    def allow(self, baseline: float) -> float:
        """The amount for this baseline, in the figure's unit."""
        return abs(baseline) * self.amount / 100 if self.is_relative else self.amount

    def describe(self) -> str:
        """'1 %', '512 B', '0.50 pp' or 'none'."""
        if not self.amount:
            return "none"
        unit = METRIC_KINDS[self.name].unit
        if self.is_relative:
            return f"{self.amount:g} %"
        return format_quantity(self.amount, "percentage points" if unit == "percent" else unit)


def parse_tolerances(text: str) -> dict[str, Tolerance]:
    """Read `name=amount,name=amount`; raises InputError that names the entry and what is allowed.

    >>> parse_tolerances("instructions=1%")["instructions"]
    Tolerance(name='instructions', amount=1.0, is_relative=True)
    """
    entries = split_entries(text, "--tolerance", "name=amount, such as instructions=1%")
    return {name: _parse_amount(name, amount) for name, amount in entries}


def _parse_amount(name: str, amount: str) -> Tolerance:
    where = f"--tolerance {name}"
    relative = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", amount)
    if METRIC_KINDS[name].unit in _PERCENTAGES:
        if relative:  # 1 % of 96 % or one percentage point: nobody can tell
            raise InputError(
                f"{where}={amount}: {name} is a percentage itself; write percentage points, such as 0.5pp."
            )
        return Tolerance(name, parse_quantity(amount, "percentage points", where), is_relative=False)
    if relative:
        return Tolerance(name, float(relative.group(1)), is_relative=True)
    if re.fullmatch(r"\d+(?:\.\d+)?\s*pp", amount, re.IGNORECASE):
        raise InputError(f"{where}={amount}: percentage points are for accuracies; write 1%, or an amount.")
    return Tolerance(name, parse_quantity(amount, METRIC_KINDS[name].unit, where), is_relative=False)


def choose_tolerance(name: str, method: str, given: Mapping[str, Tolerance]) -> Tolerance:
    """The tolerance asked for, or the default of a figure got by this method."""
    if name in given:
        return given[name]
    is_time = METRIC_KINDS[name].unit == "microseconds"
    return Tolerance(name, MEASURED_TIME_PERCENT if is_time and method in MEASURED else 0.0, is_relative=True)
