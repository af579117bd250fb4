"""The arena over time, as reports draw it: which bytes each buffer takes, from which step to which."""

from __future__ import annotations

from dataclasses import dataclass

from edgeprune.codegen.memory import count_alive_bytes
from edgeprune.codegen.schedule import Schedule

WHOLE, WINDOW, SCRATCH, STATE = "whole", "window", "scratch", "state"


@dataclass(frozen=True)
class PlannedBuffer:
    """Bytes `offset` to `offset + bytes` of the arena, taken from step `first` to step `last`, both included.

    name: the tensor, or the layer whose scratch or state memory it is. kind: 'whole' (a whole feature map), 'window'
    (some rows of one, in a streamed run), 'scratch' (of one call) or 'state' (kept between the calls of one layer).
    holds: further tensors that take the same memory in turn. inside: the buffer whose first, finished rows this
    window writes over; its bytes are not added to that one's.
    """

    name: str
    offset: int
    bytes: int
    first: int
    last: int
    kind: str = WHOLE
    holds: tuple[str, ...] = ()
    inside: str = ""


@dataclass(frozen=True)
class StreamedRun:
    """Steps `first` to `last`, computed a few rows at a time, in so many ticks."""

    first: int
    last: int
    ticks: int


@dataclass(frozen=True)
class MemoryPlan:
    """All of the arena: `bytes` in all, of which `live_bytes[step]` hold something while that step runs.

    steps: the layers' names in order of execution. The caller's input and output lie outside of the arena.
    """

    bytes: int
    steps: tuple[str, ...]
    live_bytes: tuple[int, ...]
    buffers: tuple[PlannedBuffer, ...]
    streamed: tuple[StreamedRun, ...]


def describe_memory(schedule: Schedule) -> MemoryPlan:
    """The plan of a schedule's arena, buffers by time, then by offset."""
    steps = schedule.program.steps
    runs = tuple(
        StreamedRun(unit.first, unit.last, unit.segment.ticks) for unit in schedule.units if unit.segment is not None
    )
    buffers = sorted(_list_buffers(schedule), key=lambda item: (item.first, item.offset, item.name))
    live = tuple(count_alive_bytes(schedule.buffers, number) for number in range(len(steps)))
    names = tuple(step.op.name for step in steps)
    return MemoryPlan(schedule.arena.byte_count, names, live, tuple(buffers), runs)


def _list_buffers(schedule: Schedule) -> list[PlannedBuffer]:
    layers = {step.name: step.op.name for step in schedule.program.steps}
    windows = {
        root: (unit, window)
        for unit in schedule.units
        if unit.segment is not None
        for root, window in unit.segment.windows.items()
    }
    found = []
    for buffer in schedule.buffers:
        offset = schedule.arena.offsets[buffer.name]
        life = buffer.byte_count, buffer.first, buffer.last
        kind, _, step = buffer.name.partition(":")
        if kind in (SCRATCH, STATE) and step in layers:
            found.append(PlannedBuffer(layers[step], offset, *life, kind))
        else:
            kind = WINDOW if buffer.name in windows else WHOLE
            name, *holds = _list_tensors(schedule, buffer.name)
            found.append(PlannedBuffer(name, offset, *life, kind, tuple(holds)))
    for root, (unit, window) in windows.items():
        if window.inside is not None:  # has no buffer of its own
            name, *holds = _list_tensors(schedule, root)
            host = _list_tensors(schedule, window.inside)[0]
            offset = schedule.arena.offsets[root]
            life = window.byte_count, unit.first, unit.last
            found.append(PlannedBuffer(name, offset, *life, WINDOW, tuple(holds), host))
    return found


def _list_tensors(schedule: Schedule, root: str) -> list[str]:
    """The tensors that a buffer holds, in the order in which they are written."""
    places, shared = schedule.program.places, schedule.shared
    written = dict.fromkeys(step.output for step in schedule.program.steps)
    names = [name for name in written if shared.get(places[name].buffer, places[name].buffer) == root]
    return names or [root]


__all__ = ["MemoryPlan", "PlannedBuffer", "StreamedRun", "describe_memory"]
