"""Exact counts of executed blocks and of the edges between them, layer by layer, at about 0.3 us per executed block.

An emulator says the address of each block (a run of instructions up to a branch) that it executes. Counting is a walk
over a graph: a node is (layer, block), it knows its successors by address, and each edge carries a count. A step is one
dictionary look-up; only an edge that is seen for the first time costs more. So layers and taken branches are exact for
the price of a plain counter.

A layer is a C function: from its entry on, everything counts for it, until the next layer's entry or until control is
back in `edgeprune_model_run` itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

OUTSIDE = ""  # code that belongs to no layer: edgeprune_model_run itself


@dataclass(frozen=True)
class BlockCount:
    """A block as it ran within one layer.

    address, size: bytes of code. count: how often it ran. next: how often each address was next.
    """

    layer: str
    address: int
    size: int
    count: int
    next: Mapping[int, int]


@dataclass(eq=False)
class _Node:
    layer: str
    address: int
    size: int
    edges: dict[int, list[Any]] = field(default_factory=dict)  # address -> [count, edges of that node]


class FlowCounter:
    """Counts a walk over blocks. entries: address of a layer's function -> its name. outside: code of no layer."""

    def __init__(self, entries: Mapping[int, str], outside: range) -> None:
        self._entries = dict(entries)
        self._outside = outside
        self._nodes: dict[tuple[str, int], _Node] = {}
        self._owner: dict[int, _Node] = {}  # id of a node's edges -> the node
        self._start = _Node(OUTSIDE, -1, 0)
        self._owner[id(self._start.edges)] = self._start
        self._edges = self._start.edges

    def make_hook(self, stop: Callable[[BaseException], None]) -> Callable[[Any, int, int, Any], None]:
        """The function to call for each executed block: (anything, address, size, anything), as Unicorn's C hooks are.

        stop: is given what is raised within it (Ctrl-C, that is), since nothing can be raised through C.
        """
        edges = self._edges
        follow = self._follow_new_edge

        def note_block(_engine: Any, address: int, size: int, _data: Any) -> None:
            nonlocal edges
            try:
                try:
                    edge = edges[address]
                except KeyError:
                    edge = follow(edges, address, size)
                edge[0] += 1
                edges = edge[1]
            except BaseException as error:  # noqa: BLE001 - it is raised again, on this side of C
                stop(error)

        return note_block

    def _follow_new_edge(self, edges: dict[int, list[Any]], address: int, size: int) -> list[Any]:
        if address in self._entries:
            layer = self._entries[address]
        elif address in self._outside:
            layer = OUTSIDE
        else:
            layer = self._owner[id(edges)].layer
        node = self._nodes.get((layer, address))
        if node is None:
            node = self._nodes[layer, address] = _Node(layer, address, size)
            self._owner[id(node.edges)] = node
        edge = edges[address] = [0, node.edges]
        return edge

    def collect(self) -> tuple[BlockCount, ...]:
        """All blocks so far, by layer and address."""
        counts = dict.fromkeys(self._nodes, 0)
        for node in (self._start, *self._nodes.values()):
            for address, (count, edges) in node.edges.items():
                counts[self._owner[id(edges)].layer, address] += count
        return tuple(
            BlockCount(
                node.layer,
                node.address,
                node.size,
                counts[key],
                {address: edge[0] for address, edge in sorted(node.edges.items())},
            )
            for key, node in sorted(self._nodes.items())
        )
