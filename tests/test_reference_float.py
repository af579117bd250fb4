"""The float32 reference: against PyTorch, which users trained with, and against LiteRT on every op."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.nn import functional

from edgeprune.executors import LiteRTExecutor, ReferenceExecutor
from edgeprune.graph import Graph, Tensor
from edgeprune.lower import write_tflite
from edgeprune.ops import OPS, same_padding
from edgeprune.reference import run_graph
from tests.random_graphs import make_inputs, make_op_graph, make_random_graph
from tests.reference_cases import build_one_op

# float32 sums of some hundred terms of magnitude 1, in different orders: a few times 1e-7 each, errors add up
TOLERANCE = {"rtol": 1e-5, "atol": 2e-5}
FLOAT_KINDS = tuple(kind for kind in OPS if kind not in ("quantize", "dequantize"))


def to_torch(nhwc: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(nhwc, -1, 1)))


def from_torch(nchw: torch.Tensor) -> np.ndarray:
    return np.moveaxis(nchw.numpy(), 1, -1)


def random_values(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def make_unary(kind: str, shape: tuple[int, ...], attrs: dict[str, object] | None = None) -> Graph:
    return build_one_op(kind, (Tensor("input", (1, *shape[1:])),), attrs or {}, None)


@pytest.mark.parametrize("kind", FLOAT_KINDS)
def test_litert_agrees(kind: str) -> None:
    for seed in range(8):
        graph = make_op_graph(kind, seed, dtype="float32")
        inputs = make_inputs(graph, seed, batch=3)
        values = [inputs[name] for name in graph.inputs]
        kernels = "builtin" if kind == "elu" else "reference"  # there is no reference ELU
        (expected,) = LiteRTExecutor(write_tflite(graph), kernels).run(*values)
        (found,) = ReferenceExecutor(graph).run(*values)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, **TOLERANCE)


def test_litert_agrees_on_whole_programs() -> None:
    # mul of mul of ... leaves float32's range; LiteRT has no reference ELU
    kinds = [kind for kind in FLOAT_KINDS if kind not in ("concat", "mul", "elu")]
    for seed in range(10):
        graph = make_random_graph(seed, dtype="float32", kinds=kinds)
        inputs = make_inputs(graph, seed, batch=2)
        values = [inputs[name] for name in graph.inputs]
        for found, expected in zip(
            ReferenceExecutor(graph).run(*values), LiteRTExecutor(write_tflite(graph)).run(*values), strict=True
        ):
            scale = max(1.0, float(np.abs(expected).max()))
            np.testing.assert_allclose(found / scale, expected / scale, **TOLERANCE)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(
    ("kernel", "stride", "dilation", "groups"),
    [
        ((1, 40), (1, 1), (1, 1), 1),
        ((1, 20), (1, 1), (1, 2), 6),
        ((3, 3), (2, 2), (1, 1), 1),
        ((2, 5), (1, 1), (3, 2), 2),
        ((1, 1), (3, 2), (1, 1), 3),
    ],
)
def test_conv_2d_is_torchs(
    padding: str, kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int], groups: int
) -> None:
    x = random_values((3, 8, 41, 6))
    weight, bias = random_values((12, *kernel, 6 // groups), 1), random_values((12,), 2)
    attrs: dict[str, object] = {"stride": stride, "dilation": dilation, "padding": padding, "activation": "relu6"}
    operands = (
        Tensor("input", (1, *x.shape[1:])),
        Tensor.constant("weight", weight),
        Tensor.constant("bias", bias),
    )
    found = run_graph(build_one_op("conv_2d", operands, attrs, None), x)["output"]
    np.testing.assert_allclose(found, convolve_torch(x, weight, bias, padding, stride, dilation, groups), **TOLERANCE)


def convolve_torch(
    x: np.ndarray,
    weight_ohwi: np.ndarray,
    bias: np.ndarray,
    padding: str,
    stride: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
) -> np.ndarray:
    """PyTorch's convolution and relu6, padded by hand as TFLite pads."""
    image = to_torch(x)
    if padding == "same":
        rows, columns = (
            same_padding(x.shape[1 + axis], weight_ohwi.shape[1 + axis], stride[axis], dilation[axis])
            for axis in (0, 1)
        )
        image = functional.pad(image, (*columns, *rows))
    weight = torch.from_numpy(np.ascontiguousarray(weight_ohwi.transpose(0, 3, 1, 2)))
    result = functional.conv2d(image, weight, torch.from_numpy(bias), stride, 0, dilation, groups)
    return from_torch(functional.relu6(result))


@pytest.mark.parametrize("multiplier", [1, 3])
def test_depthwise_conv_2d_is_torchs(multiplier: int) -> None:
    x = random_values((2, 5, 33, 4))
    weight, bias = random_values((1, 3, 10, 4 * multiplier), 1), random_values((4 * multiplier,), 2)
    attrs: dict[str, object] = {"stride": (1, 1), "dilation": (1, 4), "padding": "same", "activation": "relu6"}
    operands = (
        Tensor("input", (1, *x.shape[1:])),
        Tensor.constant("weight", weight),
        Tensor.constant("bias", bias),
    )
    graph = build_one_op("depthwise_conv_2d", operands, {**attrs, "depth_multiplier": multiplier}, None)
    expected = convolve_torch(x, weight.transpose(3, 1, 2, 0), bias, "same", (1, 1), (1, 4), 4)
    np.testing.assert_allclose(run_graph(graph, x)["output"], expected, **TOLERANCE)


def test_fully_connected_is_torchs_over_nhwc() -> None:
    x, weight, bias = random_values((4, 3, 5, 2)), random_values((7, 30), 1), random_values((7,), 2)
    operands = (Tensor("input", (1, 3, 5, 2)), Tensor.constant("weight", weight), Tensor.constant("bias", bias))
    found = run_graph(build_one_op("fully_connected", operands, {"activation": "none"}, None), x)["output"]
    expected = functional.linear(*map(torch.from_numpy, (x.reshape(4, -1), weight, bias)))
    np.testing.assert_allclose(found, expected.numpy(), **TOLERANCE)


def test_pools_are_torchs() -> None:
    x = random_values((2, 6, 9, 3))
    attrs: dict[str, object] = {"kernel_size": (2, 3), "stride": (2, 2), "padding": "valid", "activation": "none"}
    maximum = run_graph(make_unary("max_pool_2d", x.shape, attrs), x)["output"]
    np.testing.assert_array_equal(maximum, from_torch(functional.max_pool2d(to_torch(x), (2, 3), 2)))
    average = run_graph(make_unary("average_pool_2d", x.shape, attrs), x)["output"]
    np.testing.assert_allclose(average, from_torch(functional.avg_pool2d(to_torch(x), (2, 3), 2)), **TOLERANCE)


def test_average_pool_leaves_the_padding_out() -> None:
    x = np.full((1, 1, 4, 1), 6.0, np.float32)
    attrs: dict[str, object] = {"kernel_size": (1, 3), "stride": (1, 1), "padding": "same", "activation": "none"}
    assert run_graph(make_unary("average_pool_2d", x.shape, attrs), x)["output"].ravel().tolist() == [6.0] * 4


@pytest.mark.parametrize(
    ("kind", "attrs", "function"),
    [
        ("relu", {}, functional.relu),
        ("relu6", {}, functional.relu6),
        ("relu_n1_to_1", {}, functional.hardtanh),
        ("leaky_relu", {"alpha": 0.3}, lambda x: functional.leaky_relu(x, 0.3)),
        ("logistic", {}, torch.sigmoid),
        ("tanh", {}, torch.tanh),
        ("elu", {}, functional.elu),
        ("hard_swish", {}, functional.hardswish),
        ("softmax", {"beta": 1.0}, lambda x: functional.softmax(x, dim=-1)),
    ],
)
def test_activations_are_torchs(
    kind: str, attrs: dict[str, object], function: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    x = random_values((3, 1, 16, 5)) * 20
    x[0, 0, 0] = (0.0, -0.0, 88.0, -88.0, 700.0)  # exp(700) is far beyond float32
    with np.errstate(over="raise", invalid="raise"):
        found = run_graph(make_unary(kind, x.shape, attrs), x)["output"]
    # exp of another library: a few units in the last place
    np.testing.assert_allclose(found, function(torch.from_numpy(x)).numpy(), rtol=2e-6, atol=1e-7)


def test_prelu_is_torchs() -> None:
    x, alpha = random_values((3, 1, 8, 5)), random_values((5,), 1)
    operands = (Tensor("input", (1, 1, 8, 5)), Tensor.constant("alpha", alpha.reshape(1, 1, 5)))
    found = run_graph(build_one_op("prelu", operands, {}, None), x)["output"]
    np.testing.assert_array_equal(found, from_torch(functional.prelu(to_torch(x), torch.from_numpy(alpha))))


def test_mean_is_numpys() -> None:
    x = random_values((3, 2, 50, 5))
    found = run_graph(make_unary("mean", x.shape, {"axes": (1, 2), "keep_dims": False}), x)["output"]
    np.testing.assert_allclose(found, x.astype(np.float64).mean(axis=(1, 2)), **TOLERANCE)


def test_pad_lowest_is_below_everything() -> None:
    x = np.full((1, 1, 2, 1), -3e38, np.float32)
    graph = make_unary("pad", x.shape, {"paddings": ((0, 0), (0, 0), (1, 0), (0, 0)), "mode": "lowest"})
    found = run_graph(graph, x)["output"].ravel()
    np.testing.assert_array_equal(found, np.float32([np.finfo(np.float32).min, -3e38, -3e38]))
