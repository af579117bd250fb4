"""Full-int8 files that others made: edges taken off, habits understood, the rest refused with a reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from edgeprune.errors import InputError, UnsupportedModelError
from edgeprune.executors import LiteRTExecutor, MicroExecutor
from edgeprune.graph import Graph, Op, Quant, Tensor, is_same_graph
from edgeprune.lower import read_int8_program, read_tflite, write_tflite
from edgeprune.ops import OPS
from edgeprune.quantize import calibrate, quantize_graph
from edgeprune.reference import dequantize_values, quantize_values, run_graph
from tests.lower.flatbuffer_edits import add_constant, edit, set_operator
from tests.lower.handmade import make_resnet_like
from tests.random_graphs import make_inputs, make_op_graph, make_random_graph


def make_network() -> Graph:
    """A small int8 residual net over 16 x 16 x 3 images."""
    graph = make_resnet_like()
    return quantize_graph(graph, calibrate(graph, make_inputs(graph, 0, batch=4)["input"]))


def make_moved(kind: str, shape: tuple[int, ...], **attrs: object) -> Graph:
    """An int8 program of one op that moves values."""
    quant = Quant.per_tensor(0.5, 3)
    output = OPS[kind].infer_shape(attrs, [shape])
    tensors = {name: Tensor(name, size, "int8", None, quant) for name, size in (("input", shape), ("output", output))}
    return Graph("one", tensors, (Op(kind, "output", ("input",), ("output",), attrs),), ("input",), ("output",))


def add_edges(graph: Graph, type_name: str) -> bytes:
    """The program with float32 or uint8 inputs and outputs, as TensorFlow's converter writes it."""
    is_uint8 = type_name == "UINT8"

    def surround(model: schema.ModelT) -> None:
        subgraph = model.subgraphs[0]
        for edge, indices in (("in", subgraph.inputs), ("out", subgraph.outputs)):
            for place, inner in enumerate(indices):
                original = subgraph.tensors[inner]
                tensor = schema.TensorT()
                tensor.name, tensor.shape, tensor.buffer = f"{edge}_{place}", original.shape, 0
                tensor.type = getattr(schema.TensorType, type_name)
                if is_uint8:
                    tensor.quantization = schema.QuantizationParametersT()
                    tensor.quantization.scale = original.quantization.scale
                    tensor.quantization.zeroPoint = np.array(original.quantization.zeroPoint) + 128
                subgraph.tensors.append(tensor)
                outer = len(subgraph.tensors) - 1
                operator = schema.OperatorT()
                pair = (outer, inner) if edge == "in" else (inner, outer)
                operator.inputs, operator.outputs = (np.array([index], np.int32) for index in pair)
                where = 0 if edge == "in" else len(subgraph.operators)
                subgraph.operators.insert(where, operator)
                set_operator(model, where, "DEQUANTIZE" if edge == "out" and not is_uint8 else "QUANTIZE")
                indices[place] = outer

    def change(model: schema.ModelT) -> None:
        subgraph = model.subgraphs[0]
        subgraph.inputs, subgraph.outputs = np.array(subgraph.inputs), np.array(subgraph.outputs)
        surround(model)

    return edit(write_tflite(graph), change)


def compute(graph: Graph, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Random inputs and the reference's results."""
    (values,) = make_inputs(graph, seed, batch=3).values()
    return values, run_graph(graph, values)[graph.outputs[0]]


def assert_runs_as_in_micro(data: bytes) -> Graph:
    """The program read from `data`; TFLite Micro computes the same from those very bytes."""
    graph = read_int8_program(data).graph
    values, expected = compute(graph)
    (found,) = MicroExecutor(data).run(values)
    assert np.array_equal(found, expected)
    return graph


def test_float_edges_are_taken_off() -> None:
    graph = make_network()
    data = add_edges(graph, "FLOAT32")
    program = read_int8_program(data)
    # without the layer names, which only edgeprune's own files have
    assert is_same_graph(program.graph, read_tflite(edit(write_tflite(graph), lambda _model: None)))
    assert len(program.notes) == 2
    assert "the file's input in_0 is float32; the compiled program's is int8 (real value = 0.0" in program.notes[0]
    # the caller's arithmetic around the program is what the file did
    values, _ = compute(graph)
    quants = [graph.tensors[name].quant for name in (*graph.inputs, *graph.outputs)]
    assert quants[0] is not None
    assert quants[1] is not None
    real = dequantize_values(values, quants[0])
    stored = run_graph(program.graph, quantize_values(real, quants[0]))[graph.outputs[0]]
    (expected,) = MicroExecutor(data).run(real)
    assert np.array_equal(dequantize_values(stored, quants[1]), expected)


def test_uint8_edges_are_int8_ones_less_128() -> None:
    graph = make_network()
    data = add_edges(graph, "UINT8")
    program = read_int8_program(data)
    assert [op.kind for op in program.graph.ops] == [op.kind for op in graph.ops]
    assert "int8 value = uint8 value - 128" in program.notes[0]
    values, expected = compute(program.graph)
    (found,) = LiteRTExecutor(data).run((values.astype(np.int16) + 128).astype(np.uint8))
    # LiteRT's reference kernel of the dense layer rounds once, and softmax is a table: a step here and there
    assert np.abs(found.astype(int) - 128 - expected).max() <= 1


def test_uint8_with_a_scale_of_its_own_is_refused() -> None:
    def rescale(model: schema.ModelT) -> None:
        index = model.subgraphs[0].inputs[0]
        model.subgraphs[0].tensors[index].quantization.scale = np.array([0.7], np.float32)

    with pytest.raises(UnsupportedModelError, match="its type is UINT8"):
        read_int8_program(edit(add_edges(make_network(), "UINT8"), rescale))


def test_an_int8_program_is_read_as_it_is() -> None:
    graph = make_network()
    program = read_int8_program(write_tflite(graph))
    assert is_same_graph(program.graph, graph)
    assert program.notes == ()


def test_dense_layers_with_a_scale_per_output_are_noted() -> None:
    """Recent converters write them, and TFLite Micro of 2026 computes them as the reference does."""

    def split_scales(model: schema.ModelT) -> None:
        tensors = {tensor.name: tensor for tensor in model.subgraphs[0].tensors}
        source, weight, bias = (
            tensors[name] for name in (b"input", tensors_of_dense["weight"], tensors_of_dense["bias"])
        )
        scales = np.linspace(0.002, 0.02, weight.shape[0]).astype(np.float32)
        weight.quantization.scale, weight.quantization.zeroPoint = scales, np.zeros(len(scales), np.int64)
        bias.quantization.scale = np.float32(source.quantization.scale[0]) * scales
        bias.quantization.zeroPoint = np.zeros(len(scales), np.int64)

    graph = next(
        graph
        for graph in (make_op_graph("fully_connected", seed) for seed in range(20))
        if graph.tensors[graph.ops[0].inputs[1]].shape[0] > 2
    )
    names = graph.ops[0].inputs
    tensors_of_dense = {"weight": names[1].encode(), "bias": names[2].encode()}
    data = edit(write_tflite(graph), split_scales)
    assert_runs_as_in_micro(data)
    assert "dense layers with a scale per output" in read_int8_program(data).notes[0]


@pytest.mark.parametrize("operator", ["SPLIT", "SPLIT_V"])
def test_split_becomes_a_slice_per_part(operator: str) -> None:
    graph = make_moved("strided_slice", (1, 4, 6), begin=(0, 0, 0), end=(1, 4, 3), stride=(1, 1, 1))

    def use_split(model: schema.ModelT) -> None:
        subgraph = model.subgraphs[0]
        second = schema.TensorT()
        first = subgraph.tensors[subgraph.outputs[0]]
        second.name, second.shape, second.type, second.buffer = "second", first.shape, first.type, 0
        second.quantization = first.quantization
        subgraph.tensors.append(second)
        results = [int(subgraph.outputs[0]), len(subgraph.tensors) - 1]
        record = set_operator(model, 0, operator)
        axis = add_constant(model, "axis", np.array([-1], np.int32))
        source = int(record.inputs[0])
        if operator == "SPLIT":
            record.inputs = np.array([axis, source], np.int32)
            record.builtinOptionsType, record.builtinOptions = (
                schema.BuiltinOptions.SplitOptions,
                schema.SplitOptionsT(),
            )
            record.builtinOptions.numSplits = 2
        else:
            sizes = add_constant(model, "sizes", np.array([3, -1], np.int32))
            record.inputs = np.array([source, sizes, axis], np.int32)
            record.builtinOptionsType = schema.BuiltinOptions.SplitVOptions
            record.builtinOptions = schema.SplitVOptionsT()
            record.builtinOptions.numSplits = 2
        record.outputs = np.array(results, np.int32)
        subgraph.outputs = np.array(results, np.int32)

    data = edit(write_tflite(graph), use_split)
    program = read_int8_program(data).graph
    assert [op.kind for op in program.ops] == ["strided_slice"] * 2
    assert [op.name for op in program.ops] == ["output", "second"]
    values, _ = compute(program)
    parts = run_graph(program, values)
    for name, found in zip(program.outputs, LiteRTExecutor(data).run(values), strict=True):
        assert np.array_equal(parts[name], found)
    # a part that nobody reads is left out
    one = edit(data, lambda model: setattr(model.subgraphs[0], "outputs", model.subgraphs[0].outputs[1:]))
    assert [op.name for op in read_int8_program(one).graph.ops] == ["second"]


def test_a_dense_layer_over_positions_becomes_a_convolution() -> None:
    graph = make_op_graph("fully_connected", seed=4)
    features = graph.tensors[graph.ops[0].inputs[1]].shape[1]
    units = graph.tensors[graph.ops[0].inputs[1]].shape[0]

    def widen(model: schema.ModelT) -> None:
        subgraph = model.subgraphs[0]
        record = subgraph.operators[0]
        record.builtinOptions.keepNumDims = True
        subgraph.tensors[record.inputs[0]].shape = np.array([1, 5, features], np.int32)
        subgraph.tensors[record.outputs[0]].shape = np.array([1, 5, units], np.int32)

    program = assert_runs_as_in_micro(edit(write_tflite(graph), widen))
    assert [op.kind for op in program.ops] == ["reshape", "conv_2d", "reshape"]
    assert program.tensors[program.outputs[0]].shape == (1, 5, units)
    quant = program.tensors[program.ops[1].inputs[1]].quant
    assert quant is not None
    assert (quant.axis, len(quant.scale)) == (0, units)


@pytest.mark.parametrize("batch", [-1, 0])
def test_a_free_batch_in_the_shapes_is_a_batch_of_one(batch: int) -> None:
    graph = make_network()

    def free(model: schema.ModelT) -> None:
        for tensor in model.subgraphs[0].tensors:
            if tensor.buffer == 0:
                tensor.shape = np.array([batch, *tensor.shape[1:]], np.int32)

    program = read_int8_program(edit(write_tflite(graph), free))
    assert [program.graph.tensors[op.outputs[0]].shape for op in program.graph.ops] == [
        graph.tensors[op.outputs[0]].shape for op in graph.ops
    ]


def test_one_scale_for_all_filters_is_repeated_and_bias_scales_are_settled() -> None:
    graph = make_op_graph("conv_2d", seed=3)
    weight = graph.ops[0].inputs[1].encode()

    def merge(model: schema.ModelT) -> None:
        for tensor in model.subgraphs[0].tensors:
            if tensor.name == weight:
                tensor.quantization.scale = tensor.quantization.scale[:1]
                tensor.quantization.zeroPoint = np.zeros(1, np.int64)
            elif tensor.type == schema.TensorType.INT32:
                tensor.quantization = None

    program = read_int8_program(edit(write_tflite(graph), merge)).graph
    source, weights, bias = (program.tensors[name].quant for name in program.ops[0].inputs)
    assert source is not None
    assert weights is not None
    assert bias is not None
    assert (weights.axis, len(weights.scale)) == (0, program.tensors[program.ops[0].inputs[1]].shape[0])
    assert np.array_equal(bias.scale, source.scale * weights.scale)


# -- what is refused, and how


def _set_types(model: schema.ModelT, found: int, wanted: int) -> None:
    for tensor in model.subgraphs[0].tensors:
        tensor.type = wanted if tensor.type == found else tensor.type


def _make_16x8(model: schema.ModelT) -> None:
    for tensor in model.subgraphs[0].tensors:
        if tensor.buffer == 0 and tensor.type == schema.TensorType.INT8:
            tensor.type = schema.TensorType.INT16
            tensor.quantization.zeroPoint = np.zeros(1, np.int64)
        elif tensor.type == schema.TensorType.INT32 and tensor.quantization is not None:
            tensor.type = schema.TensorType.INT64
            data = np.frombuffer(bytes(bytearray(model.buffers[tensor.buffer].data)), np.int32)
            model.buffers[tensor.buffer].data = np.frombuffer(data.astype(np.int64).tobytes(), np.uint8)


def _change_bias_scale(model: schema.ModelT) -> None:
    tensor = next(tensor for tensor in model.subgraphs[0].tensors if tensor.type == schema.TensorType.INT32)
    tensor.quantization.scale = np.array(tensor.quantization.scale, np.float32) * 50


def _stretch_scale(model: schema.ModelT) -> None:
    model.subgraphs[0].tensors[model.subgraphs[0].inputs[0]].quantization.scale = np.array([1e20], np.float32)
    for tensor in model.subgraphs[0].tensors:
        if tensor.type == schema.TensorType.INT32:
            tensor.quantization = None


REFUSED: dict[str, tuple[str, Callable[[schema.ModelT], None], type[Exception], str]] = {
    "16x8": ("conv_2d", _make_16x8, UnsupportedModelError, r"is int16 \(16x8 quantization\); allowed are int8"),
    "bias scale": ("conv_2d", _change_bias_scale, InputError, "its bias has the scale"),
    "huge scale": ("conv_2d", _stretch_scale, UnsupportedModelError, "one step of its input weighs"),
    "mirrored": (
        "pad",
        lambda model: set_operator(model, 0, "MIRROR_PAD"),  # type: ignore[dict-item]
        UnsupportedModelError,
        r"\(MIRROR_PAD\): it pads with mirrored values; pad with zeros",
    ),
    "no layers": (
        "relu",
        lambda model: setattr(model.subgraphs[0], "outputs", model.subgraphs[0].inputs),
        UnsupportedModelError,
        "computes nothing",
    ),
    "scales differ": (
        "max_pool_2d",
        lambda model: setattr(
            model.subgraphs[0].tensors[model.subgraphs[0].outputs[0]].quantization, "scale", np.array([9.0], np.float32)
        ),
        InputError,
        "They must be equal",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_int8_program_is_refused(case: str) -> None:
    kind, change, error, message = REFUSED[case]
    with pytest.raises(error, match=message) as caught:
        read_int8_program(edit(write_tflite(make_op_graph(kind, seed=3)), change))
    assert str(caught.value).isprintable()


def test_a_float_file_is_refused_with_the_way_out() -> None:
    data = write_tflite(make_random_graph(1, dtype="float32"))
    with pytest.raises(UnsupportedModelError, match=r"is float32; all of the network must be int8; give the PyTorch"):
        read_int8_program(data)


def test_a_float_layer_in_the_middle_is_named() -> None:
    """Dynamic-range files, and operators the converter left in float."""
    graph = make_network()
    first = graph.ops[0]
    quant = graph.tensors[first.outputs[0]].quant
    shape = graph.tensors[first.outputs[0]].shape
    tensors = {
        **graph.tensors,
        "real": Tensor("real", shape),
        "curved": Tensor("curved", shape),
        "back": Tensor("back", shape, "int8", None, quant),
    }
    detour = (
        Op("dequantize", "leave", first.outputs, ("real",)),
        Op("tanh", "curve", ("real",), ("curved",)),
        Op("quantize", "return", ("curved",), ("back",)),
    )
    rest = tuple(
        replace(op, inputs=tuple("back" if name == first.outputs[0] else name for name in op.inputs))
        for op in graph.ops[1:]
    )
    data = write_tflite(replace(graph, tensors=tensors, ops=(first, *detour, *rest)))
    with pytest.raises(UnsupportedModelError, match=r"leave \(dequantize\): real is float32"):
        read_int8_program(data)


def test_two_inputs_are_refused() -> None:
    graph = next(graph for graph in (make_op_graph("concat", seed) for seed in range(9)) if len(graph.inputs) == 2)
    with pytest.raises(UnsupportedModelError, match="the file has 2 inputs"):
        read_int8_program(write_tflite(graph))


@pytest.mark.parametrize(("size", "message"), [(2**27, "134,217,728 bytes; allowed"), (2**24, "values to gather")])
def test_huge_programs_are_refused_before_anything_is_computed(size: int, message: str) -> None:
    attrs = {"stride": (1, 1), "dilation": (1, 1), "padding": "same", "activation": "none"}
    quant = Quant.per_tensor(0.1, 0)
    weight = np.ones((1, 1, 401, 1), np.int8)
    tensors = (
        Tensor("input", (1, 1, size, 1), "int8", None, quant),
        Tensor.constant("weight", weight, Quant(np.array([0.1]), np.zeros(1), 0)),
        Tensor.constant("bias", np.zeros(1, np.int32), Quant(np.array([0.01]), np.zeros(1), 0)),
        Tensor("output", (1, 1, size, 1), "int8", None, quant),
    )
    op = Op("conv_2d", "wide", ("input", "weight", "bias"), ("output",), attrs)
    graph = Graph("huge", {tensor.name: tensor for tensor in tensors}, (op,), ("input",), ("output",))
    with pytest.raises(UnsupportedModelError, match=message):
        read_int8_program(write_tflite(graph))
