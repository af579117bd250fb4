"""The field's reference nets and the zoo: torch, ONNX Runtime and the program agree, in few ops."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from edgeprune.errors import UnsupportedModelError
from edgeprune.export import export_onnx, read_onnx
from edgeprune.export.parity_checks import run_onnx
from edgeprune.graph import Graph
from edgeprune.layout import to_nhwc
from edgeprune.models import build_model
from edgeprune.reference import run_graph
from tests.export.onnx_nets import TOLERANCE, count_kinds
from tests.zoo import ZOO, make_batch, make_model, randomize_batchnorm

REFERENCE_NETS = [
    # architecture, channels, length, ops (none of them a transpose or a reshape), BatchNorms left in the ONNX file
    ("lite", 1, 24, {"conv_2d": 16, "depthwise_conv_2d": 3, "concat": 2, "mean": 1, "fully_connected": 1}, 1),
    ("inception", 3, 20, {"conv_2d": 31, "max_pool_2d": 6, "concat": 6, "add": 2, "mean": 1, "fully_connected": 1}, 0),
    ("fcn", 1, 24, {"conv_2d": 3, "mean": 1, "fully_connected": 1}, 0),
    ("resnet1d", 1, 24, {"conv_2d": 11, "depthwise_conv_2d": 1, "add": 3, "mean": 1, "fully_connected": 1}, 1),
    ("eegcnn", 19, 64, {"conv_2d": 3, "max_pool_2d": 3, "mean": 1, "fully_connected": 1}, 0),
]

ZOO_OPS: dict[str, dict[str, int]] = {
    "resnet20": {"conv_2d": 19, "add": 9, "pad": 4, "strided_slice": 2, "mean": 1, "fully_connected": 1},
    "mobilenet_v2": {"pad": 3, "conv_2d": 15, "depthwise_conv_2d": 7, "add": 3, "mean": 1, "fully_connected": 1},
    "vgg": {"conv_2d": 4, "max_pool_2d": 3, "fully_connected": 3},
    "densenet": {
        "conv_2d": 14,
        "depthwise_conv_2d": 8,
        "concat": 6,
        "average_pool_2d": 1,
        "mean": 1,
        "fully_connected": 1,
    },
    "shufflenet": {
        "conv_2d": 13,
        "pad": 4,
        "depthwise_conv_2d": 7,
        "concat": 5,
        "reshape": 10,
        "transpose": 5,
        "strided_slice": 6,
        "mean": 1,
        "fully_connected": 1,
    },
    "se_net": {
        "conv_2d": 9,
        "hard_swish": 1,
        "mean": 4,
        "logistic": 3,
        "mul": 5,
        "pad": 1,
        "add": 1,
        "fully_connected": 1,
    },
    "eegnet": {
        "conv_2d": 2,
        "depthwise_conv_2d": 2,
        "pad": 1,
        "elu": 2,
        "average_pool_2d": 2,
        "fully_connected": 1,
    },
    "shared_conv": {"conv_2d": 4, "mean": 1, "fully_connected": 1},
    "grouped_conv": {"conv_2d": 4, "add": 1, "pad": 1, "leaky_relu": 1, "max_pool_2d": 1, "fully_connected": 1},
    "depthwise_multiplier": {"conv_2d": 2, "depthwise_conv_2d": 1, "mean": 1, "fully_connected": 1},
}

ZOO_REFUSED = {
    "gru": r"recurrent \(GRU\): the operator is not supported\. Recurrent layers",
    "lstm_bidirectional": r"\(LSTM\): the operator is not supported\. Recurrent layers",
    "lstm_last_hidden": r"\(LSTM\): the operator is not supported\. Recurrent layers",
    "vit": r"norm1 \(LayerNormalization\): the operator is not supported \(nor are Erf, further on\)",
    "odds_and_ends": r"\(InstanceNormalization\): the operator is not supported",
}


def check_all_forms(module: torch.nn.Module, model: onnx.ModelProto, graph: Graph, samples: torch.Tensor) -> None:
    """torch == ONNX Runtime == program, on samples that no check inside the exporter has seen."""
    with torch.no_grad():
        expected = module(samples).numpy()
    (from_onnx,) = run_onnx(model, samples.numpy())
    from_graph = run_graph(graph, to_nhwc(samples.numpy()))["output"]
    # float32 in three orders of summation, through up to 32 layers
    floor = TOLERANCE * float(np.abs(expected).max())
    np.testing.assert_allclose(from_onnx, expected, rtol=TOLERANCE, atol=floor)
    np.testing.assert_allclose(from_graph, expected, rtol=TOLERANCE, atol=floor)


@pytest.mark.parametrize(("architecture", "channels", "length", "kinds", "norms"), REFERENCE_NETS)
def test_reference_net(architecture: str, channels: int, length: int, kinds: dict[str, int], norms: int) -> None:
    torch.manual_seed(0)
    module = build_model(architecture, in_channels=channels, classes=3)
    randomize_batchnorm(module)
    module.eval()
    model = export_onnx(module, (channels, length))
    graph = read_onnx(model, name=architecture)
    check_all_forms(module, model, graph, torch.randn(5, channels, length))
    assert count_kinds(graph) == kinds
    layers = dict(module.named_modules())
    unknown = [op.name for op in graph.ops if op.kind in ("conv_2d", "fully_connected") and op.name not in layers]
    assert unknown == []  # layers keep the names of the user's modules
    assert sum(node.op_type == "BatchNormalization" for node in model.graph.node) == norms


@pytest.mark.slow
@pytest.mark.parametrize("name", ZOO_OPS)
def test_zoo(name: str) -> None:
    module = make_model(name)
    model = export_onnx(module, ZOO[name].sample_shape)
    graph = read_onnx(model, name=name)
    check_all_forms(module, model, graph, make_batch(name, 3, seed=1))
    assert count_kinds(graph) == ZOO_OPS[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", ZOO_REFUSED)
def test_zoo_beyond_the_device(name: str) -> None:
    """The float32 ONNX file is written all the same; the program is refused in a clear sentence."""
    module = make_model(name)
    model = export_onnx(module, ZOO[name].sample_shape)
    with pytest.raises(UnsupportedModelError, match=ZOO_REFUSED[name]):
        read_onnx(model, name=name)
