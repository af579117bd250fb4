"""The arena: which buffers may share memory, and where each begins.

Two buffers may overlap where their lifetimes don't. Placing them with the least total is bin packing in time (NP-hard);
the plan is the best of several greedy orders and stops at the lower bound, the most bytes alive at once.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgeprune.codegen.kernel import Lowered
from edgeprune.codegen.program import INPUT, OUTPUT, Place, Program, Step

ALIGNMENT = 16  # bytes; MVE loads whole vectors, int32 scratch needs 4
_SHUFFLES = 64  # further orders tried where the greedy ones miss the lower bound


@dataclass(frozen=True)
class Buffer:
    """Memory that is needed from step `first` to step `last` of the program, both included."""

    name: str
    byte_count: int
    first: int
    last: int

    def overlaps(self, other: Buffer) -> bool:
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True)
class Arena:
    """Where each buffer begins, the bytes in all, and the bytes that no plan could go below."""

    offsets: Mapping[str, int]
    byte_count: int
    lower_bound: int


def plan_arena(buffers: Sequence[Buffer]) -> Arena:
    """Give each buffer an offset, aligned to ALIGNMENT; those alive at the same time don't overlap."""
    bound = find_lower_bound(buffers)
    best: tuple[int, dict[str, int]] | None = None
    for order in _orders(buffers):
        offsets = _place_in_order(order)
        total = max((offsets[item.name] + align(item.byte_count) for item in buffers), default=0)
        if best is None or total < best[0]:
            best = total, offsets
        if best[0] == bound:
            break
    assert best is not None  # there is at least one order
    return Arena(best[1], best[0], bound)


def find_lower_bound(buffers: Sequence[Buffer]) -> int:
    """The most bytes alive at once."""
    return max((count_alive_bytes(buffers, step) for step in {item.first for item in buffers}), default=0)


def count_alive_bytes(buffers: Sequence[Buffer], step: int) -> int:
    """The bytes that are needed at a step, each buffer aligned."""
    return sum(align(item.byte_count) for item in buffers if item.first <= step <= item.last)


def align(byte_count: int) -> int:
    """The byte count rounded up to ALIGNMENT.

    >>> align(0), align(1), align(16)
    (0, 16, 16)
    """
    return -(-byte_count // ALIGNMENT) * ALIGNMENT


def _orders(buffers: Sequence[Buffer]) -> itertools.chain[list[Buffer]]:
    by_size = sorted(buffers, key=lambda item: (-item.byte_count, item.first, item.name))
    by_span = sorted(buffers, key=lambda item: (item.first - item.last, -item.byte_count, item.name))
    by_time = sorted(buffers, key=lambda item: (item.first, -item.byte_count, item.name))
    generator = np.random.default_rng(0)  # fixed: the same program gets the same arena
    shuffles = ([by_size[i] for i in generator.permutation(len(by_size))] for _ in range(_SHUFFLES))
    return itertools.chain([by_size, by_span, by_time], shuffles)


def _place_in_order(order: Sequence[Buffer]) -> dict[str, int]:
    offsets: dict[str, int] = {}
    placed: list[Buffer] = []
    for item in order:
        taken = sorted((offsets[other.name], align(other.byte_count)) for other in placed if other.overlaps(item))
        offset = 0
        for start, size in taken:
            if offset + align(item.byte_count) <= start:
                break
            offset = max(offset, start + size)
        offsets[item.name] = offset
        placed.append(item)
    return offsets


def share_in_place(
    program: Program, lowered: Mapping[str, Lowered], streamed: Collection[str] | None = None
) -> dict[str, str]:
    """Which buffers may be one: the output of an op that can work in place takes its dying input's memory.

    lowered: by step name. streamed: the steps that are computed a few rows at a time; None: any may be. Such a step
    takes only memory that nobody else reads: another reader may look back at rows that are written over by now.
    Returns buffer -> the buffer whose memory it takes, chains resolved.
    """
    shared = {name: name for name in program.buffer_bytes}
    last_read = _find_last_reads(program)
    for index, step in enumerate(program.steps):
        y = program.places[step.output]
        item = lowered[step.name]
        is_whole = streamed is not None and step.name not in streamed
        for number in (*item.in_place, *(item.in_place_whole if is_whole else ())):
            x = program.places[step.inputs[number]]
            if not (is_whole or _reads_alone(program, step, x.buffer)):
                continue
            if _may_share(program, step, index, x, y, shared, last_read):
                root = shared[x.buffer]
                last_read[root] = max(last_read[root], last_read.get(y.buffer, index))
                shared = {name: root if target == y.buffer else target for name, target in shared.items()}
                break
    return shared


def _reads_alone(program: Program, step: Step, buffer: str) -> bool:
    return all(
        other is step or program.places[name].buffer != buffer for other in program.steps for name in other.inputs
    )


def _may_share(
    program: Program,
    step: Step,
    index: int,
    x: Place,
    y: Place,
    shared: Mapping[str, str],
    last_read: Mapping[str, int],
) -> bool:
    if {x.buffer, y.buffer} & {INPUT, OUTPUT} or shared[x.buffer] == shared[y.buffer]:
        return False
    same = (x.offset, x.stride) == (y.offset, y.stride) == (0, y.stride)
    same = same and program.buffer_bytes[x.buffer] == program.buffer_bytes[y.buffer]
    written_before = any(
        program.places[other.output].buffer == y.buffer for other in program.steps[:index] if other is not step
    )
    return same and not written_before and last_read[shared[x.buffer]] <= index


def _find_last_reads(program: Program) -> dict[str, int]:
    """The last step that reads each buffer; of one that nothing reads, the step that writes it."""
    last: dict[str, int] = {}
    for index, step in enumerate(program.steps):
        for name in (*step.inputs, step.output):
            last[program.places[name].buffer] = index
    return last
