"""Files come back as the graph that they were made from."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.graph import Graph, Op, Tensor, format_graph, is_same_graph
from edgeprune.lower import read_tflite, write_tflite
from edgeprune.ops import OPS
from edgeprune.quantize import calibrate, quantize_graph
from tests.lower.handmade import NETWORKS
from tests.random_graphs import CONVERSIONS, make_inputs, make_op_graph, make_random_graph


def assert_round_trip(graph: Graph) -> None:
    data = write_tflite(graph)
    found = read_tflite(data)
    assert is_same_graph(found, graph), f"{format_graph(graph)}\n{format_graph(found)}"
    assert found.name == graph.name
    assert write_tflite(found) == data


@pytest.mark.parametrize("kind", OPS)
def test_every_op_kind_comes_back(kind: str) -> None:
    for dtype in ("float32", "int8"):
        for seed in range(8):
            if dtype == "int8" or kind not in CONVERSIONS:
                assert_round_trip(make_op_graph(kind, seed, dtype))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.sampled_from(["float32", "int8", "edges"]), st.integers(1, 15))
def test_random_graphs_come_back(seed: int, dtype: str, op_count: int) -> None:
    is_edged = dtype == "edges"
    assert_round_trip(
        make_random_graph(seed, dtype="int8" if is_edged else dtype, op_count=op_count, float_edges=is_edged)
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_come_back(name: str) -> None:
    graph = NETWORKS[name]()
    assert_round_trip(graph)
    assert_round_trip(quantize_graph(graph, calibrate(graph, make_inputs(graph, 0, batch=4)["input"])))


def test_attributes_come_back_in_the_order_of_the_table() -> None:
    graph = read_tflite(write_tflite(make_op_graph("conv_2d", 0)))
    assert tuple(graph.ops[0].attrs) == OPS["conv_2d"].attributes


@pytest.mark.parametrize("names", [("relu;fused", "Umlaute ä/ö", "output"), ("", "x" * 300, "a;b")])
def test_layer_names_come_back(names: tuple[str, ...]) -> None:
    tensors = {name: Tensor(name, (1, 3)) for name in ("input", "a;b", "c", "output")}
    chain = ("input", "a;b", "c", "output")
    ops = tuple(Op("relu", name, (chain[index],), (chain[index + 1],)) for index, name in enumerate(names))
    assert_round_trip(Graph("names", tensors, ops, ("input",), ("output",)))
