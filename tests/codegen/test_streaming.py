"""Row streaming: every row is in its window when it is read, and no window is larger than it must be."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest

from edgeprune.codegen.kernel import find_area
from edgeprune.codegen.program import Program, Step, make_program
from edgeprune.codegen.rows import RowWindow, find_row_window, is_row_reduction
from edgeprune.codegen.streaming import Segment, check_segment, count_step_rows, plan_segment
from edgeprune.codegen.upright import stand_up
from tests.codegen.harness import make_int8_network
from tests.lower.handmade import NETWORKS
from tests.random_graphs import make_random_chain

SOURCES = (*range(25), *NETWORKS)
KINDS = ("conv_2d", "depthwise_conv_2d", "max_pool_2d", "add", "relu", "concat", "pad")


def never(_step: Step, _rows: int) -> bool:
    """No step writes in place."""
    return False


@functools.cache
def _list_segments(source: int | str) -> list[tuple[Program, Segment]]:
    """Segments of a random chain by its seed, or of a network of handmade.py by its name."""
    graph = make_random_chain(source, KINDS) if isinstance(source, int) else make_int8_network(source)
    program = make_program(stand_up(graph))
    alone = {name: name for name in program.buffer_bytes}
    found = []
    paces = (1, 2, 5) if isinstance(source, int) else (8,)
    for first in range(len(program.steps)):
        for last in range(first, len(program.steps)):
            for pace, slack_bytes in itertools.product(paces, (0, 10_000)):
                in_place = (lambda step, _rows: step.op.kind == "depthwise_conv_2d") if (first + last) % 2 else never
                segment = plan_segment(program, alone, first, last, pace, slack_bytes, in_place)
                if segment is not None:
                    found.append((program, segment))
    return found


@pytest.mark.parametrize("source", SOURCES)
def test_rows_are_in_their_windows_when_read(source: int | str) -> None:
    """The ticks are gone through with sets of rows, as the generated C goes through them with memory."""
    for program, segment in _list_segments(source):
        check_segment(program, {}, segment)
        simulation = _Simulation(program, segment)
        simulation.run()
        assert (simulation.inside > 0) == any(window.inside is not None for window in segment.windows.values())


def test_there_are_segments_to_test() -> None:
    segments = [segment for source in SOURCES for _, segment in _list_segments(source)]
    assert sum(len(segment.windows) > 1 for segment in segments) > 100
    assert sum(segment.ticks > 3 for segment in segments) > 100
    assert sum(window.inside is not None for segment in segments for window in segment.windows.values()) > 10


class _Simulation:
    """Which rows of each windowed buffer exist, by the step that wrote them."""

    def __init__(self, program: Program, segment: Segment) -> None:
        self.program, self.segment = program, segment
        self.steps = program.steps[segment.first : segment.last + 1]
        self.made = {step.name: 0 for step in self.steps}
        self.first = {buffer: -(window.anchor or 0) for buffer, window in segment.windows.items()}
        self.gone = {buffer: -(window.anchor or 0) for buffer, window in segment.windows.items()}  # overwritten below
        self.peak = dict.fromkeys(segment.windows, 0)
        self.inside = 0

    def run(self) -> None:
        for tick in range(self.segment.ticks):
            for buffer, window in self.segment.windows.items():
                windows, is_anchored = self.segment.row_windows, window.anchor is not None
                needs = [windows[name].first_needed(self.made[name], is_anchored) for name in window.readers]
                keep = min(*needs, *(self.made[name] for name in window.writers))
                self.first[buffer] = max(self.first[buffer], keep)
            for step in self.steps:
                goal = self.segment.progress[step.name].rows(tick, self.segment.ticks)
                while self.made[step.name] < goal:
                    rows = min(goal - self.made[step.name], self.segment.rows_per_call[step.name])
                    self._read(step, rows)
                    self._overwrite(step, rows)
                    self.made[step.name] += rows
                    self._check_room(step)
        for step in self.steps:
            if self.program.places[step.output].buffer not in self.segment.windows:
                assert self.made[step.name] == count_step_rows(self.program, step)
        for buffer, window in self.segment.windows.items():
            assert self.peak[buffer] == window.rows  # not a row more than is used

    def _read(self, step: Step, rows: int) -> None:
        window = self.segment.row_windows[step.name]
        for name in step.inputs:
            buffer = self.program.places[name].buffer
            height = find_area(self.program.graph.tensors[name].shape).rows
            for row in range(self.made[step.name], self.made[step.name] + rows):
                wanted = range(row * window.stride - window.before, row * window.stride - window.before + window.size)
                for source in wanted:
                    if 0 <= source < height and buffer in self.segment.windows:
                        assert source >= max(self.first[buffer], self.gone[buffer])
                        for writer in self.segment.windows[buffer].writers:
                            if self.steps.index(self._step(writer)) < self.steps.index(step):
                                assert source < self.made[writer]

    def _overwrite(self, step: Step, rows: int) -> None:
        """Rows written inside another window lie where its oldest rows were."""
        window = self.segment.windows.get(self.program.places[step.output].buffer)
        if window is not None and window.inside is not None:
            slot = self.made[step.name] + rows - self.first[window.buffer]
            self.gone[window.inside] = self.first[window.inside] + slot
            self.inside += 1

    def _check_room(self, step: Step) -> None:
        buffer = self.program.places[step.output].buffer
        if buffer in self.segment.windows:
            self.peak[buffer] = max(self.peak[buffer], self.made[step.name] - self.first[buffer])
            assert self.made[step.name] - self.first[buffer] <= self.segment.windows[buffer].rows

    def _step(self, name: str) -> Step:
        return next(step for step in self.steps if step.name == name)


def test_rows_needed_and_first_needed() -> None:
    window = RowWindow(stride=2, before=1, size=5)
    for made in range(1, 20):
        last_row = made - 1
        assert window.rows_needed(made, 1000) == last_row * 2 - 1 + 5
        assert window.first_needed(made) == made * 2 - 1  # of the next row
    assert window.rows_needed(0, 1000) == 0
    assert window.first_needed(0) == 0
    assert window.rows_needed(10, 7) == 7


def test_what_cannot_be_streamed_has_no_window() -> None:
    program = make_program(stand_up(make_random_chain(1, ("fully_connected", "conv_2d"))))
    dense = [step for step in program.steps if step.op.kind == "fully_connected"]
    assert dense
    assert all(find_row_window(program.graph, step.op) is None for step in dense)
    assert not any(is_row_reduction(program.graph, step.op) for step in program.steps)


def test_paces_divide_the_rows_evenly() -> None:
    for program, segment in _list_segments(3):
        rows = count_step_rows(program, program.steps[segment.last])
        working = [
            segment.progress[program.steps[segment.last].name].rows(tick, segment.ticks)
            for tick in range(segment.ticks)
        ]
        assert sum(made > 0 for made in working) == int(np.ceil(rows / segment.pace))
