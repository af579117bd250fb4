"""QDQ ONNX: the program's own scales and weights, PyTorch's layout at the edges, integer kernels in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from edgeprune.errors import InputError, UnsupportedModelError
from edgeprune.executors import OnnxExecutor, ReferenceExecutor, run_on_floats
from edgeprune.graph import Graph, Op, Quant, Tensor
from edgeprune.layout import from_nhwc, to_nhwc
from edgeprune.quantize import calibrate, quantize_graph, write_qdq_onnx
from tests.quantize.small_nets import NetMaker, draw_samples, make_series_net


def quantize(graph: Graph) -> Graph:
    return quantize_graph(graph, calibrate(graph, draw_samples(graph)))


def run_both(int8: Graph, input_shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Outputs of ONNX Runtime and of the reference on the same samples, each in its own layout."""
    samples = draw_samples(int8)
    (found,) = OnnxExecutor(write_qdq_onnx(int8, input_shape).SerializeToString()).run(from_nhwc(samples, input_shape))
    (expected,) = run_on_floats(ReferenceExecutor(int8), samples)
    return found, expected


def step_of(graph: Graph, name: str) -> float:
    quant = graph.tensors[name].quant
    assert quant is not None
    return float(quant.scale[0])


def test_it_holds_the_programs_scales_and_stored_weights() -> None:
    int8 = quantize(make_series_net())
    model = write_qdq_onnx(int8, (2, 16))
    constants = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    for tensor in int8.tensors.values():
        assert tensor.quant is not None
        np.testing.assert_array_equal(constants[f"{tensor.name}/scale"].ravel(), tensor.quant.scale)
        np.testing.assert_array_equal(constants[f"{tensor.name}/zero_point"].ravel(), tensor.quant.zero_point)
    assert constants["stem/weight/stored"].dtype == np.int8
    np.testing.assert_array_equal(
        constants["stem/weight/stored"].transpose(0, 2, 3, 1), int8.tensors["stem/weight"].data
    )
    assert constants["stem/bias/stored"].dtype == np.int32
    np.testing.assert_array_equal(constants["stem/bias/stored"], int8.tensors["stem/bias"].data)


def test_edges_are_float_with_a_free_batch() -> None:
    model = write_qdq_onnx(quantize(make_series_net()), (2, 16))
    described = [
        (
            value.name,
            value.type.tensor_type.elem_type,
            [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim],
        )
        for value in (*model.graph.input, *model.graph.output)
    ]
    assert described == [("input", 1, ["batch", 2, 16]), ("output", 1, ["batch", 3])]


def test_same_program_same_bytes_and_nothing_of_this_machine() -> None:
    int8 = quantize(make_series_net())
    first, second = (write_qdq_onnx(int8, (2, 16)).SerializeToString() for _ in range(2))
    assert first == second
    model = onnx.load_model_from_string(first)
    assert not model.doc_string
    assert not model.metadata_props
    assert not any(node.doc_string or node.metadata_props for node in model.graph.node)
    assert str(Path.cwd()).encode() not in first


def test_a_series_net_is_near_the_reference() -> None:
    int8 = quantize(make_series_net())
    found, expected = run_both(int8, (2, 16))
    # 1 LSB per op grows over the net's 8 ops; 2 were seen
    assert np.abs(found - expected).max() <= 3.01 * step_of(int8, "output")


def test_an_image_net_and_an_output_of_rank_4() -> None:
    rng = np.random.default_rng(0)
    net = NetMaker(6, 5, 3)
    net.conv("output", "input", rng.normal(size=(4, 3, 2, 3)), rng.normal(size=4), "relu6", stride=(2, 1))
    int8 = quantize(net.finish())
    found, expected = run_both(int8, (3, 6, 5))
    assert found.shape == (32, 4, 3, 5)
    assert np.abs(to_nhwc(found) - expected).max() <= 1.01 * step_of(int8, "output")


def test_a_series_output_is_a_series() -> None:
    net = NetMaker(1, 6, 2)
    net.conv("output", "input", np.ones((3, 1, 2, 2)), [0.0] * 3)
    int8 = quantize(net.finish())
    found, expected = run_both(int8, (2, 6))
    assert found.shape == (32, 3, 6)
    assert np.abs(to_nhwc(found) - expected).max() <= 1.01 * step_of(int8, "output")


def test_an_output_may_be_read_inside_too() -> None:
    net = NetMaker(1, 6, 2)
    net.conv("middle", "input", np.ones((3, 1, 2, 2)), [0.0] * 3)
    net.add("mean", "output", "middle", axes=(1, 2), keep_dims=False)
    int8 = quantize(net.finish("middle", "output"))
    model = OnnxExecutor(write_qdq_onnx(int8, (2, 6)).SerializeToString())
    middle, output = model.run(from_nhwc(draw_samples(int8, 4), (2, 6)))
    assert (middle.shape, output.shape) == ((4, 3, 6), (4, 3))


def test_flattening_keeps_the_programs_order() -> None:
    net = NetMaker(2, 3, 4)
    net.dense("output", "input", np.random.default_rng(0).normal(size=(5, 24)), [0.0] * 5)
    int8 = quantize(net.finish())
    found, expected = run_both(int8, (4, 2, 3))
    assert np.abs(found - expected).max() <= 1.01 * step_of(int8, "output")


def optimized_operators(model: onnx.ModelProto, path: Path) -> list[str]:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3  # it warns that such a file is for this machine only
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(path).graph.node]


def test_onnx_runtime_finds_its_integer_kernels(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    net = NetMaker(1, 8, 2)
    first = net.conv("first", "input", rng.normal(size=(4, 1, 3, 2)), [0.1] * 4, "relu")
    second = net.depthwise("second", first, rng.normal(size=(1, 1, 3, 4)), [0.1] * 4)
    net.dense("output", second, rng.normal(size=(3, 32)), [0.0] * 3)
    operators = optimized_operators(write_qdq_onnx(quantize(net.finish()), (2, 8)), tmp_path / "optimized.onnx")
    assert operators.count("QLinearConv") == 2  # the fused relu included
    assert operators.count("QGemm") == 1
    assert not {"Conv", "Gemm", "Relu"} & set(operators)


def test_relu_is_left_to_saturation_only_where_that_is_the_same() -> None:
    def write(zero_point: int) -> list[str]:
        tensors = {
            "input": Tensor("input", (1, 1, 4, 1), "int8", None, Quant.per_tensor(0.1, 0)),
            "output": Tensor("output", (1, 1, 4, 1), "int8", None, Quant.per_tensor(0.1, zero_point)),
        }
        graph = Graph("relu", tensors, (Op("relu", "relu", ("input",), ("output",)),), ("input",), ("output",))
        return [node.op_type for node in write_qdq_onnx(graph, (1, 4)).graph.node]

    assert "Relu" not in write(-128)
    assert "Relu" in write(-127)


def test_a_certain_softmax_does_not_wrap_around() -> None:
    # ONNX Runtime's integer softmax makes 0 of a probability of 1 (256 steps of 1/256 in uint8)
    net = NetMaker(4)
    net.tensors["input"] = Tensor("input", (1, 4))
    net.add("softmax", "output", "input", beta=1.0)
    int8 = quantize_graph(net.finish(), {"input": (-50.0, 50.0), "output": (0.0, 1.0)})
    samples = np.array([[50, -50, -50, -50]], np.float32)
    (found,) = OnnxExecutor(write_qdq_onnx(int8, (4,)).SerializeToString()).run(samples)
    assert found.argmax() == 0
    assert found.max() == 255 / 256


def test_what_does_not_fit_is_refused() -> None:
    int8 = quantize(make_series_net())
    with pytest.raises(InputError, match=r"\(3, 16\) does not fit"):
        write_qdq_onnx(int8, (3, 16))
    net = NetMaker(1, 4, 2)
    net.add("reshape", "output", "input", shape=(2, 4))
    with pytest.raises(UnsupportedModelError, match="batch axis"):
        write_qdq_onnx(quantize_graph(net.finish(), {"input": (0, 1), "output": (0, 1)}), (2, 4))
