"""An axis: its range, its ticks, and where on it a value lies."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_STEPS = (1, 2, 2.5, 5, 10)
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Axis:
    """low, high: the ends, as logarithms to base 10 if is_log. ticks: (value, label). names: of a category axis."""

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    is_log: bool = False
    names: tuple[str, ...] = ()

    def place(self, value: Any) -> float:
        """Where a value lies: 0 at the low end, 1 at the high one."""
        number = self.names.index(str(value)) if self.names else float(value)
        if self.is_log:
            number = math.log10(number)
        return (number - self.low) / (self.high - self.low)


def choose_axis(values: Sequence[Any], options: Mapping[str, Any], tick_count: int = 5) -> Axis:
    """The axis for these values.

    options: of plotly's, `type` ('log'), `rangemode` ('tozero'), `range` and `dtick`; values that are not all numbers
    make a category axis. 'log' is for positive values only; others make the axis linear.
    """
    if any(isinstance(value, str) for value in values):
        names = tuple(dict.fromkeys(str(value) for value in values))
        return Axis(-0.5, len(names) - 0.5, tuple(enumerate(names)), names=names)
    numbers = [float(value) for value in values] or [0.0]
    if options.get("type") == "log" and min(numbers) > 0:
        low, high = (math.log10(bound) for bound in (min(numbers), max(numbers)))
        margin = 0.05 * (high - low) or 0.5
        decades = range(math.ceil(low - margin), math.floor(high + margin) + 1)
        ticks = tuple((10.0**power, "10" + str(power).translate(_SUPERSCRIPTS)) for power in decades)
        return Axis(low - margin, high + margin, ticks, is_log=True)
    low, high = min(numbers), max(numbers)
    if "range" in options:
        low, high = options["range"]
    elif options.get("rangemode") == "tozero":
        low, high = min(low, 0.0), max(high, 0.0)
    if low == high:
        low, high = low - 0.5, high + 0.5
    step = _choose_step((high - low) / tick_count)
    if isinstance(options.get("dtick"), (int, float)):
        step = max(step, options["dtick"])
    if "range" not in options:
        high = math.ceil(round(high / step, 6)) * step
        low = math.floor(round(low / step, 6)) * step
    first, last = math.ceil(round(low / step, 6)), math.floor(round(high / step, 6))
    return Axis(low, high, tuple((index * step, format_tick(index * step, step)) for index in range(first, last + 1)))


def _choose_step(least: float) -> float:
    """The round number from `least` on.

    >>> _choose_step(0.3), _choose_step(23.0)
    (0.5, 25.0)
    """
    power = 10.0 ** math.floor(math.log10(least))
    return float(next(step * power for step in _STEPS if step * power >= least * (1 - 1e-9)))


def format_tick(value: float, step: float) -> str:
    """A short label, to the precision of the step between ticks.

    >>> format_tick(250000, 50000), format_tick(1.5e6, 5e5), format_tick(96.5, 0.5), format_tick(-2000, 500)
    ('250k', '1.5M', '96.5', '−2,000')
    """
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if step >= size or (abs(value) >= 10 * size and step * 10 >= size) or (abs(value) >= size >= 1e6):
            return f"{value / size:.4g}{letter}".replace("-", "−") if value else "0"
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    if step != round(step, digits):  # 2.5 and the like
        digits += 1
    return f"{value:,.{digits}f}".replace("-", "−")
