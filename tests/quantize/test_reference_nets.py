"""The reference nets, exported, quantized, run: parity in every executor, noise, counts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgeprune.export import export_onnx, read_onnx
from edgeprune.layout import to_nhwc
from edgeprune.load.raising import raise_module
from edgeprune.lower import legalize, write_tflite
from edgeprune.measure import count_macs, profile_graph
from edgeprune.models import build_model
from edgeprune.parity import MICRO, compare_end_to_end, compare_float, compare_lockstep
from edgeprune.quantize import calibrate, measure_sqnr, quantize_graph, write_qdq_onnx, write_qdq_op
from tests.zoo import ZOO, make_model

# Batch norms that no convolution can take in stand as depthwise 1x1 layers in the program: MACs that PyTorch's net does
# not count. LITE normalises 17 hand-crafted maps after their relu; ResNet's third shortcut is a batch norm alone.
EXTRA_MACS_PER_STEP = {"lite": 17, "resnet1d": 128}


def check_reference_net(name: str, steps: int) -> None:
    torch.manual_seed(0)
    network = build_model(name, in_channels=1, classes=3)
    for layer in network.modules():  # a net that has been trained: batch norms that do something
        if isinstance(layer, torch.nn.BatchNorm1d):
            torch.nn.init.uniform_(layer.weight, 0.5, 1.5)
            torch.nn.init.normal_(layer.bias, std=0.3)
            layer.running_var.uniform_(0.5, 1.5)
    check_net(network, (1, steps), extra_macs=steps * EXTRA_MACS_PER_STEP.get(name, 0))


def check_net(network: torch.nn.Module, sample_shape: tuple[int, ...], *, extra_macs: int = 0) -> None:
    rng = np.random.default_rng(0)
    samples = rng.normal(size=(8, *sample_shape)).astype(np.float32)
    samples_nhwc = to_nhwc(samples)
    module = raise_module(network.eval(), torch.from_numpy(samples))
    exported = export_onnx(module, sample_shape)
    graph = legalize(read_onnx(exported))
    int8 = quantize_graph(graph, calibrate(graph, samples_nhwc))
    assert not {"transpose", "reshape", "quantize"} & {op.kind for op in int8.ops}

    assert compare_float(network, exported.SerializeToString(), samples).passed
    lockstep = compare_lockstep(int8, samples_nhwc, write_tflite, write_qdq_op)
    assert [row for row in lockstep.rows if not row.passed] == []
    onnx_bytes = write_qdq_onnx(int8, sample_shape).SerializeToString()
    rows = compare_end_to_end(int8, samples_nhwc, write_tflite(int8), onnx_bytes, input_shape=sample_shape)
    assert [row for row in rows if not row.passed] == []
    assert next(row for row in rows if row.executor == MICRO).max_lsb == 0

    noise = {row.tensor: row.sqnr_db for row in measure_sqnr(graph, int8, samples_nhwc)}
    assert noise["output"] > 25  # 34 to 50 dB on these nets

    macs = count_macs(network, sample_shape).total
    assert profile_graph(int8).macs == profile_graph(graph).macs == macs + extra_macs


def test_lite() -> None:
    check_reference_net("lite", 24)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "steps"), [("inception", 24), ("fcn", 32), ("resnet1d", 24), ("eegcnn", 256)])
def test_other_nets(name: str, steps: int) -> None:
    check_reference_net(name, steps)


@pytest.mark.slow
def test_eegnet() -> None:
    """With ELU, on maps."""
    check_net(make_model("eegnet"), ZOO["eegnet"].sample_shape)
