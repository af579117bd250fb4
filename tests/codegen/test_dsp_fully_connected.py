"""Fully connected layers on cores with the DSP extension, on an emulated Cortex-M4."""

from __future__ import annotations

import numpy as np
import pytest

from edgeprune.codegen.kernels.dsp_fully_connected import DspFullyConnected
from edgeprune.graph import Graph, Quant
from edgeprune.target import load_target
from tests.codegen.dsp_layers import ZERO_POINTS, Layer, ProgramMaker, make_call, make_program_of
from tests.codegen.harness import run_layer

M4 = load_target("cortex-m4")
FUNCTION = "ep_dsp_fully_connected"


def make_layer(inputs: int, outputs: int, **options: object) -> Layer:
    return Layer((1, 1, inputs), outputs, kind="fully_connected", **options)  # type: ignore[arg-type]


def assert_exact(graph: Graph, **options: object) -> None:
    run = run_layer(graph, M4, kernel=DspFullyConnected(), **options)  # type: ignore[arg-type]
    assert FUNCTION in {lowered.function for lowered in run.lowered}
    assert run.worst_difference == 0


def test_sizes_around_the_widths_of_loops() -> None:
    sizes = (
        (1, 1),
        (2, 2),
        (3, 3),
        (4, 4),
        (7, 5),
        (8, 6),
        (9, 7),
        (63, 8),
        (64, 9),
        (65, 4),
        (71, 3),
        (129, 12),
        (200, 1),
    )
    layers = [make_layer(*size, zero_points=(ZERO_POINTS[index % 7], -128)) for index, size in enumerate(sizes)]
    assert_exact(make_program_of(layers))


def test_activations_rounding_and_saturation() -> None:
    layers = [
        make_layer(
            40,
            11,
            activation=activation,
            zero_points=zero_points,
            gain=gain,
            extreme=gain > 2,
            power_of_two=ties,
        )
        for activation, zero_points, gain, ties in (
            ("none", (-128, -128), 1.0, False),
            ("none", (3, -5), 1.0, True),
            ("relu", (-128, -5), 3.0, False),
            ("relu6", (0, -128), 0.3, True),
            ("relu_n1_to_1", (127, 0), 0.3, False),
            ("none", (-5, 127), 30.0, True),
            ("relu", (-5, 90), 30.0, False),
        )
    ]
    assert_exact(make_program_of(layers))


def test_inputs_widened_in_the_scratch_or_when_loaded() -> None:
    graph = make_program_of([make_layer(*size) for size in ((24, 52), (24, 8), (520, 52), (300, 5))])
    scratch = [
        lowered.scratch_bytes for index in range(4) if (lowered := DspFullyConnected().lower(make_call(graph, index)))
    ]
    assert scratch == [48, 0, 0, 608]
    assert_exact(graph)


def test_a_map_flattened_in_place() -> None:
    assert_exact(
        make_program_of([Layer((3, 2, 5), 6, kind="fully_connected"), Layer((1, 9, 3), 2, kind="fully_connected")])
    )


def test_a_part_of_a_wider_tensor_is_left_to_others() -> None:
    maker = ProgramMaker(1)
    quant = Quant.per_tensor(0.3, -128)
    source = maker.add_input((2, 3, 4), Quant.per_tensor(0.05, -128))
    parts = [maker.add_layer(Layer((2, 3, 4), channels), source, quant) for channels in (4, 4)]
    maker.add_op("concat", parts, {"axis": 3}, quant)
    maker.add_layer(Layer((2, 3, 4), 5, kind="fully_connected"), parts[0])
    assert run_layer(maker.finish(), M4, kernel=DspFullyConnected()).worst_difference == 0


def test_sums_that_would_overflow_when_nested() -> None:
    layers = [make_layer(inputs, 6, extreme=True, zero_points=(127, -128)) for inputs in (530, 1025)]
    assert_exact(make_program_of(layers))


def test_weights_quantized_per_channel() -> None:
    layers = [make_layer(inputs, 7, per_channel=True, zero_points=(3, zero)) for inputs, zero in ((9, -128), (40, 5))]
    assert_exact(make_program_of(layers))


def test_refusals() -> None:
    kernel = DspFullyConnected()
    graph = make_program_of([make_layer(8, 4), make_layer(1, 4, gain=500.0)])
    assert kernel.lower(make_call(graph, target="cortex-m3")) is None
    assert kernel.lower(make_call(graph, target="cortex-m55")) is None
    assert kernel.lower(make_call(graph, index=1)) is None


def test_a_byte_per_weight() -> None:
    lowered = DspFullyConnected().lower(make_call(make_program_of([make_layer(128, 64)])))
    assert lowered is not None
    assert lowered.constant_bytes == 128 * 64 + 4 * 64


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_random_layers(seed: int) -> None:
    rng = np.random.default_rng(seed)
    layers = [
        make_layer(
            int(rng.integers(1, 300)) if seed % 4 else int(rng.integers(300, 1200)),
            int(rng.integers(1, 40)),
            activation=str(rng.choice(["none", "relu", "relu6", "relu_n1_to_1"])),
            zero_points=(int(rng.integers(-128, 128)), int(rng.choice([-128, -128, -5, 0, 90]))),
            gain=float(2.0 ** rng.uniform(-5, 4)),
            extreme=bool(rng.random() < 0.2),
            power_of_two=bool(rng.random() < 0.3),
            per_channel=bool(rng.random() < 0.3),
        )
        for _ in range(12)
    ]
    assert_exact(make_program_of(layers, seed), samples=3, seed=seed)
