"""Legalization changes operations, never values."""

from __future__ import annotations

import numpy as np
import pytest

from edgeprune.graph import Graph, Op, Tensor, is_same_graph, verify_graph
from edgeprune.lower.legalize import MOST_CONCAT_INPUTS, legalize
from edgeprune.reference import run_graph


def make_concat(count: int) -> Graph:
    tensors = {f"x{index}": Tensor(f"x{index}", (1, 1, 5, 1 + index % 3)) for index in range(count)}
    inputs = tuple(tensors)
    channels = sum(tensor.shape[3] for tensor in tensors.values())
    tensors["y"] = Tensor("y", (1, 1, 5, channels))
    return Graph("concat", tensors, (Op("concat", "join", inputs, ("y",), {"axis": 3}),), inputs, ("y",))


@pytest.mark.parametrize("count", [2, 10, 11, 19, 20, 31])
def test_wide_concats_are_joined_in_steps(count: int) -> None:
    graph = make_concat(count)
    legal = legalize(graph)
    verify_graph(legal)
    assert all(len(op.inputs) <= MOST_CONCAT_INPUTS for op in legal.ops)
    assert is_same_graph(graph, legal) == (count <= MOST_CONCAT_INPUTS)
    rng = np.random.default_rng(count)
    inputs = {name: rng.normal(size=(3, *graph.tensors[name].shape[1:])).astype(np.float32) for name in graph.inputs}
    assert np.array_equal(run_graph(graph, inputs)["y"], run_graph(legal, inputs)["y"])
