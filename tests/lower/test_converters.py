"""Two converters of one float program: ours and TensorFlow's, and what is said where TensorFlow is missing."""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from collections import Counter

import numpy as np
import pytest

from edgeprune.errors import InputError, UnsupportedModelError
from edgeprune.executors import LiteRTExecutor, ReferenceExecutor
from edgeprune.graph import Graph, Op, Quant, Tensor, is_same_graph
from edgeprune.lower import CONVERTERS, read_tflite, write_tflite
from edgeprune.lower.operand_rules import WEIGHTED_KINDS
from edgeprune.lower.tensorflow_converter import convert_with_tensorflow
from edgeprune.ops import OPS
from edgeprune.quantize import calibrate, quantize_graph
from edgeprune.reference import quantize_values
from tests.lower.handmade import NETWORKS, make_fcn_like
from tests.lower.reference_nets import REFERENCE_NETS
from tests.random_graphs import CONVERSIONS, make_inputs, make_op_graph

HAS_TENSORFLOW = importlib.util.find_spec("tensorflow") is not None


@pytest.fixture
def tensorflow() -> None:
    """Skips without TensorFlow; `make test-slow` installs it and takes the skip for a failure (see conftest.py)."""
    if not HAS_TENSORFLOW:
        pytest.skip("TensorFlow is not installed (pip install tensorflow-cpu)")


def make_samples(graph: Graph, count: int, seed: int = 0) -> np.ndarray:
    return make_inputs(graph, seed, batch=count)[graph.inputs[0]]


def test_our_converter_is_calibration_quantization_and_writer() -> None:
    graph = make_fcn_like()
    samples = make_samples(graph, 8)
    expected = quantize_graph(graph, calibrate(graph, samples))
    assert is_same_graph(read_tflite(CONVERTERS["edgeprune"](graph, samples)), expected)


def test_converters_are_known_by_name() -> None:
    assert list(CONVERTERS) == ["edgeprune", "tensorflow"]


# -- without TensorFlow


def test_missing_tensorflow_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)  # an import of it now fails
    graph = make_fcn_like()
    with pytest.raises(
        InputError, match=r"needs TensorFlow, .* pip install tensorflow-cpu, or use --converter edgeprune"
    ):
        convert_with_tensorflow(graph, make_samples(graph, 2))


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros((0, 1, 50, 3), np.float32), r"calibration samples are \(0, 1, 50, 3\)"),
        (np.zeros((4, 1, 50, 2), np.float32), r"expected \('N', 1, 50, 3\) with N at least 1"),
        (np.full((2, 1, 50, 3), np.nan, np.float32), "NaN or infinity"),
    ],
)
def test_unfit_samples_are_bad_input(samples: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        convert_with_tensorflow(make_fcn_like(), samples)


def test_other_types_are_bad_input() -> None:
    graph = make_fcn_like()
    with pytest.raises(InputError, match="dtype is 'int4'; allowed: int8, float32"):
        convert_with_tensorflow(graph, make_samples(graph, 2), "int4")


def test_quantized_programs_are_refused() -> None:
    graph = make_op_graph("quantize", 0)
    with pytest.raises(UnsupportedModelError, match=r"\(quantize\): TensorFlow's converter takes the float program"):
        convert_with_tensorflow(graph, make_samples(graph, 2))


def test_two_inputs_are_refused() -> None:
    tensors = {name: Tensor(name, (1, 3)) for name in ("a", "b", "output")}
    graph = Graph(
        "two", tensors, (Op("add", "sum", ("a", "b"), ("output",), {"activation": "none"}),), ("a", "b"), ("output",)
    )
    with pytest.raises(UnsupportedModelError, match="two has 2 inputs"):
        convert_with_tensorflow(graph, np.zeros((2, 3), np.float32))


# -- with TensorFlow


def count_kinds(graph: Graph) -> Counter[str]:
    return Counter(op.kind for op in graph.ops)


@pytest.mark.slow
@pytest.mark.usefixtures("tensorflow")
@pytest.mark.parametrize("kind", [kind for kind in OPS if kind not in (*CONVERSIONS, "concat")])
def test_every_op_kind_means_the_same_in_tensorflow(kind: str) -> None:
    for seed in range(2):
        graph = make_op_graph(kind, seed, "float32")
        if is_identity(graph):
            continue
        samples = make_samples(graph, 16)
        expected = ReferenceExecutor(graph).run(samples)[0]
        data = convert_with_tensorflow(graph, samples, "float32")
        # float32 sums in another order
        executor = LiteRTExecutor(data, "builtin" if kind == "elu" else "reference")  # it has no reference ELU
        np.testing.assert_allclose(executor.run(samples)[0], expected, rtol=1e-5, atol=1e-5)
        # a dense layer over an image is flattened first in TensorFlow
        expected_kinds = Counter([kind] if kind != "fully_connected" else ["reshape", kind])
        assert count_kinds(read_tflite(data)) == expected_kinds
        if kind == "elu":
            with pytest.raises(UnsupportedModelError, match="leaves it in float32"):
                convert_with_tensorflow(graph, samples)
            continue
        quantized = read_tflite(convert_with_tensorflow(graph, samples))
        assert count_kinds(quantized) == expected_kinds
        assert quantized.is_quantized


def is_identity(graph: Graph) -> bool:
    """An op that TensorFlow leaves out, such as a transpose that moves nothing."""
    attrs = graph.ops[0].attrs
    perm = attrs.get("perm", (1, 0))
    return perm == tuple(range(len(perm))) or not np.any(attrs.get("paddings", 1))


@pytest.mark.slow
@pytest.mark.usefixtures("tensorflow")
def test_the_same_program_gives_the_same_bytes_without_paths() -> None:
    graph = make_fcn_like()
    samples = make_samples(graph, 8)
    data = convert_with_tensorflow(graph, samples)
    assert data == convert_with_tensorflow(graph, samples)
    for path in (os.getcwd(), tempfile.gettempdir()):
        assert path.encode() not in data


@pytest.mark.slow
@pytest.mark.usefixtures("tensorflow")
def test_layers_keep_their_names() -> None:
    graph = make_fcn_like()
    quantized = read_tflite(convert_with_tensorflow(graph, make_samples(graph, 8)))
    for ours, theirs in zip(graph.ops[:-1], quantized.ops[:-1], strict=True):
        assert theirs.name.startswith(f"{ours.name}/")


@pytest.mark.slow
@pytest.mark.usefixtures("tensorflow")
def test_what_tensorflow_cannot_do_names_the_way_out() -> None:
    depthwise = Op(
        "depthwise_conv_2d",
        "uneven",
        ("input", "w", "b"),
        ("output",),
        {"stride": (2, 3), "dilation": (1, 1), "padding": "same", "activation": "none", "depth_multiplier": 1},
    )
    tensors = [
        Tensor("input", (1, 8, 9, 2)),
        Tensor.constant("w", np.ones((1, 2, 2, 2), np.float32)),
        Tensor.constant("b", np.zeros(2, np.float32)),
        Tensor("output", (1, 4, 3, 2)),
    ]
    graph = Graph("uneven", {tensor.name: tensor for tensor in tensors}, (depthwise,), ("input",), ("output",))
    with pytest.raises(UnsupportedModelError, match=r"uneven \(depthwise_conv_2d\): its stride is 2x3"):
        convert_with_tensorflow(graph, make_samples(graph, 2))


# -- the two against each other


NETS = {**REFERENCE_NETS, "image_resnet": NETWORKS["resnet"]}

# Largest difference of an output value in steps of its scale over 64 samples, and why it is not 0.
#
# TensorFlow's calibration gives the first operand of ADD a range that takes in the sum's values too (presumably because
# LiteRT, which it runs for that, writes the sum over this operand): its int8 steps become 2 to 7 times coarser on these
# nets than those of the values that it has, which are what we take. Nets without residual connections are equal.
OUTPUT_LIMITS = {"lite": 0, "fcn": 0, "eegcnn": 0, "inception": 3, "resnet1d": 5, "image_resnet": 3}


@pytest.mark.slow
@pytest.mark.usefixtures("tensorflow")
@pytest.mark.parametrize("name", OUTPUT_LIMITS)
def test_two_converters_agree(name: str) -> None:
    graph = NETS[name]()
    samples = make_samples(graph, 64)
    ours, theirs = (read_tflite(CONVERTERS[converter](graph, samples)) for converter in ("edgeprune", "tensorflow"))
    assert count_kinds(ours) == count_kinds(theirs) == count_kinds(graph)
    for our_op, their_op in pair_layers(ours, theirs):
        assert_same_constants(ours, our_op, theirs, their_op)
        assert_same_range(ours, our_op.outputs[0], theirs, their_op.outputs[0])
    found = [run_stored(program, samples) for program in (ours, theirs)]
    assert np.abs(found[0] - found[1]).max() <= OUTPUT_LIMITS[name]
    # the nets have random weights, so that a class may win by less than one step
    assert (found[0].argmax(axis=1) != found[1].argmax(axis=1)).sum() <= 2


def pair_layers(ours: Graph, theirs: Graph) -> list[tuple[Op, Op]]:
    """The convolutions and dense layers of both programs by name; TensorFlow orders parallel ones its own way."""
    our_layers, their_layers = ([op for op in program.ops if op.kind in WEIGHTED_KINDS] for program in (ours, theirs))
    by_name = {op.name.rpartition("/")[0]: op for op in their_layers}
    pairs = [(op, by_name[op.name]) for op in our_layers if op.name in by_name]
    if len(pairs) < len(our_layers):  # a layer that writes the output is called after the output
        pairs.append((our_layers[-1], their_layers[-1]))
    assert len(pairs) == len(our_layers) == len(their_layers)
    return pairs


def assert_same_constants(ours: Graph, our_op: Op, theirs: Graph, their_op: Op) -> None:
    """Scales of weights are equal; stored values are, but for one step where a value lies halfway between two.

    Biases are thousands of steps large: divided in float32 there and in float64 here, any may round to the other side.
    """
    for operand, share in ((1, 1e-3), (2, 1.0)):
        our_tensor, their_tensor = ours.tensors[our_op.inputs[operand]], theirs.tensors[their_op.inputs[operand]]
        assert our_tensor.data is not None
        assert their_tensor.data is not None
        assert our_tensor.quant is not None
        assert their_tensor.quant is not None
        # the product of two float32 scales is rounded in another place for biases
        np.testing.assert_allclose(our_tensor.quant.scale, their_tensor.quant.scale, rtol=0 if operand == 1 else 1e-6)
        difference = np.abs(our_tensor.data.astype(np.int64) - their_tensor.data)
        assert difference.max() <= 1
        assert (difference > 0).mean() <= share


def assert_same_range(ours: Graph, our_name: str, theirs: Graph, their_name: str) -> None:
    """Equal scale and zero point; into an ADD, directly or through a concat, TensorFlow's range holds ours."""
    our_quant, their_quant = ours.tensors[our_name].quant, theirs.tensors[their_name].quant
    assert our_quant is not None
    assert their_quant is not None
    if reaches_add(ours, our_name):
        (our_low, our_high), (low, high) = find_range(our_quant), find_range(their_quant)
        step = float(their_quant.scale[0])  # a zero point is an integer: either end may move by one step
        assert low <= our_low + step
        assert high >= our_high - step
    else:
        np.testing.assert_allclose(our_quant.scale, their_quant.scale, rtol=1e-6)  # float32 against float64
        assert our_quant.zero_point[0] == their_quant.zero_point[0]


def reaches_add(program: Graph, name: str) -> bool:
    return any(
        op.kind == "add" or (op.kind == "concat" and reaches_add(program, op.outputs[0]))
        for op in program.consumers(name)
    )


def find_range(quant: Quant) -> tuple[float, float]:
    low, high = ((stored - int(quant.zero_point[0])) * float(quant.scale[0]) for stored in (-128, 127))
    return low, high


def run_stored(program: Graph, samples: np.ndarray) -> np.ndarray:
    """The int8 outputs as integers, by LiteRT's reference kernels."""
    quant = program.tensors[program.inputs[0]].quant
    assert quant is not None
    return LiteRTExecutor(write_tflite(program)).run(quantize_values(samples, quant))[0].astype(np.int64)
