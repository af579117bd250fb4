"""Parity: the limits hold on random programs, a difference is found and named, the whole program too."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from edgeprune import parity
from edgeprune.errors import InputError, UnsupportedModelError
from edgeprune.graph import Graph
from edgeprune.lower import write_tflite
from edgeprune.ops import OPS
from edgeprune.parity import (
    EXECUTORS,
    LIMITS,
    LITERT_REFERENCE,
    LITERT_XNNPACK,
    MICRO,
    ONNX_RUNTIME,
    compare_end_to_end,
    compare_float,
    compare_lockstep,
    find_limit,
    find_missing_kernels,
    open_tflite,
)
from edgeprune.quantize import calibrate, quantize_graph, write_qdq_onnx, write_qdq_op
from edgeprune.reference import dequantize_values
from tests.quantize.small_nets import draw_samples, make_series_net
from tests.random_graphs import make_inputs, make_op_graph, make_random_graph

# pad with the lowest value makes infinities of float programs, which cannot be calibrated unless a max pool follows
FLOAT_KINDS = tuple(kind for kind in OPS if kind not in ("pad", "quantize", "dequantize"))
SINGLE_INPUT_KINDS = tuple(kind for kind in OPS if kind != "concat")


def check_op(graph: Graph, seed: int) -> None:
    """The one op of an int8 graph keeps its limits on every executor, on random int8 inputs."""
    quant = graph.tensors[graph.inputs[0]].quant
    stored = make_inputs(graph, seed, batch=8)[graph.inputs[0]]
    samples = stored if quant is None else dequantize_values(stored, quant)
    result = compare_lockstep(graph, samples, write_tflite, write_qdq_op)
    assert [row for row in result.rows if not row.passed] == []
    assert result.passed


def make_int8_net() -> tuple[Graph, np.ndarray]:
    graph = make_series_net()
    samples = draw_samples(graph)
    return quantize_graph(graph, calibrate(graph, samples)), samples


# --- limits ---


def test_every_limit_is_of_a_known_kind_and_has_its_reason() -> None:
    assert set(LIMITS) == set(EXECUTORS)
    for limits in LIMITS.values():
        assert set(limits) <= set(OPS)
        assert all(limit.reason and limit.lsb in (None, 1) for limit in limits.values())
    assert [kind for kind, limit in LIMITS[MICRO].items() if limit.lsb is not None] == []
    assert find_limit("conv_2d", LITERT_REFERENCE).lsb == 0


@pytest.mark.parametrize("kind", SINGLE_INPUT_KINDS)
def test_limits_hold_on_random_ops(kind: str) -> None:
    for seed in range(3):
        check_op(make_op_graph(kind, seed), seed)


@pytest.mark.slow
@pytest.mark.parametrize("kind", SINGLE_INPUT_KINDS)
def test_limits_hold_on_many_random_ops(kind: str) -> None:
    for seed in range(100, 200):
        check_op(make_op_graph(kind, seed), seed)


@pytest.mark.parametrize("seed", range(4))
def test_random_quantized_networks(seed: int) -> None:
    check_random_network(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1000, 1200))
def test_many_random_quantized_networks(seed: int) -> None:
    check_random_network(seed)


def check_random_network(seed: int) -> None:
    """A random float net, quantized: op by op within the limits, and whole equal in TFLite Micro."""
    graph = make_random_graph(seed, dtype="float32", op_count=10, kinds=FLOAT_KINDS)
    samples = make_inputs(graph, seed, batch=8)["input"]
    int8 = quantize_graph(graph, calibrate(graph, samples))
    result = compare_lockstep(int8, samples, write_tflite, write_qdq_op)
    assert [row for row in result.rows if not row.passed] == []
    shape = graph.tensors["input"].shape
    input_shape = (shape[3], shape[2]) if shape[1] == 1 else (shape[3], shape[1], shape[2])
    rows = compare_end_to_end(
        int8,
        samples,
        write_tflite(int8),
        write_qdq_onnx(int8, input_shape).SerializeToString(),
        input_shape=input_shape,
    )
    assert [row.executor for row in rows] == [name for name in EXECUTORS if not find_missing_kernels(int8, name)]
    assert [row for row in rows if not row.passed] == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2000, 2300))
def test_many_random_int8_graphs(seed: int) -> None:
    """int8 programs as drawn, not calibrated: values saturate, wrap and clip wherever they may."""
    graph = make_random_graph(seed, op_count=10, kinds=[kind for kind in OPS if kind != "relu_n1_to_1"])
    quant = graph.tensors["input"].quant
    assert quant is not None
    samples = dequantize_values(make_inputs(graph, seed, batch=8)["input"], quant)
    assert [row for row in compare_lockstep(graph, samples, write_tflite, write_qdq_op).rows if not row.passed] == []
    rows = compare_end_to_end(graph, samples, write_tflite(graph))
    assert [row for row in rows if not row.passed] == []


# --- lockstep ---


def test_lockstep_covers_every_op_on_every_executor() -> None:
    int8, samples = make_int8_net()
    result = compare_lockstep(int8, samples, write_tflite, write_qdq_op)
    assert result.passed
    assert (result.samples, result.unavailable) == (32, ())
    assert [(row.layer, row.executor) for row in result.rows] == [
        (op.name, executor) for op in int8.ops for executor in EXECUTORS
    ]
    worst = result.worst(ONNX_RUNTIME)
    assert worst is not None
    assert worst.max_lsb == max(row.max_lsb or 0 for row in result.rows if row.executor == ONNX_RUNTIME)


def test_a_wrong_writer_is_found_where_it_is_wrong() -> None:
    int8, samples = make_int8_net()

    def write_wrongly(graph: Graph) -> bytes:
        """All as it should be, but the biases of 'right' are off by three output steps."""
        bias = graph.tensors.get("right/bias")
        if bias is not None and bias.data is not None:
            graph = graph.with_tensors([replace(bias, data=bias.data + 2000)])
        return write_tflite(graph)

    result = compare_lockstep(int8, samples, write_wrongly, write_qdq_op, executors=[MICRO, ONNX_RUNTIME])
    assert not result.passed
    assert {(row.layer, row.executor) for row in result.rows if not row.passed} == {("right", MICRO)}
    worst = result.worst(MICRO)
    assert worst is not None
    assert worst.layer == "right"
    assert (worst.max_lsb or 0) >= 1
    assert worst.different > 0


def test_a_refused_op_fails_with_the_executors_words() -> None:
    int8, samples = make_int8_net()

    def refuse(graph: Graph) -> bytes:
        raise UnsupportedModelError("no such thing")

    result = compare_lockstep(int8, samples, refuse, write_qdq_op, executors=[LITERT_XNNPACK])
    assert not result.passed
    assert {(row.problem, row.max_lsb) for row in result.rows} == {("no such thing", None)}


@pytest.mark.parametrize(
    ("kind", "executor", "problem"),
    [
        ("relu_n1_to_1", MICRO, "TFLite Micro has no such kernel"),
        ("elu", LITERT_REFERENCE, "LiteRT's set of reference kernels has no ELU"),
    ],
)
def test_a_kernel_that_does_not_exist_is_said_not_failed(kind: str, executor: str, problem: str) -> None:
    graph = make_op_graph(kind, seed=0)
    samples = draw_samples(graph, 2)
    (row,) = compare_lockstep(graph, samples, write_tflite, write_qdq_op, executors=[executor]).rows
    assert (row.passed, row.max_lsb, row.problem) == (True, None, problem)
    assert find_missing_kernels(graph, executor) == (kind,)
    whole = compare_end_to_end(graph, samples, write_tflite(graph))
    assert [row.executor for row in whole] == [name for name in EXECUTORS if name not in (executor, ONNX_RUNTIME)]
    with pytest.raises(UnsupportedModelError):  # the table says so because it is so
        open_tflite(executor, write_tflite(graph))


def test_absence_of_micro_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parity, "MICRO_AVAILABLE", False)
    int8, samples = make_int8_net()
    result = compare_lockstep(int8, samples, write_tflite, write_qdq_op, executors=[MICRO, LITERT_REFERENCE])
    assert result.unavailable == ((MICRO, "pip install --pre tflite-micro"),)
    assert {row.executor for row in result.rows} == {LITERT_REFERENCE}
    assert [row.executor for row in compare_end_to_end(int8, samples, write_tflite(int8), executors=[MICRO])] == []


def test_costly_programs_take_fewer_samples() -> None:
    int8, samples = make_int8_net()
    result = compare_lockstep(int8, samples, write_tflite, write_qdq_op, executors=[MICRO], most_macs=1)
    assert result.samples == 1


def test_bad_questions_are_refused() -> None:
    int8, samples = make_int8_net()
    with pytest.raises(InputError, match="'gpu' has no limits"):
        compare_lockstep(int8, samples, write_tflite, write_qdq_op, executors=["gpu"])
    with pytest.raises(InputError, match="at least one sample"):
        compare_lockstep(int8, samples[:0], write_tflite, write_qdq_op)
    two_inputs = next(graph for seed in range(9) if len((graph := make_op_graph("concat", seed)).inputs) == 2)
    with pytest.raises(InputError, match="one input, found 2"):
        compare_lockstep(two_inputs, samples, write_tflite, write_qdq_op)


# --- end to end ---


def test_end_to_end_every_executor_has_its_row() -> None:
    int8, samples = make_int8_net()
    model = write_qdq_onnx(int8, (2, 16)).SerializeToString()
    rows = {
        row.executor: row for row in compare_end_to_end(int8, samples, write_tflite(int8), model, input_shape=(2, 16))
    }
    assert tuple(rows) == EXECUTORS
    assert (rows[MICRO].max_lsb, rows[MICRO].different, rows[MICRO].must_be_equal) == (0, 0, True)
    assert {row.elements for row in rows.values()} == {32 * 3}
    assert all(row.passed for row in rows.values())
    # 1 LSB per op grows over 8 ops; 2 were seen
    assert all((row.max_lsb or 0) <= 3 for row in rows.values())


def test_end_to_end_without_onnx() -> None:
    int8, samples = make_int8_net()
    rows = compare_end_to_end(int8, samples, write_tflite(int8))
    assert [row.executor for row in rows] == [name for name in EXECUTORS if name != ONNX_RUNTIME]


def test_another_program_fails_only_where_equality_is_asked() -> None:
    int8, samples = make_int8_net()
    weight = int8.tensors["output/weight"]
    assert weight.data is not None
    other = int8.with_tensors([replace(weight, data=-weight.data)])
    rows = {row.executor: row for row in compare_end_to_end(int8, samples, write_tflite(other))}
    assert not rows[MICRO].passed
    assert rows[LITERT_REFERENCE].passed  # reported, and no further
    assert rows[LITERT_REFERENCE].argmax_changes > 0
    assert (rows[LITERT_REFERENCE].max_lsb or 0) > 3


def test_a_file_that_is_refused_fails_with_the_reason() -> None:
    int8, samples = make_int8_net()
    rows = compare_end_to_end(int8, samples, b"damaged", executors=[MICRO, LITERT_REFERENCE])
    assert [(row.passed, row.max_lsb) for row in rows] == [(False, None), (False, None)]
    assert "refuses" in rows[0].problem


# --- float ---


def make_linear(weight: np.ndarray, bias: np.ndarray) -> bytes:
    """x @ weight.T + bias as an ONNX file."""
    edges = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", size])
        for name, size in (("input", weight.shape[1]), ("output", weight.shape[0]))
    ]
    node = helper.make_node("Gemm", ["input", "w", "b"], ["output"], transB=1)
    constants = [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b")]
    body = helper.make_graph([node], "linear", edges[:1], edges[1:], constants)
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 18)], ir_version=8).SerializeToString()


@pytest.mark.parametrize("error", [0.0, 1e-2, np.nan])
def test_float_parity(error: float) -> None:
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(8, 3), torch.nn.Dropout(0.5))
    weight, bias = (parameter.detach().numpy() for parameter in module.parameters())
    samples = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
    module.train()
    result = compare_float(module, make_linear(weight, bias + np.float32(error)), samples)
    assert module.training
    assert result.samples == 5
    assert result.passed is (error == 0.0)
    if error == 0.0:
        assert result.max_abs_error < 1e-5  # eight float32 products in another order
