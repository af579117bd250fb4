"""Executors: one program, the same numbers; batches; refusals; silence."""

from __future__ import annotations

import os

import numpy as np
import onnx
import pytest

from edgeprune import executors
from edgeprune.errors import InputError, MeasurementUnavailableError, UnsupportedModelError
from edgeprune.executors import (
    Executor,
    LiteRTExecutor,
    MicroExecutor,
    OnnxExecutor,
    ReferenceExecutor,
    run_on_floats,
)
from edgeprune.graph import Graph
from edgeprune.lower import write_tflite
from edgeprune.native_log import NativeLog, capture_native_log
from edgeprune.reference import dequantize_values, quantize_values
from tests.random_graphs import make_inputs, make_op_graph, make_random_graph

# Kinds whose result is exact in every executor: stored values are only moved about.
MOVING_KINDS = ("max_pool_2d", "concat", "pad", "reshape", "transpose", "strided_slice")


def make_executors(graph: Graph) -> list[Executor]:
    """All that run an int8 graph from a TFLite file, the reference first."""
    data = write_tflite(graph)
    litert = [LiteRTExecutor(data, kernels) for kernels in executors.LITERT_KERNELS]
    return [ReferenceExecutor(graph), *litert, MicroExecutor(data)]


@pytest.mark.parametrize("kind", MOVING_KINDS)
def test_moving_values_is_exact_everywhere(kind: str) -> None:
    for seed in range(3):
        graph = make_op_graph(kind, seed)
        inputs = make_inputs(graph, seed, batch=4)
        expected, *others = [runner.run(*(inputs[name] for name in graph.inputs)) for runner in make_executors(graph)]
        for outputs in others:
            for output, wanted in zip(outputs, expected, strict=True):
                np.testing.assert_array_equal(output, wanted)


def test_several_outputs_come_in_the_graphs_order() -> None:
    graph = next(graph for seed in range(50) if len((graph := make_random_graph(seed, kinds=MOVING_KINDS)).outputs) > 1)
    inputs = make_inputs(graph, seed=1, batch=3)
    for runner in make_executors(graph):
        outputs = runner.run(*(inputs[name] for name in graph.inputs))
        assert [output.shape for output in outputs] == [(3, *graph.tensors[name].shape[1:]) for name in graph.outputs]
        assert [quant is None for quant in runner.output_quant] == [False] * len(graph.outputs)


def test_a_batch_is_its_samples_one_by_one() -> None:
    graph = make_op_graph("conv_2d", seed=4)
    batch = make_inputs(graph, seed=0, batch=5)["input"]
    for runner in make_executors(graph):
        (together,) = runner.run(batch)
        alone = np.concatenate([runner.run(batch[index : index + 1])[0] for index in range(5)])
        np.testing.assert_array_equal(together, alone)


def test_run_on_floats_quantizes_and_dequantizes() -> None:
    graph = make_op_graph("max_pool_2d", seed=2)
    quant = graph.tensors["input"].quant
    assert quant is not None
    samples = np.random.default_rng(0).normal(size=(3, *graph.tensors["input"].shape[1:])).astype(np.float32)
    for runner in make_executors(graph):
        (found,) = run_on_floats(runner, samples)
        (stored,) = ReferenceExecutor(graph).run(quantize_values(samples, quant))
        np.testing.assert_array_equal(found, dequantize_values(stored, quant))


def test_wrong_inputs_are_refused() -> None:
    graph = make_op_graph("relu", seed=0)
    shape = graph.tensors["input"].shape
    for runner in make_executors(graph):
        with pytest.raises(InputError, match="takes int8"):
            runner.run(np.zeros((2, *shape[1:]), np.float32))
        with pytest.raises(InputError, match="takes int8"):
            runner.run(np.zeros((2, *shape[1:-1], shape[-1] + 1), np.int8))
        with pytest.raises(InputError, match="takes int8"):
            runner.run(np.zeros((0, *shape[1:]), np.int8))
        with pytest.raises(InputError, match="1 inputs, 2 were given"):
            runner.run(np.zeros(shape, np.int8), np.zeros(shape, np.int8))


@pytest.mark.parametrize("damage", ["truncated", "zeros", "text"])
def test_a_damaged_file_is_refused_not_run(damage: str) -> None:
    data = write_tflite(make_op_graph("conv_2d", seed=0))
    broken = {"truncated": data[: len(data) // 2], "zeros": bytes(400), "text": b"no model"}[damage]
    with pytest.raises(UnsupportedModelError, match=r"LiteRT \(reference\) refuses"):
        LiteRTExecutor(broken)
    with pytest.raises(UnsupportedModelError, match="ONNX Runtime refuses"):
        OnnxExecutor(broken)
    with pytest.raises(UnsupportedModelError, match="refuses"):
        MicroExecutor(broken)


def test_micro_says_which_op_it_lacks(capfd: pytest.CaptureFixture[str]) -> None:
    data = write_tflite(make_op_graph("relu_n1_to_1", seed=0))  # TFLite Micro has no such kernel
    with pytest.raises(UnsupportedModelError, match="RELU_N1_TO_1"):
        MicroExecutor(data)
    assert capfd.readouterr().err == ""


def test_absence_of_micro_is_loud(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "_micro", None)
    with pytest.raises(MeasurementUnavailableError, match="pip install --pre tflite-micro"):
        MicroExecutor(write_tflite(make_op_graph("relu", seed=0)))


def test_unknown_kernels_are_refused() -> None:
    with pytest.raises(InputError, match="reference, builtin, xnnpack"):
        LiteRTExecutor(b"", kernels="gpu")


def make_onnx(batch: int | str) -> bytes:
    """y = relu(x) on (batch, 2, 3)."""
    info = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [batch, 2, 3]) for name in ("input", "output")
    ]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["input"], ["output"])], "g", info[:1], info[1:])
    return onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9
    ).SerializeToString()


@pytest.mark.parametrize("batch", ["batch", 1, 4])
def test_onnx_batches(batch: int | str) -> None:
    samples = np.random.default_rng(0).normal(size=(4, 2, 3)).astype(np.float32)
    (output,) = run_on_floats(OnnxExecutor(make_onnx(batch)), samples)
    np.testing.assert_array_equal(output, np.maximum(samples, 0))


def test_onnx_of_another_batch_is_refused() -> None:
    with pytest.raises(InputError, match="batches of 4, found 3"):
        OnnxExecutor(make_onnx(4)).run(np.zeros((3, 2, 3), np.float32))


def test_native_chatter_is_dropped_and_complaints_pass(capfd: pytest.CaptureFixture[str]) -> None:
    for runner in make_executors(make_op_graph("conv_2d", seed=0)):
        runner.run(make_inputs(make_op_graph("conv_2d", seed=0), 0)["input"])
    assert capfd.readouterr() == ("", "")
    with capture_native_log():
        os.write(2, b"INFO: hello\nsomething is wrong\n")
    assert capfd.readouterr().err == "something is wrong\n"


def test_a_failed_block_keeps_its_complaints() -> None:
    def fail() -> None:
        nonlocal log
        with capture_native_log() as log:
            os.write(2, b"INFO: hello\nwhy it failed\n")
            raise KeyError

    log = NativeLog()
    with pytest.raises(KeyError):
        fail()
    assert log.reason == "why it failed"
