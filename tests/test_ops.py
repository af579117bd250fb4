"""The table of ops: shapes, refusals, MACs; shapes held against LiteRT, which infers them itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from edgeprune.executors import open_litert
from edgeprune.lower import write_tflite
from edgeprune.ops import OPS, Attributes, Shape, ShapeError, same_padding, window_output_size
from edgeprune.reference.run import KERNELS
from tests.random_graphs import make_op_graph

WINDOW = {"stride": (1, 1), "dilation": (1, 1), "padding": "valid", "activation": "none"}
POOL = {"kernel_size": (1, 3), "stride": (1, 2), "padding": "same", "activation": "none"}


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "dilation", "expected"),
    [
        (24, 40, 1, 1, (19, 20)),  # an even kernel: the odd zero goes after
        (24, 3, 1, 1, (1, 1)),
        (24, 10, 1, 4, (18, 18)),
        (5, 3, 2, 1, (1, 1)),
        (6, 3, 2, 1, (0, 1)),
        (7, 1, 3, 1, (0, 0)),
        (4, 2, 4, 1, (0, 0)),  # the windows do not even reach the end
    ],
)
def test_same_padding(size: int, kernel: int, stride: int, dilation: int, expected: tuple[int, int]) -> None:
    assert same_padding(size, kernel, stride, dilation) == expected


@pytest.mark.parametrize(
    ("padding", "stride", "dilation", "expected"),
    [
        ("same", 1, 1, 24),
        ("same", 2, 1, 12),
        ("same", 5, 1, 5),
        ("valid", 1, 1, 22),
        ("valid", 2, 1, 11),
        ("valid", 1, 4, 16),
    ],
)
def test_window_output_size(padding: str, stride: int, dilation: int, expected: int) -> None:
    assert window_output_size(24, 3, stride, dilation, padding) == expected


@pytest.mark.parametrize(
    ("kind", "attrs", "shapes", "expected"),
    [
        ("conv_2d", WINDOW, [(1, 1, 24, 6), (8, 1, 5, 3), (8,)], (1, 1, 20, 8)),
        ("depthwise_conv_2d", {**WINDOW, "depth_multiplier": 2}, [(1, 1, 24, 3), (1, 1, 5, 6), (6,)], (1, 1, 20, 6)),
        ("fully_connected", {"activation": "none"}, [(1, 2, 3, 4), (5, 24), (5,)], (1, 5)),
        ("add", {"activation": "none"}, [(1, 1, 4, 3), (3,)], (1, 1, 4, 3)),
        ("mul", {"activation": "none"}, [(1, 1, 1, 3), (1, 2, 4, 3)], (1, 2, 4, 3)),
        ("max_pool_2d", POOL, [(1, 1, 9, 3)], (1, 1, 5, 3)),
        ("mean", {"axes": (1, 2), "keep_dims": False}, [(1, 2, 9, 3)], (1, 3)),
        ("mean", {"axes": (1, 2), "keep_dims": True}, [(1, 2, 9, 3)], (1, 1, 1, 3)),
        ("concat", {"axis": 3}, [(1, 1, 9, 3), (1, 1, 9, 5)], (1, 1, 9, 8)),
        ("pad", {"paddings": ((0, 0), (0, 0), (1, 2), (0, 0)), "mode": "zero"}, [(1, 1, 9, 3)], (1, 1, 12, 3)),
        ("prelu", {}, [(1, 1, 9, 3), (1, 1, 3)], (1, 1, 9, 3)),
        ("reshape", {"shape": (1, 27)}, [(1, 1, 9, 3)], (1, 27)),
        ("transpose", {"perm": (0, 3, 1, 2)}, [(1, 1, 9, 3)], (1, 3, 1, 9)),
        (
            "strided_slice",
            {"begin": (0, 0, 2, 0), "end": (1, 1, 9, 3), "stride": (1, 1, 3, 1)},
            [(1, 1, 9, 3)],
            (1, 1, 3, 3),
        ),
        ("softmax", {"beta": 1.0}, [(1, 5)], (1, 5)),
        ("quantize", {}, [(1, 5)], (1, 5)),
    ],
)
def test_shapes(kind: str, attrs: Attributes, shapes: list[Shape], expected: Shape) -> None:
    assert OPS[kind].infer_shape(attrs, shapes) == expected
    assert set(attrs) == set(OPS[kind].attributes)


@pytest.mark.parametrize(
    ("kind", "attrs", "shapes", "message"),
    [
        ("conv_2d", WINDOW, [(1, 1, 4, 6), (8, 1, 5, 6), (8,)], "does not fit"),
        ("conv_2d", WINDOW, [(1, 1, 9, 6), (8, 1, 5, 4), (8,)], "groups of 4"),
        ("conv_2d", WINDOW, [(1, 1, 9, 6), (7, 1, 5, 3), (7,)], "groups of 3"),
        ("conv_2d", WINDOW, [(1, 1, 9, 6), (8, 1, 5, 6), (6,)], r"must be \(8,\)"),
        ("conv_2d", WINDOW, [(1, 9, 6), (8, 1, 5, 6), (8,)], "NHWC"),
        ("conv_2d", WINDOW, [(1, 1, 9, 6), (8, 5, 6), (8,)], "OHWI"),
        ("conv_2d", {**WINDOW, "padding": "full"}, [(1, 1, 9, 6), (8, 1, 5, 6), (8,)], "allowed: same, valid"),
        ("depthwise_conv_2d", {**WINDOW, "depth_multiplier": 2}, [(1, 1, 9, 6), (1, 1, 5, 6), (6,)], "multiplier 2"),
        ("depthwise_conv_2d", {**WINDOW, "depth_multiplier": 1}, [(1, 1, 9, 6), (6, 1, 5, 1), (6,)], "1HWO"),
        ("fully_connected", {"activation": "none"}, [(1, 2, 3), (5, 7), (5,)], r"\(outputs, 6\)"),
        ("add", {"activation": "none"}, [(1, 4), (1, 3)], "broadcast"),
        ("prelu", {}, [(1, 4), (1, 2, 4)], "larger"),
        ("mean", {"axes": (-1,), "keep_dims": True}, [(1, 2, 9, 3)], "allowed: 0 to 3"),
        ("concat", {"axis": 4}, [(1, 2, 9, 3)], "allowed: 0 to 3"),
        ("concat", {"axis": 3}, [(1, 2, 9, 3), (1, 2, 8, 3)], "differ beside axis 3"),
        ("pad", {"paddings": ((0, 0),), "mode": "zero"}, [(1, 5)], "one entry for each axis"),
        ("reshape", {"shape": (1, 9)}, [(1, 2, 5)], "does not fill"),
        ("transpose", {"perm": (0, 2, 2)}, [(1, 2, 5)], "no permutation"),
        ("strided_slice", {"begin": (0, 0), "end": (1, 6), "stride": (1, 1)}, [(1, 5)], "do not fit"),
        ("strided_slice", {"begin": (0, 0), "end": (1, 5), "stride": (1, 0)}, [(1, 5)], "do not fit"),
    ],
)
def test_what_does_not_fit(kind: str, attrs: Attributes, shapes: list[Shape], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        OPS[kind].infer_shape(attrs, shapes)


@pytest.mark.parametrize("kind", OPS)
def test_litert_infers_the_same_shapes(kind: str) -> None:
    for seed in range(10):
        graph = make_op_graph(kind, seed)
        details = open_litert(write_tflite(graph), "builtin", threads=1).get_output_details()
        assert tuple(details[0]["shape"]) == graph.tensors[graph.outputs[0]].shape


def test_every_op_has_a_meaning() -> None:
    assert set(KERNELS) == set(OPS)


# --- MACs ---


@pytest.mark.parametrize(
    ("kind", "attrs", "shapes", "expected"),
    [
        ("conv_2d", WINDOW, [(1, 1, 24, 6), (8, 1, 5, 3), (8,)], 20 * 8 * 5 * 3),
        ("depthwise_conv_2d", {**WINDOW, "depth_multiplier": 2}, [(1, 1, 24, 3), (1, 1, 5, 6), (6,)], 20 * 6 * 5),
        ("fully_connected", {"activation": "none"}, [(1, 2, 3, 4), (5, 24), (5,)], 5 * 24),
        ("max_pool_2d", POOL, [(1, 1, 9, 3)], 0),
        ("add", {"activation": "none"}, [(1, 1, 4, 3), (3,)], 0),
    ],
)
def test_macs(kind: str, attrs: Attributes, shapes: list[Shape], expected: int) -> None:
    assert OPS[kind].count_macs(attrs, shapes, OPS[kind].infer_shape(attrs, shapes)) == expected


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_macs_are_half_of_torchs_flops(groups: int) -> None:
    layer = nn.Conv2d(6, 12, (3, 5), stride=2, dilation=(1, 2), groups=groups)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        output = layer(torch.zeros(1, 6, 20, 30))
    attrs = {**WINDOW, "stride": (2, 2), "dilation": (1, 2)}
    shapes = [(1, 20, 30, 6), (12, 3, 5, 6 // groups), (12,)]
    shape = OPS["conv_2d"].infer_shape(attrs, shapes)
    assert shape == tuple(np.moveaxis(output.numpy(), 1, -1).shape)
    assert OPS["conv_2d"].count_macs(attrs, shapes, shape) * 2 == counter.get_total_flops()
