"""Views hold what reshape and transpose do, whatever they are made of."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.export.views import View, view_axes, view_whole

SHAPES = st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=1, max_size=4).map(tuple)


def draw_shape_of(draw: st.DrawFn, count: int) -> tuple[int, ...]:
    """A random shape of `count` elements."""
    shape = []
    while count > 1 and len(shape) < 4:
        shape.append(draw(st.sampled_from([size for size in range(1, count + 1) if count % size == 0])))
        count //= shape[-1]
    return (*shape, count)


@st.composite
def chains(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, View]:
    """A tensor, what a few reshapes and transposes make of it, and the view that says so."""
    tensor = np.arange(math.prod(shape := draw(SHAPES))).reshape(shape)
    value, view = tensor, view_whole(shape)
    for _ in range(draw(st.integers(0, 5))):
        if draw(st.booleans()):
            value = value.reshape(draw_shape_of(draw, value.size))
            view = view.reshaped(value.shape)
        else:
            perm = draw(st.permutations(range(value.ndim)))
            after = view.transposed(perm)
            if after is None:
                break
            value, view = value.transpose(perm), after
    return tensor, value, view


def read(tensor: np.ndarray, view: View) -> np.ndarray:
    return tensor.reshape(view.factors).transpose(view.order).reshape(view.shape)


@settings(max_examples=100, deadline=None)
@given(chains())
def test_view_reads_what_the_chain_computed(case: tuple[np.ndarray, np.ndarray, View]) -> None:
    tensor, value, view = case
    assert np.array_equal(read(tensor, view), value)


@settings(max_examples=100, deadline=None)
@given(chains(), st.data())
def test_moves_arrange_the_axes(case: tuple[np.ndarray, np.ndarray, View], data: st.DataObject) -> None:
    tensor, value, view = case
    axes = data.draw(st.permutations(range(value.ndim)))
    moves = view.find_moves(axes)
    if moves is not None:
        arranged = tensor.reshape(moves.sizes).transpose(moves.perm).reshape(moves.shape)
        assert np.array_equal(arranged, value.transpose(axes))


@settings(max_examples=50, deadline=None)
@given(chains())
def test_equal_orders_have_equal_views(case: tuple[np.ndarray, np.ndarray, View]) -> None:
    """A view in normal form is found again from the order of the elements alone."""
    tensor, value, view = case
    if np.array_equal(value.reshape(-1), tensor.reshape(-1)):
        assert view.order == tuple(range(len(view.order)))
        assert len(view.order) <= 1


def test_series_and_image_lie_in_nhwc() -> None:
    series = view_axes((1, 1, 24, 8), (0, None, 2, 1), (1, 8, 24))
    assert series == View((24, 8), (1, 0), (1, 8, 24))
    flat = series.reshaped((1, 192))
    moves = flat.find_moves((0, 1))
    assert moves is not None
    assert not moves.keep_order  # a flattened map is not in memory order: weights or data must move
    back = flat.reshaped((1, 8, 24)).find_moves((0, None, 2, 1))
    assert back is not None
    assert back.keep_order
    assert back.shape == (1, 1, 24, 8)


def test_axes_that_cut_across_each_other_are_not_told_apart() -> None:
    """6 x 4 read as 4 x 6 and transposed is no transpose of factors."""
    view = view_axes((1, 4, 6), (0, 2, 1), (1, 6, 4)).reshaped((1, 4, 6))
    assert view.transposed((0, 2, 1)) is None
    assert view.find_moves((0, None, 2, 1)) is None
