"""Where the elements of an ONNX value lie in a tensor of the program.

ONNX models reshape, squeeze and transpose freely; most of it moves no data once the program is NHWC. So the reader
keeps, for each ONNX value, the tensor that holds its elements and a `View` that says how they are to be read:

    value = tensor.reshape(factors).transpose(order).reshape(shape)

Factors of 1 are left out (the batch of 1 among them), and neighbours that stay neighbours are merged, so that two views
that read the same order are equal. Reshape and transpose then change the view alone; elements are moved only when an op
needs them in another order than they have (`find_moves`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Shape = tuple[int, ...]


@dataclass(frozen=True)
class View:
    """How an ONNX value of `shape` is read from a tensor: see the head of this file.

    factors: sizes (> 1) into which the tensor's elements are split, in memory order.
    order: the indices of the factors, in the value's order.
    """

    factors: Shape
    order: Shape
    shape: Shape

    def reshaped(self, shape: Sequence[int]) -> View:
        """The same elements in the same order, as another shape."""
        return View(self.factors, self.order, tuple(shape))

    def transposed(self, perm: Sequence[int]) -> View | None:
        """The view after ONNX Transpose; None where an axis can't be told apart in memory."""
        pieces = self._split()
        if pieces is None:
            return None
        order = [piece for axis in perm for piece in pieces.by_axis[axis]]
        return _merge_neighbours(pieces.sizes, order, tuple(self.shape[axis] for axis in perm))

    def find_moves(self, axes: Sequence[int | None]) -> Moves | None:
        """How the tensor becomes one whose axes are the value's axes in the order `axes` (None: an axis of 1).

        None where an axis can't be told apart in memory (6 x 4 read as 4 x 6): the elements must first be put into the
        value's own order.
        """
        pieces = self._split()
        if pieces is None:
            return None
        order = [piece for axis in axes if axis is not None for piece in pieces.by_axis[axis]]
        target = tuple(1 if axis is None else self.shape[axis] for axis in axes)
        merged = _merge_neighbours(pieces.sizes, order, target)
        return Moves(merged.factors, merged.order, target)

    def _split(self) -> _Pieces | None:
        """Split factors until each piece belongs to one axis of the value."""
        wanted = [(axis, size) for axis, size in enumerate(self.shape) if size != 1]
        pieces_of_factor: dict[int, list[int]] = {factor: [] for factor in self.order}
        found: list[tuple[int, int, int]] = []  # factor, position within it, axis
        position = 0
        left = wanted[0][1] if wanted else 1
        for factor in self.order:
            rest = self.factors[factor]
            while rest > 1:
                size = math.gcd(rest, left)
                # a piece is a whole leading part of the axis or of the factor, or the two interleave
                if size not in (rest, left):
                    return None
                found.append((factor, len(pieces_of_factor[factor]), wanted[position][0]))
                pieces_of_factor[factor].append(size)
                rest //= size
                left //= size
                if left == 1:
                    position += 1
                    left = wanted[position][1] if position < len(wanted) else 1
        sizes: list[int] = []
        first: dict[int, int] = {}
        for factor in range(len(self.factors)):
            first[factor] = len(sizes)
            sizes.extend(pieces_of_factor[factor])
        by_axis: dict[int, list[int]] = {axis: [] for axis in range(len(self.shape))}
        for factor, index, axis in found:
            by_axis[axis].append(first[factor] + index)
        return _Pieces(tuple(sizes), by_axis)


@dataclass(frozen=True)
class Moves:
    """tensor.reshape(sizes).transpose(perm).reshape(shape) is what is wanted; nothing moves if perm is in order."""

    sizes: Shape
    perm: Shape
    shape: Shape

    @property
    def keep_order(self) -> bool:
        return self.perm == tuple(range(len(self.perm)))


@dataclass(frozen=True)
class _Pieces:
    sizes: Shape
    by_axis: dict[int, list[int]]


def view_axes(tensor_shape: Sequence[int], axes: Sequence[int | None], shape: Sequence[int]) -> View:
    """The view of a value of `shape` whose axes lie in a tensor of `tensor_shape` in the order `axes`.

    >>> view_axes((1, 1, 24, 8), (0, None, 2, 1), (1, 8, 24))
    View(factors=(24, 8), order=(1, 0), shape=(1, 8, 24))
    """
    places = [place for place, axis in enumerate(axes) if axis is not None]
    places.sort(key=lambda place: axes[place] or 0)
    return _merge_neighbours(tuple(tensor_shape), places, tuple(shape))


def view_whole(shape: Sequence[int]) -> View:
    """The view of a value that lies in memory in its own order."""
    return view_axes(shape, range(len(shape)), shape)


def _merge_neighbours(sizes: Shape, order: Sequence[int], shape: Shape) -> View:
    """Drop factors of 1, and merge factors that follow each other in memory as in the value."""
    kept = [index for index, size in enumerate(sizes) if size != 1]
    rank = {index: place for place, index in enumerate(kept)}
    ranks = [rank[index] for index in order if index in rank]
    runs: list[list[int]] = []
    for index in ranks:
        if runs and runs[-1][-1] + 1 == index:
            runs[-1].append(index)
        else:
            runs.append([index])
    in_memory = sorted(range(len(runs)), key=lambda run: runs[run][0])
    factors = tuple(math.prod(sizes[kept[index]] for index in runs[run]) for run in in_memory)
    place_of = {run: place for place, run in enumerate(in_memory)}
    return View(factors, tuple(place_of[run] for run in range(len(runs))), shape)
