"""What read_onnx refuses: one sentence that names the node, what was found and the way out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgeprune.errors import InputError, ParityError, UnsupportedModelError
from edgeprune.export import read_onnx
from edgeprune.export.parity_checks import require_close
from tests.export.onnx_nets import OnnxNet

SERIES = (3, 8)
LSTM = {"hidden_size": 4, "outputs": 3}

OPERATORS: list[tuple[str, int, Callable[[OnnxNet], str], str]] = [
    ("selu", 3, lambda net: net.add("Selu", net.x), r"selu0 \(Selu\): the operator is not supported\. Use ReLU"),
    ("elu of another alpha", 3, lambda net: net.add("Elu", net.x, alpha=0.5), r"its alpha is 0\.5\. Use alpha = 1"),
    ("log-softmax", 3, lambda net: net.add("LogSoftmax", net.x), r"End the model with logits or Softmax"),
    (
        "lstm",
        4,
        lambda net: net.add(
            "LSTM", net.add("Transpose", net.x, perm=[2, 0, 1]), net.draw(1, 16, 3), net.draw(1, 16, 4), **LSTM
        ),
        r"lstm1 \(LSTM\): the operator is not supported\. Recurrent layers run in the float32 ONNX file only",
    ),
    (
        "layer norm",
        3,
        lambda net: net.add("LayerNormalization", net.x, net.draw(8), net.draw(8)),
        r"Normalisation by the values of a sample is not supported; use BatchNorm",
    ),
    ("transposed conv", 3, lambda net: net.add("ConvTranspose", net.x, net.draw(3, 2, 2)), r"Transposed convolutions"),
    (
        "attention",
        3,
        lambda net: net.add("MatMul", net.add("Transpose", net.x, perm=[0, 2, 1]), net.x),
        r"matmul1 \(MatMul\): it multiplies two computed values, .* attention is not",
    ),
    ("division", 3, lambda net: net.add("Div", net.x, net.x), r"it divides by a computed value"),
    ("maximum of two", 3, lambda net: net.add("Max", net.x, net.x), r"it compares computed values"),
    ("mean over the batch", 3, lambda net: net.add("ReduceMean", net.x, net.store([0])), r"it reduces the batch axis"),
    ("channel maximum", 3, lambda net: net.add("ReduceMax", net.x, net.store([1])), r"maximum over the channels"),
    ("softmax over the batch", 3, lambda net: net.add("Softmax", net.x, axis=0), r"it normalises over the batch"),
    (
        "replicate pad",
        3,
        lambda net: net.add("Pad", net.x, net.store([0, 0, 1, 0, 0, 1]), mode="edge"),
        r"its mode is edge",
    ),
    (
        "pad with 1",
        3,
        lambda net: net.add("Pad", net.x, net.store([0, 0, 1, 0, 0, 1]), net.store(1.0)),
        r"it pads with 1",
    ),
    ("clip", 3, lambda net: net.add("Clip", net.x, net.store(0.5), net.store(2.0)), r"it clips to 0\.5\.\.2"),
    (
        "backward slice",
        3,
        lambda net: net.add("Slice", net.x, *(net.store([value]) for value in (-1, -99, 2, -1))),
        r"its step is -1",
    ),
    ("gather", 3, lambda net: net.add("Gather", net.x, net.store([0, 2, 1]), axis=1), r"unevenly spaced positions"),
    (
        "joined constant",
        3,
        lambda net: net.add("Concat", net.draw(1, 2, 8), net.x, axis=1),
        r"it joins a constant with computed values",
    ),
    (
        "widening constant",
        3,
        lambda net: net.add("Add", net.add("GlobalAveragePool", net.x), net.draw(3, 8)),
        r"its constant \(3, 8\) widens the value \(1, 3, 1\)",
    ),
    ("batch out of place", 4, lambda net: net.add("Add", net.x, net.draw(1, 1, 3, 8)), r"widens the value"),
    (
        "batch against channels",
        3,
        lambda net: net.add("Add", net.x, net.add("ReduceMean", net.x, net.store([1]), keepdims=0)),
        r"so that the batch meets another axis",
    ),
    ("batch moved", 3, lambda net: net.add("Transpose", net.x, perm=[1, 0, 2]), r"its first axis must be the batch"),
    (
        "statistics of the batch",
        3,
        lambda net: net.add(
            "BatchNormalization", net.x, *(net.draw(3, low=0.5) for _ in range(4)), outputs=3, training_mode=1
        ),
        r"it computes statistics of the batch",
    ),
]


@pytest.mark.parametrize(
    ("rank", "build", "message"), [case[1:] for case in OPERATORS], ids=[case[0] for case in OPERATORS]
)
def test_operator_is_refused(rank: int, build: Callable[[OnnxNet], str], message: str) -> None:
    net = OnnxNet(SERIES, batch=1)
    model = net.model(build(net), rank=rank)
    with pytest.raises(UnsupportedModelError, match=message):
        read_onnx(model)


def make_model() -> onnx.ModelProto:
    """A model that is read, to be spoiled."""
    net = OnnxNet(SERIES)
    return net.model(net.add("Relu", net.conv(net.x, 3, 4, (3,))), rank=3)


def spoil_topology(model: onnx.ModelProto) -> None:
    model.graph.node[1].input[0] = "nothing"


def truncate_weights(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].raw_data = b"123"


def put_nan(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].raw_data = np.full(36, np.nan, np.float32).tobytes()


def put_outside(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")


def add_domain(model: onnx.ModelProto) -> None:
    model.graph.node[1].domain = "my.ops"


def add_input(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 3]))


def raise_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 23


def free_length(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "T"


def misfit_weights(model: onnx.ModelProto) -> None:
    model.graph.node[0].attribute.append(helper.make_attribute("group", 2))
    del model.graph.node[0].attribute[0]


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (spoil_topology, InputError, "the ONNX model is malformed: Nodes in a graph must be topologically sorted"),
        (truncate_weights, InputError, "the ONNX model is malformed"),
        (put_nan, InputError, "the weights c0 hold 36 values that are NaN or infinite"),
        (put_outside, InputError, r"keeps its weights outside the file \(external data, c0\)"),
        (add_domain, UnsupportedModelError, r"relu1 \(my\.ops\.Relu\): the operator is not of the ONNX standard"),
        (add_input, UnsupportedModelError, r"has 2 inputs \(x, z\); exactly one is supported"),
        (raise_opset, UnsupportedModelError, "has opset 23; supported are 9 to 22"),
        (free_length, InputError, r"input x leaves axes free: \(3, free\) per sample"),
        (misfit_weights, InputError, "malformed|ONNX Runtime can't run the model"),
    ],
)
def test_model_is_refused(spoil: Callable[[onnx.ModelProto], None], error: type[Exception], message: str) -> None:
    model = make_model()
    spoil(model)
    with pytest.raises(error, match=message):
        read_onnx(model)


def test_empty_model_is_refused() -> None:
    with pytest.raises(InputError, match="malformed"):
        read_onnx(onnx.ModelProto())


def test_free_length_is_given() -> None:
    model = make_model()
    free_length(model)
    graph = read_onnx(model, input_shape=(3, 11))
    assert graph.tensors["input"].shape == (1, 1, 11, 3)
    with pytest.raises(InputError, match=r"takes samples of \(3, free\), the data has \(4, 11\)"):
        read_onnx(model, input_shape=(4, 11))


def test_quantized_model_is_refused() -> None:
    net = OnnxNet(SERIES)
    scale, zero = net.store(0.1), net.store(np.int8(0))
    model = net.model(net.add("DequantizeLinear", net.add("QuantizeLinear", net.x, scale, zero), scale, zero), rank=3)
    with pytest.raises(UnsupportedModelError, match="the model is quantized already"):
        read_onnx(model)


def test_half_precision_is_refused() -> None:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT16, ["N", 3, 8])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT16, ["N", 3, 8])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "net", [value], [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    with pytest.raises(UnsupportedModelError, match="input x is FLOAT16"):
        read_onnx(model)


def test_output_without_the_input_is_refused() -> None:
    net = OnnxNet(SERIES)
    with pytest.raises(InputError, match="does not depend on the input"):
        read_onnx(net.model(net.add("Identity", net.store(np.ones((1, 2), np.float32)))))


def test_values_that_are_not_finite_are_refused() -> None:
    net = OnnxNet(SERIES)
    y = net.add("Mul", net.add("Mul", net.x, net.store(3e38)), net.store(3e38))
    with pytest.raises(InputError, match="computes NaN or infinity"):
        read_onnx(net.model(y, rank=3))


def test_a_changed_value_names_the_step() -> None:
    expected = [np.ones((2, 3), np.float32)]
    require_close("a step", expected, [expected[0] * np.float32(1 + 1e-6)])
    with pytest.raises(ParityError, match=r"a step: output 0 changed by up to 0\.01"):
        require_close("a step", expected, [expected[0] * np.float32(1.01)])
    with pytest.raises(ParityError, match=r"a step: output 0 had the shape \(2, 3\) and has \(3, 2\) now"):
        require_close("a step", expected, [np.ones((3, 2), np.float32)])
