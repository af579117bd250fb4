"""The search of widths against all widths there are, on costs with and without the steps that kernels have."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from edgeprune.prune.widths import WidthPoint, Widths, regrow, search_uniform, search_widths

Toy = tuple[list[list[int]], dict[int, float], list[float]]  # groups, scores, cost of a channel of each group


def count_left(groups: Sequence[Sequence[int]], removed: frozenset[int]) -> list[int]:
    return [sum(unit not in removed for unit in group) for group in groups]


def make_cost(
    groups: Sequence[Sequence[int]], weights: Sequence[float], limit: float, grain: int = 1
) -> Callable[[frozenset[int]], Mapping[str, float]]:
    """A chain of layers: each costs its inputs times its outputs, rounded up to the grain as a kernel's loop is; and
    memory for the two largest neighbours. Both limits as shares of the whole net's."""

    def measure(widths: Sequence[int]) -> tuple[float, float]:
        padded = [grain * math.ceil(width / grain) for width in widths]
        chain = [1, *padded, 2]
        time = sum(w * a * b for w, (a, b) in zip([*weights, 1.0], itertools.pairwise(chain), strict=True))
        return time, max(a + b for a, b in itertools.pairwise(chain))

    time, memory = measure([len(group) for group in groups])

    def cost(removed: frozenset[int]) -> Mapping[str, float]:
        found = measure(count_left(groups, removed))
        return {"time": found[0] / (limit * time), "memory": found[1] / (max(limit, 0.4) * memory)}

    return cost


@st.composite
def draw_toys(draw: st.DrawFn) -> Toy:
    sizes = draw(st.lists(st.integers(2, 8), min_size=1, max_size=3))
    ids = itertools.count()
    groups = [[next(ids) for _ in range(size)] for size in sizes]
    score = st.floats(0.125, 1.0)
    scores = {unit: draw(score) for group in groups for unit in group}
    return groups, scores, [draw(st.floats(0.5, 4.0)) for _ in groups]


def find_best(widths: Widths, cost: Callable[[frozenset[int]], Mapping[str, float]]) -> WidthPoint | None:
    """Of all widths, those that fit and keep the most."""
    counts = itertools.product(*(range(len(order) + 1) for order in widths.orders))
    points = [widths.make_point(list(count), cost) for count in counts]
    return max((point for point in points if point.fits), key=lambda point: point.kept, default=None)


@settings(max_examples=60)
@given(toy=draw_toys(), limit=st.floats(0.1, 0.9), grain=st.sampled_from([1, 2, 4]))
def test_near_the_best_of_all_widths(toy: Toy, limit: float, grain: int) -> None:
    groups, scores, weights = toy
    widths, cost = Widths(groups, scores), make_cost(groups, weights, limit, grain)
    best, found = find_best(widths, cost), search_widths(widths, cost)[-1]
    assert found.fits == (best is not None)
    if best is not None:
        # 0.8: the most that a greedy way was seen to lose on these small groups, where one channel is a tenth or more
        # of a layer; mostly it finds the best
        assert 0.8 * best.kept <= found.kept <= best.kept + 1e-9


@settings(max_examples=40)
@given(toy=draw_toys(), limit=st.floats(0.1, 0.9), grain=st.sampled_from([1, 4]))
def test_no_single_channel_could_come_back(toy: Toy, limit: float, grain: int) -> None:
    groups, scores, weights = toy
    widths, cost = Widths(groups, scores), make_cost(groups, weights, limit, grain)
    for search in (search_widths, search_uniform):
        found = search(widths, cost)[-1]
        if found.fits:
            counts = widths.count(found.removed)
            assert widths.collect(counts) == found.removed
            for index, count in enumerate(counts):
                if count:
                    fewer = [*counts[:index], count - 1, *counts[index + 1 :]]
                    assert not widths.make_point(fewer, cost).fits


@pytest.mark.parametrize("grain", [4, 8])
def test_widths_fall_where_the_kernels_like_them(grain: int) -> None:
    groups = [list(range(32)), list(range(32, 64)), list(range(64, 96))]
    scores = {unit: 1 + unit % 7 / 10 for group in groups for unit in group}
    cost = make_cost(groups, [1.0, 2.0, 1.0], 0.4, grain)
    found = search_widths(Widths(groups, scores), cost)[-1]
    assert found.fits
    left = count_left(groups, found.removed)
    assert [width % grain for width in left] == [0, 0, 0]  # nobody told the search about the grain
    assert len(set(left)) > 1  # by cost: the layer that costs most loses most


def test_layers_that_are_equally_the_largest_shrink_together() -> None:
    groups = [list(range(8)), list(range(8, 16))]
    cost = lambda removed: {"ram": max(count_left(groups, removed)) / 4}  # noqa: E731
    found = search_widths(Widths(groups, dict.fromkeys(range(16), 1.0)), cost)[-1]
    assert count_left(groups, found.removed) == [4, 4]


def test_a_limit_that_is_kept_already_draws_nothing() -> None:
    groups = [list(range(8)), list(range(8, 16))]
    cost = lambda removed: {  # noqa: E731
        "ram": count_left(groups, removed)[0] / 5,
        "flash": count_left(groups, removed)[1] / 100,
    }
    found = search_widths(Widths(groups, dict.fromkeys(range(16), 1.0)), cost)[-1]
    assert count_left(groups, found.removed) == [5, 8]


def test_the_lowest_scores_go_and_what_has_none_stays() -> None:
    groups = [[0, 1, 2, 3, 4]]
    cost = lambda removed: {"ram": count_left(groups, removed)[0] / 3}  # noqa: E731
    found = search_widths(Widths(groups, {0: 0.5, 2: 0.1, 4: 0.2}), cost)[-1]
    assert found.removed == {2, 4}


def test_what_is_gone_before_never_comes_back() -> None:
    groups = [[0, 1, 2, 3]]
    widths = Widths(groups, dict.fromkeys(range(4), 1.0), frozenset({3}))
    found = search_widths(widths, lambda removed: {"ram": (4 - len(removed)) / 4})[-1]
    assert (found.removed, found.kept) == ({3}, 1.0)


def test_limits_that_nothing_keeps_end_at_the_narrowest() -> None:
    groups = [list(range(6)), list(range(6, 9))]
    widths = Widths(groups, dict.fromkeys(range(9), 1.0))
    cost = lambda removed: {"flash": 9 - len(removed)}  # noqa: E731
    for search in (search_widths, search_uniform):
        found = search(widths, cost)[-1]
        assert not found.fits
        assert count_left(groups, found.removed) == [1, 1]


def test_a_start_is_gone_on_from() -> None:
    groups = [list(range(16))]
    widths = Widths(groups, dict.fromkeys(range(16), 1.0))
    first = search_widths(widths, lambda removed: {"ram": (16 - len(removed)) / 10})
    second = search_widths(widths, lambda removed: {"ram": (16 - len(removed)) / 6}, first[-1].removed)
    assert second[0].removed == first[-1].removed
    assert len(second[-1].removed) == 10


def test_few_predictions_are_asked_for() -> None:
    """Each is a tenth of a second and more: five groups of 32 channels must not take hundreds."""
    groups = [list(range(32 * i, 32 * i + 32)) for i in range(5)]
    inner = make_cost(groups, [1.0, 2.0, 1.0, 3.0, 1.0], 0.3)
    asked: set[frozenset[int]] = set()

    def cost(removed: frozenset[int]) -> Mapping[str, float]:
        asked.add(removed)
        return inner(removed)

    assert search_widths(Widths(groups, dict.fromkeys(range(160), 1.0)), cost)[-1].fits
    assert len(asked) < 120


def test_regrow_takes_the_most_important_first() -> None:
    groups = [[0, 1], [2, 3]]
    widths = Widths(groups, {0: 1.0, 1: 9.0, 2: 5.0, 3: 5.0})
    counts = regrow(widths, lambda removed: {"ram": (4 - len(removed)) / 3}, [1, 1])
    assert counts == [1, 0]


def test_a_channel_that_makes_the_layer_cheaper_comes_back() -> None:
    """A kernel of four at once with a slow way for what is left over."""
    groups = [list(range(16))]

    def cost(removed: frozenset[int]) -> Mapping[str, float]:
        blocks, rest = divmod(16 - len(removed), 4)
        return {"time": (blocks + 2 * (rest > 0)) / 3.5}

    widths = Widths(groups, dict.fromkeys(range(16), 1.0))
    assert regrow(widths, cost, [8]) == [4]  # none of 9 to 11 channels fits
