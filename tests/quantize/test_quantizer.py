"""The int8 program: layouts of scales, its noise, and what odd networks become."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from edgeprune.errors import InputError
from edgeprune.executors import LiteRTExecutor, MicroExecutor, ReferenceExecutor, run_on_floats
from edgeprune.fixedpoint import quantize_multiplier
from edgeprune.graph import Graph, is_same_graph
from edgeprune.lower import write_tflite
from edgeprune.quantize import OBSERVERS, calibrate, quantize_graph
from edgeprune.quantize.quantizer import ACCUMULATOR_LIMIT
from edgeprune.quantize.scales import CHANNEL_AXIS, WEIGHTED_KINDS
from edgeprune.reference import quantize_values, run_graph
from tests.quantize.small_nets import NetMaker, draw_samples, make_series_net


def quantize(graph: Graph, samples: np.ndarray, observer: str = "minmax") -> Graph:
    return quantize_graph(graph, calibrate(graph, samples, observer))


def check_runs_alike(graph: Graph, samples: np.ndarray) -> None:
    """The int8 program in TFLite Micro equals the reference on these samples and on all of int8."""
    quant = graph.tensors["input"].quant
    assert quant is not None
    stored = quantize_values(samples, quant)
    wild = np.random.default_rng(0).integers(-128, 128, stored.shape).astype(np.int8)
    micro = MicroExecutor(write_tflite(graph))
    for batch in (stored, wild):
        for found, expected in zip(micro.run(batch), ReferenceExecutor(graph).run(batch), strict=True):
            np.testing.assert_array_equal(found, expected)


def check_integers_fit(graph: Graph) -> None:
    """Accumulators stay in int32 with any input, multipliers within what kernels take."""
    for op in graph.ops:
        if op.kind not in WEIGHTED_KINDS:
            continue
        x, weight, bias = (graph.tensors[name] for name in op.inputs)
        output = graph.tensors[op.outputs[0]]
        assert weight.data is not None
        assert bias.data is not None
        assert None not in (x.quant, weight.quant, output.quant, bias.quant)
        assert weight.data.min() >= -127
        axis = CHANNEL_AXIS[op.kind]
        sums = np.abs(np.moveaxis(weight.data.astype(np.int64), axis, 0).reshape(weight.shape[axis], -1)).sum(axis=1)
        assert (np.abs(bias.data.astype(np.int64)) <= ACCUMULATOR_LIMIT + 1).all()
        steps = float(x.quant.scale[0]) * weight.quant.scale.astype(np.float64)
        np.testing.assert_array_equal(bias.quant.scale, steps.astype(np.float32))
        assert (np.abs(bias.data.astype(np.int64)) + 255 * sums < 2**31).all()
        for factor, largest in zip(
            np.broadcast_to(steps / float(output.quant.scale[0]), sums.shape),
            np.abs(bias.data.astype(np.int64)) + 255 * sums,
            strict=True,
        ):
            _, shift = quantize_multiplier(float(factor))
            assert shift >= -31
            assert int(largest) << max(shift, 0) < 2**31


def sqnr_db(graph: Graph, int8: Graph, samples: np.ndarray) -> float:
    expected = run_graph(graph, samples)[graph.outputs[0]].astype(np.float64)
    found = run_on_floats(ReferenceExecutor(int8), samples)[0]
    noise = float(((found - expected) ** 2).sum())
    return float(10 * np.log10((expected**2).sum() / noise)) if noise else float("inf")


def test_scales_lie_as_tflite_wants_them() -> None:
    graph = make_series_net()
    int8 = quantize(graph, draw_samples(graph))
    assert int8.is_quantized
    weight, depthwise, dense = (int8.tensors[f"{layer}/weight"] for layer in ("stem", "deep", "output"))
    assert weight.quant is not None
    assert depthwise.quant is not None
    assert dense.quant is not None
    assert (weight.dtype, weight.quant.axis, len(weight.quant.scale)) == ("int8", 0, 8)
    assert (depthwise.quant.axis, len(depthwise.quant.scale)) == (3, 8)
    assert (dense.quant.axis, len(dense.quant.scale)) == (None, 1)
    for tensor in (weight, depthwise, dense):
        assert tensor.quant is not None
        assert tensor.data is not None
        assert not tensor.quant.zero_point.any()
        assert np.abs(tensor.data).max() == 127
    assert int8.tensors["stem/bias"].dtype == "int32"
    check_integers_fit(int8)


@pytest.mark.parametrize("observer", OBSERVERS)
def test_noise_is_low_and_micro_agrees(observer: str) -> None:
    graph = make_series_net()
    samples = draw_samples(graph, 64)
    int8 = quantize(graph, samples, observer)
    assert sqnr_db(graph, int8, samples) > 30  # 33 to 36 dB with the three observers
    check_runs_alike(int8, samples)


def test_same_inputs_same_program() -> None:
    graph = make_series_net()
    samples = draw_samples(graph)
    assert is_same_graph(quantize(graph, samples), quantize(graph, samples))


def test_constant_operands_are_quantized() -> None:
    net = NetMaker(1, 4, 3)
    net.add("mul", "scaled", "input", net.constant("scale", [0.5, 2.0, 4.0]), activation="none")
    net.add("add", "shifted", "scaled", net.constant("shift", [[[[-1.0, 0.0, 3.0]]]]), activation="relu")
    net.add("prelu", "output", "shifted", net.constant("alpha", [[[0.1, 0.2, -0.3]]]))
    graph = net.finish()
    samples = draw_samples(graph)
    int8 = quantize(graph, samples)
    assert {int8.tensors[name].dtype for name in ("scale", "shift", "alpha")} == {"int8"}
    assert sqnr_db(graph, int8, samples) > 35
    check_runs_alike(int8, samples)


def test_layers_that_share_weights_get_their_own_steps() -> None:
    net = NetMaker(1, 4, 1)
    net.conv("first", "input", [[[[50.0]]]], [1.0])
    weight, bias = "first/weight", "first/bias"
    window = {"stride": (1, 1), "dilation": (1, 1), "padding": "same", "activation": "none"}
    net.add("conv_2d", "output", "first", weight, bias, **window)
    graph = net.finish()
    samples = draw_samples(graph)
    int8 = quantize(graph, samples)
    first, second = int8.ops
    assert first.inputs[1] == second.inputs[1]  # the weight's steps are the same ...
    assert first.inputs[2] != second.inputs[2]  # ... the bias counts in its layer's own
    assert sqnr_db(graph, int8, samples) > 35


def test_int8_and_computed_weights_are_refused() -> None:
    graph = make_series_net()
    samples = draw_samples(graph)
    int8 = quantize(graph, samples)
    with pytest.raises(InputError, match="starts from a float32 program"):
        quantize_graph(int8, calibrate(graph, samples))
    broken = graph.with_tensors(
        [graph.tensors["stem/weight"].constant("stem/weight", np.full((8, 1, 5, 2), np.nan, np.float32))]
    )
    with pytest.raises(InputError, match="stem/weight: holds NaN"):
        quantize_graph(broken, calibrate(graph, samples))


# --- odd networks: each gives a sane program, in which every executor's integers fit ---


def _conv(weight_scale: float, bias: float, activation: str = "none") -> Callable[[], tuple[Graph, np.ndarray]]:
    """A conv of 4 channels whose channel 0 has this weight scale and bias, and a dense head."""

    def make() -> tuple[Graph, np.ndarray]:
        rng = np.random.default_rng(0)
        weight = rng.normal(size=(4, 1, 3, 2))
        weight[0] *= weight_scale
        net = NetMaker(1, 12, 2)
        net.conv("conv", "input", weight, [bias, 0.1, -0.2, 0.3], activation)
        net.dense("output", "conv", rng.normal(size=(3, 48)) / 7, [0.0, 0.5, -0.5])
        graph = net.finish()
        return graph, draw_samples(graph)

    return make


def _scaled(factor: float) -> Callable[[], tuple[Graph, np.ndarray]]:
    """The series net on samples times `factor` (volts, counts), biases to match."""

    def make() -> tuple[Graph, np.ndarray]:
        graph = make_series_net()
        biases = [tensor for name, tensor in graph.tensors.items() if name.endswith("/bias")]
        scaled = [bias.constant(bias.name, (bias.data * factor).astype(np.float32)) for bias in biases]
        return graph.with_tensors(scaled), (draw_samples(graph) * factor).astype(np.float32)

    return make


def _dead_layer() -> tuple[Graph, np.ndarray]:
    """A conv whose every channel is 0 after relu, and two more layers behind it."""
    rng = np.random.default_rng(0)
    net = NetMaker(1, 12, 2)
    net.conv("dead", "input", rng.normal(size=(4, 1, 3, 2)), [-1e3] * 4, "relu")
    net.conv("next", "dead", rng.normal(size=(4, 1, 3, 4)), [0.1, 0.2, 0.3, -0.4])
    net.dense("output", "next", rng.normal(size=(3, 48)), [0.0, 0.5, -0.5])
    graph = net.finish()
    return graph, draw_samples(graph)


def _zero_weights() -> tuple[Graph, np.ndarray]:
    net = NetMaker(1, 12, 2)
    net.conv("zero", "input", np.zeros((4, 1, 3, 2)), [0.0] * 4)
    net.add("add", "sum", "zero", "zero", activation="none")
    net.dense("output", "sum", np.zeros((3, 48)), [0.0, 0.5, -0.5])
    graph = net.finish()
    return graph, draw_samples(graph)


def _cancelling_sum() -> tuple[Graph, np.ndarray]:
    """x - x: the output is 0 but for nothing, the inputs are not."""
    net = NetMaker(1, 12, 2)
    net.add("sub", "nothing", "input", "input", activation="none")
    net.conv("output", "nothing", np.ones((1, 1, 1, 2)), [0.25])
    graph = net.finish()
    return graph, draw_samples(graph)


def _flat_functions() -> tuple[Graph, np.ndarray]:
    """softmax, logistic, tanh, elu and hard_swish of a tensor that hardly moves."""
    net = NetMaker(1, 12, 2)
    net.conv("tiny", "input", np.full((2, 1, 1, 2), 1e-9), [0.0, 0.0])
    parts = [
        net.add("softmax", "softmax", "tiny", beta=1.0),
        net.add("logistic", "logistic", "tiny"),
        net.add("tanh", "tanh", "tiny"),
        net.add("elu", "elu", "tiny"),
        net.add("hard_swish", "hard_swish", "tiny"),
    ]
    net.add("concat", "output", *parts, axis=3)
    graph = net.finish()
    return graph, draw_samples(graph)


def _samples(values: Callable[[np.ndarray], np.ndarray]) -> Callable[[], tuple[Graph, np.ndarray]]:
    def make() -> tuple[Graph, np.ndarray]:
        graph = make_series_net()
        return graph, values(draw_samples(graph)).astype(np.float32)

    return make


def _with_outlier(samples: np.ndarray) -> np.ndarray:
    samples[0, 0, 0, 0] = 1e6
    return samples


# name -> (network and samples, least SQNR of the output in dB; None where there is no signal to speak of)
ODD_NETWORKS: dict[str, tuple[Callable[[], tuple[Graph, np.ndarray]], float | None]] = {
    "dead channel": (_conv(0.0, 0.0), 30),
    "dead channel with a bias": (_conv(1e-12, 1.5), 30),
    "constant channel": (_conv(0.0, 1.5, "relu"), 30),
    "channel with weights of 1e-30": (_conv(1e-30, 1e-30), 30),
    "channel with weights of 1e6": (_conv(1e6, 0.0), 25),
    "bias of 1e6": (_conv(1.0, 1e6), 30),
    "bias of -1e6 before relu": (_conv(1.0, -1e6, "relu"), 30),
    "bias of 1e14": (_conv(1.0, 1e14), 30),
    "every channel dead": (_dead_layer, 30),
    "all weights zero": (_zero_weights, 30),
    "x - x": (_cancelling_sum, 30),
    "flat functions": (_flat_functions, 30),
    "microvolts": (_scaled(1e-6), 30),
    "signals of 1e-12": (_scaled(1e-12), 30),
    "signals of 1e8": (_scaled(1e8), 30),
    "one sample": (_samples(lambda samples: samples[:1]), 30),
    "constant samples": (_samples(np.ones_like), 30),
    "negative samples": (_samples(lambda samples: -np.abs(samples)), 30),
    "an outlier of 1e6": (_samples(_with_outlier), 20),
}


@pytest.mark.parametrize("observer", OBSERVERS)
@pytest.mark.parametrize("name", ODD_NETWORKS)
def test_odd_networks_become_sane_programs(name: str, observer: str) -> None:
    make, least_db = ODD_NETWORKS[name]
    graph, samples = make()
    int8 = quantize(graph, samples, observer)
    check_integers_fit(int8)
    check_runs_alike(int8, samples)
    for kernels in ("builtin", "xnnpack"):  # they load it and run it
        LiteRTExecutor(write_tflite(int8), kernels).run(np.zeros((1, *samples.shape[1:]), np.int8))
    if observer == "minmax" and least_db is not None:
        assert sqnr_db(graph, int8, samples) > least_db
