"""Thousands of random int8 programs: the reference equals TFLite Micro, and LiteRT within the table of limits."""

from __future__ import annotations

import numpy as np
import pytest

from edgeprune.executors import MicroExecutor, ReferenceExecutor
from edgeprune.lower import write_tflite
from edgeprune.ops import OPS
from tests.random_graphs import make_inputs, make_op_graph, make_random_graph
from tests.reference_cases import EDGE_KINDS, make_edge_case
from tests.test_reference_int8 import assert_within_limits

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("kind", EDGE_KINDS)
def test_edge_cases(kind: str) -> None:
    for seed in range(1000, 1400):
        assert_within_limits(*make_edge_case(kind, seed))


@pytest.mark.parametrize("kind", OPS)
def test_ordinary_cases(kind: str) -> None:
    for seed in range(1000, 1150):
        graph = make_op_graph(kind, seed)
        assert_within_limits(graph, make_inputs(graph, seed, batch=3))


@pytest.mark.parametrize("first_seed", range(1000, 1500, 100))
def test_whole_programs(first_seed: int) -> None:
    kinds = [kind for kind in OPS if kind != "relu_n1_to_1"]
    for seed in range(first_seed, first_seed + 100):
        graph = make_random_graph(seed, kinds=kinds, op_count=12, float_edges=seed % 3 == 0)
        inputs = make_inputs(graph, seed, batch=2)
        values = [inputs[name] for name in graph.inputs]
        for found, expected in zip(
            MicroExecutor(write_tflite(graph)).run(*values), ReferenceExecutor(graph).run(*values), strict=True
        ):
            np.testing.assert_array_equal(found, expected)
