"""Each rule is broken on purpose: its message is right, and the kernels it speaks of do refuse or fail."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from edgeprune.errors import UnsupportedModelError
from edgeprune.executors import MICRO_AVAILABLE, LiteRTExecutor, MicroExecutor, ReferenceExecutor
from edgeprune.graph import Graph, Op, Quant, Tensor
from edgeprune.lower import check_supported, describe_constraints, write_tflite
from edgeprune.lower.constraints import BY_KIND, EVERY_OP, Violation
from edgeprune.ops import OPS
from edgeprune.quantize import calibrate, quantize_graph
from edgeprune.target import Target, load_target
from tests.lower.handmade import NETWORKS
from tests.random_graphs import make_inputs, make_op_graph, make_random_graph

MICROCONTROLLER = load_target("cortex-m4")
LINUX = load_target("cortex-a53")
NEEDS_MICRO = pytest.mark.skipif(not MICRO_AVAILABLE, reason="tflite-micro is not installed")

ALL_RULES = {constraint: kinds for constraint in EVERY_OP for kinds in [tuple(OPS)]}
for _kind, _constraints in BY_KIND.items():
    for _constraint in _constraints:
        ALL_RULES[_constraint] = (*ALL_RULES.get(_constraint, ()), _kind)


def make_one(kind: str, *shapes: tuple[int, ...], output_quant: Quant | None = None, **attrs: object) -> Graph:
    """One op over inputs of these shapes; int8 with the scale 0.02 where `output_quant` is given."""
    dtype = "float32" if output_quant is None else "int8"
    quant = None if output_quant is None else Quant.per_tensor(0.02, -3)
    inputs = tuple(f"input_{index}" for index in range(len(shapes)))
    tensors = {name: Tensor(name, shape, dtype, None, quant) for name, shape in zip(inputs, shapes, strict=True)}
    tensors["output"] = Tensor("output", OPS[kind].infer_shape(attrs, shapes), dtype, None, output_quant)
    return Graph("one", tensors, (Op(kind, "layer", inputs, ("output",), attrs),), inputs, ("output",))


def make_pad(axes: int) -> Graph:
    return make_one("pad", (1, *(2,) * (axes - 1)), paddings=((0, 0), *((1, 1),) * (axes - 1)), mode="zero")


def make_transpose(axes: int) -> Graph:
    return make_one("transpose", (1, *(2,) * (axes - 1)), perm=(0, *range(axes - 1, 0, -1)))


def make_slice(axes: int) -> Graph:
    shape = (1, *(2,) * (axes - 1))
    return make_one("strided_slice", shape, begin=(0,) * axes, end=shape, stride=(1,) * axes)


def make_concat(count: int) -> Graph:
    return make_one("concat", *[(1, 3)] * count, axis=1)


def make_prelu(axes: int) -> Graph:
    shape = (1, *(2,) * (axes - 1))
    graph = make_one("prelu", shape, shape)
    slopes = Tensor.constant("input_1", np.full(shape, 0.5, np.float32))
    return replace(graph.with_tensors([slopes]), inputs=("input_0",))


def make_dense(bias_value: int = 0, scales: int = 1, zero_point: int = 0, weight_count: int = 4) -> Graph:
    """An int8 dense layer whose weights are all 127."""
    axis = 0 if scales > 1 else None
    quant = Quant(np.full(scales, 0.01), np.full(scales, zero_point), axis)
    tensors = [
        Tensor("input", (1, weight_count), "int8", None, Quant.per_tensor(0.02, 0)),
        Tensor.constant("weight", np.full((2, weight_count), 127, np.int8), quant),
        Tensor.constant(
            "bias", np.full(2, bias_value, np.int32), Quant(np.full(scales, 0.0002), np.zeros(scales), axis)
        ),
        Tensor("output", (1, 2), "int8", None, Quant.per_tensor(0.1, 0)),
    ]
    op = Op("fully_connected", "head", ("input", "weight", "bias"), ("output",), {"activation": "none"})
    return Graph("dense", {tensor.name: tensor for tensor in tensors}, (op,), ("input",), ("output",))


def make_computed_weights() -> Graph:
    graph = make_dense()
    weight = graph.tensors["weight"]
    weight = Tensor("weight", weight.shape, weight.dtype, None, weight.quant)
    return replace(graph.with_tensors([weight]), inputs=("input", "weight"))


def make_int16() -> Graph:
    quant = Quant.per_tensor(0.1, 0)
    tensors = {name: Tensor(name, (1, 4), "int16", None, quant) for name in ("input", "output")}
    return Graph("wide", tensors, (Op("relu", "layer", ("input",), ("output",)),), ("input",), ("output",))


OTHER = Quant.per_tensor(0.03, 5)
KERNEL = {"kernel_size": (2, 2), "stride": (1, 1), "padding": "same", "activation": "none"}

ALONG = "it works along the first axis"
SCALES = "input_0 and output have different scales"
FIXED = "output has the scale 0.03 and the zero point 5"

# rule, the graph that breaks it, what is found; 'everywhere' or only on microcontrollers
BROKEN = [
    ("types_are_known", make_int16(), "input is int16", True),
    ("batch_stays_first", make_one("concat", (1, 3), (1, 3), axis=0), ALONG, True),
    ("batch_stays_first", make_one("mean", (1, 3), axes=(0,), keep_dims=True), ALONG, True),
    ("batch_stays_first", make_one("transpose", (1, 3), perm=(1, 0)), ALONG, True),
    ("batch_stays_first", make_one("softmax", (1,), beta=1.0), ALONG, True),
    (
        "batch_stays_first",
        make_one("reshape", (1, 4), shape=(2, 2)),
        "its result has the shape (2, 2), for one sample",
        True,
    ),
    ("axes_are_few", make_one("relu", (1,) * 7), "input_0 has 7 axes", True),
    ("weights_are_constant", make_computed_weights(), "weight is computed at run time", True),
    ("weights_are_symmetric", make_dense(zero_point=4), "weight has the zero point 4", True),
    ("dense_has_one_scale", make_dense(scales=2), "weight has 2 scales", False),
    ("sums_fit_32_bits", make_dense(bias_value=2**31 - 1), "the sum can reach 2,147,548,671", True),
    ("slopes_are_constant", make_one("prelu", (1, 2), (1, 2)), "input_1 is computed at run time", True),
    ("copies_keep_the_scale", make_one("max_pool_2d", (1, 2, 2, 1), output_quant=OTHER, **KERNEL), SCALES, True),
    ("copies_keep_the_scale", make_one("concat", (1, 2), (1, 2), output_quant=OTHER, axis=1), SCALES, True),
    ("probabilities_have_a_fixed_scale", make_one("softmax", (1, 2), output_quant=OTHER, beta=1.0), FIXED, True),
    ("probabilities_have_a_fixed_scale", make_one("logistic", (1, 2), output_quant=OTHER), FIXED, True),
    ("pads_at_most_5_axes", make_pad(6), "input_0 has 6 axes", True),
    ("transposes_at_most_5_axes", make_transpose(6), "input_0 has 6 axes", False),
    ("slices_at_most_4_axes", make_slice(5), "input_0 has 5 axes", False),
    ("slopes_have_at_most_4_axes", make_prelu(5), "input_0 has 5 axes", False),
    ("joins_at_most_10_tensors", make_concat(11), "it joins 11", False),
    ("relu6_keeps_the_scale", make_one("relu6", (1, 2), output_quant=OTHER), SCALES, False),
    ("hard_tanh_is_fused", make_one("relu_n1_to_1", (1, 2)), "it stands alone", False),
]


def find_rule(name: str) -> str:
    docstring = next(rule for rule in ALL_RULES if rule.__name__ == name).__doc__
    assert docstring is not None
    return " ".join(docstring.split())


@pytest.mark.parametrize(("rule", "graph", "found", "is_everywhere"), BROKEN)
def test_broken_rules_are_found(rule: str, graph: Graph, found: str, is_everywhere: bool) -> None:
    (violation,) = check_supported(graph, MICROCONTROLLER)
    assert violation.found == found
    assert f"{violation.rule} {violation.way_out}" == find_rule(rule)
    assert len(check_supported(graph, LINUX)) == int(is_everywhere)


def test_every_rule_is_tested() -> None:
    assert {rule for rule, *_ in BROKEN} == {rule.__name__ for rule in ALL_RULES}


@pytest.mark.parametrize("rule", ALL_RULES, ids=lambda rule: rule.__name__)
def test_every_rule_has_a_way_out(rule: object) -> None:
    rule_text, _, way_out = find_rule(rule.__name__).partition(". ")  # type: ignore[attr-defined]
    assert len(rule_text) > 10
    assert way_out.endswith(".")


def test_message_is_one_line_with_place_finding_rule_and_way_out() -> None:
    (violation,) = check_supported(make_concat(12), MICROCONTROLLER)
    assert isinstance(violation, Violation)
    assert violation.message == (
        "layer (concat): it joins 12; cortex-m4: On microcontrollers concat joins at most 10 tensors. "
        "Join them in groups."
    )


def test_manual_page_holds_every_rule_under_its_ops() -> None:
    page = describe_constraints()
    for rule, kinds in ALL_RULES.items():
        text = find_rule(rule.__name__)
        assert page.count(f"- {text}\n") == (1 if rule in EVERY_OP else len(kinds))
    assert [line[3:] for line in page.splitlines() if line.startswith("## ")] == list(OPS)


# -- programs that keep the rules


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("target", [MICROCONTROLLER, LINUX], ids=lambda target: target.name)
def test_networks_keep_the_rules_in_float_and_int8(name: str, target: Target) -> None:
    graph = NETWORKS[name]()
    quantized = quantize_graph(graph, calibrate(graph, make_inputs(graph, 0, batch=4)["input"]))
    assert check_supported(graph, target) == check_supported(quantized, target) == ()


@pytest.mark.parametrize("seed", range(25))
def test_quantized_programs_keep_the_rules(seed: int) -> None:
    # pad with the lowest float has no finite range before anything but a max pool
    kinds = [kind for kind in OPS if kind not in ("relu_n1_to_1", "quantize", "dequantize", "pad")]
    graph = make_random_graph(seed, dtype="float32", op_count=8, kinds=kinds)
    ranges = calibrate(graph, make_inputs(graph, seed, batch=4)["input"])
    assert check_supported(quantize_graph(graph, ranges), MICROCONTROLLER) == ()


@NEEDS_MICRO
@pytest.mark.parametrize("seed", range(12))
def test_what_keeps_the_rules_is_right_in_tflite_micro(seed: int) -> None:
    graph = make_random_graph(seed, dtype="int8", op_count=8)
    refused = check_supported(graph, MICROCONTROLLER)
    if refused:
        assert {violation.kind for violation in refused} == {"relu_n1_to_1"}
        return
    inputs = list(make_inputs(graph, seed, batch=2).values())
    for expected, found in zip(
        ReferenceExecutor(graph).run(*inputs), MicroExecutor(write_tflite(graph)).run(*inputs), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


# -- the kernels agree with the rules: at the limit they run, beyond it they refuse


LIMITS = {
    "concat": (make_concat, 10),
    "transpose": (make_transpose, 5),
    "strided_slice": (make_slice, 4),
    "pad": (make_pad, 5),
}


@NEEDS_MICRO
@pytest.mark.parametrize("kind", LIMITS)
def test_tflite_micro_has_these_limits(kind: str) -> None:
    make, limit = LIMITS[kind]
    allowed = make(limit)
    assert check_supported(allowed, MICROCONTROLLER) == ()
    MicroExecutor(write_tflite(allowed)).run(*make_inputs(allowed, 0).values())
    with pytest.raises(UnsupportedModelError):
        MicroExecutor(write_tflite(make(limit + 1)))


def test_litert_pads_at_most_5_axes() -> None:
    LiteRTExecutor(write_tflite(make_pad(5)))
    with pytest.raises(UnsupportedModelError):
        LiteRTExecutor(write_tflite(make_pad(6)))


def test_litert_knows_the_fixed_scales() -> None:
    with pytest.raises(UnsupportedModelError):
        LiteRTExecutor(write_tflite(make_one("softmax", (1, 2), output_quant=OTHER, beta=1.0)))


@NEEDS_MICRO
def test_tflite_micro_has_no_clipping_of_its_own() -> None:
    with pytest.raises(UnsupportedModelError):
        MicroExecutor(write_tflite(make_op_graph("relu_n1_to_1", 0)))


@NEEDS_MICRO
def test_tflite_micro_does_not_rescale_in_relu6() -> None:
    graph = make_one("relu6", (1, 256), output_quant=OTHER)
    values = np.arange(-128, 128, dtype=np.int8)[None]
    data = write_tflite(graph)
    assert np.abs(LiteRTExecutor(data).run(values)[0].astype(int) - MicroExecutor(data).run(values)[0]).max() > 10


@NEEDS_MICRO
@pytest.mark.slow
def test_tflite_micro_stops_on_prelu_of_5_axes() -> None:
    script = (
        "from tests.lower.test_constraints import *\n"
        "graph = make_prelu({axes})\n"
        "MicroExecutor(write_tflite(graph)).run(*make_inputs(graph, 0).values())\n"
    )
    for axes, is_fine in ((4, True), (5, False)):
        done = subprocess.run([sys.executable, "-c", script.format(axes=axes)], capture_output=True, check=False)
        assert (done.returncode == 0) == is_fine, done.stderr.decode()
