"""The arena: buffers alive together never overlap, and small cases come out at the least possible."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from edgeprune.codegen.memory import ALIGNMENT, Buffer, align, find_lower_bound, plan_arena


def _make_buffers(seed: int) -> list[Buffer]:
    generator = np.random.default_rng(seed)
    buffers = []
    for number in range(int(generator.integers(1, 25))):
        first = int(generator.integers(0, 20))
        last = first + int(generator.integers(0, 6))
        buffers.append(Buffer(f"b{number}", int(generator.integers(1, 5000)), first, last))
    return buffers


@pytest.mark.parametrize("seed", range(60))
def test_buffers_alive_together_do_not_overlap(seed: int) -> None:
    buffers = _make_buffers(seed)
    arena = plan_arena(buffers)
    for one, other in itertools.combinations(buffers, 2):
        if one.first <= other.last and other.first <= one.last:
            begin, end = arena.offsets[one.name], arena.offsets[one.name] + one.byte_count
            assert end <= arena.offsets[other.name] or arena.offsets[other.name] + other.byte_count <= begin
    assert all(offset % ALIGNMENT == 0 for offset in arena.offsets.values())
    assert arena.lower_bound == find_lower_bound(buffers) <= arena.byte_count
    assert arena.byte_count >= max(arena.offsets[item.name] + item.byte_count for item in buffers)


def test_a_chain_needs_two_neighbours_at_a_time() -> None:
    sizes = [1600, 3200, 800, 4800, 160]
    buffers = [Buffer(str(index), size, index, index + 1) for index, size in enumerate(sizes)]
    assert plan_arena(buffers).byte_count == 4800 + 800


def test_the_plan_is_at_most_a_tenth_above_the_bound() -> None:
    excess = [plan.byte_count / plan.lower_bound for plan in map(plan_arena, map(_make_buffers, range(60)))]
    assert float(np.mean(excess)) < 1.1


def test_the_same_buffers_get_the_same_places() -> None:
    assert plan_arena(_make_buffers(3)).offsets == plan_arena(_make_buffers(3)).offsets


def test_no_buffers_no_bytes() -> None:
    assert plan_arena([]).byte_count == 0


def test_align() -> None:
    assert [align(size) for size in (0, 1, 15, 16, 17)] == [0, 16, 16, 16, 32]
