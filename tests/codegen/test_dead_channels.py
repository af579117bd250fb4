"""Channels go only where every result stays the same to the bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgeprune.codegen.dead_channels import remove_dead_channels
from edgeprune.codegen.known_values import find_known_values
from edgeprune.graph import Graph, Op, Quant, Tensor, verify_graph
from edgeprune.lower import read_tflite, write_tflite
from edgeprune.lower.operand_rules import WEIGHTED_KINDS
from edgeprune.measure import profile_graph
from edgeprune.ops import OPS
from edgeprune.reference import run_graph
from tests.random_graphs import make_inputs, make_random_chain, make_random_graph

LOWEST = -128


class Net:
    """An int8 program that grows a layer at a time over 6 x 5 maps; each method returns its output's name."""

    def __init__(self, channels: int = 4) -> None:
        self.rng = np.random.default_rng(3)
        self.quant = Quant.per_tensor(0.05, LOWEST)
        self.tensors = {"input": Tensor("input", (1, 6, 5, channels), "int8", None, self.quant)}
        self.ops: list[Op] = []
        self.is_numbered = False

    def add(self, kind: str, inputs: tuple[str, ...], **attrs: object) -> str:
        name = f"{'' if self.is_numbered else kind}{len(self.ops)}"
        shape = OPS[kind].infer_shape(attrs, [self.tensors[operand].shape for operand in inputs])
        self.tensors[name] = Tensor(name, shape, "int8", None, self.quant)
        self.ops.append(Op(kind, name, inputs, (name,), attrs))
        return name

    def constant(self, name: str, data: np.ndarray, scale: float | np.ndarray, axis: int | None = None) -> str:
        scales = np.atleast_1d(np.asarray(scale, np.float32))
        self.tensors[name] = Tensor.constant(name, data, Quant(scales, np.zeros(len(scales)), axis))
        return name

    def layer(
        self,
        kind: str,
        source: str,
        filters: int,
        kernel: int,
        *,
        dead: tuple[int, ...] = (),
        bias: int = 0,
        padding: str = "same",
        multiplier: int = 1,
    ) -> str:
        """A convolution with ReLU; the filters `dead` are all zero, with this bias."""
        channels = self.tensors[source].shape[-1]
        axis = 0
        shape: tuple[int, ...] = (filters, kernel, kernel, channels)
        attrs: dict[str, object] = {"stride": (1, 1), "dilation": (1, 1), "padding": padding, "activation": "relu"}
        if kind == "depthwise_conv_2d":
            axis, shape = 3, (1, kernel, kernel, filters)
            attrs["depth_multiplier"] = multiplier
        elif kind == "fully_connected":
            shape = (filters, self.tensors[source].element_count)
            attrs = {"activation": "none"}
        weight = self.rng.integers(-127, 128, shape).astype(np.int8)
        sums = self.rng.integers(-900, 900, filters).astype(np.int32)
        np.moveaxis(weight, axis, 0)[list(dead)] = 0
        sums[list(dead)] = bias
        scale = self.rng.uniform(0.002, 0.02, filters) if kind != "fully_connected" else 0.01
        place = f"layer{len(self.ops)}"
        quant_axis = None if kind == "fully_connected" else axis
        names = (
            self.constant(f"{place}/weight", weight, scale, quant_axis),
            self.constant(
                f"{place}/bias", sums, np.float32(0.05) * np.float32(scale), None if quant_axis is None else 0
            ),
        )
        return self.add(kind, (source, *names), **attrs)

    def finish(self, *outputs: str) -> Graph:
        graph = Graph("net", self.tensors, tuple(self.ops), ("input",), outputs)
        verify_graph(graph)
        return graph


def assert_same_results(graph: Graph) -> Graph:
    """The smaller program, which gives the same to the bit on random inputs and at the ends of int8."""
    smaller, rows = remove_dead_channels(graph)
    assert (smaller.inputs, smaller.outputs) == (graph.inputs, graph.outputs)
    inputs = make_inputs(graph, seed=1, batch=4)
    for values in inputs.values():
        if values.dtype == np.int8:
            values[0], values[1] = -128, 127
    expected, found = run_graph(graph, inputs), run_graph(smaller, inputs)
    for name in graph.outputs:
        assert np.array_equal(found[name], expected[name]), name
    assert bool(rows) == (smaller is not graph)
    return smaller


def width(graph: Graph, position: int) -> int:
    """Output channels of the op at this position."""
    return graph.tensors[graph.ops[position].outputs[0]].shape[-1]


def test_a_filter_of_zeros_goes_through_depthwise_and_pointwise() -> None:
    """ReLU leaves the zero point behind, which is what padding stands for."""
    net = Net()
    value = net.layer("conv_2d", "input", 8, 1, dead=(1, 2, 6), bias=-500)
    value = net.layer("depthwise_conv_2d", value, 8, 3)
    value = net.layer("conv_2d", value, 5, 1)
    graph = net.finish(value)
    smaller = assert_same_results(graph)
    assert [width(smaller, position) for position in range(3)] == [5, 5, 5]
    expected = profile_graph(graph).macs - 30 * 3 * (4 + 9 + 5)
    assert profile_graph(smaller).macs == expected


def test_layers_may_be_called_by_numbers() -> None:
    """As those of nn.Sequential are: names made up inside must not be theirs."""
    net = Net()
    net.is_numbered = True
    value = net.layer("conv_2d", "input", 8, 1, dead=(1, 2))
    value = net.layer("conv_2d", value, 5, 3)
    smaller = assert_same_results(net.finish(value))
    assert [op.name for op in smaller.ops] == ["0", "1"]


def test_a_constant_that_padding_breaks_is_kept_where_it_counts() -> None:
    """A positive constant under a padded window differs at the border: the channel stays up to the layer after."""
    net = Net()
    value = net.layer("conv_2d", "input", 8, 1, dead=(1, 2), bias=3000)
    wide = net.layer("depthwise_conv_2d", value, 8, 3)
    weight = net.tensors["layer1/weight"]
    assert weight.data is not None
    weight.data[..., 1:3] = np.abs(weight.data[..., 1:3])  # else ReLU hides the border
    bias = net.tensors["layer1/bias"].data
    assert bias is not None
    bias[1:3] = 100
    graph = net.finish(net.layer("conv_2d", wide, 5, 1))
    known = find_known_values(graph)[wide]
    assert known.is_known[..., 1:3].all()
    assert not (known.values[..., 1:3] == known.values[:, :1, :1, 1:3]).all()
    smaller = assert_same_results(graph)
    assert smaller is graph

    for tensor in ("depthwise_conv_2d1",):  # the same without padding
        net.ops[1] = replace(net.ops[1], attrs={**net.ops[1].attrs, "padding": "valid"})
        net.tensors[tensor] = replace(net.tensors[tensor], shape=(1, 4, 3, 8))
    net.tensors["conv_2d2"] = replace(net.tensors["conv_2d2"], shape=(1, 4, 3, 5))
    smaller = assert_same_results(net.finish("conv_2d2"))
    assert [width(smaller, position) for position in range(3)] == [6, 6, 5]


def test_a_border_that_relu_clamps_away_is_none() -> None:
    net = Net()
    value = net.layer("conv_2d", "input", 8, 1, dead=(0,), bias=3000)
    value = net.layer("depthwise_conv_2d", value, 8, 3)
    weight = net.tensors["layer1/weight"].data
    assert weight is not None
    weight[..., 0] = -np.abs(weight[..., 0]) - (weight[..., 0] == 0)
    bias = net.tensors["layer1/bias"].data
    assert bias is not None
    bias[0] = -1
    smaller = assert_same_results(net.finish(net.layer("conv_2d", value, 5, 1)))
    assert [width(smaller, position) for position in range(3)] == [7, 7, 5]


def test_what_a_padded_convolution_reads_must_be_the_zero_point() -> None:
    for bias, left in ((-10, 6), (3000, 8)):
        net = Net()
        value = net.layer("conv_2d", "input", 8, 3, dead=(0, 7), bias=bias)
        smaller = assert_same_results(net.finish(net.layer("conv_2d", value, 5, 3)))
        assert width(smaller, 0) == left


def test_without_padding_any_constant_folds() -> None:
    net = Net()
    value = net.layer("conv_2d", "input", 8, 3, dead=(0, 7), bias=3000)
    smaller = assert_same_results(net.finish(net.layer("conv_2d", value, 5, 3, padding="valid")))
    assert width(smaller, 0) == 6


def test_channels_nobody_reads_go_backwards() -> None:
    """Live filters whose weights are zero in every reader."""
    net = Net()
    value = net.layer("conv_2d", "input", 6, 3)
    value = net.layer("depthwise_conv_2d", value, 12, 3, multiplier=2)
    value = net.layer("conv_2d", value, 5, 3)
    weight = net.tensors["layer2/weight"].data
    assert weight is not None
    weight[..., 4:6] = 0  # both outputs of channel 2
    weight[..., 9] = 0  # one of two outputs of channel 4
    smaller = assert_same_results(net.finish(value))
    assert [width(smaller, position) for position in range(3)] == [5, 10, 5]


def test_concat_slice_pool_mean_and_dense_carry_channels() -> None:
    net = Net()
    first = net.layer("conv_2d", "input", 6, 1, dead=(0, 5), bias=700)
    second = net.layer("conv_2d", "input", 4, 1, dead=(1,), bias=-7)
    joined = net.add("concat", (first, second), axis=3)
    pool = {"kernel_size": (2, 2), "stride": (2, 2), "padding": "same", "activation": "none"}
    pooled = net.add("average_pool_2d", (net.add("max_pool_2d", (joined,), **pool),), **pool)
    part = net.add("strided_slice", (pooled,), begin=(0, 0, 0, 3), end=(1, 2, 2, 9), stride=(1, 1, 1, 1))
    flat = net.add("reshape", (part,), shape=(1, 24))
    dense = net.layer("fully_connected", flat, 3, 1)
    smaller = assert_same_results(net.finish(dense))
    # of 0 to 5 and 6 to 9 only 3 to 8 are read, and 5 and 7 of these are constant
    assert [width(smaller, position) for position in range(3)] == [2, 2, 4]
    assert smaller.tensors[smaller.ops[6].outputs[0]].shape == (1, 16)


def test_branches_of_an_addition_lose_a_channel_together() -> None:
    net = Net()
    first = net.layer("conv_2d", "input", 6, 1, dead=(0, 1, 2), bias=-7)
    second = net.layer("conv_2d", "input", 6, 1, dead=(2, 3), bias=200)
    total = net.add("add", (first, second), activation="none")
    scaled = net.add(
        "mul", (total, net.constant("gain", np.arange(6, dtype=np.int8).reshape(1, 1, 1, 6), 0.1)), activation="none"
    )
    smaller = assert_same_results(net.finish(net.layer("conv_2d", scaled, 5, 1)))
    # 2 is constant in both; 0 is multiplied by 0
    assert [width(smaller, position) for position in range(4)] == [4, 4, 4, 4]


def test_outputs_keep_all_their_channels() -> None:
    net = Net()
    value = net.layer("conv_2d", "input", 8, 1, dead=(1, 2, 6), bias=-500)
    smaller = assert_same_results(net.finish(value, net.layer("conv_2d", value, 5, 1)))
    assert width(smaller, 0) == 8


def test_a_layer_keeps_one_channel() -> None:
    net = Net()
    value = net.layer("conv_2d", "input", 3, 1, dead=(0, 1, 2), bias=40)
    smaller = assert_same_results(net.finish(net.layer("conv_2d", value, 2, 1)))
    assert width(smaller, 0) == 1


def test_a_bias_that_would_overflow_stays_as_it_is() -> None:
    net = Net()
    value = net.layer("conv_2d", "input", 4, 1, dead=(0,), bias=10**6)
    value = net.layer("conv_2d", value, 1, 1)
    weight, bias = net.tensors["layer1/weight"].data, net.tensors["layer1/bias"].data
    assert weight is not None
    assert bias is not None
    weight[:] = [[[[100, 0, -3, 2]]]]
    bias[:] = 2**31 - 1000
    smaller = assert_same_results(net.finish(value))
    assert width(smaller, 0) == 3  # the second channel is read by nobody, the first has nowhere to go


def test_a_constant_of_two_layers_is_cut_for_each() -> None:
    net = Net()
    value = net.layer("conv_2d", "input", 4, 1, dead=(0,), bias=-1)
    other = net.layer("conv_2d", "input", 4, 1)
    weights = ("layer0/weight", "layer0/bias")
    net.ops[1] = replace(net.ops[1], inputs=("input", *weights))
    smaller = assert_same_results(net.finish(net.layer("conv_2d", value, 2, 1), other))
    assert [width(smaller, position) for position in range(2)] == [3, 4]


def test_a_program_without_dead_channels_stays_itself() -> None:
    net = Net()
    graph = net.finish(net.layer("conv_2d", net.layer("conv_2d", "input", 4, 3), 2, 3))
    assert remove_dead_channels(graph) == (graph, ())


def zero_channels(graph: Graph, seed: int) -> Graph:
    """The program with some filters, input channels and biases of its layers set to zero."""
    rng = np.random.default_rng(seed)
    changed = []
    for op in graph.ops:
        if op.kind not in WEIGHTED_KINDS:
            continue
        weight, bias = (graph.tensors[name] for name in op.inputs[1:])
        assert weight.data is not None
        assert bias.data is not None
        data, sums = weight.data.copy(), bias.data.copy()
        outputs = np.moveaxis(data, 3 if op.kind == "depthwise_conv_2d" else 0, 0)
        dead = rng.random(len(outputs)) < 0.5
        outputs[dead] = 0
        sums[dead] *= rng.choice((-30, 0, 1, 30), int(dead.sum()))
        if op.kind != "depthwise_conv_2d":
            data[..., rng.random(data.shape[-1]) < 0.2] = 0
        changed += [Tensor.constant(weight.name, data, weight.quant), Tensor.constant(bias.name, sums, bias.quant)]
    return graph.with_tensors(changed)


def check_random_networks(seeds: range, size: int) -> tuple[int, int]:
    """How many programs lost channels, and how many channels in all; every one of them gives the same results."""
    programs = removed = 0
    chains = (*WEIGHTED_KINDS, "concat", "add", "relu", "max_pool_2d", "average_pool_2d", "pad", "reshape", "mul")
    for seed in seeds:
        graph = make_random_chain(seed, chains, size) if seed % 4 else make_random_graph(seed, op_count=size)
        graph = zero_channels(graph, seed)
        smaller = assert_same_results(graph)
        rows = remove_dead_channels(graph)[1]
        programs += smaller is not graph
        removed += sum(row.removed_outputs for row in rows)
        assert remove_dead_channels(smaller)[1] == ()
        read = read_tflite(write_tflite(smaller))
        assert [op.kind for op in read.ops] == [op.kind for op in graph.ops]
    return programs, removed


def test_random_networks_give_the_same_results() -> None:
    programs, removed = check_random_networks(range(60), size=12)
    assert programs > 10  # else this proves little
    assert removed > 20


@pytest.mark.slow
def test_many_random_networks_give_the_same_results() -> None:
    programs, _ = check_random_networks(range(1000, 2500), size=16)
    assert programs > 300


def test_softmax_of_one_unknown_knows_nothing() -> None:
    net = Net()
    value = net.layer("conv_2d", "input", 3, 1, dead=(0, 1), bias=5)
    relu = net.add("relu", (value,))
    net.add("softmax", (relu,), beta=1.0)
    net.tensors["softmax2"] = replace(net.tensors["softmax2"], quant=Quant.per_tensor(1 / 256, -128))
    known = find_known_values(net.finish("softmax2"))
    assert known[relu].is_known[0, 0, 0].tolist() == [True, True, False]
    assert not known["softmax2"].is_known.any()
