"""Convolution by packed pairs on an emulated Cortex-M4: the arithmetic, and exactness of whole layers."""

from __future__ import annotations

import numpy as np
import pytest

from edgeprune.codegen.kernels import dsp_convolution
from edgeprune.codegen.kernels.dsp_convolution import PackedPairsConvolution, pack_weights
from edgeprune.codegen.kernels.dsp_convolution_code import FIELD_BITS, LARGEST_WEIGHT_SUM
from edgeprune.graph import Graph, Quant
from edgeprune.target import load_target
from tests.codegen.dsp_layers import ZERO_POINTS, Layer, ProgramMaker, make_call, make_program_of
from tests.codegen.harness import run_layer

M4 = load_target("cortex-m4")
ACTIVATIONS = ("none", "relu", "relu6", "relu_n1_to_1")


def assert_exact(graph: Graph, **options: object) -> None:
    run = run_layer(graph, M4, kernel=PackedPairsConvolution(), **options)  # type: ignore[arg-type]
    assert "ep_dsp_conv" in {lowered.function for lowered in run.lowered}, "not the kernel"
    assert run.worst_difference == 0


def make_series(steps: int, inputs: int, taps: int, channels: int, **options: object) -> Layer:
    """A layer over a series: one row, `steps` columns; it will be stood upright."""
    stride, dilation = options.pop("stride", 1), options.pop("dilation", 1)
    return Layer(
        (1, steps, inputs),
        channels,
        kernel_size=(1, taps),
        stride=(1, stride),
        dilation=(1, dilation),
        **options,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("taps", [1, 2, 3, 8, 9])
@pytest.mark.parametrize("extreme", [False, True])
def test_one_product_of_pairs_holds_three_sums(taps: int, extreme: bool) -> None:
    """The arithmetic of dsp_convolution_code.py in Python integers, at the edge of what the fields hold."""
    rng = np.random.default_rng(taps)
    lines = LARGEST_WEIGHT_SUM // 127 // taps if extreme else 3
    w = np.full((lines, taps), 127) if extreme else rng.integers(-127, 128, (lines, taps))
    x = np.full((lines, taps + 8), -128) if extreme else rng.integers(-128, 128, (lines, taps + 8))
    packed = pack_weights(w[None].astype(np.int8)).view(np.int32).astype(object).reshape(lines, -1)
    lead = taps % 2  # an odd number of taps is led by a zero
    shifted = np.pad(x, ((0, 0), (lead, 1)))
    words = shifted[:, 0 : 2 * (shifted.shape[1] // 2) : 2].astype(object)
    words = words + shifted[:, 1 : 2 * (shifted.shape[1] // 2) : 2].astype(object) * 2**FIELD_BITS
    y = np.array([int((x[:, m : m + taps] * w).sum()) for m in range(8)])
    fields = []
    for pair in range(4):
        total = 2**20 + 2**41
        for j in range(packed.shape[1]):
            total += int((words[:, pair + j] * packed[:, j]).sum())
        assert -(2**63) <= total < 2**63
        low, middle, high = total & (2**21 - 1), (total >> 21) & (2**21 - 1), total >> 42
        fields.append((low - 2**20, middle - 2**20, high))
    for pair in range(3):
        assert fields[pair][1] == y[2 * pair]
        assert fields[pair][2] + fields[pair + 1][0] == y[2 * pair + 1]


def test_series_of_all_lengths_around_a_block() -> None:
    layers = [
        make_series(steps, 1 + steps % 3, 2 + steps % 5, 1 + steps % 4, zero_points=(ZERO_POINTS[steps % 7], -128))
        for steps in range(1, 15)
    ]
    assert_exact(make_program_of(layers))


def test_series_kernels_strides_and_dilations() -> None:
    rows = (
        # steps, inputs, taps, outputs, stride, dilation, padding
        (40, 1, 40, 3, 1, 1, "same"),
        (33, 3, 20, 2, 1, 1, "valid"),
        (31, 19, 10, 3, 1, 1, "same"),
        (29, 4, 5, 2, 2, 1, "same"),
        (29, 5, 4, 2, 3, 1, "valid"),
        (17, 2, 2, 1, 4, 1, "same"),
        (26, 6, 3, 2, 1, 4, "same"),
        (25, 7, 8, 3, 1, 3, "valid"),
        (9, 33, 3, 5, 1, 2, "same"),
    )
    layers = [
        make_series(
            steps,
            inputs,
            taps,
            outputs,
            stride=stride,
            dilation=dilation,
            padding=padding,
            activation=ACTIVATIONS[index % 4],
            zero_points=(ZERO_POINTS[index % 7], ZERO_POINTS[(3 * index + 1) % 7]),
        )
        for index, (steps, inputs, taps, outputs, stride, dilation, padding) in enumerate(rows)
    ]
    assert_exact(make_program_of(layers))


@pytest.mark.parametrize("toolchain", ["zig", "gcc"])
def test_images(toolchain: str) -> None:
    rows = (
        # shape, kernel, outputs, stride, dilation, padding
        ((8, 8, 16), (3, 3), 4, (1, 1), (1, 1), "same"),
        ((7, 9, 3), (3, 3), 5, (2, 2), (1, 1), "same"),
        ((12, 10, 1), (10, 4), 4, (2, 2), (1, 1), "same"),
        ((5, 13, 2), (1, 5), 3, (1, 1), (1, 1), "valid"),
        ((6, 14, 4), (2, 3), 2, (1, 3), (1, 1), "valid"),
        ((4, 11, 5), (1, 3), 3, (2, 1), (1, 2), "same"),
        ((9, 4, 7), (3, 2), 3, (1, 1), (1, 2), "same"),
        ((3, 48, 2), (3, 3), 2, (1, 1), (1, 1), "same"),
    )
    layers = [
        Layer(
            shape,
            channels,
            kernel_size=kernel_size,
            stride=stride,
            dilation=dilation,
            padding=padding,
            activation=ACTIVATIONS[index % 4],
            zero_points=(ZERO_POINTS[(2 * index) % 7], ZERO_POINTS[index % 7]),
        )
        for index, (shape, kernel_size, channels, stride, dilation, padding) in enumerate(rows)
    ]
    assert_exact(make_program_of(layers), toolchain=toolchain)


def test_sums_beyond_one_accumulator() -> None:
    layers = [
        Layer((4, 6, 40), 2, kernel_size=(3, 3), extreme=True),
        Layer((3, 5, 67), 2, kernel_size=(3, 3), extreme=True, activation="relu", zero_points=(-128, 5)),
        make_series(13, 128, 5, 3, extreme=True, gain=2.0),
        make_series(9, 29, 12, 2, extreme=True, stride=2),
    ]
    assert_exact(make_program_of(layers))


def test_ties_and_saturation() -> None:
    layers = [
        make_series(
            20, 4, 3, 8, power_of_two=True, gain=gain, activation=activation, zero_points=(zero_point, zero_point)
        )
        for gain in (0.25, 4.0)
        for activation in ACTIVATIONS
        for zero_point in (-128, -5)
    ]
    assert_exact(make_program_of(layers))


def test_part_of_wider_maps() -> None:
    """Pixels further apart than their channels: two results side by side, and one read from among them."""
    maker = ProgramMaker(3)
    x = maker.add_input((6, 7, 3), Quant.per_tensor(0.05, -5))
    wanted = Quant.per_tensor(0.1, -20)
    first = maker.add_layer(Layer((6, 7, 3), 3, kernel_size=(3, 3)), x, wanted)
    second = maker.add_layer(Layer((6, 7, 3), 5, kernel_size=(1, 2), activation="relu"), x, wanted)
    joined = maker.add_op("concat", [first, second], {"axis": 3}, wanted)
    maker.add_layer(Layer((6, 7, 3), 2, kernel_size=(2, 3)), first)
    maker.add_layer(Layer((6, 7, 8), 3, kernel_size=(3, 4), stride=(1, 2)), joined)
    assert_exact(maker.finish())


@pytest.mark.parametrize("pace", [1, 2, 3, 7])
def test_few_rows_at_a_time(pace: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # a row at a time costs more than the portable kernel, which must not be chosen here
    monkeypatch.setattr(dsp_convolution, "estimate_cycles", lambda plan, keeps_ties: 1)
    maker = ProgramMaker(pace)
    x = maker.add_layer(make_series(41, 2, 5, 6, activation="relu"))
    x = maker.add_layer(make_series(41, 6, 8, 3, dilation=2), x)
    maker.add_layer(make_series(41, 3, 3, 4, stride=2, zero_points=(0, 3)), x)
    assert_exact(maker.finish(), pace=pace)


def test_image_rows_at_a_time() -> None:
    maker = ProgramMaker(9)
    x = maker.add_layer(Layer((13, 8, 3), 5, kernel_size=(3, 3), activation="relu"))
    maker.add_layer(Layer((13, 8, 5), 4, kernel_size=(4, 3), stride=(2, 2)), x)
    assert_exact(maker.finish(), pace=2)


@pytest.mark.parametrize("unpacks", [False, True])
@pytest.mark.parametrize(("rows", "outputs"), [(1, 5), (2, 17), (3, 9), (5, 4)])
def test_tiles_of_all_sizes(rows: int, outputs: int, unpacks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the output takes the input's memory: the second layer of each chain."""

    def list_tiles(slide: dsp_convolution.Slide) -> list[dsp_convolution.Tile]:
        longest = -(-slide.outputs // slide.dilation)
        return [dsp_convolution.Tile(min(rows, slide.y_rows), min(max(outputs, slide.pad), longest), unpacks)]

    monkeypatch.setattr(dsp_convolution, "_list_tiles", list_tiles)
    maker = ProgramMaker(rows)
    for shape, kernel_size in (((1, 41, 3), (1, 6)), ((8, 9, 4), (3, 3)), ((9, 4, 5), (2, 3))):
        x = maker.add_layer(Layer(shape, shape[2], kernel_size=kernel_size, zero_points=(-128, 3)))
        x = maker.add_layer(Layer(shape, shape[2], kernel_size=kernel_size, zero_points=(3, -5)), x)
        maker.add_layer(Layer(shape, 2, kernel_size=kernel_size, stride=(1, 2)), x)
    assert_exact(maker.finish())


def test_output_in_the_place_of_the_input() -> None:
    maker = ProgramMaker(5)
    x = maker.add_layer(Layer((12, 12, 8), 8, kernel_size=(3, 3)))
    x = maker.add_layer(Layer((12, 12, 8), 8, kernel_size=(3, 3)), x)
    maker.add_layer(Layer((12, 12, 8), 2, kernel_size=(3, 3)), x)
    run = run_layer(maker.finish(), M4, kernel=PackedPairsConvolution())
    assert run.worst_difference == 0
    first, second = run.schedule.program.steps[:2]
    assert run.schedule.shared[second.output] == run.schedule.shared[first.output]


@pytest.mark.parametrize(
    "layer",
    [
        Layer((4, 4, 3), 2, kernel_size=(1, 1)),
        Layer((9, 9, 3), 2, kernel_size=(3, 3), dilation=(2, 2)),
        Layer((9, 9, 4), 2, kernel_size=(3, 3), groups=2),
        Layer((9, 9, 4), 2, kernel_size=(3, 3), gain=1e6),
    ],
)
def test_what_is_left_to_other_kernels(layer: Layer) -> None:
    assert PackedPairsConvolution().lower(make_call(make_program_of([layer]))) is None


@pytest.mark.parametrize("target", ["cortex-m0plus", "cortex-m3", "cortex-m55"])
def test_other_cores_are_left_to_other_kernels(target: str) -> None:
    graph = make_program_of([Layer((4, 4, 3), 2, kernel_size=(3, 3))])
    assert PackedPairsConvolution().lower(make_call(graph, target=target)) is None


def test_modelled_cycles_are_near_those_counted() -> None:
    graph = make_program_of([Layer((16, 16, 32), 8, kernel_size=(3, 3))])
    run = run_layer(graph, M4, kernel=PackedPairsConvolution(), samples=1)
    assert run.lowered[0].cycles == pytest.approx(run.run.costs.cycles, rel=0.1)  # it only chooses between kernels


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40))
def test_random_layers(seed: int) -> None:
    rng = np.random.default_rng(seed)
    layers = [_draw_layer(rng) for _ in range(8)]
    for toolchain in ("zig", "gcc") if seed % 8 == 0 else ("zig",):
        assert_exact(make_program_of(layers, seed), toolchain=toolchain)


def _draw_layer(rng: np.random.Generator) -> Layer:
    def pick(*values: int) -> int:
        return int(rng.choice(values))

    stride, dilation = pick(1, 1, 2, 3), pick(1, 1, 2, 3)
    if stride > 1:
        dilation = 1
    is_series = rng.random() < 0.5
    taps = int(rng.integers(2, 20 if is_series else 6))
    kernel_rows = 1 if is_series else int(rng.integers(1, 5))
    extent = (taps - 1) * dilation + 1
    return Layer(
        (
            1 if is_series else int(rng.integers(kernel_rows, 12)),
            extent + int(rng.integers(0, 30)),
            pick(1, 2, 3, 7, 16),
        ),
        pick(1, 2, 3, 5),
        kernel_size=(kernel_rows, taps),
        stride=(1 if is_series else pick(1, 2), stride),
        dilation=(1, dilation),
        padding=str(rng.choice(["same", "valid"])),
        activation=str(rng.choice(ACTIVATIONS)),
        zero_points=(pick(*ZERO_POINTS), pick(*ZERO_POINTS)),
        gain=float(rng.choice([0.3, 1.0, 3.0])),
        extreme=bool(rng.random() < 0.3),
        power_of_two=bool(rng.random() < 0.3),
    )
