"""Selection: which units go, given their scores."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgeprune.errors import InputError
from edgeprune.prune.units import ChannelUnits, guard_units

SCOPES = ("layer", "global")


@dataclass(frozen=True)
class LeftOver:
    """Of a group of coupled layers, after some pruning: the units that are left, and how many there were at first."""

    units: tuple[int, ...]
    first_size: int


def select_lowest(
    units: ChannelUnits,
    scores: Mapping[int, float],
    ratio: float,
    scope: str = "layer",
    *,
    relative: bool = True,
    left: Sequence[LeftOver] | None = None,
) -> frozenset[int]:
    """The units of the lowest scores; every layer, tensor and parameter keeps at least one channel.

    ratio: share to remove, 0 <= ratio < 1, of the units that can go at all (pinned channels do not count).
    scope: "layer" removes floor(ratio * n) of the n units of each group of coupled layers, so every layer loses the
        same share (of a layer that stands alone: the floor(ratio * n) filters of lowest score). "global" removes
        floor(ratio * n) of all units at once.
    relative: with scope "global", scores are divided by the mean of their group: sums over filters of different sizes
        cannot be compared. False for scores that can, such as BatchNorm scales.
    left: of pruning in steps, what is left of the groups that there were at first. n then counts what there was, and
        what is gone counts as removed: steps of rising ratio end at the same numbers as one step of the last ratio.

    Ties go to the unit that comes first in the program. Units without a score stay.
    Raises InputError for a ratio outside [0, 1), an unknown scope, or a score that is not a number.
    """
    if not 0 <= ratio < 1:
        raise InputError(f"ratio is {ratio}; allowed are 0 (nothing is removed) up to, but not including, 1")
    if scope not in SCOPES:
        raise InputError(f"scope is {scope!r}; allowed: {', '.join(SCOPES)}")
    for unit, score in scores.items():
        if not math.isfinite(score):
            raise InputError(f"unit {unit} scores {score}; the model's weights must be finite")
    if left is None:
        left = [LeftOver(group.units, sum(unit in scores for unit in group.units)) for group in units.groups]
    groups = [[unit for unit in group.units if unit in scores] for group in left]
    sizes = [group.first_size for group in left]
    gone = [size - len(group) for size, group in zip(sizes, groups, strict=True)]
    ranked = dict(scores)
    if scope == "global":
        if relative:
            for group in groups:
                mean = sum(scores[unit] for unit in group) / max(len(group), 1)
                ranked.update((unit, scores[unit] / mean) for unit in group if mean)
        groups = [list(dict.fromkeys(unit for group in groups for unit in group))]
        sizes, gone = [sum(sizes)], [sum(gone)]
    dead: set[int] = set()
    for group, size, before in zip(groups, sizes, gone, strict=True):
        order = sorted(group, key=lambda unit: (ranked[unit], unit))
        wanted = math.floor(ratio * size + 1e-9)  # 0.29 * 100 is 28.999999999999996
        dead.update(order[: max(0, wanted - before)])
    return guard_units(units, dead, ranked)
