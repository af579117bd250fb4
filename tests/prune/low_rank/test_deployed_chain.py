"""Deployed factors on their way to firmware: depthwise layers with a multiplier through every form of the program."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import fx, nn

from edgeprune.codegen import generate_firmware
from edgeprune.executors import MICRO_AVAILABLE, LiteRTExecutor, MicroExecutor
from edgeprune.export import export_onnx, read_onnx
from edgeprune.graph import is_same_graph
from edgeprune.layout import to_nhwc
from edgeprune.load import raise_module
from edgeprune.lower import legalize, read_tflite, write_tflite
from edgeprune.prune.low_rank import deploy_factors, factor_layers, get_factored
from edgeprune.prune.low_rank.ranks import cut_rank
from edgeprune.quantize import calibrate, quantize_graph
from edgeprune.reference import run_graph
from edgeprune.reference.values import quantize_values
from edgeprune.target import load_target
from tests.codegen.harness import HostCompiler, expect_outputs, join_inputs


class Series(nn.Module):
    """Multipliers 2 and 3, one layer with stride, dilation and explicit padding; a linear layer too."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(3, 8, 7, padding="same", bias=False)
        self.norm = nn.BatchNorm1d(8)
        self.second = nn.Conv1d(8, 10, 5, stride=2, dilation=2, padding=3)
        self.head = nn.Linear(10, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.first(x)))
        return self.head(torch.relu(self.second(x)).mean(-1))


class Images(nn.Module):
    """The same in 2-D."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.second = nn.Conv2d(8, 10, (3, 5), stride=2, padding=(1, 2))
        self.head = nn.Linear(10, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.second(torch.relu(self.first(x)))).mean((-2, -1)))


RANKS = {"first": 2, "second": 3, "head": 2}


def make_thin(net: nn.Module, shape: tuple[int, ...]) -> tuple[fx.GraphModule, fx.GraphModule]:
    """The factored net at RANKS, and what is deployed of it with every layer as factors."""
    torch.manual_seed(0)
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm1d):
            nn.init.uniform_(layer.running_mean, -0.1, 0.1)
    factored = factor_layers(raise_module(net.eval(), torch.randn(2, *shape), compare_training=False))
    for name, layer in get_factored(factored).items():
        cut_rank(layer, RANKS[name])
    return factored, deploy_factors(factored, dict.fromkeys(RANKS, "factors"))


@pytest.mark.parametrize(
    ("net", "shape"),
    [(Series, (3, 21)), pytest.param(Images, (3, 9, 8), marks=pytest.mark.slow)],
)
def test_factors_reach_every_form(net: type[nn.Module], shape: tuple[int, ...], tmp_path: Path) -> None:
    torch.manual_seed(0)
    factored, thin = make_thin(net(), shape)
    graph = legalize(read_onnx(export_onnx(thin, shape), input_shape=shape))
    kinds = {op.name: op.kind for op in graph.ops if "/" not in op.name and op.name != "mean"}
    assert kinds == {
        "first.taps": "depthwise_conv_2d",
        "first.mix": "conv_2d",
        "second.taps": "depthwise_conv_2d",
        "second.mix": "conv_2d",
        "head.taps": "fully_connected",
        "head.mix": "fully_connected",
    }
    x = np.random.default_rng(0).standard_normal((16, *shape)).astype(np.float32)
    with torch.no_grad():
        expected = factored(torch.from_numpy(x)).numpy()
    floats = run_graph(graph, to_nhwc(x))[graph.outputs[0]].reshape(expected.shape)
    np.testing.assert_allclose(floats, expected, rtol=0, atol=1e-5)  # float32, sums in another order

    int8 = quantize_graph(graph, calibrate(graph, to_nhwc(x)))
    tflite = write_tflite(int8)
    assert is_same_graph(read_tflite(tflite), int8)
    quant = int8.tensors[int8.inputs[0]].quant
    assert quant is not None
    stored = quantize_values(to_nhwc(x[:4]), quant)
    (output,) = run_graph(int8, stored).values()
    difference = LiteRTExecutor(tflite).run(stored)[0].astype(int) - output
    assert np.abs(difference).max() <= 1, "LiteRT rounds a dense layer once, the reference twice"
    if MICRO_AVAILABLE:
        assert np.array_equal(MicroExecutor(tflite).run(stored)[0], output)
    firmware = generate_firmware(int8, load_target("cortex-m4"), memory="arena", portable=True)
    run = HostCompiler(tmp_path).run(firmware, join_inputs(int8, stored))
    assert np.array_equal(run, expect_outputs(int8, stored))
