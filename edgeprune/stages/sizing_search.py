"""Which steps to stream, beginning with what a similar program streams: several times as quick as codegen's search.

The search of a memory mode (codegen/schedule.py) looks at thousands of runs of steps and paces. A net at another width
has the same steps, and mostly the same runs pay: these are tried first, at the paces near theirs. Then runs around what
needs the most memory, as there, but at a few paces, of which the best is refined. The result keeps the mode's limit on
cycles; it can be worse than what the whole search finds, never invalid.
"""

from __future__ import annotations

from collections.abc import Iterator

from edgeprune.codegen.memory import align, count_alive_bytes
from edgeprune.codegen.schedule import LIMITS, MAX_TICKS, PACES, SLACKS, Limit, Schedule, Scheduler, Unit
from edgeprune.codegen.streaming import Segment, check_segment, count_step_rows

_NEAR = 3  # paces tried on each side of another
_FEW_PACES = (2, 3, 4, 6, 12, 24)
_REACH = 16  # steps looked at before and after the one that needs the most memory, as in codegen/schedule.py
_FIXED_BYTES = 1024  # RAM beside the arena, likewise

Segments = tuple[Segment, ...]


def search_alike(scheduler: Scheduler, mode: str, like: Schedule) -> Schedule | None:
    """A schedule of a memory mode for a program with the steps of `like`; None where its steps are others."""
    steps = scheduler.program.steps
    if [step.name for step in steps] != [step.name for step in like.program.steps]:
        return None
    whole = scheduler.build()
    if mode == "arena":
        return whole
    search = _Search(scheduler, whole, LIMITS[mode])
    search.take_hints([unit.segment for unit in like.units if unit.segment is not None])
    search.look_around()
    for segment in search.segments:
        check_segment(scheduler.program, search.best.shared, segment)
    return search.best


class _Search:
    """best: the schedule so far; segments: what it streams."""

    def __init__(self, scheduler: Scheduler, whole: Schedule, limit: Limit) -> None:
        self.scheduler, self.whole, self.limit = scheduler, whole, limit
        self.best = whole
        self.segments: Segments = ()

    def take_hints(self, hints: list[Segment]) -> None:
        """Stream these runs where that pays, again and again: one may only save memory once another is streamed."""
        while any(self._try(self._vary(hint.first, hint.last, hint.pace)) for hint in hints):
            pass

    def look_around(self) -> None:
        """Stream runs around the unit that needs the most memory, as long as that pays."""
        while True:
            found = self._choose(self._propose())
            if found is None:
                return
            known = {(item.first, item.last) for item in self.segments}
            new = next((item for item in found if (item.first, item.last) not in known), found[0])
            if not self._try(self._vary(new.first, new.last, new.pace)):
                return

    def _try(self, candidates: Iterator[Segments]) -> bool:
        """Take the best of the candidates, if it is better than what there is."""
        found = self._choose(candidates)
        schedule = None if found is None else self.scheduler.build(found)
        if schedule is None or found is None or self._score(schedule) >= self._score(self.best):
            return False
        self.best, self.segments = schedule, found
        return True

    def _choose(self, candidates: Iterator[Segments]) -> Segments | None:
        """The best within the limit, by estimate."""
        found: tuple[float, Segments] | None = None
        for candidate in candidates:
            arena_bytes, cycles = self.scheduler.estimate(candidate)
            score = self._rate(arena_bytes, cycles)
            if cycles <= self.limit.cycles * self.whole.cycles and (found is None or score < found[0]):
                found = score, candidate
        return None if found is None else found[1]

    def _score(self, schedule: Schedule) -> float:
        return self._rate(schedule.arena.byte_count, schedule.cycles)

    def _rate(self, arena_bytes: int, cycles: int) -> float:
        return float((arena_bytes + _FIXED_BYTES) * (cycles / self.whole.cycles) ** self.limit.weight)

    def _propose(self) -> Iterator[Segments]:
        """Runs around the unit that needs the most memory, at a few paces."""
        count = len(self.scheduler.program.steps)
        buffers = self.best.buffers
        at = max(range(count), key=lambda step: count_alive_bytes(buffers, step))
        peak: Unit = next(unit for unit in self.best.units if unit.first <= at <= unit.last)
        for first in range(max(0, peak.first - _REACH), peak.first + 1):
            for last in range(max(peak.last, first + 1), min(count, peak.last + _REACH + 1)):
                for pace in _FEW_PACES:
                    segment = self._plan(first, last, pace, 0)
                    if segment is None:
                        continue
                    kept = [align(item.byte_count) for item in segment.windows.values() if not item.is_transient]
                    if sum(kept) >= self.best.arena.byte_count:
                        break  # a faster pace only needs larger windows
                    candidate = self._combine(segment)
                    if candidate is not None:
                        yield candidate

    def _vary(self, first: int, last: int, pace: int) -> Iterator[Segments]:
        """A run of steps at paces near one."""
        near = sorted(PACES, key=lambda other: abs(PACES.index(other) - PACES.index(pace)))[: 2 * _NEAR + 1]
        for other in sorted(near):
            for slack_bytes in SLACKS:
                segment = self._plan(first, last, other, slack_bytes)
                candidate = None if segment is None else self._combine(segment)
                if candidate is not None:
                    yield candidate

    def _plan(self, first: int, last: int, pace: int, slack_bytes: int) -> Segment | None:
        rows = count_step_rows(self.scheduler.program, self.scheduler.program.steps[last])
        if pace > rows or -(-rows // pace) > MAX_TICKS:
            return None
        return self.scheduler.plan(first, last, pace, slack_bytes)

    def _combine(self, segment: Segment) -> Segments | None:
        """The segments so far with this one in place of those inside it; None where it would cut one in two."""
        rest = []
        for old in self.segments:
            if old.last < segment.first or old.first > segment.last:
                rest.append(old)
            elif old.first < segment.first or old.last > segment.last:
                return None
        return tuple(sorted((*rest, segment), key=lambda item: item.first))
