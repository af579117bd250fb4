"""Conv and pools: every padding, stride, dilation, as ONNX Runtime computes it; 'same' exactly where it is equal."""

from __future__ import annotations

import itertools

import pytest

from edgeprune.errors import UnsupportedModelError
from edgeprune.export import read_onnx
from tests.export.onnx_nets import OnnxNet, count_kinds, read_checked

CONVS = [
    (size, kernel, stride, dilation, pads)
    for size, kernel, stride, dilation, pads in itertools.product(
        (1, 10), (1, 2, 12), (1, 3), (1, 2), ((0, 0), (0, 3), (12, 11))
    )
    if (kernel - 1) * dilation + 1 <= size + sum(pads)
]


@pytest.mark.parametrize("size", [1, 10])
def test_conv_1d(size: int) -> None:
    for case in CONVS:
        length, kernel, stride, dilation, pads = case
        if length != size:
            continue
        net = OnnxNet((3, size))
        y = net.conv(net.x, 3, 4, (kernel,), strides=[stride], dilations=[dilation], pads=list(pads))
        graph = read_checked(net.model(y, rank=3), (3, size))
        assert graph.ops[-1].kind == "conv_2d", case


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "dilation", "pads", "kinds"),
    [
        (24, 40, 1, 1, (19, 20), {"conv_2d": 1}),  # LITE: even kernel, longer than the series
        (24, 20, 1, 2, (19, 19), {"conv_2d": 1}),
        (24, 20, 1, 2, (18, 20), {"pad": 1, "conv_2d": 1}),  # as long as 'same', but shifted
        (32, 3, 2, 1, (1, 1), {"pad": 1, "conv_2d": 1}),  # TFLite's 'same' would pad (0, 1)
        (33, 3, 2, 1, (1, 1), {"conv_2d": 1}),
        (32, 3, 2, 1, (0, 1), {"conv_2d": 1}),
        (32, 1, 2, 1, (0, 5), {"pad": 1, "conv_2d": 1}),  # two windows lie in the padding
        (32, 3, 2, 1, (0, 0), {"conv_2d": 1}),
        (10, 4, 4, 1, (0, 1), {"conv_2d": 1}),  # no window reads the padding
    ],
)
def test_padding_is_same_exactly_where_equal(
    size: int, kernel: int, stride: int, dilation: int, pads: tuple[int, int], kinds: dict[str, int]
) -> None:
    net = OnnxNet((2, size))
    y = net.conv(net.x, 2, 3, (kernel,), strides=[stride], dilations=[dilation], pads=list(pads))
    graph = read_checked(net.model(y, rank=3), (2, size))
    assert count_kinds(graph) == kinds


def test_trailing_padding_that_no_window_reads_is_trimmed() -> None:
    net = OnnxNet((2, 32))
    y = net.conv(net.x, 2, 3, (3,), strides=[2], pads=[1, 1])
    graph = read_checked(net.model(y, rank=3), (2, 32))
    assert graph.ops[0].attrs["paddings"] == ((0, 0), (0, 0), (1, 0), (0, 0))


def test_explicit_pad_and_conv_become_same() -> None:
    net = OnnxNet((2, 12))
    padded = net.add("Pad", net.x, net.store([0, 0, 1, 0, 0, 1]))
    twice = net.add("Pad", padded, net.store([0, 0, 1, 0, 0, 1]))
    graph = read_checked(net.model(net.conv(twice, 2, 3, (5,)), rank=3), (2, 12))
    assert count_kinds(graph) == {"conv_2d": 1}


def test_a_pad_read_by_two_layers_serves_both() -> None:
    net = OnnxNet((2, 12))
    padded = net.add("Pad", net.x, net.store([0, 0, 1, 0, 0, 1]))
    y = net.add("Add", net.conv(padded, 2, 3, (3,)), net.conv(padded, 2, 3, (3,), strides=[1]))
    z = net.conv(padded, 2, 3, (3,), strides=[2])
    graph = read_checked(net.model(y, z, rank=3), (2, 12))
    assert count_kinds(graph) == {"conv_2d": 3, "add": 1, "pad": 1}


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER", "VALID"])
def test_auto_pad(auto_pad: str) -> None:
    net = OnnxNet((3, 9, 8))
    y = net.conv(net.x, 3, 4, (4, 3), strides=[2, 1], auto_pad=auto_pad)
    y = net.add("MaxPool", y, kernel_shape=[2, 3], strides=[1, 2], auto_pad=auto_pad)
    read_checked(net.model(y, rank=4), (3, 9, 8))


@pytest.mark.parametrize(
    ("group", "filters", "kind"),
    [(1, 6, "conv_2d"), (2, 6, "conv_2d"), (4, 4, "depthwise_conv_2d"), (4, 12, "depthwise_conv_2d")],
)
def test_groups(group: int, filters: int, kind: str) -> None:
    net = OnnxNet((4, 7, 9))
    y = net.conv(net.x, 4, filters, (3, 2), group=group, pads=[1, 0, 1, 1])
    graph = read_checked(net.model(net.batchnorm(y, filters), rank=4), (4, 7, 9))
    assert [op.kind for op in graph.ops] == [kind]
    if kind == "depthwise_conv_2d":
        assert graph.ops[0].attrs["depth_multiplier"] == filters // 4


@pytest.mark.parametrize("kind", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize("ceil_mode", [0, 1])
@pytest.mark.parametrize("count_include_pad", [0, 1])
def test_pool_1d(kind: str, ceil_mode: int, count_include_pad: int) -> None:
    if kind == "MaxPool" and count_include_pad:
        return
    extra = {"count_include_pad": count_include_pad} if kind == "AveragePool" else {}
    for size, kernel, stride, pads in itertools.product((2, 7), (2, 3), (1, 2, 3), ((0, 0), (1, 1), (2, 1))):
        if kernel > size + sum(pads) or max(pads) >= kernel:
            continue
        net = OnnxNet((3, size), opset=19)  # ONNX Runtime counts ceil_mode with padding rightly from opset 19 on
        y = net.add(kind, net.x, kernel_shape=[kernel], strides=[stride], pads=list(pads), ceil_mode=ceil_mode, **extra)
        read_checked(net.model(y, rank=3), (3, size))


@pytest.mark.parametrize(
    ("kind", "attributes", "kinds"),
    [
        ("MaxPool", {"kernel_shape": [3], "pads": [1, 1]}, {"max_pool_2d": 1}),
        ("MaxPool", {"kernel_shape": [3], "pads": [2, 0]}, {"pad": 1, "max_pool_2d": 1}),
        ("AveragePool", {"kernel_shape": [3], "pads": [1, 1]}, {"average_pool_2d": 1}),
        (
            "AveragePool",
            {"kernel_shape": [3], "pads": [1, 1], "count_include_pad": 1},
            {"pad": 1, "average_pool_2d": 1},
        ),
        ("AveragePool", {"kernel_shape": [3], "pads": [2, 0]}, {"pad": 1, "average_pool_2d": 1, "mul": 1}),
        ("AveragePool", {"kernel_shape": [8]}, {"mean": 1}),
        ("GlobalAveragePool", {}, {"mean": 1}),
        ("GlobalMaxPool", {}, {"max_pool_2d": 1}),
    ],
)
def test_pool_ops(kind: str, attributes: dict[str, object], kinds: dict[str, int]) -> None:
    net = OnnxNet((3, 8))
    graph = read_checked(net.model(net.add(kind, net.x, **attributes), rank=3), (3, 8))
    assert count_kinds(graph) == kinds


def test_max_padding_is_the_lowest_value() -> None:
    net = OnnxNet((1, 6))
    shifted = net.add("Sub", net.x, net.store(100.0))  # all values below zero: padding with zeros would win
    y = net.add("MaxPool", shifted, kernel_shape=[3], pads=[2, 0])
    graph = read_checked(net.model(y, rank=3), (1, 6))
    assert [op.attrs["mode"] for op in graph.ops if op.kind == "pad"] == ["lowest"]


def test_zeros_in_front_of_a_max_pool_stay_zeros() -> None:
    """The user's own padding with 0 is not the pool's padding with the lowest value."""
    net = OnnxNet((1, 6))
    padded = net.add("Pad", net.add("Sub", net.x, net.store(100.0)), net.store([0, 0, 1, 0, 0, 1]))
    graph = read_checked(net.model(net.add("MaxPool", padded, kernel_shape=[3]), rank=3), (1, 6))
    assert count_kinds(graph) == {"add": 1, "pad": 1, "max_pool_2d": 1}


def test_dilated_pools_are_refused() -> None:
    net = OnnxNet((3, 8))
    model = net.model(net.add("MaxPool", net.x, kernel_shape=[2], dilations=[2]), rank=3)
    with pytest.raises(UnsupportedModelError, match=r"maxpool0 \(MaxPool\): its dilation is \(1, 2\)"):
        read_onnx(model)


def test_positions_of_maxima_are_refused() -> None:
    net = OnnxNet((3, 8))
    pooled = net.add("MaxPool", net.x, outputs=2, kernel_shape=[2])
    with pytest.raises(UnsupportedModelError, match="positions of the maxima"):
        read_onnx(net.model(pooled, rank=3))
