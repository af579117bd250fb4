"""The int8 reference is TFLite Micro, bit for bit, op by op; LiteRT's reference kernels keep to the table of limits.

The table, op x executor -> LSB with a reason for each entry, is `edgeprune.parity.LIMITS`.
"""

from __future__ import annotations

import numpy as np
import pytest

from edgeprune.errors import UnsupportedModelError
from edgeprune.executors import Executor, LiteRTExecutor, MicroExecutor, ReferenceExecutor
from edgeprune.graph import Graph, Quant, Tensor
from edgeprune.lower import write_tflite
from edgeprune.ops import OPS
from edgeprune.parity import LIMITS, LITERT_BUILTIN, LITERT_REFERENCE, MICRO, find_limit, open_tflite
from tests.random_graphs import make_inputs, make_op_graph
from tests.reference_cases import EDGE_KINDS, Inputs, build_one_op, make_edge_case

ALPHA = float(np.float32(0.3))
EVERY_STORED = np.arange(-128, 128).astype(np.int8).reshape(1, 1, 256, 1)


def measure_difference(graph: Graph, inputs: Inputs, executor: Executor) -> int:
    """The largest difference to the reference, in LSB; for a float32 output 0 or 1: equal or not."""
    values = [inputs[name] for name in graph.inputs]
    (expected,) = ReferenceExecutor(graph).run(*values)
    (found,) = executor.run(*values)
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    if found.dtype == np.float32:
        return int(not np.array_equal(found, expected))
    return int(np.abs(found.astype(np.int32) - expected).max())


def assert_within_limits(graph: Graph, inputs: Inputs) -> None:
    """Hold the one-op program against both interpreters; ELU has no reference kernel in LiteRT."""
    kind, data = graph.ops[0].kind, write_tflite(graph)
    for name in (MICRO, LITERT_BUILTIN if kind == "elu" else LITERT_REFERENCE):
        limit = find_limit(kind, name)
        if limit.lsb is not None:
            difference = measure_difference(graph, inputs, open_tflite(name, data))
            assert difference <= limit.lsb, (kind, name, limit.reason)


@pytest.mark.parametrize("kind", EDGE_KINDS)
def test_edge_cases(kind: str) -> None:
    for seed in range(20):
        assert_within_limits(*make_edge_case(kind, seed))


@pytest.mark.parametrize("kind", OPS)
def test_ordinary_cases(kind: str) -> None:
    for seed in range(6):
        graph = make_op_graph(kind, seed)
        assert_within_limits(graph, make_inputs(graph, seed, batch=3))


def test_limits_never_loosen_tflite_micro() -> None:
    """Its only entry says what it lacks; every other op must be equal to it."""
    assert {kind: limit.lsb for kind, limit in LIMITS[MICRO].items()} == {"relu_n1_to_1": None}


def test_tflite_micro_has_no_relu_n1_to_1() -> None:
    with pytest.raises(UnsupportedModelError, match="RELU_N1_TO_1"):
        MicroExecutor(write_tflite(make_op_graph("relu_n1_to_1", 0)))


def test_relu6_of_two_scales_is_litert_but_not_tflite_micro() -> None:
    """TFLite Micro's RELU6 clamps and does not rescale: why quantization gives its input and output one scale."""
    graph = make_unary("relu6", 0.1, -20, Quant.per_tensor(0.05, 7), {})
    data = write_tflite(graph)
    assert measure_difference(graph, {"input": EVERY_STORED}, LiteRTExecutor(data)) == 0
    assert measure_difference(graph, {"input": EVERY_STORED}, MicroExecutor(data)) == 87


# --- every stored value ---


def make_unary(kind: str, scale_in: float, zero_in: int, output: Quant, attrs: dict[str, object]) -> Graph:
    """One op over all 256 stored values."""
    source = Tensor("input", EVERY_STORED.shape, "int8", None, Quant.per_tensor(scale_in, zero_in))
    return build_one_op(kind, (source,), attrs, output)


def random_scale(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.float32(2.0 ** rng.uniform(low, high)))


@pytest.mark.parametrize("kind", ["relu", "leaky_relu", "elu", "hard_swish", "quantize"])
def test_every_stored_value_of_rescaling_ops(kind: str) -> None:
    rng = np.random.default_rng(5)
    attrs = {"alpha": ALPHA} if kind == "leaky_relu" else {}
    for _ in range(25):
        scale = random_scale(rng, -9, 0)
        output = Quant.per_tensor(scale / rng.uniform(0.05, 4), int(rng.integers(-128, 128)))
        graph = make_unary(kind, scale, int(rng.integers(-128, 128)), output, attrs)
        assert measure_difference(graph, {"input": EVERY_STORED}, MicroExecutor(write_tflite(graph))) == 0


@pytest.mark.parametrize("kind", ["logistic", "tanh", "softmax"])
@pytest.mark.parametrize("exponent", [-14, -8, -5, -3, -1, 0, 1, 2, 3, 5])
def test_every_stored_value_of_functions(kind: str, exponent: int) -> None:
    """Down to scales where everything is near 0, up to those where TFLite Micro saturates next to the zero point."""
    output = Quant.per_tensor(1 / 128, 0) if kind == "tanh" else Quant.per_tensor(1 / 256, -128)
    for factor in (1.0, 1.37):
        source = Tensor("input", (1, 1, 256, 3), "int8", None, Quant.per_tensor(factor * 2.0**exponent, 11))
        rest = np.full_like(EVERY_STORED, 60)
        values = np.concatenate([EVERY_STORED, rest, EVERY_STORED[:, :, ::-1] // 2], axis=3)  # rows for softmax
        graph = build_one_op(kind, (source,), {"beta": 1.0} if kind == "softmax" else {}, output)
        assert measure_difference(graph, {"input": values}, MicroExecutor(write_tflite(graph))) == 0


FIRST, SECOND = (
    values.astype(np.int8)[None, None] for values in np.meshgrid(np.arange(-128, 128), np.arange(-128, 128))
)


def assert_pairs_agree(kind: str, scales: tuple[float, float, float], zero_points: tuple[int, int, int]) -> None:
    """Every pair of stored values through an op; scales and zero points are those of both operands and the output."""
    first, second, output = (Quant.per_tensor(*pair) for pair in zip(scales, zero_points, strict=True))
    operands = (
        Tensor("input_0", FIRST.shape, "int8", None, first),
        Tensor("input_1", SECOND.shape, "int8", None, second),
    )
    graph = build_one_op(kind, operands, {} if kind == "prelu" else {"activation": "none"}, output)
    assert_within_limits(graph, {"input_0": FIRST, "input_1": SECOND})


@pytest.mark.parametrize("kind", ["add", "sub", "mul", "prelu"])
def test_every_pair_of_stored_values(kind: str) -> None:
    rng = np.random.default_rng(6)
    for _ in range(8):
        scales = random_scale(rng, -9, 0), random_scale(rng, -9, 0)
        wide = {"mul": 60 * scales[0] * scales[1], "prelu": scales[0]}.get(kind, 2 * max(scales))
        first, second, output = (int(value) for value in rng.integers(-128, 128, 3))
        assert_pairs_agree(kind, (*scales, wide * rng.uniform(0.3, 1.5)), (first, second, output))


# --- layers ---


def make_bias_layer(kind: str, bias: np.ndarray, scales: tuple[float, float, float], zero_out: int) -> Graph:
    """A layer with one input value and weights of 0, whose accumulators are the biases."""
    scale_in, scale_weight, scale_out = scales
    count = len(bias)
    shapes = {"conv_2d": (count, 1, 1, 1), "depthwise_conv_2d": (1, 1, 1, count), "fully_connected": (count, 1)}
    attrs: dict[str, object] = {"activation": "none"}
    if kind != "fully_connected":
        attrs |= {"stride": (1, 1), "dilation": (1, 1), "padding": "valid"}
    if kind == "depthwise_conv_2d":
        attrs["depth_multiplier"] = count
    shape = (1, 1) if kind == "fully_connected" else (1, 1, 1, 1)
    source = Tensor("input", shape, "int8", None, Quant.per_tensor(scale_in, 0))
    weight = Tensor.constant("weight", np.zeros(shapes[kind], np.int8), Quant.per_tensor(scale_weight, 0))
    constant = Tensor.constant("bias", bias.astype(np.int32), Quant.per_tensor(scale_in * scale_weight, 0))
    return build_one_op(kind, (source, weight, constant), attrs, Quant.per_tensor(scale_out, zero_out))


LAYER_KINDS = ("conv_2d", "depthwise_conv_2d", "fully_connected")


@pytest.mark.parametrize("kind", LAYER_KINDS)
def test_many_accumulators(kind: str) -> None:
    """Two roundings, and the product of scales in float64."""
    rng = np.random.default_rng(7)
    bias = rng.integers(-30_000, 30_000, 3000)
    for _ in range(15):
        scales = random_scale(rng, -9, 0), random_scale(rng, -9, 0)
        graph = make_bias_layer(kind, bias, (*scales, scales[0] * scales[1] * rng.uniform(50, 300)), -3)
        values = {"input": np.zeros(graph.tensors["input"].shape, np.int8)}
        assert measure_difference(graph, values, MicroExecutor(write_tflite(graph))) == 0


# Scales at which factors computed in float32 would change a stored value (found by search): TFLite Micro's are float64.
FLOAT64_CASES = (
    ("quantize", (0.31121475, 1.0, 0.24442437), (65, 0, 112)),
    ("quantize", (0.20834781, 1.0, 0.20300557), (75, 0, 112)),
    ("leaky_relu", (0.0029001015, 1.0, 0.0044172364), (-115, 0, -51)),
    ("leaky_relu", (0.002790842, 1.0, 0.0041354178), (-93, 0, -19)),
    ("hard_swish", (0.48928437, 1.0, 0.15154801), (-99, 0, -50)),
    ("hard_swish", (0.0020729112, 1.0, 0.0011931976), (-121, 0, -110)),
    ("mul", (0.16559337, 0.004098923, 0.06970389), (93, 20, -128)),
    ("mul", (0.20182623, 0.0037189338, 0.13475177), (76, 118, -37)),
    ("prelu", (0.0056208475, 0.0051660477, 0.002407214), (-44, 97, -61)),
    ("prelu", (0.07519977, 0.018529309, 0.037882585), (109, -11, -87)),
    ("add", (0.018846242, 0.040089022, 0.107375905), (-25, 125, -8)),
    ("add", (0.006296528, 0.003396648, 0.017875737), (-24, 34, 61)),
    ("sub", (0.0069102463, 0.0096300775, 0.022710305), (-19, 84, -30)),
    ("sub", (0.018641764, 0.36160076, 1.0173503), (-106, 66, -57)),
    ("fully_connected", (0.016563041, 0.004039614, 0.008352159), (0, 0, -115)),
    ("fully_connected", (0.029563034, 0.0041820505, 0.02989074), (0, 0, 6)),
)


# elu computed in any other way changes a stored value here (found by search): expm1; numpy's float32 exp; a division by
# the output scale; float64.
ELU_CASES = (
    ((0.0110546909, 0.0135989776), (-2, -49)),
    ((0.0938157812, 0.0596997216), (34, -124)),
    ((0.00484939851, 0.0135936188), (45, -64)),
    ((0.0579195023, 0.0507538617), (-4, 63)),
)


@pytest.mark.parametrize(("scales", "zero_points"), ELU_CASES)
def test_elu_is_float32_in_the_kernels_order(scales: tuple[float, float], zero_points: tuple[int, int]) -> None:
    graph = make_unary("elu", scales[0], zero_points[0], Quant.per_tensor(scales[1], zero_points[1]), {})
    assert_within_limits(graph, {"input": EVERY_STORED})


@pytest.mark.parametrize(("kind", "scales", "zero_points"), FLOAT64_CASES)
def test_factors_are_float64(kind: str, scales: tuple[float, float, float], zero_points: tuple[int, int, int]) -> None:
    if kind in ("add", "sub", "mul", "prelu"):
        assert_pairs_agree(kind, scales, zero_points)
        return
    if kind == "fully_connected":
        bias = np.random.default_rng(7).integers(-30_000, 30_000, 3000)
        graph = make_bias_layer(kind, bias, scales, zero_points[2])
        values = np.zeros((1, 1), np.int8)
    else:
        attrs = {"alpha": ALPHA} if kind == "leaky_relu" else {}
        graph = make_unary(kind, scales[0], zero_points[0], Quant.per_tensor(scales[2], zero_points[2]), attrs)
        values = EVERY_STORED
    assert_within_limits(graph, {"input": values})


@pytest.mark.parametrize("kind", LAYER_KINDS)
@pytest.mark.parametrize("ratio", [2.0**-10, 0.3, 0.99, 1.0, 1.7, 2.0**6, 2.0**10])
def test_accumulators_at_the_ends_of_int32(kind: str, ratio: float) -> None:
    """Saturation, and left shifts that overflow and wrap around."""
    rng = np.random.default_rng(8)
    ends = (2**31 - 1, -(2**31), 2**30, -(2**30), 0, 2**31 - 100, 100 - 2**31)
    bias = np.concatenate([ends, rng.integers(-(2**31), 2**31 - 1, 500)])
    for zero_out in (-128, 0, 127):
        graph = make_bias_layer(kind, bias, (0.5, 0.25, 0.125 / ratio), zero_out)
        values = {"input": np.zeros(graph.tensors["input"].shape, np.int8)}
        assert measure_difference(graph, values, MicroExecutor(write_tflite(graph))) == 0


@pytest.mark.parametrize("kind", LAYER_KINDS)
def test_sums_too_large_for_float32(kind: str) -> None:
    """Extreme weights over many inputs: the sums need float64 to be exact, and are."""
    rng = np.random.default_rng(9)
    extremes = rng.choice([-127, 127], (2, 1, 41, 33)).astype(np.int8)
    attrs: dict[str, object] = {"activation": "none"}
    if kind == "conv_2d":
        data, axis, shape = extremes, 0, (1, 1, 50, 33)
    elif kind == "depthwise_conv_2d":
        data, axis, shape = np.full((1, 1, 999, 2), 127, np.int8), 3, (1, 1, 1000, 2)
        attrs["depth_multiplier"] = 1
    else:
        data, axis, shape = extremes.reshape(2, -1), None, (1, 41 * 33)
    if kind != "fully_connected":
        attrs |= {"stride": (1, 1), "dilation": (1, 1), "padding": "valid"}
    count = 1 if axis is None else 2
    weight = Tensor.constant("weight", data, Quant(np.full(count, 0.01), np.zeros(count), axis))
    bias = Tensor.constant("bias", np.array([12345, -777], np.int32), Quant.per_tensor(0.001, 0))
    source = Tensor("input", shape, "int8", None, Quant.per_tensor(0.1, -128))
    graph = build_one_op(kind, (source, weight, bias), attrs, Quant.per_tensor(77.7, 5))
    values = {"input": rng.choice([126, 127], shape).astype(np.int8)}
    assert measure_difference(graph, values, MicroExecutor(write_tflite(graph))) == 0


def test_mean_of_long_series() -> None:
    """The reciprocal of the count is folded into the multiplier: counts around powers of two, and beyond."""
    rng = np.random.default_rng(10)
    for count in (1, 2, 3, 63, 64, 65, 127, 1751, 4096):
        for keep_dims in (True, False):
            values = rng.integers(-128, 128, (1, 1, count, 33)).astype(np.int8)
            source = Tensor("input", values.shape, "int8", None, Quant.per_tensor(0.05, 100))
            output = Quant.per_tensor(float(rng.uniform(0.005, 0.06)), -7)
            graph = build_one_op("mean", (source,), {"axes": (1, 2), "keep_dims": keep_dims}, output)
            assert_within_limits(graph, {"input": values})
