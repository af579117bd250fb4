"""Convolution by dot products on cores with the DSP extension, on an emulated Cortex-M4."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from edgeprune.codegen.kernels.dsp_dot import fold_rescaling, is_nestable, order_inputs
from edgeprune.codegen.kernels.dsp_pointwise import DspPatches, DspPointwise
from edgeprune.codegen.requantize import scale_layer
from edgeprune.graph import Graph, Quant
from edgeprune.target import load_target
from tests.codegen.dsp_layers import ZERO_POINTS, Layer, ProgramMaker, make_call, make_program_of
from tests.codegen.harness import run_layer

M4 = load_target("cortex-m4")
ACTIVATIONS = ("none", "relu", "relu6", "relu_n1_to_1")


def assert_exact(graph: Graph, kernel: DspPointwise | DspPatches, **options: object) -> None:
    run = run_layer(graph, M4, kernel=kernel, **options)  # type: ignore[arg-type]
    assert {lowered.function for lowered in run.lowered if lowered.function.startswith("ep_dsp")}, "not the kernel"
    assert run.worst_difference == 0


def test_order_of_inputs_holds_each_once() -> None:
    for count in range(1, 20):
        order = order_inputs(count)
        assert len(order) == (count + 1) // 2
        assert sorted(order[order >= 0]) == list(range(count))


def test_sums_that_would_overflow_are_not_nested() -> None:
    weight = np.full((4, 600), 127)
    assert not is_nestable(weight)
    assert is_nestable(weight // 2)
    assert not is_nestable(np.full((4, 8), -128))
    layers = [Layer((1, 3, inputs), 6, extreme=True, zero_points=(127, -128)) for inputs in (530, 1025)]
    assert_exact(make_program_of(layers), DspPointwise())


def test_sizes_around_the_widths_of_loops() -> None:
    layers = [
        Layer((1, pixels, inputs), channels, zero_points=(ZERO_POINTS[inputs % 7], -128))
        for pixels, inputs, channels in (
            (1, 1, 1),
            (2, 2, 2),
            (3, 3, 3),
            (5, 4, 4),
            (17, 7, 5),
            (16, 8, 6),
            (33, 33, 7),
            (15, 34, 8),
            (3, 35, 9),
            (4, 66, 13),
            (2, 65, 16),
        )
    ]
    assert_exact(make_program_of(layers), DspPointwise())


@pytest.mark.parametrize("rounding", ["any", "ties"])
def test_activations_and_zero_points(rounding: str) -> None:
    layers = [
        Layer(
            (3, 3, 6),
            6,
            activation=activation,
            zero_points=zero_points,
            gain=gain,
            extreme=gain > 2,
            power_of_two=rounding == "ties",
        )
        for activation, zero_points, gain in zip(
            ACTIVATIONS * 3,
            itertools.product(ZERO_POINTS[::2], ZERO_POINTS[::3]),
            itertools.cycle((1.0, 3.0, 0.2)),
            strict=False,
        )
    ]
    assert_exact(make_program_of(layers), DspPointwise())


def test_outputs_far_beyond_int8() -> None:
    graph = make_program_of([Layer((2, 3, 256), 4, gain=200.0, extreme=True, zero_points=(3, z)) for z in (-5, 127)])
    rescaling = fold_rescaling(scale_layer(make_call(graph)), np.zeros((4, 1)))
    assert rescaling is not None
    assert rescaling.finish.wide
    assert_exact(graph, DspPointwise())


def test_groups() -> None:
    layers = [Layer((2, 3, 12), 8, groups=4), Layer((2, 3, 6), 10, groups=2), Layer((3, 3, 4), 8, groups=2)]
    assert_exact(make_program_of(layers), DspPointwise())


def test_parts_of_wider_tensors() -> None:
    """Outputs written into a concat, whose halves other layers read."""
    maker = ProgramMaker(1)
    quant = Quant.per_tensor(0.3, -128)
    source = maker.add_input((2, 5, 7), Quant.per_tensor(0.05, -128))
    parts = [maker.add_layer(Layer((2, 5, 7), channels), source, quant) for channels in (5, 6, 2)]
    joined = maker.add_op("concat", parts, {"axis": 3}, quant)
    maker.add_layer(Layer((2, 5, 13), 8), joined)
    maker.add_layer(Layer((2, 5, 5), 3), parts[0])
    run = run_layer(maker.finish(), M4, kernel=DspPointwise())
    assert run.worst_difference == 0
    assert sum(lowered.function == "ep_dsp_pointwise" for lowered in run.lowered) == 5
    assert any(lowered.fields["y_stride"] == 13 for lowered in run.lowered if "y_stride" in lowered.fields)


@pytest.mark.parametrize("pace", [1, 3])
def test_rows_streamed(pace: int) -> None:
    maker = ProgramMaker(2)
    first = maker.add_layer(Layer((1, 23, 5), 9))
    maker.add_layer(Layer((1, 23, 9), 6, (1, 5), padding="same"), first)
    assert_exact(maker.finish(), DspPatches(), pace=pace)
    maker = ProgramMaker(3)
    first = maker.add_layer(Layer((7, 3, 5), 9))
    maker.add_layer(Layer((7, 3, 9), 6), first)
    assert_exact(maker.finish(), DspPointwise(), pace=pace)


def test_patches_of_all_kinds() -> None:
    layers = [
        Layer((7, 7, 6), 8, stride=(2, 2)),
        Layer((6, 5, 3), 5, (3, 3), zero_points=(3, -5)),
        Layer((6, 5, 3), 5, (3, 3), padding="valid", zero_points=(-128, 7)),
        Layer((5, 9, 2), 4, (3, 4), (2, 3), zero_points=(126, -128)),
        Layer((9, 8, 4), 6, (3, 2), dilation=(2, 3), zero_points=(-1, 5)),
        Layer((4, 4, 8), 12, (3, 3), groups=4),
        Layer((1, 40, 1), 7, (1, 9), stride=(1, 4), zero_points=(5, -128)),
        Layer((3, 2, 5), 3, (5, 5), zero_points=(5, -128)),
    ]
    assert_exact(make_program_of(layers), DspPatches())


def test_patches_of_a_part_of_a_wider_tensor() -> None:
    maker = ProgramMaker(4)
    quant = Quant.per_tensor(0.3, -128)
    source = maker.add_input((4, 5, 7), Quant.per_tensor(0.05, -128))
    parts = [maker.add_layer(Layer((4, 5, 7), channels), source, quant) for channels in (5, 6)]
    maker.add_op("concat", parts, {"axis": 3}, quant)
    maker.add_layer(Layer((4, 5, 5), 3, (3, 3)), parts[0])
    assert_exact(maker.finish(), DspPatches())


def test_many_layers_share_their_code() -> None:
    graph = make_program_of([Layer((2, 2, inputs), inputs + 3) for inputs in (5, 8, 70)])
    lowered = [DspPointwise().lower(make_call(graph, index)) for index in range(3)]
    assert len({assembly.name for item in lowered if item for assembly in item.assembly}) == 2


def test_refusals() -> None:
    graph = make_program_of([Layer((2, 2, 8), 4)])
    assert DspPointwise().lower(make_call(graph, target="cortex-m3")) is None
    assert DspPointwise().lower(make_call(graph, target="cortex-m55")) is None
    left_shift = make_program_of([Layer((2, 2, 1), 4, gain=500.0)])
    assert DspPointwise().lower(make_call(left_shift)) is None


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40))
def test_random_layers(seed: int) -> None:
    rng = np.random.default_rng(seed)
    kernel = DspPointwise() if seed % 2 else DspPatches()
    layers = [draw_layer(rng, pointwise=seed % 2 == 1) for _ in range(12)]
    run = run_layer(make_program_of(layers, seed), M4, kernel=kernel, samples=3, seed=seed)
    assert run.worst_difference == 0


def draw_layer(rng: np.random.Generator, *, pointwise: bool) -> Layer:
    """Any layer: groups, activations, zero points, outputs that saturate or all round to few values."""
    groups = int(rng.choice([1, 1, 1, 2, 3]))
    windows = [(1, 1)] * 3 if pointwise else [(int(rng.integers(1, 4)), int(rng.integers(1, 4))) for _ in range(3)]
    return Layer(
        (int(rng.integers(1, 9)), int(rng.integers(1, 9)), groups * int(rng.integers(1, 40))),
        groups * int(rng.integers(1, 20)),
        kernel_size=windows[0],
        stride=windows[1],
        dilation=windows[2],
        groups=groups,
        activation=str(rng.choice(ACTIVATIONS)),
        zero_points=(int(rng.integers(-128, 128)), int(rng.choice([-128, -128, -5, 0, 90]))),
        gain=float(2.0 ** rng.uniform(-5, 3)),
        extreme=bool(rng.random() < 0.2),
        power_of_two=bool(rng.random() < 0.3),
    )
