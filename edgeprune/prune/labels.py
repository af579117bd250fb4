"""Labels: which channel each element of a tensor belongs to.

Every tensor of a program carries an int64 array of its own shape; the number at an element is the label of the channel
that the element belongs to. Elements with one label live or die together. Layout operations (reshape, transpose,
concatenation, ...) run unchanged on these arrays, which is what makes the analysis exact: a channel shuffle needs no
rule of its own. Where two labels must live or die together (the two sides of an addition, say) they are *linked*; the
connected components of all links are the units of pruning.

Some labels are *reasons*: a component that holds one is pinned, and the reason says why.

Most axes of a label array (batch, time) do not vary, and are kept as broadcast axes of stride 0, so that arrays stay
as small as the channel axis. After `LabelPool.make_rectangular` an array varies along one axis at most: a tensor
stays a box whatever is removed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components


def shrink(labels: torch.Tensor) -> torch.Tensor:
    """The same labels with each axis along which they do not vary narrowed to one element.

    >>> shrink(torch.arange(3).reshape(1, 3, 1).expand(2, 3, 5)).shape
    torch.Size([1, 3, 1])
    """
    for axis in range(labels.dim()):  # broadcast axes first: it keeps the comparisons below small
        if labels.size(axis) > 1 and labels.stride(axis) == 0:
            labels = labels.narrow(axis, 0, 1)
    for axis in range(labels.dim()):
        if labels.size(axis) > 1:
            first = labels.narrow(axis, 0, 1)
            if bool((labels == first).all()):
                labels = first
    return labels


def varying_axes(labels: torch.Tensor) -> list[int]:
    """The axes along which the labels vary, ascending."""
    return [axis for axis, size in enumerate(shrink(labels).shape) if size > 1]


def spread(vector: torch.Tensor, shape: Sequence[int], axis: int) -> torch.Tensor:
    """Labels of `shape` that follow `vector` (length shape[axis]) along `axis` and are the same along the others."""
    sizes = [1] * len(shape)
    sizes[axis] = len(vector)
    return vector.reshape(sizes).expand(tuple(shape))


@dataclass(frozen=True)
class Reason:
    """Why labels are pinned: the node where it shows and a sentence part such as 'model output'."""

    node: str
    text: str


class LabelPool:
    """Gives out labels and collects the links between them; `resolve` turns them into components."""

    def __init__(self) -> None:
        self._count = 0
        self._links: list[torch.Tensor] = []  # each int64 (2, n)
        self.reasons: dict[int, Reason] = {}  # reason labels

    def make_fresh(self, count: int) -> torch.Tensor:
        """`count` new labels, int64 (count,)."""
        self._count += count
        return torch.arange(self._count - count, self._count)

    def make_reason(self, node: str, text: str) -> torch.Tensor:
        """A new pinned label, int64 (1,)."""
        label = self.make_fresh(1)
        self.reasons[int(label)] = Reason(node, text)
        return label

    def link(self, first: torch.Tensor, second: torch.Tensor) -> None:
        """Element by element (after broadcasting), the labels live or die together."""
        first, second = torch.broadcast_tensors(shrink(first), shrink(second))
        pairs = torch.stack([first.reshape(-1), second.reshape(-1)])
        pairs = pairs[:, pairs[0] != pairs[1]]
        if pairs.numel():
            self._links.append(pairs)

    def pin(self, labels: torch.Tensor, node: str, text: str) -> None:
        """The labels must stay, for the reason given."""
        self.link(shrink(labels).reshape(-1).unique(), self.make_reason(node, text))

    def make_rectangular(self, labels: torch.Tensor) -> torch.Tensor:
        """Labels that vary along one axis at most: linked over all varying axes but the innermost.

        A tensor (groups, channels per group) can only lose the same channels in each group, for it must stay a box.
        The labels of the first group then stand for all.
        """
        small = shrink(labels)
        for axis in varying_axes(small)[:-1]:
            first = small.narrow(axis, 0, 1)
            self.link(small, first)
            small = first
        return small.expand(labels.shape)

    def resolve(self) -> Components:
        """The connected components of all links so far."""
        if self._links:
            pairs = torch.cat(self._links, 1).numpy()
        else:
            pairs = np.zeros((2, 0), np.int64)
        graph = coo_matrix((np.ones(pairs.shape[1], bool), (pairs[0], pairs[1])), (self._count, self._count))
        count, component = connected_components(graph, directed=False)
        reasons: dict[int, Reason] = {}
        for label, reason in sorted(self.reasons.items()):
            reasons.setdefault(int(component[label]), reason)  # the first reason in program order is the one to print
        # Components in order of their lowest label: unit ids depend on the program only, not on scipy's numbering.
        first_label = np.full(count, self._count, np.int64)
        np.minimum.at(first_label, component, np.arange(self._count))
        unit = np.full(count, -1, np.int64)
        free = [index for index in np.argsort(first_label, kind="stable") if int(index) not in reasons]
        unit[free] = np.arange(len(free))
        return Components(component, unit, reasons, len(free))


@dataclass(frozen=True, eq=False)
class Components:
    """Labels resolved: components, their unit ids, and the reasons of the pinned ones."""

    component: np.ndarray  # int (labels,): component of each label
    unit: np.ndarray  # int64 (components,): unit id, -1 where pinned
    reasons: dict[int, Reason]  # component -> why it is pinned
    unit_count: int

    def get_units(self, labels: torch.Tensor) -> np.ndarray:
        """Unit ids of a label array, -1 where pinned; int64 of the same shape."""
        return self.unit[self.component[labels.numpy()]]

    def get_reasons(self, labels: torch.Tensor) -> list[Reason | None]:
        """The reason of each label of a vector; None where it is free to go."""
        return [self.reasons.get(int(index)) for index in self.component[labels.numpy()]]
