"""What stands in the files: aligned and shared weights, versions, signature, the same bytes each time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from edgeprune.executors import MICRO_AVAILABLE, LiteRTExecutor, MicroExecutor
from edgeprune.graph import Graph, GraphError, Op, Quant, Tensor, is_same_graph
from edgeprune.lower import read_tflite, write_tflite
from edgeprune.lower.tflite_schema import OPERATOR_NAMES, RUNTIME_VERSIONS, operator_version
from edgeprune.ops import OPS
from edgeprune.quantize import calibrate, quantize_graph
from tests.lower.flatbuffer_edits import find_data_offsets, list_operators, unpack
from tests.lower.handmade import NETWORKS
from tests.lower.reference_nets import REFERENCE_NETS
from tests.random_graphs import CONVERSIONS, make_inputs, make_op_graph, make_random_graph

CASES = [(kind, dtype) for kind in OPS for dtype in ("float32", "int8") if dtype == "int8" or kind not in CONVERSIONS]


def find_kernels(kind: str) -> str:
    """LiteRT's reference kernels, where it has one."""
    return "builtin" if kind == "elu" else "reference"


def make_add_twice(data: np.ndarray) -> Graph:
    """input + a + b where a and b hold the same values."""
    tensors = [
        Tensor("input", (1, 4)),
        Tensor.constant("a", data),
        Tensor.constant("b", data.copy()),
        Tensor("sum", (1, 4)),
        Tensor("output", (1, 4)),
    ]
    ops = (
        Op("add", "first", ("input", "a"), ("sum",), {"activation": "none"}),
        Op("add", "second", ("sum", "b"), ("output",), {"activation": "none"}),
    )
    return Graph("twice", {tensor.name: tensor for tensor in tensors}, ops, ("input",), ("output",))


@pytest.mark.parametrize(("kind", "dtype"), CASES)
def test_every_op_kind_runs_in_litert(kind: str, dtype: str) -> None:
    for seed in range(3):
        graph = make_op_graph(kind, seed, dtype)
        inputs = make_inputs(graph, seed, batch=2)
        executor = LiteRTExecutor(write_tflite(graph), find_kernels(kind))
        outputs = executor.run(*(inputs[name] for name in graph.inputs))
        for name, values in zip(graph.outputs, outputs, strict=True):
            assert values.shape[1:] == graph.tensors[name].shape[1:]
            assert values.dtype.name == graph.tensors[name].dtype


@pytest.mark.skipif(not MICRO_AVAILABLE, reason="tflite-micro is not installed")
@pytest.mark.parametrize("kind", [kind for kind in OPS if kind != "relu_n1_to_1"])  # it has no kernel there
def test_every_op_kind_is_equal_in_tflite_micro(kind: str) -> None:
    graph = make_op_graph(kind, seed=5, dtype="int8")
    data, inputs = write_tflite(graph), list(make_inputs(graph, 5, batch=2).values())
    for name, expected, found in zip(
        graph.outputs,
        LiteRTExecutor(data, find_kernels(kind)).run(*inputs),
        MicroExecutor(data).run(*inputs),
        strict=True,
    ):
        # LiteRT's reference FULLY_CONNECTED rounds once, TFLite Micro twice
        allowed = 1 if kind == "fully_connected" and graph.tensors[name].dtype == "int8" else 0
        assert np.abs(found.astype(np.float64) - expected).max() <= allowed


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_networks_need_no_layout_ops(name: str, dtype: str) -> None:
    graph = NETWORKS[name]()
    samples = make_inputs(graph, 1, batch=8)["input"]
    expected = LiteRTExecutor(write_tflite(graph)).run(samples)[0]
    if dtype == "int8":
        graph = quantize_graph(graph, calibrate(graph, samples))
    data = write_tflite(graph)
    operators = list_operators(data)
    assert "TRANSPOSE" not in operators
    assert "RESHAPE" not in operators
    assert len(operators) == len(graph.ops)
    if dtype == "int8":
        executor = LiteRTExecutor(data)
        quant = graph.tensors["input"].quant
        assert quant is not None
        stored = np.clip(np.round(samples / quant.scale[0]) + quant.zero_point[0], -128, 127).astype(np.int8)
        found = (executor.run(stored)[0].astype(np.float32) + 128) / 256
        # int8 against float: probabilities within a tenth, to see that scales arrived, not to measure accuracy
        assert np.abs(found - expected).max() < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("name", REFERENCE_NETS)
def test_reference_nets_need_no_layout_ops_and_come_back(name: str) -> None:
    graph = REFERENCE_NETS[name]()
    quantized = quantize_graph(graph, calibrate(graph, make_inputs(graph, 1, batch=8)["input"]))
    for program in (graph, quantized):
        data = write_tflite(program)
        assert not {"TRANSPOSE", "RESHAPE"} & set(list_operators(data))
        assert all(offset % 16 == 0 for offset, _ in find_data_offsets(data))
        assert is_same_graph(read_tflite(data), program)
        assert write_tflite(read_tflite(data)) == data
        LiteRTExecutor(data).run(*make_inputs(program, 2).values())


@pytest.mark.parametrize("seed", range(8))
def test_every_buffer_is_aligned(seed: int) -> None:
    data = write_tflite(make_random_graph(seed, dtype=("float32", "int8")[seed % 2], op_count=12))
    offsets = list(find_data_offsets(data))
    assert len(offsets) > 1
    assert [offset % 16 for offset, _ in offsets] == [0] * len(offsets)


def test_weights_stand_in_the_file_as_they_are() -> None:
    graph = make_op_graph("conv_2d", 3, "float32")
    data = write_tflite(graph)
    stored = [data[offset : offset + size] for offset, size in find_data_offsets(data)]
    for tensor in graph.tensors.values():
        if tensor.data is not None:
            assert tensor.data.tobytes() in stored


def test_equal_weights_stand_once() -> None:
    values = np.arange(4, dtype=np.float32).reshape(1, 4)
    data = write_tflite(make_add_twice(values))
    assert data.count(values.tobytes()) == 1
    assert len(unpack(data).subgraphs[0].tensors) == 5


def test_equal_zero_points_stand_once() -> None:
    """Eight bytes a channel: two convolutions of 40 channels with zero points of their own would need 640 more."""
    sizes = []
    for layers in (1, 2):
        quant = Quant(np.full(40, 0.01), np.zeros(40), 0)
        tensors = {"input": Tensor("input", (1, 1, 8, 40), "int8", None, Quant.per_tensor(0.1, 0))}
        ops = []
        for index in range(layers):
            weight = np.full((40, 1, 1, 40), index + 1, np.int8)
            for tensor in (
                Tensor.constant(f"{index}/weight", weight, quant),
                Tensor.constant(f"{index}/bias", np.zeros(40, np.int32), quant),
                Tensor(f"{index}", (1, 1, 8, 40), "int8", None, Quant.per_tensor(0.1, 0)),
            ):
                tensors[tensor.name] = tensor
            attrs = {"stride": (1, 1), "dilation": (1, 1), "padding": "same", "activation": "none"}
            source = "input" if index == 0 else f"{index - 1}"
            ops.append(Op("conv_2d", f"{index}", (source, f"{index}/weight", f"{index}/bias"), (f"{index}",), attrs))
        graph = Graph("convs", tensors, tuple(ops), ("input",), (f"{layers - 1}",))
        data = write_tflite(graph)
        LiteRTExecutor(data)  # its verifier takes shared vectors
        sizes.append(len(data) - 1600 * layers)
    assert sizes[1] - sizes[0] < 640


def test_equal_attributes_share_one_tensor() -> None:
    graph = make_op_graph("transpose", 0, "float32")
    perm = tuple(range(len(graph.tensors["input"].shape)))
    shape = graph.tensors["input"].shape
    ops = (
        Op("transpose", "first", ("input",), ("middle",), {"perm": perm}),
        Op("transpose", "second", ("middle",), ("output",), {"perm": perm}),
    )
    tensors = {name: Tensor(name, shape) for name in ("input", "middle", "output")}
    model = unpack(write_tflite(Graph("two", tensors, ops, ("input",), ("output",))))
    assert [tensor.name for tensor in model.subgraphs[0].tensors] == [
        b"input",
        b"int32/4_0_1_2_3",
        b"middle",
        b"output",
    ]


def test_attribute_tensors_give_way_to_tensors_of_their_name() -> None:
    name = "int32/2_1_2"  # what the axes (1, 2) would be called
    tensors = {name: Tensor(name, (1, 2, 3, 4)), "output": Tensor("output", (1, 4))}
    op = Op("mean", "gap", (name,), ("output",), {"axes": (1, 2), "keep_dims": False})
    model = unpack(write_tflite(Graph("clash", tensors, (op,), (name,), ("output",))))
    assert sorted(tensor.name.decode() for tensor in model.subgraphs[0].tensors) == [name, name + "_", "output"]


@pytest.mark.parametrize("seed", range(4))
def test_same_graph_gives_the_same_bytes(seed: int) -> None:
    graph = make_random_graph(seed, op_count=10)
    backwards = replace(graph, tensors=dict(reversed(list(graph.tensors.items()))))
    assert write_tflite(graph) == write_tflite(make_random_graph(seed, op_count=10)) == write_tflite(backwards)


def test_file_describes_itself() -> None:
    graph = make_random_graph(3, dtype="int8", op_count=6)
    data = write_tflite(graph)
    model = unpack(data)
    assert model.description == b"edgeprune"
    assert model.subgraphs[0].name.decode() == graph.name
    assert data[4:8] == b"TFL3"
    signature = model.signatureDefs[0]
    assert signature.signatureKey == b"serving_default"
    assert [entry.name.decode() for entry in signature.inputs] == list(graph.inputs)
    assert [entry.name.decode() for entry in signature.outputs] == list(graph.outputs)
    for entry in (*signature.inputs, *signature.outputs):
        assert model.subgraphs[0].tensors[entry.tensorIndex].name == entry.name


def test_first_runtime_version_is_that_of_the_newest_operator() -> None:
    model = unpack(write_tflite(make_op_graph("relu", 0, "int8")))  # RELU version 2: TensorFlow 2.1
    metadata = {entry.name: bytes(model.buffers[entry.buffer].data) for entry in model.metadata}
    assert metadata[b"min_runtime_version"] == b"2.1.0".ljust(16, b"\0")


def make_two_operand_graph(kind: str, dtype: str, output_scale: float, channels: int = 4, groups: int = 1) -> Graph:
    """One op over scales of 1, for its version."""
    quant = Quant.per_tensor(1.0, 0) if dtype == "int8" else None
    output_quant = Quant.per_tensor(output_scale, 0) if dtype == "int8" else None
    shape = (1, 1, 8, channels)
    tensors = [Tensor("input", shape, dtype, None, quant), Tensor("output", shape, dtype, None, output_quant)]
    if kind == "conv_2d":
        weight = np.ones((channels, 1, 1, channels // groups), dtype)
        bias = np.zeros(channels, "int32" if dtype == "int8" else dtype)
        tensors += [Tensor.constant("weight", weight, quant), Tensor.constant("bias", bias, quant)]
        attrs = {"stride": (1, 1), "dilation": (1, 1), "padding": "same", "activation": "none"}
        op = Op(kind, "layer", ("input", "weight", "bias"), ("output",), attrs)
    else:
        op = Op(kind, "layer", ("input", "input"), ("output",), {"activation": "none"})
    return Graph("one", {tensor.name: tensor for tensor in tensors}, (op,), ("input",), ("output",))


# op_version.cc of TensorFlow: kind, type, output scale, groups -> version
@pytest.mark.parametrize(
    ("kind", "dtype", "output_scale", "groups", "version"),
    [
        ("conv_2d", "float32", 1.0, 1, 1),
        ("conv_2d", "int8", 1.0, 1, 3),
        ("conv_2d", "float32", 1.0, 2, 6),
        ("conv_2d", "int8", 1.0, 2, 6),
        ("add", "float32", 1.0, 1, 1),
        ("add", "int8", 1.0, 1, 2),
        ("sub", "int8", 1.0, 1, 2),
        ("mul", "float32", 1.0, 1, 1),
        ("mul", "int8", 1.5, 1, 2),
        ("mul", "int8", 1.0, 1, 3),  # the product of input scales reaches the output scale
    ],
)
def test_operator_versions(kind: str, dtype: str, output_scale: float, groups: int, version: int) -> None:
    graph = make_two_operand_graph(kind, dtype, output_scale, groups=groups)
    assert operator_version(graph.ops[0], graph) == version
    code = unpack(write_tflite(graph)).operatorCodes[0]
    assert code.builtinCode == getattr(schema.BuiltinOperator, OPERATOR_NAMES[kind])
    assert code.version == version


@pytest.mark.parametrize(("kind", "dtype"), CASES)
def test_every_version_has_a_runtime(kind: str, dtype: str) -> None:
    for seed in range(10):
        graph = make_op_graph(kind, seed, dtype)
        for op in graph.ops:
            name = "PADV2" if op.attrs.get("mode") == "lowest" else OPERATOR_NAMES[kind]
            assert (name, operator_version(op, graph)) in RUNTIME_VERSIONS


def test_broken_graphs_are_faults() -> None:
    graph = make_op_graph("relu", 0)
    with pytest.raises(GraphError, match="never written"):
        write_tflite(replace(graph, ops=()))
