"""How many channels each layer keeps, by what they cost: the most important ones that fit several limits at once.

Channels go a few at a time. Each step takes from the group of coupled layers where the least importance is lost for
what is gained, until all limits are kept; then channels come back, the most important first, as long as the limits
still hold. The cost is asked for, never modelled here: where 13 channels cost as much as 16, the 3 come back by that
alone. Costs are slow to ask for (a tenth of a second and more), so a move's gain is taken from an earlier step until it
looks best (lazy greedy, Minoux 1978): it is then asked for anew, and taken if it is still nearly the best.

Importance: a group's share of its score that is left, and over all groups the sum of the logarithms. So the last
channels of a layer are dear, whatever layer they are in, and scores need no common scale.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

FRACTIONS = (1 / 8, 1 / 4, 1 / 2)  # of a group's channels that are left, as one step
# channels that come back together where one alone does not fit: a kernel that takes four at once may be quicker with a
# fourth than with three and a remainder
LOOK_AHEAD = 4
SUBDIVISIONS = 64  # of the share that `search_uniform` removes
# of the best gain that is hoped for: a move that is known to bring so much is taken without asking for more
ENOUGH = 0.8
_TINY = 1e-9

# what is left out -> figure / limit for each limit; 1 is at the limit
Cost = Callable[[frozenset[int]], Mapping[str, float]]


@dataclass(frozen=True)
class WidthPoint:
    """A choice of widths.

    removed: the units that go. ratios: of each limit, figure / limit. kept: geometric mean over the groups of the share
    of their score that is left, 1 where nothing went.
    """

    removed: frozenset[int]
    ratios: Mapping[str, float]
    kept: float

    @property
    def worst(self) -> float:
        """The largest ratio; the limits are kept where it is at most 1."""
        return max(self.ratios.values())

    @property
    def fits(self) -> bool:
        return self.worst <= 1


class Widths:
    """The groups and their order of removal.

    groups: units of each group of coupled layers. scores: of each unit that may go, >= 0; others stay. removed: units
    that are gone before the search and never come back, such as those that a method has found by itself.
    """

    def __init__(
        self, groups: Sequence[Sequence[int]], scores: Mapping[int, float], removed: frozenset[int] = frozenset()
    ) -> None:
        self.removed = removed
        self.scores = scores
        left = [[unit for unit in group if unit not in removed] for group in groups]
        ranked = [sorted((u for u in group if u in scores), key=lambda unit: (scores[unit], unit)) for group in left]
        # a group whose units could all go keeps its best one
        self.orders = [
            order[:-1] if len(order) == len(group) else order for order, group in zip(ranked, left, strict=True)
        ]
        self.totals = [self._total(order, group) for order, group in zip(ranked, left, strict=True)]

    def _total(self, order: Sequence[int], group: Sequence[int]) -> float:
        """Of a group; what has no score weighs as much as the mean of what has."""
        total = sum(self.scores[unit] for unit in order)
        return total * len(group) / len(order) if order and total > 0 else 0.0

    def collect(self, counts: Sequence[int]) -> frozenset[int]:
        """All that is gone when each group has lost so many."""
        return self.removed.union(*(order[:count] for order, count in zip(self.orders, counts, strict=True)))

    def share(self, index: int, count: int) -> float:
        """Of a group's score, what is left without its `count` lowest units."""
        order, total = self.orders[index], self.totals[index]
        if not total:  # all scores are 0: each channel weighs the same
            return 1 - count / (len(order) + 1)
        return 1 - sum(self.scores[unit] for unit in order[:count]) / total

    def loss(self, index: int, before: int, after: int) -> float:
        """Importance lost on the way from one count to a larger one; >= 0."""
        return math.log(self.share(index, before) / max(self.share(index, after), _TINY))

    def kept(self, counts: Sequence[int]) -> float:
        """Geometric mean of the shares, over the groups that can lose channels."""
        shares = [self.share(index, count) for index, count in enumerate(counts) if self.orders[index]]
        return math.exp(sum(math.log(max(share, _TINY)) for share in shares) / len(shares)) if shares else 1.0

    def count(self, removed: frozenset[int]) -> list[int]:
        """The inverse of `collect`, of a set that it gave."""
        return [sum(unit in removed for unit in order) for order in self.orders]

    def make_point(self, counts: Sequence[int], cost: Cost) -> WidthPoint:
        """The choice with its cost."""
        removed = self.collect(counts)
        return WidthPoint(removed, dict(cost(removed)), self.kept(counts))

    @property
    def narrowest(self) -> list[int]:
        """Counts at which every group is down to one channel (and what has no score)."""
        return [len(order) for order in self.orders]


def search_widths(widths: Widths, cost: Cost, start: frozenset[int] | None = None) -> list[WidthPoint]:
    """The way from `start` (default: nothing removed) to the widths that fit; the last point is the result.

    It fits, unless no channel that could still go brings the limits nearer. Where it fits, no single channel can come
    back within the limits.
    """
    counts = [0] * len(widths.orders) if start is None else widths.count(start)
    path = [widths.make_point(counts, cost)]
    remove = _Removal(widths, cost)
    while not path[-1].fits:
        found = remove.choose(counts, path[-1])
        if found is None:
            return path
        counts = found
        path.append(widths.make_point(counts, cost))
    grown = regrow(widths, cost, counts)
    if grown != counts:
        path.append(widths.make_point(grown, cost))
    return path


def search_uniform(widths: Widths, cost: Cost) -> list[WidthPoint]:
    """As `search_widths`, with the same share of each group gone, by bisection; what still fits comes back."""

    def spread(step: int) -> list[int]:
        return [math.floor(step / SUBDIVISIONS * (len(order) + 1) + _TINY) for order in widths.orders]

    def bound(counts: Sequence[int]) -> list[int]:
        return [min(count, len(order)) for count, order in zip(counts, widths.orders, strict=True)]

    path = []
    low, high = -1, SUBDIVISIONS  # removing low does not fit; high may
    while high - low > 1:
        middle = (low + high) // 2
        path.append(widths.make_point(bound(spread(middle)), cost))
        if path[-1].fits:
            high = middle
        else:
            low = middle
    counts = bound(spread(high))
    path.append(widths.make_point(counts, cost))
    if path[-1].fits:
        path.append(widths.make_point(regrow(widths, cost, counts), cost))
    return path


def regrow(widths: Widths, cost: Cost, counts: Sequence[int]) -> list[int]:
    """Counts with as many channels back as fit, the most important first; `counts` must fit."""
    counts = list(counts)
    waiting = [index for index, count in enumerate(counts) if count]
    while waiting:
        index = max(waiting, key=lambda i: (widths.loss(i, counts[i] - 1, counts[i]), -i))
        for amount in range(1, min(LOOK_AHEAD, counts[index]) + 1):
            tried = [count - amount * (i == index) for i, count in enumerate(counts)]
            if widths.make_point(tried, cost).fits:
                counts = tried
                break
        else:
            waiting.remove(index)
        waiting = [i for i in waiting if counts[i]]
    return counts


def measure_excess(ratios: Mapping[str, float]) -> float:
    """How far the limits are missed, together; 0 where all are kept. What is within its limit draws no removal."""
    return sum(max(0.0, ratio - 1) for ratio in ratios.values())


class _Removal:
    """The next step of the removal; remembers gains from step to step.

    A move takes a fraction of a group, or (index None) of all groups: where several layers are equally the largest,
    none of them alone gains anything.
    """

    def __init__(self, widths: Widths, cost: Cost) -> None:
        self.widths, self.cost = widths, cost
        moves = [(index, fraction) for index in (*range(len(widths.orders)), None) for fraction in FRACTIONS]
        self.gains: dict[tuple[int | None, float], float] = dict.fromkeys(moves, math.inf)

    def choose(self, counts: Sequence[int], here: WidthPoint) -> list[int] | None:
        """Counts after the best move; None where none brings the limits nearer."""
        order = {move: place for place, move in enumerate(self.gains)}
        queue = [(-gain, order[move], move) for move, gain in self.gains.items()]
        heapq.heapify(queue)
        best: tuple[int | None, float] | None = None
        while queue:
            hoped, _, move = heapq.heappop(queue)
            if best is not None and -hoped * ENOUGH <= self.gains[best]:
                break
            self.gains[move] = self._measure(counts, move, here)
            if self.gains[move] > 0 and (best is None or self.gains[move] > self.gains[best]):
                best = move
        return None if best is None else self._apply(counts, best)

    def _apply(self, counts: Sequence[int], move: tuple[int | None, float]) -> list[int]:
        index, fraction = move
        return [
            min(len(order), count + math.ceil(fraction * (len(order) + 1 - count))) if index in (None, i) else count
            for i, (order, count) in enumerate(zip(self.widths.orders, counts, strict=True))
        ]

    def _measure(self, counts: Sequence[int], move: tuple[int | None, float], here: WidthPoint) -> float:
        """What a move brings the limits nearer, for each unit of importance that it costs."""
        after = self._apply(counts, move)
        if after == list(counts):
            return 0.0
        point = self.widths.make_point(after, self.cost)
        gain = measure_excess(here.ratios) - measure_excess(point.ratios)
        lost = sum(
            self.widths.loss(i, before, then) for i, (before, then) in enumerate(zip(counts, after, strict=True))
        )
        return max(0.0, gain) / (lost + _TINY)
