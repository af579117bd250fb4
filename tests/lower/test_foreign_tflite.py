"""Other converters' habits are understood, or refused with a sentence that names layer and operator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from edgeprune.errors import InputError, UnsupportedModelError
from edgeprune.executors import LiteRTExecutor
from edgeprune.graph import Graph, Op, Quant, Tensor, is_same_graph
from edgeprune.lower import read_tflite, write_tflite
from edgeprune.ops import OPS
from edgeprune.reference import run_graph
from tests.lower.flatbuffer_edits import add_constant, edit, list_operators, set_operator
from tests.random_graphs import make_inputs


def make_dense() -> Graph:
    """An int8 FULLY_CONNECTED over 6 features."""
    quant = Quant.per_tensor(0.5, 3)
    tensors = [
        Tensor("input", (1, 6), "int8", None, quant),
        Tensor.constant("dense/weight", np.arange(12, dtype=np.int8).reshape(2, 6), Quant.per_tensor(0.25, 0)),
        Tensor.constant("dense/bias", np.zeros(2, np.int32), Quant.per_tensor(0.125, 0)),
        Tensor("dense", (1, 2), "int8", None, quant),
    ]
    op = Op("fully_connected", "dense", ("input", "dense/weight", "dense/bias"), ("dense",), {"activation": "none"})
    return Graph("dense", {tensor.name: tensor for tensor in tensors}, (op,), ("input",), ("dense",))


def make_one(kind: str, input_shape: tuple[int, ...], **attrs: object) -> Graph:
    """A float program of one op over one input."""
    output = OPS[kind].infer_shape(attrs, [input_shape])
    tensors = {"input": Tensor("input", input_shape), "output": Tensor("output", output)}
    return Graph("one", tensors, (Op(kind, "output", ("input",), ("output",), attrs),), ("input",), ("output",))


def assert_runs_as_in_litert(data: bytes) -> Graph:
    """The graph read from `data`, whose reference results are LiteRT's."""
    graph = read_tflite(data)
    inputs = make_inputs(graph, 1)
    found = run_graph(graph, inputs)
    expected = LiteRTExecutor(data).run(*(inputs[name] for name in graph.inputs))
    for name, values in zip(graph.outputs, expected, strict=True):
        np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-6)  # float32 sums in another order
    return graph


def test_missing_bias_becomes_zeros() -> None:
    graph = make_dense()

    def leave_out(model: schema.ModelT) -> None:
        operator = model.subgraphs[0].operators[0]
        operator.inputs = operator.inputs[:2]

    def mark_missing(model: schema.ModelT) -> None:
        operator = model.subgraphs[0].operators[0]
        operator.inputs = np.array([*operator.inputs[:2], -1], np.int32)

    for change in (leave_out, mark_missing):
        read = read_tflite(edit(write_tflite(graph), change))
        bias = read.tensors[read.ops[0].inputs[2]]
        assert bias.name == "dense/bias_"  # the file still holds a tensor of the plain name
        assert bias.data is not None
        assert bias.data.tolist() == [0, 0]
        assert bias.dtype == "int32"
        assert bias.quant is not None
        assert bias.quant.scale.tolist() == [0.125]


def test_dense_weights_may_have_a_scale_per_channel() -> None:
    def split_scales(model: schema.ModelT) -> None:
        for tensor in model.subgraphs[0].tensors:
            if tensor.name in (b"dense/weight", b"dense/bias"):
                tensor.quantization.scale = np.array([0.25, 0.5], np.float32)
                tensor.quantization.zeroPoint = np.zeros(2, np.int64)

    read = read_tflite(edit(write_tflite(make_dense()), split_scales))
    weight = read.tensors["dense/weight"]
    assert weight.quant is not None
    assert (weight.quant.axis, weight.quant.scale.tolist()) == (0, [0.25, 0.5])
    assert is_same_graph(read_tflite(write_tflite(read)), read)


def test_zero_points_may_be_left_out() -> None:
    def drop(model: schema.ModelT) -> None:
        for tensor in model.subgraphs[0].tensors:
            if tensor.name.startswith(b"dense/"):
                tensor.quantization.zeroPoint = None

    assert is_same_graph(read_tflite(edit(write_tflite(make_dense()), drop)), make_dense())


def test_old_files_fill_the_deprecated_operator_code() -> None:
    def age(model: schema.ModelT) -> None:
        for code in model.operatorCodes:
            code.builtinCode = 0

    assert is_same_graph(read_tflite(edit(write_tflite(make_dense()), age)), make_dense())


def test_free_batch_is_a_batch_of_one() -> None:
    def free(model: schema.ModelT) -> None:
        for tensor in model.subgraphs[0].tensors:
            tensor.shapeSignature = np.array([-1, *tensor.shape[1:]], np.int32)

    assert is_same_graph(read_tflite(edit(write_tflite(make_dense()), free)), make_dense())


def test_axes_may_be_int64_and_negative() -> None:
    graph = make_one("mean", (1, 2, 3, 4), axes=(1, 2), keep_dims=False)

    def change(model: schema.ModelT) -> None:
        axes = add_constant(model, "axes64", np.array([-3, -2], np.int64))
        _operator(model).inputs = np.array([_operator(model).inputs[0], axes], np.int32)

    assert is_same_graph(read_tflite(edit(write_tflite(graph), change)), graph)


def test_reshape_to_a_computed_shape_takes_the_declared_one() -> None:
    """SHAPE -> STRIDED_SLICE -> PACK -> RESHAPE, as TensorFlow flattens with a free batch."""
    graph = make_one("reshape", (1, 2, 3), shape=(1, 6))

    def compute_shape(model: schema.ModelT) -> None:
        subgraph = model.subgraphs[0]
        computed = []
        for name in (b"shape", b"sliced", b"packed"):
            tensor = schema.TensorT()
            tensor.name, tensor.shape, tensor.type, tensor.buffer = name, np.array([2], np.int32), 2, 0
            subgraph.tensors.append(tensor)
            computed.append(len(subgraph.tensors) - 1)
        reshape = subgraph.operators[0]
        steps = []
        for name, source, target in zip(
            ("SHAPE", "STRIDED_SLICE", "PACK"), (reshape.inputs[0], *computed), computed, strict=False
        ):
            operator = schema.OperatorT()
            operator.inputs, operator.outputs = np.array([source], np.int32), np.array([target], np.int32)
            subgraph.operators.append(operator)
            set_operator(model, len(subgraph.operators) - 1, name)
            steps.append(operator)
        reshape.inputs = np.array([reshape.inputs[0], computed[-1]], np.int32)
        subgraph.operators = [*steps, reshape]

    assert is_same_graph(read_tflite(edit(write_tflite(graph), compute_shape)), graph)


@pytest.mark.parametrize("operator", ["SQUEEZE", "EXPAND_DIMS"])
def test_operators_that_only_change_the_shape_become_reshape(operator: str) -> None:
    graph = make_one("reshape", (1, 1, 3), shape=(1, 3))
    data = edit(write_tflite(graph), lambda model: set_operator(model, 0, operator))
    assert is_same_graph(read_tflite(data), graph)


def test_slice_becomes_strided_slice() -> None:
    graph = make_one("strided_slice", (1, 5, 4), begin=(0, 1, 2), end=(1, 4, 4), stride=(1, 1, 1))

    def use_slice(model: schema.ModelT) -> None:
        operator = set_operator(model, 0, "SLICE")
        sizes = add_constant(model, "sizes", np.array([-1, 3, -1], np.int32))
        begin = add_constant(model, "begin", np.array([0, 1, 2], np.int32))
        operator.inputs = np.array([operator.inputs[0], begin, sizes], np.int32)

    data = edit(write_tflite(graph), use_slice)
    assert list_operators(data) == ["SLICE"]
    assert is_same_graph(assert_runs_as_in_litert(data), graph)


def test_slice_that_drops_an_axis_becomes_slice_and_reshape() -> None:
    """x[:, -1, 1:]: the last step, without the first channel."""
    graph = make_one("strided_slice", (1, 5, 4), begin=(0, 4, 1), end=(1, 5, 4), stride=(1, 1, 1))

    def drop_axis(model: schema.ModelT) -> None:
        operator = model.subgraphs[0].operators[0]
        operator.builtinOptions.shrinkAxisMask = 2
        operator.builtinOptions.endMask = 5
        begin = add_constant(model, "begin", np.array([0, -1, 1], np.int32))
        operator.inputs = np.array([operator.inputs[0], begin, *operator.inputs[2:]], np.int32)
        model.subgraphs[0].tensors[operator.outputs[0]].shape = np.array([1, 3], np.int32)

    read = assert_runs_as_in_litert(edit(write_tflite(graph), drop_axis))
    assert [op.kind for op in read.ops] == ["strided_slice", "reshape"]
    assert read.ops[0].attrs == graph.ops[0].attrs
    assert [op.name for op in read.ops] == ["output", "output/reshape"]
    assert is_same_graph(read_tflite(write_tflite(read)), read)


def test_dense_that_keeps_axes_becomes_dense_and_reshape() -> None:
    def keep(model: schema.ModelT) -> None:
        subgraph = model.subgraphs[0]
        operator = subgraph.operators[0]
        operator.builtinOptions.keepNumDims = True
        subgraph.tensors[operator.inputs[0]].shape = np.array([1, 1, 6], np.int32)
        subgraph.tensors[operator.outputs[0]].shape = np.array([1, 1, 2], np.int32)

    read = assert_runs_as_in_litert(edit(write_tflite(make_dense()), keep))
    assert [op.kind for op in read.ops] == ["fully_connected", "reshape"]


@pytest.mark.parametrize(("value", "mode"), [(0.0, "zero"), (-np.inf, "lowest"), (np.finfo(np.float32).min, "lowest")])
def test_padding_values(value: float, mode: str) -> None:
    graph = make_one("pad", (1, 2, 3, 1), paddings=((0, 0), (1, 0), (0, 2), (0, 0)), mode="lowest")

    def set_value(model: schema.ModelT) -> None:
        tensor = model.subgraphs[0].tensors[model.subgraphs[0].operators[0].inputs[2]]
        model.buffers[tensor.buffer].data = np.frombuffer(np.float32(value).tobytes(), np.uint8)

    assert read_tflite(edit(write_tflite(graph), set_value)).ops[0].attrs["mode"] == mode


def test_nameless_tensors_are_numbered_and_equal_names_told_apart() -> None:
    def rename(model: schema.ModelT) -> None:
        for tensor in model.subgraphs[0].tensors:
            tensor.name = b"same" if tensor.name == b"input" or tensor.name == b"dense" else None

    read = read_tflite(edit(write_tflite(make_dense()), rename))
    assert (read.inputs, read.outputs) == (("same",), ("same_3",))
    assert read.ops[0].inputs == ("same", "tensor_1", "tensor_2")


def test_control_characters_do_not_reach_names() -> None:
    def rename(model: schema.ModelT) -> None:
        model.subgraphs[0].tensors[0].name = b"in\x1b[31m\nput\xff"

    assert read_tflite(edit(write_tflite(make_dense()), rename)).inputs == ("in?[31m?put\ufffd",)


# -- what is refused, and how


def _set(path: Callable[[schema.ModelT], object], name: str, value: object) -> Callable[[schema.ModelT], None]:
    return lambda model: setattr(path(model), name, value)


def _operator(model: schema.ModelT) -> schema.OperatorT:
    return model.subgraphs[0].operators[0]


def _tensor(index: int) -> Callable[[schema.ModelT], schema.TensorT]:
    return lambda model: model.subgraphs[0].tensors[index]


def _make_custom(model: schema.ModelT) -> None:
    set_operator(model, 0, "CUSTOM")
    model.operatorCodes[-1].customCode = "MyOp"


def _give_conv_options(model: schema.ModelT) -> None:
    _operator(model).builtinOptionsType = schema.BuiltinOptions.Conv2DOptions
    _operator(model).builtinOptions = schema.Conv2DOptionsT()


REFUSED: dict[str, tuple[Callable[[schema.ModelT], object], str]] = {
    "unknown operator": (lambda model: set_operator(model, 0, "CEIL"), r"dense \(CEIL\): edgeprune has no form"),
    "recurrent layer": (lambda model: set_operator(model, 0, "LSTM"), r"dense \(LSTM\): recurrent layers"),
    "custom operator": (_make_custom, r"dense \(CUSTOM MyOp\): a custom operator means"),
    "two subgraphs": (lambda model: model.subgraphs.append(model.subgraphs[0]), "holds 2 subgraphs"),
    "fused tanh": (
        lambda model: setattr(_operator(model).builtinOptions, "fusedActivationFunction", 4),
        r"dense \(FULLY_CONNECTED\): the fused activation has code 4",
    ),
    "uint8 tensor": (_set(_tensor(0), "type", schema.TensorType.UINT8), "tensor input: its type is UINT8"),
    "float activations with int8 weights": (
        lambda model: [setattr(model.subgraphs[0].tensors[index], "type", 0) for index in (0, 3)],
        "its tensors are of different or unknown types",
    ),
    "asymmetric weights": (
        lambda model: setattr(model.subgraphs[0].tensors[1].quantization, "zeroPoint", np.array([5])),
        "weights have a zero point other than 0",
    ),
    "int8 without scale": (_set(_tensor(3), "quantization", None), "dense is int8 without a scale"),
    "variable": (_set(_tensor(0), "isVariable", True), "tensor input: it is a variable"),
    "batch of four": (_set(_tensor(0), "shape", np.array([4, 6], np.int32)), "must be a batch of 1"),
    "free feature axis": (
        _set(_tensor(0), "shapeSignature", np.array([-1, -1], np.int32)),
        "input input: its size along axis 1 is free",
    ),
    "dense over positions": (
        _set(_tensor(0), "shape", np.array([1, 2, 6], np.int32)),
        r"it works on each position of \(1, 2, 6\)",
    ),
    "shuffled weights": (
        lambda model: setattr(_operator(model).builtinOptions, "weightsFormat", 1),
        "the weights are shuffled",
    ),
}

DAMAGED: dict[str, tuple[Callable[[schema.ModelT], object], str]] = {
    "tensor index": (_set(_operator, "inputs", np.array([0, 1, 99], np.int32)), "names tensor 99 of 4"),
    "buffer index": (_set(_tensor(1), "buffer", 99), "names buffer 99 of"),
    "weights of another size": (_set(_tensor(1), "shape", np.array([2, 7], np.int32)), "do not fill the shape"),
    "bias of another size": (_set(_tensor(2), "shape", np.array([1, 2], np.int32)), "the bias is"),
    "output of another shape": (_set(_tensor(3), "shape", np.array([1, 5], np.int32)), "does not fill"),
    "negative size": (_set(_tensor(3), "shape", np.array([1, -5], np.int32)), r"has the shape \(1, -5\)"),
    "no values": (_set(_tensor(3), "shape", np.array([1, 0], np.int32)), "holds no values"),
    "huge shape": (_set(_tensor(3), "shape", np.full(8, 2**30, np.int32)), "dense has the shape"),
    "no scale": (
        lambda model: setattr(model.subgraphs[0].tensors[0].quantization, "scale", np.zeros(1, np.float32)),
        "tensor input: it has a scale that is not a positive number",
    ),
    "zero point beyond int8": (
        lambda model: setattr(model.subgraphs[0].tensors[0].quantization, "zeroPoint", np.array([200])),
        "tensor input: it has a zero point outside int8",
    ),
    "options of another operator": (_give_conv_options, "options of another operator"),
    "no outputs": (lambda model: setattr(model.subgraphs[0], "outputs", None), "no inputs or outputs"),
    "operand read before it is written": (
        lambda model: setattr(model.subgraphs[0], "inputs", np.array([3], np.int32)),
        "contradicts itself: dense .* reads input before it is written",
    ),
    "schema version": (lambda model: setattr(model, "version", 2), "schema version 2; allowed: 3"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_form_here_is_refused(case: str) -> None:
    change, message = REFUSED[case]
    with pytest.raises(UnsupportedModelError, match=message) as caught:
        read_tflite(edit(write_tflite(make_dense()), change))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("case", DAMAGED)
def test_contradictions_are_bad_input(case: str) -> None:
    change, message = DAMAGED[case]
    with pytest.raises(InputError, match=message) as caught:
        read_tflite(edit(write_tflite(make_dense()), change))
    assert "\n" not in str(caught.value)


def test_pad_with_another_value_is_refused() -> None:
    graph = make_one("pad", (1, 2, 3, 1), paddings=((0, 0), (1, 0), (0, 2), (0, 0)), mode="lowest")

    def set_one(model: schema.ModelT) -> None:
        tensor = model.subgraphs[0].tensors[_operator(model).inputs[2]]
        model.buffers[tensor.buffer].data = np.frombuffer(np.float32(1).tobytes(), np.uint8)

    with pytest.raises(UnsupportedModelError, match=r"output \(PADV2\): it pads with the value 1.0"):
        read_tflite(edit(write_tflite(graph), set_one))


def test_computed_attributes_are_refused() -> None:
    graph = make_one("transpose", (1, 2, 3, 4), perm=(0, 2, 1, 3))

    def compute(model: schema.ModelT) -> None:
        model.subgraphs[0].tensors[_operator(model).inputs[1]].buffer = 0

    with pytest.raises(UnsupportedModelError, match=r"output \(TRANSPOSE\): operand 1 is computed at run time"):
        read_tflite(edit(write_tflite(graph), compute))


def test_weights_outside_the_flatbuffer_are_refused() -> None:
    def move_out(model: schema.ModelT) -> None:
        model.buffers[1].data, model.buffers[1].offset, model.buffers[1].size = None, 4096, 12

    with pytest.raises(UnsupportedModelError, match="outside the flatbuffer"):
        read_tflite(edit(write_tflite(make_dense()), move_out))


def test_names_of_a_replaced_op_stay_unique() -> None:
    """Where the intermediate name of a split op is taken, another is found."""
    graph = make_one("strided_slice", (1, 5, 4), begin=(0, 4, 0), end=(1, 5, 4), stride=(1, 1, 1))
    taken = "output/strided_slice"
    tensors = {**graph.tensors, taken: Tensor(taken, (1, 5, 4))}
    relu = Op("relu", "relu", ("input",), (taken,))
    graph = replace(graph, tensors=tensors, ops=(relu, replace(graph.ops[0], inputs=(taken,))))

    def drop_axis(model: schema.ModelT) -> None:
        operator = model.subgraphs[0].operators[1]
        operator.builtinOptions.shrinkAxisMask = 2
        model.subgraphs[0].tensors[operator.outputs[0]].shape = np.array([1, 4], np.int32)

    read = assert_runs_as_in_litert(edit(write_tflite(graph), drop_axis))
    assert read.ops[1].outputs == (taken + "_",)
