"""BatchNorm and activations: folded where that is exact, left as a layer where it is not, never folded wrongly."""

from __future__ import annotations

import numpy as np
import pytest

from edgeprune.export.builder import ProgramBuilder
from edgeprune.export.passes import fold_affine_forward
from edgeprune.graph import Graph, is_same_graph
from tests.export.onnx_nets import OnnxNet, count_kinds, read_checked


def read_1d(net: OnnxNet, *outputs: str, rank: int = 3) -> Graph:
    return read_checked(net.model(*outputs, rank=rank), net.sample_shape)


def test_batchnorm_behind_a_layer() -> None:
    net = OnnxNet((3, 10))
    graph = read_1d(net, net.add("Relu", net.batchnorm(net.conv(net.x, 3, 4, (3,)), 4)))
    assert count_kinds(graph) == {"conv_2d": 1}
    assert graph.ops[0].attrs["activation"] == "relu"


@pytest.mark.parametrize("group", [1, 2, 4])
def test_batchnorm_in_front_of_a_layer_without_padding_goes_into_it(group: int) -> None:
    net = OnnxNet((4, 10))
    normed = net.batchnorm(net.add("Relu", net.x), 4)
    graph = read_1d(net, net.conv(normed, 4, 8, (3,), group=group, dilations=[2]))
    assert [op.kind for op in graph.ops] == ["relu", "depthwise_conv_2d" if group == 4 else "conv_2d"]


def test_batchnorm_in_front_of_padding_stays_a_layer() -> None:
    """Padding puts zeros behind the BatchNorm: its shift must not be added to them."""
    net = OnnxNet((3, 10))
    graph = read_1d(net, net.conv(net.batchnorm(net.x, 3), 3, 4, (3,), pads=[1, 1]))
    assert [op.kind for op in graph.ops] == ["depthwise_conv_2d", "conv_2d"]
    assert graph.ops[0].attrs["padding"] == "valid"


def test_a_layer_that_pads_by_itself_takes_no_shift() -> None:
    """The reader writes padding as an op; the pass must be right for programs from elsewhere too."""
    builder = ProgramBuilder("net")
    x = builder.add_input("input", (1, 1, 6, 2))
    shifted = builder.add_op(
        "add", "shift", [x, builder.add_constant("c", np.ones((1, 1, 1, 2)))], {"activation": "none"}
    )
    operands = [shifted, builder.add_constant("w", np.ones((3, 1, 3, 2))), builder.add_constant("b", np.zeros(3))]
    attrs = {"stride": (1, 1), "dilation": (1, 1), "padding": "same", "activation": "none"}
    graph = builder.finish(["input"], {builder.add_op("conv_2d", "conv", operands, attrs): "output"})
    assert is_same_graph(fold_affine_forward(graph), graph)


def test_batchnorm_through_concat() -> None:
    """Layers that nobody else reads take their slice; neighbours that can't share one depthwise layer."""
    net = OnnxNet((3, 10))
    clamped = [net.add("Relu", net.conv(net.x, 3, 2, (kernel,), pads=[kernel // 2] * 2)) for kernel in (3, 5)]
    parts = [net.conv(net.x, 3, 4, (1,)), *clamped, net.conv(net.x, 3, 3, (1,))]
    joined = net.add("Concat", *parts, axis=1)
    graph = read_1d(net, net.add("Relu", net.batchnorm(joined, 11)))
    assert count_kinds(graph) == {"conv_2d": 4, "concat": 2, "depthwise_conv_2d": 1}
    assert graph.tensors[next(op for op in graph.ops if op.kind == "depthwise_conv_2d").outputs[0]].shape[3] == 4
    assert all(op.attrs["activation"] == "relu" for op in graph.ops if op.kind != "concat")


def test_batchnorm_through_nested_concats() -> None:
    net = OnnxNet((3, 10))
    inner = net.add("Concat", net.conv(net.x, 3, 4, (1,)), net.x, axis=1)
    outer = net.add("Concat", net.add("MaxPool", net.x, kernel_shape=[3], pads=[1, 1]), inner, axis=1)
    graph = read_1d(net, net.batchnorm(outer, 10))
    assert count_kinds(graph) == {"conv_2d": 1, "max_pool_2d": 1, "depthwise_conv_2d": 2, "concat": 2}


def test_concat_that_somebody_else_reads_is_left() -> None:
    """DenseNet: the joined map is normalised by one reader and joined again by another."""
    net = OnnxNet((3, 10))
    joined = net.add("Concat", net.conv(net.x, 3, 4, (1,)), net.conv(net.x, 3, 2, (1,)), axis=1)
    normed = net.add("Relu", net.batchnorm(joined, 6))
    graph = read_1d(net, net.add("Concat", joined, net.conv(normed, 6, 2, (3,), pads=[1, 1]), axis=1))
    assert count_kinds(graph) == {"conv_2d": 3, "concat": 2, "depthwise_conv_2d": 1}
    assert all(op.attrs["activation"] == "none" for op in graph.ops if op.kind == "conv_2d")


def test_layer_that_somebody_else_reads_keeps_its_weights() -> None:
    net = OnnxNet((3, 10))
    conv = net.conv(net.x, 3, 4, (1,))
    graph = read_1d(net, net.add("Add", net.batchnorm(conv, 4), conv))
    assert count_kinds(graph) == {"conv_2d": 1, "depthwise_conv_2d": 1, "add": 1}


def test_layer_that_is_an_output_keeps_its_weights() -> None:
    net = OnnxNet((3, 10))
    conv = net.conv(net.x, 3, 4, (1,))
    graph = read_1d(net, conv, net.batchnorm(conv, 4), net.add("Relu", conv))
    assert count_kinds(graph) == {"conv_2d": 1, "depthwise_conv_2d": 1, "relu": 1}


def test_batchnorm_read_twice_is_folded_once() -> None:
    """A residual from behind the BatchNorm, in front of the ReLU."""
    net = OnnxNet((3, 10))
    normed = net.batchnorm(net.conv(net.x, 3, 4, (1,)), 4)
    branch = net.conv(net.add("Relu", normed), 4, 4, (3,), pads=[1, 1])
    graph = read_1d(net, net.add("Relu", net.add("Add", branch, normed)))
    assert count_kinds(graph) == {"conv_2d": 2, "relu": 1, "add": 1}


def test_shared_layer_gets_weights_of_its_own_at_each_place() -> None:
    net = OnnxNet((4, 10))
    weight = net.draw(4, 4, 3, name="shared.weight")
    first = net.add("Relu", net.batchnorm(net.add("Conv", net.x, weight, pads=[1, 1]), 4))
    second = net.batchnorm(net.add("Conv", first, weight, pads=[1, 1]), 4)
    graph = read_1d(net, net.add("Conv", second, weight, pads=[1, 1]))
    assert [op.name for op in graph.ops] == ["shared", "shared_2", "shared_3"]
    stored = [graph.tensors[op.inputs[1]].data for op in graph.ops]
    assert not np.array_equal(stored[0], stored[1])


@pytest.mark.parametrize("place", ["input", "add", "max_pool"])
def test_batchnorm_without_a_layer_becomes_one(place: str) -> None:
    net = OnnxNet((3, 10))
    source = {
        "input": lambda: net.x,
        "add": lambda: net.add("Add", net.x, net.add("Tanh", net.x)),
        "max_pool": lambda: net.add("MaxPool", net.x, kernel_shape=[2]),
    }[place]()
    graph = read_1d(net, net.add("Relu", net.batchnorm(source, 3)))
    assert graph.ops[-1].kind == "depthwise_conv_2d"
    assert graph.ops[-1].attrs["activation"] == "relu"
    assert graph.tensors[graph.ops[-1].inputs[1]].shape == (1, 1, 1, 3)


def test_batchnorm_of_a_vector() -> None:
    """Behind a pool over the map it goes into the head; behind a layer into the layer."""
    net = OnnxNet((3, 10))
    pooled = net.batchnorm(net.add("Flatten", net.add("GlobalAveragePool", net.x)), 3)
    hidden = net.batchnorm(net.add("Gemm", pooled, net.draw(3, 5), net.draw(5)), 5)
    graph = read_1d(net, net.add("Gemm", net.add("Relu", hidden), net.draw(5, 2)), rank=2)
    assert count_kinds(graph) == {"mean": 1, "fully_connected": 2}


def test_relu_behind_concat_used_twice() -> None:
    net = OnnxNet((3, 10))
    joined = net.add("Concat", net.conv(net.x, 3, 4, (1,)), net.conv(net.x, 3, 2, (1,)), axis=1)
    clamped = net.add("Relu", joined)
    graph = read_1d(net, net.add("Add", net.conv(clamped, 6, 6, (1,)), clamped))
    assert count_kinds(graph) == {"conv_2d": 3, "concat": 1, "add": 1}


def test_relu_in_front_of_the_pool() -> None:
    """The maximum of clamped values is the clamped maximum: the ReLU goes into the convolution."""
    net = OnnxNet((3, 10))
    pooled = net.add("MaxPool", net.conv(net.x, 3, 4, (1,)), kernel_shape=[2])
    graph = read_1d(net, net.add("Relu", pooled))
    assert [op.kind for op in graph.ops] == ["conv_2d", "max_pool_2d"]
    assert graph.ops[0].attrs["activation"] == "relu"


@pytest.mark.parametrize(
    ("clamps", "activation", "kinds"),
    [
        ([(0.0, 6.0)], "relu6", ["conv_2d"]),
        ([(-1.0, 1.0)], "relu_n1_to_1", ["conv_2d"]),
        ([(0.0, np.inf), (0.0, 6.0)], "relu6", ["conv_2d"]),
        ([(0.0, 6.0), (0.0, np.inf)], "relu6", ["conv_2d"]),
        ([(-1.0, 1.0), (0.0, np.inf)], "relu_n1_to_1", ["conv_2d", "relu"]),
        ([(0.0, 3.0)], "relu6", ["conv_2d", "mul"]),
        ([(-2.0, 2.0)], "relu_n1_to_1", ["conv_2d", "mul"]),
    ],
)
def test_clips(clamps: list[tuple[float, float]], activation: str, kinds: list[str]) -> None:
    net = OnnxNet((3, 10))
    y = net.conv(net.x, 3, 4, (3,))
    for low, high in clamps:
        y = net.add("Clip", y, net.store(low), *([] if high == np.inf else [net.store(high)]))
    graph = read_1d(net, y)
    assert [op.kind for op in graph.ops] == kinds
    assert graph.ops[0].attrs["activation"] == activation


@pytest.mark.parametrize("form", ["product first", "gate first"])
def test_parts_of_hard_swish_become_one_op(form: str) -> None:
    net = OnnxNet((3, 10))
    gate = net.add("Clip", net.add("Add", net.x, net.store(3.0)), net.store(0.0), net.store(6.0))
    if form == "product first":
        y = net.add("Div", net.add("Mul", net.x, gate), net.store(6.0))
    else:
        y = net.add("Mul", net.x, net.add("Mul", gate, net.store(1 / 6)))
    assert count_kinds(read_1d(net, y)) == {"hard_swish": 1}


def test_gate_of_another_value_is_no_hard_swish() -> None:
    net = OnnxNet((3, 10))
    gate = net.add("Clip", net.add("Add", net.add("Tanh", net.x), net.store(3.0)), net.store(0.0), net.store(6.0))
    y = net.add("Div", net.add("Mul", net.x, gate), net.store(6.0))
    assert count_kinds(read_1d(net, y)) == {"tanh": 1, "add": 1, "mul": 2}


def test_gate_that_somebody_else_reads_is_no_hard_swish() -> None:
    net = OnnxNet((3, 10))
    gate = net.add("Clip", net.add("Add", net.x, net.store(3.0)), net.store(0.0), net.store(6.0))
    y = net.add("Div", net.add("Mul", net.x, gate), net.store(6.0))
    assert count_kinds(read_1d(net, y, gate)) == {"add": 1, "mul": 2}


def test_squeeze_and_excitation_needs_no_reshape() -> None:
    net = OnnxNet((4, 5, 6))
    squeezed = net.add("ReduceMean", net.x, net.store([2, 3]), keepdims=0)
    hidden = net.add("Relu", net.add("Gemm", squeezed, net.draw(2, 4), net.draw(2), transB=1))
    gate = net.add("HardSigmoid", net.add("Gemm", hidden, net.draw(4, 2), net.draw(4), transB=1), alpha=1 / 6)
    y = net.add("Mul", net.x, net.add("Unsqueeze", gate, net.store([2, 3])))
    graph = read_checked(net.model(y, rank=4), (4, 5, 6))
    assert count_kinds(graph) == {"mean": 1, "conv_2d": 2, "mul": 2}


def test_constant_that_varies_over_positions_stays() -> None:
    net = OnnxNet((3, 10))
    y = net.add("Mul", net.conv(net.x, 3, 4, (1,)), net.draw(1, 10))
    assert count_kinds(read_1d(net, y)) == {"conv_2d": 1, "mul": 1}


def test_learned_scale_and_subtraction_are_folded() -> None:
    net = OnnxNet((3, 10))
    scaled = net.add("Mul", net.conv(net.x, 3, 4, (1,)), net.draw(4, 1))
    y = net.add("Sub", net.draw(1, 4, 1), net.add("Div", scaled, net.store(3.0)))
    assert count_kinds(read_1d(net, y)) == {"conv_2d": 1}
