"""Which steps are streamed, and what that costs: the choice between memory and instructions.

`arena` keeps whole maps and shares their memory by lifetime. `auto` streams those segments (streaming.py) that need the
least memory for little time. `streaming` may cost more, if the memory it saves is worth it.

The search begins with whole maps and, again and again, streams a run of steps around the unit that needs the most
memory, as long as the total falls and the modelled cycles stay within the limit.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from edgeprune.codegen.frugal import find_frugal_steps
from edgeprune.codegen.kernel import Call, Lowered
from edgeprune.codegen.kernels import list_candidates, lower_call
from edgeprune.codegen.memory import (
    Arena,
    Buffer,
    align,
    count_alive_bytes,
    find_lower_bound,
    plan_arena,
    share_in_place,
)
from edgeprune.codegen.program import INPUT, OUTPUT, Program, Step
from edgeprune.codegen.streaming import Flow, Segment, Window, check_segment, count_step_rows, plan_segment
from edgeprune.target import Target

MEMORY_MODES = ("auto", "arena", "streaming")


@dataclass(frozen=True)
class Limit:
    """What a memory mode may cost. cycles: at most, of the whole-map program's modelled ones.

    weight: of the schedules within that, the one with the least RAM x cycles ** weight is taken;
    with 1.2 a tenth more time must save a little more than a tenth of the RAM.
    """

    cycles: float
    weight: float


LIMITS = {"auto": Limit(1.07, 1.2), "streaming": Limit(1.22, 1.2)}
_FIXED_BYTES = 1024  # RAM beside the arena: stack, input, output; so that the last bytes of a small arena count little
# rows of a segment's last step in each tick; kernels like multiples of 2, 4 and 6, and one less than those
PACES = (
    *(1, 2, 3, 4, 5, 6, 8, 10, 11, 12, 16, 18, 20, 22, 24, 28),
    *(30, 32, 34, 36, 40, 44, 48, 64),
)
SLACKS = (0, 512, 2048)  # bytes that a window may be larger for calls of full length (streaming.Segment)
MAX_TICKS = 512  # of one segment; below this the search stays quick and the tables short
_REACH = 16  # steps looked at before and after the one that needs the most memory
_PART_CALL = 0.6  # of a whole call's cycles: a call for fewer rows than usual
_CALL_CYCLES = 45  # of a streamed call beyond the kernel's own: progress, pointers, the call; counted on emitted code
_MOVE_CYCLES = 0.6  # per byte that slides: two words each way in an LDM/STM pair, and the loop


@dataclass(frozen=True, eq=False)
class Unit:
    """What runs at once: one step over whole maps, or a streamed segment of several."""

    first: int
    last: int
    segment: Segment | None = None


@dataclass(frozen=True, eq=False)
class Schedule:
    """A program ready to be written down as C.

    lowered: by step name. shared: buffer -> the one whose memory it takes. arena: offsets of buffers, and of the
    scratch ("scratch:<step>") and state ("state:<step>") memory. cycles: modelled, to compare schedules by.
    """

    program: Program
    target: Target
    units: tuple[Unit, ...]
    lowered: Mapping[str, Lowered]
    shared: Mapping[str, str]
    buffers: tuple[Buffer, ...]
    arena: Arena
    cycles: int

    @property
    def is_streaming(self) -> bool:
        return any(unit.segment is not None for unit in self.units)


class Scheduler:
    """Builds schedules of one program for one target; what was found is kept: searches ask for the same again."""

    def __init__(self, program: Program, target: Target, *, portable: bool = False) -> None:
        self.program, self.target, self.portable = program, target, portable
        self._lowered: dict[tuple[str, int], Lowered] = {}
        self._segments: dict[tuple[int, int, int, int], Segment | None] = {}
        self._flows: dict[tuple[int, int], Flow] = {}
        self._estimates: dict[tuple[tuple[int, int, int, int], ...], tuple[int, int]] = {}
        self._steps = {step.name: step for step in program.steps}
        self._frugal: frozenset[str] = frozenset()
        self._whole = {step.name: self._lower(step, count_step_rows(program, step)) for step in program.steps}
        if not portable:
            self._choose_frugal_steps()
        self._shared = share_in_place(program, self._whole)

    def build(self, segments: Sequence[Segment] = ()) -> Schedule:
        """The schedule with these segments streamed and all else over whole maps."""
        units, lowered, cycles, buffers = self._arrange(segments)
        arena = _add_inner_windows(plan_arena(buffers), segments)
        return Schedule(self.program, self.target, units, lowered, self._share(segments), buffers, arena, cycles)

    def estimate(self, segments: Sequence[Segment]) -> tuple[int, int]:
        """The least arena bytes that any placing could reach, and the modelled cycles; quick."""
        key = tuple((segment.first, segment.last, segment.pace, segment.slack_bytes) for segment in segments)
        if key not in self._estimates:
            _, _, cycles, buffers = self._arrange(segments)
            self._estimates[key] = find_lower_bound(buffers), cycles
        return self._estimates[key]

    def _arrange(
        self, segments: Sequence[Segment]
    ) -> tuple[tuple[Unit, ...], dict[str, Lowered], int, tuple[Buffer, ...]]:
        units = _list_units(len(self.program.steps), segments)
        lowered = dict(self._whole)
        cycles = 0.0
        for segment in segments:
            for step in self.program.steps[segment.first : segment.last + 1]:
                lowered[step.name] = self._lower(step, segment.rows_per_call[step.name])
            for name, calls in segment.calls.items():
                rows = count_step_rows(self.program, self._steps[name])
                least = -(-rows // segment.rows_per_call[name])  # the calls that the kernel's estimate counts
                cycles += calls * _CALL_CYCLES + lowered[name].cycles * _PART_CALL * (calls / least - 1)
            cycles += segment.moved_bytes * _MOVE_CYCLES
        cycles += sum(item.cycles for item in lowered.values())
        return units, lowered, round(cycles), self._list_buffers(units, lowered, self._share(segments))

    def _share(self, segments: Sequence[Segment]) -> dict[str, str]:
        """Buffers that are one; outside of segments also those of ops that work in place on whole maps only."""
        steps = self.program.steps
        streamed = {step.name for segment in segments for step in steps[segment.first : segment.last + 1]}
        return share_in_place(self.program, self._whole, streamed)

    def _choose_frugal_steps(self) -> None:
        """Take portable kernels where the fast ones' code is not worth its bytes (frugal.py)."""
        fast, plain = self._whole, {}
        for step in self.program.steps:
            found = list_candidates(self._make_call(step, count_step_rows(self.program, step)), portable=True)
            if found:
                plain[step.name] = found[0]
        self._frugal = find_frugal_steps(fast, plain)
        self._whole = {name: plain[name] if name in self._frugal else item for name, item in fast.items()}
        self._lowered = {key: item for key, item in self._lowered.items() if key[0] not in self._frugal}

    def plan(self, first: int, last: int, pace: int, slack_bytes: int = 0) -> Segment | None:
        """A segment of this program (`streaming.plan_segment`)."""
        key = first, last, pace, slack_bytes
        if key not in self._segments:
            if (first, last) not in self._flows:
                self._flows[first, last] = Flow(self.program, self._shared, first, last)
            flow, in_place = self._flows[first, last], self._may_write_in_place
            self._segments[key] = plan_segment(
                self.program, self._shared, first, last, pace, slack_bytes, in_place, flow
            )
        return self._segments[key]

    def _may_write_in_place(self, step: Step, rows: int) -> bool:
        return self._whole[step.name].in_place_rows and self._lower(step, rows).in_place_rows

    def _lower(self, step: Step, rows: int) -> Lowered:
        key = step.name, rows
        if key not in self._lowered:
            is_portable = self.portable or step.name in self._frugal
            self._lowered[key] = lower_call(self._make_call(step, rows), portable=is_portable)
        return self._lowered[key]

    def _make_call(self, step: Step, rows: int) -> Call:
        places, graph = self.program.places, self.program.graph
        strides = tuple(places[name].stride for name in step.inputs)
        return Call(step.name, step.op, graph, self.target, strides, places[step.output].stride, rows, step.part)

    def _list_buffers(
        self, units: Sequence[Unit], lowered: Mapping[str, Lowered], shared: Mapping[str, str]
    ) -> tuple[Buffer, ...]:
        """All memory of the arena, by step; what outlives a tick of a segment is alive for all of the segment."""
        lives: dict[str, tuple[int, int]] = {}
        sizes: dict[str, int] = {}
        extra: list[Buffer] = []
        for unit in units:
            for number in range(unit.first, unit.last + 1):
                step = self.program.steps[number]
                item = lowered[step.name]
                for name in (*step.inputs, step.output):
                    root = shared[self.program.places[name].buffer]
                    window = unit.segment.windows.get(root) if unit.segment is not None else None
                    is_passing = unit.segment is None or (window is not None and window.is_transient)
                    first, last = (number, number) if is_passing else (unit.first, unit.last)
                    known = lives.get(root, (first, last))
                    lives[root] = min(known[0], first), max(known[1], last)
                    sizes[root] = window.byte_count if window is not None else self.program.buffer_bytes[root]
                if item.state_bytes:
                    extra.append(Buffer(f"state:{step.name}", item.state_bytes, unit.first, unit.last))
                if item.scratch_bytes:
                    extra.append(Buffer(f"scratch:{step.name}", item.scratch_bytes, number, number))
        inner = {window.buffer for unit in units if unit.segment for window in _list_inner_windows(unit.segment)}
        maps = [
            Buffer(root, sizes[root], *life)
            for root, life in lives.items()
            if root not in (INPUT, OUTPUT) and root not in inner
        ]
        return (*maps, *extra)


def _list_inner_windows(segment: Segment) -> list[Window]:
    return [window for window in segment.windows.values() if window.inside is not None]


def _add_inner_windows(arena: Arena, segments: Sequence[Segment]) -> Arena:
    """Windows that lie at the beginning of others."""
    inner = {
        window.buffer: arena.offsets[window.inside]
        for segment in segments
        for window in _list_inner_windows(segment)
        if window.inside is not None
    }
    return replace(arena, offsets={**arena.offsets, **inner})


def make_schedule(scheduler: Scheduler, mode: str) -> Schedule:
    """The schedule of a memory mode (MEMORY_MODES); see the head of this file."""
    whole = scheduler.build()
    if mode == "arena":
        return whole
    best, segments = _search(scheduler, whole, LIMITS[mode])
    for segment in segments:
        check_segment(scheduler.program, best.shared, segment)
    return best


def _search(scheduler: Scheduler, whole: Schedule, limit: Limit) -> tuple[Schedule, tuple[Segment, ...]]:
    """The best schedule that streaming more and more leads to, and its segments."""

    def score(arena_bytes: int, cycles: int) -> float:
        return (arena_bytes + _FIXED_BYTES) * (cycles / whole.cycles) ** limit.weight

    best = whole
    segments: tuple[Segment, ...] = ()
    while True:
        found: tuple[float, tuple[Segment, ...]] | None = None
        for candidate in _propose(scheduler, best, segments):
            arena_bytes, cycles = scheduler.estimate(candidate)
            if cycles <= limit.cycles * whole.cycles and (found is None or score(arena_bytes, cycles) < found[0]):
                found = score(arena_bytes, cycles), candidate
        schedule = None if found is None else scheduler.build(found[1])
        if schedule is None or score(schedule.arena.byte_count, schedule.cycles) >= score(
            best.arena.byte_count, best.cycles
        ):
            return best, segments
        assert found is not None  # so is the schedule
        best, segments = schedule, found[1]


def _propose(scheduler: Scheduler, schedule: Schedule, segments: tuple[Segment, ...]) -> Iterator[tuple[Segment, ...]]:
    """Segments around the unit that needs the most memory, in place of those that they overlap."""
    peak = _find_peak(schedule)
    count = len(scheduler.program.steps)
    for first in range(max(0, peak.first - _REACH), peak.first + 1):
        for last in range(max(peak.last, first + 1), min(count, peak.last + _REACH + 1)):
            if any(old.first < first <= old.last or old.first <= last < old.last for old in segments):
                continue  # would cut a segment in two
            rest = tuple(old for old in segments if old.last < first or old.first > last)
            rows = count_step_rows(scheduler.program, scheduler.program.steps[last])
            for pace, slack_bytes in itertools.product(PACES, SLACKS):
                if pace > rows or -(-rows // pace) > MAX_TICKS:
                    continue
                segment = scheduler.plan(first, last, pace, slack_bytes)
                if segment is None:
                    break  # at any pace
                kept = sum(align(window.byte_count) for window in segment.windows.values() if not window.is_transient)
                if kept >= schedule.arena.byte_count:
                    break  # a faster pace only needs larger windows
                yield tuple(sorted((*rest, segment), key=lambda item: item.first))


def _find_peak(schedule: Schedule) -> Unit:
    """The unit with the step at which the most bytes are alive."""
    peak = max(range(len(schedule.program.steps)), key=lambda step: count_alive_bytes(schedule.buffers, step))
    return next(unit for unit in schedule.units if unit.first <= peak <= unit.last)


def _list_units(step_count: int, segments: Sequence[Segment]) -> tuple[Unit, ...]:
    units, at = [], 0
    for segment in sorted(segments, key=lambda item: item.first):
        units += [Unit(index, index) for index in range(at, segment.first)]
        units.append(Unit(segment.first, segment.last, segment))
        at = segment.last + 1
    return (*units, *(Unit(index, index) for index in range(at, step_count)))


__all__ = ["LIMITS", "MEMORY_MODES", "Schedule", "Scheduler", "Unit", "make_schedule"]
