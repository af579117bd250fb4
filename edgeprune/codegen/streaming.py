"""Row streaming: a run of steps computed a few rows at a time, keeping windows of rows instead of whole maps.

A *segment* is a run of steps that all work row by row. Its last step sets the pace: `pace` rows of it are made in each
tick. Going backwards, every other step must have made, by the end of tick i, as many rows as its readers need: a linear
function of i, since windows slide by constant strides,

    rows(i) = max(0, min(cap, slope * (i + 1) + offset)),      rows(last tick) = cap.

The first ticks fill the windows: there are as many of them as it takes for no step to make more than `slope` rows in
one tick, and in these the last steps make nothing.

A tensor that nobody outside the segment reads lives in a window: the rows from the first that a reader still needs to
the last that has been made. At the start of a tick what is no longer needed slides out (runtime/ep_stream.h). How many
rows a window must hold is found by going through all ticks here, at compile time; no size is left to chance.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType

from edgeprune.codegen.kernel import find_area
from edgeprune.codegen.program import INPUT, OUTPUT, Program, Step
from edgeprune.codegen.rows import ONE_TO_ONE, RowWindow, find_row_window, is_row_reduction


@dataclass(frozen=True)
class Progress:
    """How many rows a step has made by the end of a tick."""

    slope: int
    offset: int
    cap: int

    def rows(self, tick: int, ticks: int) -> int:
        if tick < 0:
            return 0
        return self.cap if tick == ticks - 1 else max(0, min(self.cap, self.slope * (tick + 1) + self.offset))


@dataclass(frozen=True)
class Window:
    """A buffer of which only some rows exist.

    rows: how many it holds at most. row_bytes: columns x stride. writers, readers: names of steps.
    is_transient: no row outlives the tick in which it was made, so that the memory is free before and after.
    anchor: of a window whose first row follows its only reader, before the map's first row too (padding), the rows
        that the reader looks back; None where it begins with the first row that is needed and exists.
    inside: the anchored window whose first rows are this one's memory: rows that nobody needs again.
    """

    buffer: str
    rows: int
    row_bytes: int
    writers: tuple[str, ...]
    readers: tuple[str, ...]
    is_transient: bool
    anchor: int | None = None
    inside: str | None = None

    @property
    def byte_count(self) -> int:
        return self.rows * self.row_bytes


@dataclass(frozen=True, eq=False)
class Segment:
    """Steps `first` to `last` of a program, streamed.

    pace: rows of the last step in each tick. progress, row_windows: by step name. windows: by buffer.
    slack_bytes: what a window may be larger, so that its writer makes `slope` rows in each tick but the last; else a
        step makes just what its readers need, which may take one call more.
    rows_per_call: the most rows that a step is asked for at once; a longer stretch is asked for in several calls.
    moved_bytes: what sliding moves in one inference. calls: of each step's kernel, in one inference.
    """

    first: int
    last: int
    pace: int
    slack_bytes: int
    ticks: int
    progress: Mapping[str, Progress]
    row_windows: Mapping[str, RowWindow]
    windows: Mapping[str, Window]
    rows_per_call: Mapping[str, int]
    moved_bytes: int
    calls: Mapping[str, int]


def count_step_rows(program: Program, step: Step) -> int:
    """The rows a step makes in all; of a reduction, those it takes in."""
    name = step.inputs[0] if is_row_reduction(program.graph, step.op) else step.output
    return find_area(program.graph.tensors[name].shape).rows


def plan_segment(
    program: Program,
    shared: Mapping[str, str],
    first: int,
    last: int,
    pace: int,
    slack_bytes: int = 0,
    may_write_in_place: Callable[[Step, int], bool] = lambda _step, _rows: False,
    flow: Flow | None = None,
) -> Segment | None:
    """Stream the steps `first`..`last` at `pace` rows of the last one; None where that cannot be.

    shared: buffer -> the buffer whose memory it takes (memory.share_in_place). may_write_in_place: whether a step's
    kernel, asked for so many rows at a time, may write over input rows that are done with (Lowered.in_place_rows).
    flow: that of these steps, for one who plans them at many paces.
    """
    steps = program.steps[first : last + 1]
    row_windows: dict[str, RowWindow] = {}
    for step in steps:
        window = find_row_window(program.graph, step.op)
        if window is None or (is_row_reduction(program.graph, step.op) and step is not steps[-1]):
            return None
        row_windows[step.name] = window
    flow = flow or Flow(program, shared, first, last)
    if not flow.keeps_rows:
        return None
    ticks = -(-count_step_rows(program, steps[-1]) // pace)
    progress = _find_progress(program, flow, row_windows, pace, ticks, slack_bytes)
    if progress is None:
        return None
    filling = max(-(-item.offset // item.slope) for item in progress.values())  # of the last step it is 0
    ticks += filling
    progress = {
        name: Progress(item.slope, item.offset - item.slope * filling, item.cap) for name, item in progress.items()
    }
    rows_per_call = {
        step.name: max(1, min(progress[step.name].slope, count_step_rows(program, step))) for step in steps
    }
    windows, moved = _size_windows(program, flow, row_windows, progress, ticks)
    anchors = {
        flow.root(step.inputs[0]): row_windows[step.name].before
        for step in steps
        if _fits_inside(program, flow, windows, row_windows, step)
        and may_write_in_place(step, rows_per_call[step.name])
    }
    if anchors:
        windows, moved = _size_windows(program, flow, row_windows, progress, ticks, anchors)
        windows = {
            root: replace(window, inside=_find_anchored(flow, anchors, window)) for root, window in windows.items()
        }
    calls = {name: _count_calls(item, ticks, rows_per_call[name]) for name, item in progress.items()}
    return Segment(first, last, pace, slack_bytes, ticks, progress, row_windows, windows, rows_per_call, moved, calls)


def _count_calls(progress: Progress, ticks: int, rows_per_call: int) -> int:
    made = [progress.rows(tick, ticks) for tick in range(-1, ticks)]
    return sum(-(-(after - before) // rows_per_call) for before, after in itertools.pairwise(made))


class Flow:
    """Who writes and reads which buffer in a run of steps, and which buffers live in it alone."""

    def __init__(self, program: Program, shared: Mapping[str, str], first: int, last: int) -> None:
        self.program, self.shared = program, shared
        self._feeds: dict[tuple[str, str], bool] = {}
        self.steps = program.steps[first : last + 1]
        outside = (*program.steps[:first], *program.steps[last + 1 :])
        used_outside = {self.root(name) for step in outside for name in (*step.inputs, step.output)}
        self.writers: dict[str, list[Step]] = {}
        self.readers: dict[str, list[Step]] = {}
        for step in self.steps:
            self.writers.setdefault(self.root(step.output), []).append(step)
            for root in dict.fromkeys(self.root(name) for name in step.inputs):
                self.readers.setdefault(root, []).append(step)
        self.windowed = [
            root
            for root in self.writers
            if root not in used_outside
            and root not in (INPUT, OUTPUT)
            and root in self.readers
            and self._has_rows(root)
        ]

    def root(self, tensor: str) -> str:
        buffer = self.program.places[tensor].buffer
        return self.shared.get(buffer, buffer)

    def feeds(self, writer: Step, reader: Step) -> bool:
        """Whether a step reads bytes that another writes: one buffer may hold several tensors."""
        key = writer.name, reader.name
        if key not in self._feeds:
            written = self._find_bytes(writer.output)
            self._feeds[key] = any(
                self.root(name) == self.root(writer.output) and have_overlap(written, self._find_bytes(name))
                for name in reader.inputs
            )
        return self._feeds[key]

    @cached_property
    def keeps_rows(self) -> bool:
        """Whether row r of what a step reads is row r of what an earlier one wrote: no concat or slice of rows."""
        return all(
            self._have_equal_rows(writer.output, name)
            for index, writer in enumerate(self.steps)
            for reader in self.steps[index + 1 :]
            for name in reader.inputs
            if self.root(name) == self.root(writer.output)
            and have_overlap(self._find_bytes(writer.output), self._find_bytes(name))
        )

    def _have_equal_rows(self, first: str, second: str) -> bool:
        areas = [find_area(self.program.graph.tensors[name].shape) for name in (first, second)]
        places = [self.program.places[name] for name in (first, second)]
        sizes = {area.columns * place.stride for area, place in zip(areas, places, strict=True)}
        is_shifted = abs(places[0].offset - places[1].offset) >= min(sizes)
        return areas[0].rows == areas[1].rows and len(sizes) == 1 and not is_shifted

    def _find_bytes(self, tensor: str) -> range:
        area, place = find_area(self.program.graph.tensors[tensor].shape), self.program.places[tensor]
        return range(place.offset, place.offset + (area.pixels - 1) * place.stride + area.channels)

    def row_bytes(self, root: str) -> int:
        tensor = self.writers[root][0].output
        return find_area(self.program.graph.tensors[tensor].shape).columns * self.program.places[tensor].stride

    def _has_rows(self, root: str) -> bool:
        """Whether all that lies in the buffer has the same rows, side by side."""
        names = {step.output for step in self.writers[root]}
        names |= {name for step in self.readers[root] for name in step.inputs if self.root(name) == root}
        size = self.row_bytes(root)
        forms = set()
        for name in names:
            area, place = find_area(self.program.graph.tensors[name].shape), self.program.places[name]
            forms.add((area.rows, area.columns * place.stride))
            if place.offset + (area.columns - 1) * place.stride + area.channels > size:
                return False
        return len(forms) == 1


def have_overlap(first: range, second: range) -> bool:
    """Whether two runs of bytes have one in common."""
    return first.start < second.stop and second.start < first.stop


def _find_progress(
    program: Program, flow: Flow, row_windows: Mapping[str, RowWindow], pace: int, ticks: int, slack_bytes: int
) -> dict[str, Progress] | None:
    """Each step's progress, from the last step backwards; None where branches run at different paces."""
    steps = flow.steps
    progress = {steps[-1].name: Progress(pace, 0, count_step_rows(program, steps[-1]))}
    for index in range(len(steps) - 2, -1, -1):
        step, root = steps[index], flow.root(steps[index].output)
        rows = count_step_rows(program, step)
        demands = []
        for reader in steps[index + 1 :]:
            if flow.feeds(step, reader):
                window, made = row_windows[reader.name], progress[reader.name]
                reach = window.size - window.stride - window.before
                demands.append(
                    (
                        made.slope * window.stride,
                        made.offset * window.stride + reach,
                        window.rows_needed(made.cap, rows),
                    )
                )
        leaves = root not in flow.windowed
        if not demands:  # read after the segment only: keep the pace that its length asks for
            demands.append((-(-rows // ticks), 0, rows))
        if len({slope for slope, _, _ in demands}) > 1:
            return None
        cap = rows if leaves else max(cap for _, _, cap in demands)
        slope, offset = demands[0][0], max(offset for _, offset, _ in demands)
        ahead = -offset % slope  # rows more than its readers ask for make all calls but the last whole ones
        if ahead * flow.row_bytes(root) <= slack_bytes:
            offset += ahead
        progress[step.name] = Progress(slope, offset, cap)
    return progress


def _size_windows(
    program: Program,
    flow: Flow,
    row_windows: Mapping[str, RowWindow],
    progress: Mapping[str, Progress],
    ticks: int,
    anchors: Mapping[str, int] = MappingProxyType({}),
) -> tuple[dict[str, Window], int]:
    """The windows, large enough for every tick, and the bytes that slide in all. anchors: see Window."""
    windows, moved = {}, 0
    for root in flow.windowed:
        writers, readers = flow.writers[root], flow.readers[root]
        anchor = anchors.get(root)
        rows, first = 0, -(anchor or 0)
        is_transient = True
        for tick in range(ticks):
            made = [progress[step.name].rows(tick - 1, ticks) for step in writers]
            needed = [  # as the emitted C counts: an anchored window begins before the map
                row_windows[step.name].first_needed(progress[step.name].rows(tick - 1, ticks), anchor is not None)
                for step in readers
            ]
            start = max(first, min(*needed, *made))
            if start > first:
                moved += (max(made) - start) * flow.row_bytes(root)
            is_transient = is_transient and start == max(made)
            first = start
            rows = max(rows, max(progress[step.name].rows(tick, ticks) for step in writers) - first)
        names = tuple(step.name for step in writers), tuple(step.name for step in readers)
        windows[root] = Window(root, rows, flow.row_bytes(root), *names, is_transient, anchor)
    return windows, moved


def _fits_inside(
    program: Program, flow: Flow, windows: Mapping[str, Window], row_windows: Mapping[str, RowWindow], step: Step
) -> bool:
    """Whether the output rows, gone by the end of the tick, have the form of the input rows that are done with."""
    x, y = (program.places[name] for name in (step.inputs[0], step.output))
    source, target = windows.get(flow.root(step.inputs[0])), windows.get(flow.root(step.output))
    if source is None or target is None or len(step.inputs) > 1 or row_windows[step.name].stride != 1:
        return False
    # other readers may only be ops in place, before this one, which are done with a row once it is made
    others = [name for name in source.readers if name != step.name]
    alone = target.writers == (step.name,) == source.readers[-1:] and all(
        row_windows[name] == ONE_TO_ONE for name in others
    )
    same = source.row_bytes == target.row_bytes and (x.offset, x.stride) == (y.offset, y.stride) == (0, y.stride)
    return alone and same and target.is_transient and not source.is_transient


def _find_anchored(flow: Flow, anchors: Mapping[str, int], window: Window) -> str | None:
    """The anchored window that a window's writer reads, if it has been given one."""
    writer = next(step for step in flow.steps if step.name == window.writers[0])
    root = flow.root(writer.inputs[0])
    return root if root in anchors and root != window.buffer else None


def check_segment(program: Program, shared: Mapping[str, str], segment: Segment) -> None:
    """Go through all ticks and see that each row is there when it is read; raises AssertionError (a fault of ours)."""
    steps: Sequence[Step] = program.steps[segment.first : segment.last + 1]
    flow = Flow(program, shared, segment.first, segment.last)
    for tick in range(segment.ticks):
        for step in steps:
            made = segment.progress[step.name].rows(tick, segment.ticks)
            for name in step.inputs:
                rows = find_area(program.graph.tensors[name].shape).rows
                needed = segment.row_windows[step.name].rows_needed(made, rows)
                for writer in steps[: steps.index(step)]:
                    if not flow.feeds(writer, step) or flow.root(writer.output) != flow.root(name):
                        continue
                    there = segment.progress[writer.name].rows(tick, segment.ticks)
                    assert there >= needed, (tick, step.name, writer.name, there, needed)
