"""Which steps to stream, by what a similar program streams: hundreds of times as quick as the search of `schedule`.

The search of a memory mode looks at thousands of runs of steps and paces. A net at another width has the same steps,
and mostly the same runs pay: so only these are tried, at the paces near theirs, and taken where they save. The result
keeps the mode's limit on cycles; it can be worse than what the whole search finds, never invalid.
"""

from __future__ import annotations

from collections.abc import Iterator

from edgeprune.codegen.schedule import LIMITS, PACES, SLACKS, Limit, Schedule, Scheduler
from edgeprune.codegen.streaming import Segment, check_segment, count_step_rows

_NEAR = 3  # paces tried on each side of the other program's
_FIXED_BYTES = 1024  # RAM beside the arena, as in codegen/schedule.py

Segments = tuple[Segment, ...]


def search_alike(scheduler: Scheduler, mode: str, like: Schedule) -> Schedule | None:
    """The best schedule that streams what `like` streams or a part of it; None where its steps are others."""
    steps = scheduler.program.steps
    if [step.name for step in steps] != [step.name for step in like.program.steps]:
        return None
    whole = scheduler.build()
    if mode == "arena":
        return whole
    hints = [unit.segment for unit in like.units if unit.segment is not None]
    best, limit = whole, LIMITS[mode]
    segments: Segments = ()
    while hints:  # one run may only save memory once another is streamed
        for hint in hints:
            found = _choose(scheduler, whole, limit, segments, hint)
            schedule = None if found is None else scheduler.build(found)
            if schedule is not None and found is not None and _is_better(schedule, best, whole, limit):
                best, segments = schedule, found
                hints.remove(hint)
                break
        else:
            break
    for segment in segments:
        check_segment(scheduler.program, best.shared, segment)
    return best


def _is_better(schedule: Schedule, best: Schedule, whole: Schedule, limit: Limit) -> bool:
    scores = [_score(item.arena.byte_count, item.cycles, whole, limit) for item in (schedule, best)]
    return scores[0] < scores[1]


def _score(arena_bytes: int, cycles: int, whole: Schedule, limit: Limit) -> float:
    return float((arena_bytes + _FIXED_BYTES) * (cycles / whole.cycles) ** limit.weight)


def _choose(scheduler: Scheduler, whole: Schedule, limit: Limit, segments: Segments, hint: Segment) -> Segments | None:
    """The segments so far with the one that is hinted at, at its best pace; None where none is within the limit."""
    found: tuple[float, Segments] | None = None
    for segment in _vary(scheduler, hint):
        candidate = tuple(sorted((*segments, segment), key=lambda item: item.first))
        arena_bytes, cycles = scheduler.estimate(candidate)
        score = _score(arena_bytes, cycles, whole, limit)
        if cycles <= limit.cycles * whole.cycles and (found is None or score < found[0]):
            found = score, candidate
    return None if found is None else found[1]


def _vary(scheduler: Scheduler, hint: Segment) -> Iterator[Segment]:
    """The hinted run of steps at paces near its own."""
    rows = count_step_rows(scheduler.program, scheduler.program.steps[hint.last])
    near = sorted(PACES, key=lambda pace: abs(PACES.index(pace) - PACES.index(hint.pace)))[: 2 * _NEAR + 1]
    for pace in sorted(near):
        for slack_bytes in SLACKS:
            segment = scheduler.plan(hint.first, hint.last, pace, slack_bytes) if pace <= rows else None
            if segment is not None:
                yield segment
