"""What range of real values a tensor's int8 steps are to cover, from the values seen in calibration.

An observer sees a `ValueSummary` of one tensor over all calibration samples and chooses (low, high). Values outside are
clipped to it, values inside are rounded to a step of (high - low) / 255: a choice between two errors.

The summary is gathered in one pass without knowing the range beforehand: float32 values are counted by sign, exponent
and the 6 leading bits of the mantissa, so that a bin is at most 1/64 of its value wide and one outlier of 1e6 does not
swallow the rest, as it would with equally wide bins.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np

_DROPPED_BITS = 17  # 32 - 1 sign - 8 exponent - 6 mantissa
_BIN_COUNT = 1 << (32 - _DROPPED_BITS)
_SIGN_BIN = _BIN_COUNT // 2


@dataclass(frozen=True, eq=False)
class ValueSummary:
    """Values of one tensor over the calibration samples.

    minimum, maximum: exact.
    values, counts: midpoints of the bins that hold something, ascending, and how many values each holds; empty unless
        the observer asked for them.
    """

    minimum: float
    maximum: float
    values: np.ndarray
    counts: np.ndarray


class SummaryBuilder:
    """Gathers a `ValueSummary`, batch by batch."""

    def __init__(self, with_counts: bool) -> None:
        self.minimum = np.inf
        self.maximum = -np.inf
        self._bins = np.zeros(_BIN_COUNT, np.int64) if with_counts else None

    def add(self, values: np.ndarray) -> None:
        """Count these float32 values. A NaN among them makes minimum and maximum NaN."""
        self.minimum = float(np.minimum(self.minimum, values.min()))
        self.maximum = float(np.maximum(self.maximum, values.max()))
        if self._bins is not None:
            patterns = np.ascontiguousarray(values, np.float32).view(np.uint32).ravel() >> _DROPPED_BITS
            self._bins += np.bincount(patterns, minlength=_BIN_COUNT)

    def build(self) -> ValueSummary:
        """The summary of what was added so far."""
        if self._bins is None:
            return ValueSummary(self.minimum, self.maximum, np.empty(0), np.empty(0, np.int64))
        occupied = np.flatnonzero(self._bins)
        middle = (occupied.astype(np.uint32) << _DROPPED_BITS) + (1 << (_DROPPED_BITS - 1))
        values = middle.astype(np.uint32).view(np.float32).astype(np.float64)
        values[(occupied == 0) | (occupied == _SIGN_BIN)] = 0.0  # the bins of +0 and -0
        order = np.argsort(values, kind="stable")
        values = np.clip(values[order], self.minimum, self.maximum)
        return ValueSummary(self.minimum, self.maximum, values, self._bins[occupied][order])


class Observer(ABC):
    """Chooses the range of a tensor. `needs_counts`: whether minimum and maximum are not enough."""

    needs_counts: ClassVar[bool] = True

    @abstractmethod
    def choose_range(self, summary: ValueSummary) -> tuple[float, float]:
        """(low, high), within the values seen and 0."""


@final
class MinMax(Observer):
    """The whole range seen: nothing of the calibration set is clipped.

    On the networks this was made for it beats moving averages of the range by 10 to 30 dB of SQNR.
    """

    needs_counts = False

    def choose_range(self, summary: ValueSummary) -> tuple[float, float]:
        return summary.minimum, summary.maximum


@final
@dataclass(frozen=True)
class Percentile(Observer):
    """The range left when `tail` of the values are cut off at either end, to within 1/64 of the value."""

    tail: float = 1e-4

    def choose_range(self, summary: ValueSummary) -> tuple[float, float]:
        share = np.cumsum(summary.counts) / summary.counts.sum()
        last = len(share) - 1
        low = summary.values[min(int(np.searchsorted(share, self.tail, side="right")), last)]
        high = summary.values[min(int(np.searchsorted(share, 1.0 - self.tail, side="left")), last)]
        # the outermost bins stand for the exact extremes, not for their midpoints
        low = summary.minimum if low == summary.values[0] else float(low)
        high = summary.maximum if high == summary.values[-1] else float(high)
        return low, high


@final
@dataclass(frozen=True)
class MeanSquaredError(Observer):
    """The range with the least expected squared error of rounding plus clipping.

    For a step s, the square of a value's error inside [low, high] is s^2/12 on average (uniform rounding error), but
    not more than the value's own square, since 0 is exact; a value outside is off by its distance to the range. This is
    what OCTAV minimises (Sakr et al. 2022, arXiv 2206.06501), here with separate ends and over a grid of `candidates`
    per end: the extreme itself and the outer half of the occupied bins on its side.
    """

    candidates: int = 96

    def choose_range(self, summary: ValueSummary) -> tuple[float, float]:
        lows = -_candidate_ends(-summary.values[::-1], -summary.minimum, self.candidates)
        highs = _candidate_ends(summary.values, summary.maximum, self.candidates)
        clip_low = _clipping_error(-summary.values[::-1], summary.counts[::-1], -lows)
        clip_high = _clipping_error(summary.values, summary.counts, highs)
        step = (highs[None, :] - lows[:, None]) / 255.0
        rounding = _rounding_error(summary, step)
        best_low, best_high = np.unravel_index(np.argmin(clip_low[:, None] + clip_high[None, :] + rounding), step.shape)
        return float(lows[best_low]), float(highs[best_high])


def _candidate_ends(values: np.ndarray, extreme: float, count: int) -> np.ndarray:
    """Upper ends to try for ascending bin midpoints, the extreme first; only 0 where nothing is positive."""
    if extreme <= 0:
        return np.zeros(1)
    positive = values[values > 0]
    outer = positive[len(positive) // 2 :]
    picked = outer[np.unique(np.linspace(0, len(outer) - 1, min(count, len(outer))).astype(int))]
    return np.concatenate([[extreme], picked[picked < extreme][::-1]])


def _clipping_error(values: np.ndarray, counts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Sum of (value - end)^2 over the values above each end; values ascending."""
    above = np.searchsorted(values, ends, side="right")

    def sum_above(power: int) -> np.ndarray:
        sums = np.concatenate([np.cumsum((counts * values**power)[::-1])[::-1], [0.0]])
        return sums[above]

    # max: three large sums cancel down to rounding noise where little is clipped
    return np.maximum(sum_above(2) - 2.0 * ends * sum_above(1) + ends**2 * sum_above(0), 0.0)


def _rounding_error(summary: ValueSummary, step: np.ndarray) -> np.ndarray:
    """Sum over all values of min(step^2/12, value^2), for each step."""
    order = np.argsort(np.abs(summary.values), kind="stable")
    sizes = np.abs(summary.values)[order]
    counts = summary.counts[order]
    bound = step / np.sqrt(12.0)
    inside = np.searchsorted(sizes, bound, side="right")
    squares_below = np.concatenate([[0.0], np.cumsum(counts * sizes**2)])[inside]
    counts_above = (counts.sum() - np.concatenate([[0], np.cumsum(counts)]))[inside]
    return squares_below + counts_above * bound**2


OBSERVERS: Mapping[str, Observer] = {
    "minmax": MinMax(),
    "percentile": Percentile(),
    "mse": MeanSquaredError(),
}
