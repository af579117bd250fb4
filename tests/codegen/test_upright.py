"""Series stood up: the same numbers with time on the rows."""

from __future__ import annotations

import numpy as np
import pytest

from edgeprune.codegen.upright import stand_up
from edgeprune.reference import run_graph
from tests.random_graphs import make_inputs, make_random_graph


@pytest.mark.parametrize("seed", [*range(40), 20136, 20282, 20483, 20522, 20579])
def test_standing_up_changes_no_number(seed: int) -> None:
    graph = make_random_graph(seed, op_count=6 + seed % 10)
    inputs = make_inputs(graph, seed, 2)
    upright = stand_up(graph)
    swapped = {name: value.reshape((2, *upright.tensors[name].shape[1:])) for name, value in inputs.items()}
    before, after = run_graph(graph, inputs), run_graph(upright, swapped)
    for name in graph.outputs:
        assert before[name].tobytes() == after[name].tobytes()


def test_some_of_these_graphs_are_series_and_stand_up() -> None:
    graphs = [make_random_graph(seed) for seed in range(40)]
    assert sum(stand_up(graph) is not graph for graph in graphs) >= 5


def test_a_series_has_its_time_on_the_rows() -> None:
    for seed in range(200):
        graph = make_random_graph(seed)
        shapes = [tensor.shape for tensor in graph.tensors.values() if tensor.data is None and len(tensor.shape) == 4]
        if shapes and all(shape[1] == 1 for shape in shapes) and any(shape[2] > 1 for shape in shapes):
            upright = stand_up(graph)
            name = next(
                name for name, tensor in graph.tensors.items() if tensor.data is None and len(tensor.shape) == 4
            )
            assert np.array_equal(upright.tensors[name].shape, np.array(graph.tensors[name].shape)[[0, 2, 1, 3]])
            return
    raise AssertionError("no random graph is a series")
