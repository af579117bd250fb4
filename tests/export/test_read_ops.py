"""Every ONNX operator that is read: same values as ONNX Runtime, and the ops that it becomes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import TensorProto, helper

from tests.export.onnx_nets import OnnxNet, count_kinds, read_checked

Build = Callable[[OnnxNet], str]
SERIES, IMAGE, VECTOR = (6, 8), (3, 4, 5), (7,)


def add(op_type: str, *operands: object, **attributes: object) -> Build:
    """A net of one node behind the input."""
    return lambda net: net.add(op_type, net.x, *(net.store(operand) for operand in operands), **attributes)


CASES: list[tuple[str, tuple[int, ...], int, Build, dict[str, int]]] = [
    # what, shape of a sample, rank of the output, net, kinds of ops
    ("relu", SERIES, 3, add("Relu"), {"relu": 1}),
    ("sigmoid", IMAGE, 4, add("Sigmoid"), {"logistic": 1}),
    ("tanh", VECTOR, 2, add("Tanh"), {"tanh": 1}),
    ("elu", VECTOR, 2, add("Elu"), {"elu": 1}),
    ("hard_swish", SERIES, 3, add("HardSwish"), {"hard_swish": 1}),
    ("silu", SERIES, 3, lambda net: net.add("Mul", net.x, net.add("Sigmoid", net.x)), {"logistic": 1, "mul": 1}),
    ("hard sigmoid", SERIES, 3, add("HardSigmoid"), {"depthwise_conv_2d": 1, "mul": 1}),
    ("hard sigmoid of torch", SERIES, 3, add("HardSigmoid", alpha=1 / 6), {"mul": 1, "add": 1}),
    ("leaky_relu", SERIES, 3, add("LeakyRelu"), {"leaky_relu": 1}),
    ("prelu per channel", IMAGE, 4, lambda net: net.add("PRelu", net.x, net.draw(3, 1, 1)), {"prelu": 1}),
    ("prelu of one slope", SERIES, 3, add("PRelu", [0.3]), {"leaky_relu": 1}),
    ("max with 0", SERIES, 3, add("Max", 0.0), {"relu": 1}),
    ("dropout", SERIES, 3, add("Dropout"), {"reshape": 1}),  # nothing is left; an output needs a tensor of its own
    ("negation", SERIES, 3, add("Neg"), {"mul": 1}),
    ("sum", SERIES, 3, lambda net: net.add("Sum", net.x, net.add("Relu", net.x), net.x), {"relu": 1, "add": 2}),
    ("difference", SERIES, 3, lambda net: net.add("Sub", net.x, net.add("Tanh", net.x)), {"tanh": 1, "sub": 1}),
    ("softmax", VECTOR, 2, add("Softmax", axis=1), {"softmax": 1}),
    ("softmax over channels", IMAGE, 4, add("Softmax", axis=1), {"softmax": 1}),
    ("softmax over time", SERIES, 3, add("Softmax", axis=2), {"softmax": 1, "reshape": 4, "transpose": 2}),
    ("mean over time", SERIES, 2, add("ReduceMean", [2], keepdims=0), {"mean": 1}),
    ("mean over the map", IMAGE, 4, add("ReduceMean", [2, 3]), {"mean": 1}),
    ("mean over the width", IMAGE, 4, add("ReduceMean", [3]), {"mean": 1}),
    ("mean over the channels", SERIES, 3, add("ReduceMean", [1]), {"mean": 1}),
    ("mean over everything", SERIES, 3, add("ReduceMean", [1, 2]), {"mean": 1}),
    ("maximum over time", SERIES, 3, add("ReduceMax", [-1]), {"max_pool_2d": 1}),
    ("sum over time", SERIES, 3, add("ReduceSum", [2]), {"mean": 1, "mul": 1}),
    ("strided slice", IMAGE, 4, add("Slice", [0, 1], [9, -1], [2, 3], [2, 1]), {"strided_slice": 1}),
    ("slice of channels", SERIES, 3, add("Slice", [-4], [99], [1]), {"strided_slice": 1}),
    ("last position", SERIES, 2, add("Gather", -1, axis=2), {"strided_slice": 1, "reshape": 1}),
    ("every other channel", SERIES, 3, add("Gather", [1, 3, 5], axis=1), {"strided_slice": 1}),
    ("split", SERIES, 3, lambda net: net.add("Split", net.x, outputs=2, num_outputs=2, axis=1), {"strided_slice": 1}),
    ("zero pad", IMAGE, 4, add("Pad", [0, 2, 0, 0, 0, 0, 1, 0]), {"pad": 1}),
    ("cropping pad", SERIES, 3, add("Pad", [0, 0, -2, 0, 1, 3]), {"strided_slice": 1, "pad": 1}),
    ("concat over time", SERIES, 3, lambda net: net.add("Concat", net.x, net.x, axis=2), {"concat": 1}),
    (
        "expand",
        IMAGE,
        4,
        lambda net: net.add("Mul", net.x, net.add("Expand", net.add("GlobalMaxPool", net.x), net.store([1, 3, 4, 5]))),
        {"max_pool_2d": 1, "mul": 1},
    ),
    (
        "chain of shapes",
        SERIES,
        2,
        lambda net: net.add(
            "Squeeze",
            net.add(
                "Unsqueeze", net.add("Squeeze", net.add("GlobalAveragePool", net.x), net.store([2])), net.store([1])
            ),
            net.store([1]),
        ),
        {"mean": 1},
    ),
    ("linear", VECTOR, 2, lambda net: net.add("Gemm", net.x, net.draw(7, 3), net.draw(3)), {"fully_connected": 1}),
    (
        "linear with factors",
        VECTOR,
        2,
        lambda net: net.add("Gemm", net.x, net.draw(3, 7), net.draw(1, 3), transB=1, alpha=0.5, beta=2.0),
        {"fully_connected": 1},
    ),
    (
        "linear without bias, bias added",
        VECTOR,
        2,
        lambda net: net.add("Add", net.draw(3), net.add("MatMul", net.x, net.draw(7, 3))),
        {"fully_connected": 1},
    ),
    (
        "flattened map into a linear layer",
        IMAGE,
        2,
        lambda net: net.add("Gemm", net.add("Flatten", net.x), net.draw(60, 3), net.draw(3)),
        {"fully_connected": 1},
    ),
    (
        "rotated axes, a constant of the full shape, flattened",
        IMAGE,
        2,
        lambda net: net.add(
            "MatMul",
            net.add("Flatten", net.add("Mul", net.add("Transpose", net.x, perm=[0, 3, 1, 2]), net.draw(5, 3, 4))),
            net.draw(60, 3),
        ),
        {"fully_connected": 1},
    ),
    (
        "constant beside rotated axes",
        IMAGE,
        4,
        lambda net: net.add(
            "Transpose",
            net.add("Add", net.add("Transpose", net.x, perm=[0, 3, 1, 2]), net.draw(5, 3, 4)),
            perm=[0, 2, 3, 1],
        ),
        {"add": 1},
    ),
    (
        "pad with minus infinity in front of a max pool",
        SERIES,
        3,
        lambda net: net.add(
            "MaxPool",
            net.add("Pad", net.add("Sub", net.x, net.store(100.0)), net.store([0, 0, 1, 0, 0, 1]), net.store(-np.inf)),
            kernel_shape=[3],
        ),
        {"add": 1, "max_pool_2d": 1},
    ),
    (
        "elements are moved once for two readers",
        SERIES,
        3,
        lambda net: net.add(
            "Concat",
            *(net.conv(net.add("Reshape", net.x, net.store([0, 8, 6])), 8, filters, (3,)) for filters in (2, 3)),
            axis=1,
        ),
        {"reshape": 4, "transpose": 2, "conv_2d": 2, "concat": 1},
    ),
    (
        "linear layer over the positions",
        SERIES,
        3,
        lambda net: net.add(
            "Transpose",
            net.add("MatMul", net.add("Transpose", net.x, perm=[0, 2, 1]), net.draw(6, 4)),
            perm=[0, 2, 1],
        ),
        {"conv_2d": 1},
    ),
    (
        "linear layer over the positions of a map",
        IMAGE,
        4,
        lambda net: net.add(
            "Transpose",
            net.add("MatMul", net.add("Transpose", net.x, perm=[0, 2, 3, 1]), net.draw(3, 4)),
            perm=[0, 3, 1, 2],
        ),
        {"conv_2d": 1},
    ),
    (
        "channel shuffle",
        SERIES,
        3,
        lambda net: net.add(
            "Reshape",
            net.add("Transpose", net.add("Reshape", net.x, net.store([0, 2, 3, 8])), perm=[0, 2, 1, 3]),
            net.store([0, 6, 8]),
        ),
        {"reshape": 2, "transpose": 1},
    ),
    (
        "reshape that cuts across the axes",
        SERIES,
        3,
        lambda net: net.conv(net.add("Reshape", net.x, net.store([0, 8, 6])), 8, 2, (3,)),
        {"reshape": 4, "transpose": 2, "conv_2d": 1},
    ),
    ("gate of a vector", VECTOR, 2, lambda net: net.add("Mul", net.x, net.draw(7)), {"mul": 1}),
    (
        "one number per sample",
        VECTOR,
        1,
        lambda net: net.add("ReduceMean", net.x, net.store([1]), keepdims=0),
        {"mean": 1},
    ),
]


@pytest.mark.parametrize(
    ("shape", "rank", "build", "kinds"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_operator(shape: tuple[int, ...], rank: int, build: Build, kinds: dict[str, int]) -> None:
    net = OnnxNet(shape)
    graph = read_checked(net.model(build(net), rank=rank), shape)
    assert count_kinds(graph) == kinds


def test_zeros_joined_to_the_channels_are_padding() -> None:
    """The padded shortcut of ResNet-20, as written with torch.cat; the zeros fix the batch."""
    net = OnnxNet(SERIES, batch=1)
    y = net.add("Concat", net.store(np.zeros((1, 2, 8), np.float32)), net.x, net.store(np.zeros((1, 1, 8))), axis=1)
    graph = read_checked(net.model(y, rank=3), SERIES, batch=1)
    assert [op.attrs["paddings"][3] for op in graph.ops] == [(2, 1)]


def test_identity_needs_an_output_of_its_own() -> None:
    net = OnnxNet(SERIES)
    once = net.add("Relu", net.x)
    again = net.add("Identity", once)
    graph = read_checked(net.model(once, again, net.add("Identity", net.x), rank=3), SERIES)
    assert graph.outputs == ("output_0", "output_1", "output_2")
    assert count_kinds(graph) == {"relu": 1, "reshape": 2}


def test_long_and_short_series() -> None:
    for channels, length in ((1, 10_000), (19, 1), (3, 1)):
        net = OnnxNet((channels, length))
        y = net.add("Relu", net.batchnorm(net.conv(net.x, channels, 8, (40,), pads=[19, 20]), 8))
        head = net.add("Gemm", net.add("Flatten", net.add("GlobalAveragePool", y)), net.draw(8, 2), net.draw(2))
        graph = read_checked(net.model(head), (channels, length))
        assert count_kinds(graph) == {"conv_2d": 1, "mean": 1, "fully_connected": 1}


@pytest.mark.parametrize("opset", [9, 10, 11, 12, 13, 15, 18, 20, 22])
def test_opsets(opset: int) -> None:
    """What used to be attributes became operands, one operator after another."""
    net = OnnxNet((3, 8, 8), opset=opset)
    y = net.add("Relu", net.batchnorm(net.conv(net.x, 3, 4, (3, 3), pads=[1, 1, 1, 1]), 4))
    if opset < 11:
        y = net.add("Pad", y, pads=[0, 0, 1, 0, 0, 0, 0, 1])
        y = net.add("Clip", y, min=0.0, max=6.0)
    else:
        y = net.add("Pad", y, net.store([0, 0, 1, 0, 0, 0, 0, 1]))
        y = net.add("Clip", y, net.store(0.0), net.store(6.0))
    if opset < 10:
        y = net.add("Slice", y, starts=[0], ends=[4], axes=[3])
    else:
        y = net.add("Slice", y, net.store([0]), net.store([4]), net.store([3]))
    y = net.add("ReduceMean", y, axes=[2, 3]) if opset < 18 else net.add("ReduceMean", y, net.store([2, 3]))
    y = net.add("Squeeze", y, axes=[2, 3]) if opset < 13 else net.add("Squeeze", y, net.store([2, 3]))
    y = net.add("Softmax", net.add("Dropout", net.add("Gemm", y, net.draw(4, 5), net.draw(5))))
    graph = read_checked(net.model(y), (3, 8, 8))
    assert list(count_kinds(graph)) == [
        "conv_2d",
        "pad",
        "relu6",
        "strided_slice",
        "mean",
        "fully_connected",
        "softmax",
    ]


def test_functions_of_the_model_are_inlined() -> None:
    """The dynamo exporter of older torch wrote operators as functions of its own domain."""
    domain = "pkg.onnxscript.torch_lib"
    opsets = [helper.make_opsetid("", 18)]
    function = helper.make_function(domain, "relu", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], opsets)
    net = OnnxNet(SERIES)
    model = net.model(net.add("relu", net.x, domain=domain), rank=3)
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid(domain, 1))
    assert count_kinds(read_checked(model, SERIES)) == {"relu": 1}


def test_weights_that_are_listed_as_inputs() -> None:
    """As before ONNX IR version 4."""
    net = OnnxNet(SERIES)
    model = net.model(net.conv(net.x, 6, 2, (3,)), rank=3)
    for tensor in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, TensorProto.FLOAT, list(tensor.dims)))
    model.ir_version = 3
    model.opset_import[0].version = 9
    assert count_kinds(read_checked(model, SERIES)) == {"conv_2d": 1}


def test_layers_are_named_after_the_modules() -> None:
    net = OnnxNet(SERIES)
    hidden = net.add("Conv", net.x, net.draw(4, 6, 3, name="block1.conv.weight"))
    net.nodes[-1].name = "/block1/conv/Conv"
    net.add("Sigmoid", hidden)
    net.nodes[-1].name = "/block1/act/Sigmoid_1"
    net.add("Tanh", "v1")
    net.nodes[-1].name = "node_Tanh_17"
    y = net.add("Softmax", "v2", axis=1)
    net.nodes[-1].name = ""
    graph = read_checked(net.model(y, rank=3), SERIES)
    assert [op.name for op in graph.ops] == ["block1.conv", "block1.act", "tanh", "softmax"]
    assert graph.ops[0].inputs == ("input", "block1.conv/weight", "block1.conv/bias")


@pytest.mark.parametrize("batch", [1, 8])
def test_fixed_batch(batch: int) -> None:
    """A batch that is written into the shapes, as exporters without dynamic axes do."""
    net = OnnxNet((3, 8), batch=batch)
    flat = net.add("Reshape", net.conv(net.x, 3, 4, (3,)), net.store([batch, 24]))
    graph = read_checked(net.model(net.add("Gemm", flat, net.draw(24, 2), net.draw(2))), (3, 8), batch=batch)
    assert count_kinds(graph) == {"conv_2d": 1, "fully_connected": 1}


def test_shapes_computed_from_the_batch() -> None:
    """x.view(x.size(0), -1) as older exporters write it."""
    net = OnnxNet((3, 8))
    batch = net.add("Unsqueeze", net.add("Gather", net.add("Shape", net.x), net.store(0)), net.store([0]))
    flat = net.add("Reshape", net.x, net.add("Concat", batch, net.store([24]), axis=0))
    graph = read_checked(net.model(net.add("Gemm", flat, net.draw(24, 2))), (3, 8))
    assert count_kinds(graph) == {"fully_connected": 1}
