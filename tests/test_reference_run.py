"""Running programs with the reference: batches, keeping tensors, quantizing values, refusals, speed."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from edgeprune.errors import InputError, UnsupportedModelError
from edgeprune.executors import MicroExecutor, ReferenceExecutor
from edgeprune.graph import Graph, GraphError, Op, Quant, Tensor, cut_op
from edgeprune.lower import write_tflite
from edgeprune.ops import OPS
from edgeprune.reference import dequantize_values, quantize_values, run_graph, run_op
from tests.random_graphs import make_inputs, make_op_graph, make_random_graph
from tests.reference_cases import build_one_op

QUANT = Quant.per_tensor(0.1, 3)


def find_graph(kind: str) -> Graph:
    """A program of several ops that starts with no conversion and holds this kind."""
    for seed in range(200):
        graph = make_random_graph(seed, kinds=[kind, "relu", "add", "max_pool_2d"])
        if any(op.kind == kind for op in graph.ops) and len(graph.ops) > 4:
            return graph
    raise LookupError(kind)


@pytest.mark.parametrize("kind", OPS)
def test_a_batch_is_its_samples_one_by_one(kind: str) -> None:
    for seed in range(4):
        graph = make_op_graph(kind, seed)
        inputs = make_inputs(graph, seed, batch=5)
        together = run_graph(graph, inputs)[graph.outputs[0]]
        alone = [
            run_graph(graph, {name: values[sample : sample + 1] for name, values in inputs.items()})[graph.outputs[0]]
            for sample in range(5)
        ]
        np.testing.assert_array_equal(together, np.concatenate(alone))


def test_whole_programs_equal_tflite_micro() -> None:
    kinds = [kind for kind in OPS if kind != "relu_n1_to_1"]  # see the table of limits
    for seed in range(25):
        graph = make_random_graph(seed, kinds=kinds, op_count=10, float_edges=seed % 3 == 0)
        inputs = make_inputs(graph, seed, batch=2)
        values = [inputs[name] for name in graph.inputs]
        found = MicroExecutor(write_tflite(graph)).run(*values)
        for output, expected in zip(found, ReferenceExecutor(graph).run(*values), strict=True):
            np.testing.assert_array_equal(output, expected)


# --- keep, lockstep ---


def test_keep_returns_outputs_first_then_what_was_asked_for() -> None:
    graph = find_graph("conv_2d")
    inputs = make_inputs(graph, 0, batch=2)
    everything = run_graph(graph, inputs, keep="all")
    names = [*graph.inputs, *(op.outputs[0] for op in graph.ops)]
    assert set(everything) == set(names)
    assert list(everything)[: len(graph.outputs)] == list(graph.outputs)
    middle = graph.ops[1].outputs[0]
    for keep in (middle, [middle], {middle}):
        kept = run_graph(graph, inputs, keep=keep)
        assert set(kept) == {*graph.outputs, middle}
        np.testing.assert_array_equal(kept[middle], everything[middle])
    assert set(run_graph(graph, inputs)) == set(graph.outputs)


def test_lockstep_over_cut_ops_gives_the_same_tensors() -> None:
    graph = find_graph("conv_2d")
    everything = run_graph(graph, make_inputs(graph, 0, batch=3), keep="all")
    for index, op in enumerate(graph.ops):
        cut = cut_op(graph, index)
        found = run_graph(cut, {name: everything[name] for name in cut.inputs})[op.outputs[0]]
        np.testing.assert_array_equal(found, everything[op.outputs[0]])
        operands = [
            everything[name] if tensor.data is None else tensor.data
            for name, tensor in ((name, graph.tensors[name]) for name in op.inputs)
        ]
        np.testing.assert_array_equal(run_op(op, graph, operands), found)


def test_activations_of_lower_rank_keep_their_batch_axis() -> None:
    """(N, C) beside (N, 1, T, C): squeeze and excite without a reshape."""
    wide, narrow = Tensor("wide", (1, 1, 4, 3)), Tensor("narrow", (1, 3))
    graph = build_one_op("mul", (wide, narrow), {"activation": "none"}, None)
    rng = np.random.default_rng(0)
    values = {
        "wide": rng.normal(size=(4, 1, 4, 3)).astype(np.float32),
        "narrow": rng.normal(size=(4, 3)).astype(np.float32),
    }
    np.testing.assert_array_equal(
        run_graph(graph, values)["output"], values["wide"] * values["narrow"][:, None, None, :]
    )


def test_operands_that_are_constants_meet_a_batch() -> None:
    tensors = [
        Tensor("input", (1, 1, 2, 3)),
        Tensor.constant("border", np.ones((1, 1, 1, 3), np.float32)),
    ]
    graph = build_one_op("concat", tensors, {"axis": 2}, None)
    assert run_graph(graph, np.zeros((5, 1, 2, 3), np.float32))["output"].shape == (5, 1, 3, 3)


# --- quantize_values, dequantize_values ---


def test_quantize_values_rounds_ties_away_from_zero_and_saturates() -> None:
    values = np.array([0.5, 1.5, -0.5, -1.5, 0.49999997, 1e30, -1e30, np.inf, -np.inf], np.float32)
    stored = quantize_values(values, Quant.per_tensor(1.0, 10))
    assert stored.dtype == np.int8
    assert stored.tolist() == [11, 12, 9, 8, 10, 127, -128, 127, -128]
    assert quantize_values(np.array([3e38], np.float32), Quant.per_tensor(1e-30, 0)).tolist() == [127]


def test_quantize_values_is_the_quantize_op_of_tflite_micro() -> None:
    rng = np.random.default_rng(1)
    for scale in (0.25, 0.1, 0.0078125, 1.7e-3):
        quant = Quant.per_tensor(scale, int(rng.integers(-128, 128)))
        values = (rng.integers(-400, 401, (1, 1, 500, 2)) / 2 * scale).astype(np.float32)  # half of them ties
        graph = build_one_op("quantize", (Tensor("input", values.shape),), {}, quant)
        (found,) = MicroExecutor(write_tflite(graph)).run(values)
        np.testing.assert_array_equal(found, quantize_values(values, quant))


def test_values_of_channels_and_back() -> None:
    quant = Quant(np.array([0.5, 0.25]), np.array([0, 0]), axis=1)
    values = np.array([[1.0, 1.0], [-2.0, 3.0]], np.float32)
    stored = quantize_values(values, quant)
    assert stored.tolist() == [[2, 4], [-4, 12]]
    np.testing.assert_array_equal(dequantize_values(stored, quant), values)
    assert dequantize_values(np.int8([-128]), QUANT).dtype == np.float32


def test_quantize_values_refuses_nan() -> None:
    with pytest.raises(InputError, match="NaN"):
        quantize_values(np.array([np.nan], np.float32), QUANT)


# --- refusals ---


def unary(kind: str, attrs: dict[str, object], *, output: Quant | None = QUANT, quant: Quant = QUANT) -> Graph:
    source = Tensor("input", (1, 2, 4, 3), "float32" if output is None else "int8", None, quant if output else None)
    return build_one_op(kind, (source,), attrs, output)


POOL = {"kernel_size": (1, 2), "stride": (1, 1), "padding": "valid", "activation": "none"}
OTHER = Quant.per_tensor(0.2, 3)


@pytest.mark.parametrize(
    ("graph", "error", "message"),
    [
        (unary("mean", {"axes": (0, 1), "keep_dims": True}), UnsupportedModelError, "batch axis"),
        (unary("concat", {"axis": 0}), UnsupportedModelError, "batch axis"),
        (unary("transpose", {"perm": (1, 0, 2, 3)}, output=None), UnsupportedModelError, "batch axis"),
        (unary("reshape", {"shape": (2, 12)}, output=None), UnsupportedModelError, "batch axis"),
        (
            unary("pad", {"paddings": ((1, 0), (0, 0), (0, 0), (0, 0)), "mode": "zero"}),
            UnsupportedModelError,
            "batch axis",
        ),
        (unary("pad", {"paddings": ((0, 0),) * 4, "mode": "mirror"}), GraphError, "allowed: zero, lowest"),
        (unary("max_pool_2d", POOL, output=OTHER), GraphError, "copies stored values"),
        (unary("average_pool_2d", POOL, output=OTHER), GraphError, "must be equal"),
        (unary("concat", {"axis": 3}, output=OTHER), GraphError, "must be equal"),
        (unary("max_pool_2d", {**POOL, "activation": "gelu"}), GraphError, "allowed: none, relu"),
        (unary("logistic", {}), GraphError, r"writes scale 0.00390625, zero point -128"),
        (unary("tanh", {}), GraphError, r"writes scale 0.0078125, zero point 0"),
        (unary("softmax", {"beta": 1.0}), GraphError, "zero point -128"),
        (
            unary("softmax", {"beta": 1.0}, output=Quant.per_tensor(1 / 256, -128), quant=Quant.per_tensor(1e-9, 0)),
            UnsupportedModelError,
            "2\\*\\*-26",
        ),
        (unary("hard_swish", {}, output=Quant.per_tensor(1e-4, 0)), UnsupportedModelError, "128 times"),
        (unary("relu", {}, quant=Quant(np.ones(3), np.zeros(3), axis=3)), UnsupportedModelError, "per channel"),
    ],
)
def test_what_an_op_refuses(graph: Graph, error: type[Exception], message: str) -> None:
    dtype = np.float32 if graph.tensors["input"].dtype == "float32" else np.int8
    with pytest.raises(error, match=message) as caught:
        run_graph(graph, np.zeros((2, 2, 4, 3), dtype))
    assert str(caught.value).startswith(f"layer ({graph.ops[0].kind}): ")


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_softmax_and_constants_along_the_batch_are_refused(dtype: str) -> None:
    quant = QUANT if dtype == "int8" else None
    alone = Tensor("input", (1,), dtype, None, quant)
    with pytest.raises(UnsupportedModelError, match="no axis but the batch"):
        run_graph(build_one_op("softmax", (alone,), {"beta": 1.0}, quant), np.zeros(3, dtype))
    three = Tensor.constant("three", np.zeros(3, dtype), quant)
    with pytest.raises(UnsupportedModelError, match="lies along the batch axis"):
        run_graph(build_one_op("add", (alone, three), {"activation": "none"}, quant), np.zeros(3, dtype))


def test_slicing_the_batch_is_refused() -> None:
    attrs = {"begin": (0, 0, 0, 0), "end": (2, 2, 4, 3), "stride": (1, 1, 1, 1)}
    graph = build_one_op("strided_slice", (Tensor("input", (3, 2, 4, 3)),), attrs, None)
    with pytest.raises(UnsupportedModelError, match="slices the batch axis"):
        run_graph(graph, np.zeros((3, 2, 4, 3), np.float32))


def test_an_output_far_finer_than_the_operands_is_refused() -> None:
    tensors = [Tensor(name, (1, 4), "int8", None, Quant.per_tensor(1.0, 0)) for name in ("a", "b")]
    graph = build_one_op("add", tensors, {"activation": "none"}, Quant.per_tensor(1e-6, 0))
    with pytest.raises(UnsupportedModelError, match=r"2\*\*19 times finer"):
        run_graph(graph, {name: np.zeros((1, 4), np.int8) for name in ("a", "b")})


@pytest.mark.parametrize(
    ("weight_quant", "error", "message"),
    [
        (Quant(np.ones(2), np.zeros(2), 3), UnsupportedModelError, "along axis 3; the kernel needs 0"),
        (Quant(np.ones(3), np.zeros(3), 0), GraphError, "3 weight scales for 2 output channels"),
        (Quant.per_tensor(0.1, 5), GraphError, "symmetrically"),
    ],
)
def test_weights_that_are_refused(weight_quant: Quant, error: type[Exception], message: str) -> None:
    source = Tensor("input", (1, 1, 1, 2), "int8", None, QUANT)
    weight = Tensor.constant("weight", np.ones((2, 1, 1, 2), np.int8), weight_quant)
    attrs = {"stride": (1, 1), "dilation": (1, 1), "padding": "same", "activation": "none"}
    operands = (source, weight, Tensor.constant("bias", np.zeros(2, np.int32)))
    with pytest.raises(error, match=message):
        run_graph(build_one_op("conv_2d", operands, attrs, QUANT), np.zeros((1, 1, 1, 2), np.int8))


def test_types_that_are_refused() -> None:
    def run(first: str, second: str, output: str) -> None:
        quant = {"int8": QUANT, "int16": QUANT}
        tensors = {
            "a": Tensor("a", (1, 4), first, None, quant.get(first)),
            "b": Tensor("b", (1, 4), second, None, quant.get(second)),
            "y": Tensor("y", (1, 4), output, None, quant.get(output)),
        }
        op = Op("add", "sum", ("a", "b"), ("y",), {"activation": "none"})
        graph = Graph("types", tensors, (op,), ("a", "b"), ("y",))
        run_graph(graph, {"a": np.zeros((1, 4), first), "b": np.zeros((1, 4), second)})

    with pytest.raises(UnsupportedModelError, match="int16 -> int16; supported: float32 -> float32, int8 -> int8"):
        run("int16", "int16", "int16")
    with pytest.raises(UnsupportedModelError, match="b is float32; beside int8 it is int8"):
        run("int8", "float32", "int8")
    with pytest.raises(UnsupportedModelError, match="int8 -> float32"):
        run("int8", "int8", "float32")


def test_a_tensor_without_quantization_is_refused() -> None:
    graph = unary("relu", {})
    bare = graph.with_tensors([replace(graph.tensors["input"], quant=None)])
    with pytest.raises(GraphError, match="input is int8 without quantization"):
        run_graph(bare, np.zeros((1, 2, 4, 3), np.int8))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (np.zeros((2, 2, 4, 3), np.float32), r"given float32\(2, 2, 4, 3\); declared int8\(1, 2, 4, 3\)"),
        (np.zeros((2, 2, 5, 3), np.int8), "declared"),
        (np.zeros((2, 4, 3), np.int8), "declared"),
        ({}, "its inputs are input"),
        ({"input": np.zeros((1, 2, 4, 3), np.int8), "extra": np.zeros(1)}, "extra, input"),
    ],
)
def test_inputs_that_do_not_fit(inputs: object, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        run_graph(unary("relu", {}), inputs)  # type: ignore[arg-type]


def test_inputs_of_two_operands_must_agree() -> None:
    tensors = [Tensor(name, (1, 4)) for name in ("a", "b")]
    graph = build_one_op("add", tensors, {"activation": "none"}, None)
    with pytest.raises(GraphError, match="different numbers of samples"):
        run_graph(graph, {"a": np.zeros((2, 4), np.float32), "b": np.zeros((3, 4), np.float32)})
    with pytest.raises(GraphError, match="give a value for each by name"):
        run_graph(graph, np.zeros((2, 4), np.float32))
    with pytest.raises(GraphError, match="no tensor nothing to keep"):
        run_graph(graph, {name: np.zeros((2, 4), np.float32) for name in ("a", "b")}, keep=["nothing"])
    with pytest.raises(GraphError, match="1 operands were given for 2 inputs"):
        run_op(graph.ops[0], graph, [np.zeros((2, 4), np.float32)])


# --- speed ---


def test_a_layer_of_inception_takes_well_under_a_second() -> None:
    """150 samples of 150 steps, 32 -> 32 channels, kernel 40: 0.9 GMAC, 0.2 s on one idle core."""
    source = Tensor("input", (1, 1, 150, 32), "int8", None, QUANT)
    weight = Tensor.constant("weight", np.full((32, 1, 40, 32), 25, np.int8), Quant.per_tensor(0.01, 0))
    bias = Tensor.constant("bias", np.zeros(32, np.int32), Quant.per_tensor(0.001, 0))
    attrs = {"stride": (1, 1), "dilation": (1, 1), "padding": "same", "activation": "relu"}
    graph = build_one_op("conv_2d", (source, weight, bias), attrs, Quant.per_tensor(3.0, -128))
    values = np.random.default_rng(0).integers(-128, 128, (150, 1, 150, 32)).astype(np.int8)
    start = time.process_time()
    run_graph(graph, values)
    assert time.process_time() - start < 2.0
