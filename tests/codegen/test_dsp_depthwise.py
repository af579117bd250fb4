"""Depthwise convolution with packed pairs on an emulated Cortex-M4."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from edgeprune.codegen.kernel import Call, Kernel, Lowered
from edgeprune.codegen.kernels.dsp_depthwise import DspDepthwiseLine, DspDepthwisePlane
from edgeprune.graph import Graph, Quant, Tensor
from edgeprune.target import load_target
from tests.codegen.dsp_layers import ProgramMaker
from tests.codegen.harness import LayerRun, run_layer

M4 = load_target("cortex-m4")
ACTIVATIONS = ("none", "relu", "relu6", "relu_n1_to_1")


@dataclass(frozen=True)
class Depthwise:
    """A depthwise_conv_2d over an input of its own.

    shape: (rows, columns, channels) of the input; one row makes a series. gain: of the output over what fits int8 well.
    bias: the largest. extreme: weights are -127 or 127, some channels zero.
    """

    shape: tuple[int, int, int]
    kernel_size: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    padding: str = "same"
    multiplier: int = 1
    activation: str = "none"
    zero_points: tuple[int, int] = (-128, 7)
    gain: float = 1.0
    bias: int = 9000
    extreme: bool = False
    power_of_two: bool = False


def add_depthwise(
    maker: ProgramMaker, layer: Depthwise, x: Tensor | None = None, output: Quant | None = None
) -> Tensor:
    rng = maker.rng
    if x is None:
        x = maker.add_input(layer.shape, Quant.per_tensor(0.05, layer.zero_points[0]))
    assert x.quant is not None
    channels = x.shape[-1] * layer.multiplier
    shape = (1, *layer.kernel_size, channels)
    data = np.clip(np.round(rng.normal(0, 40, shape)), -127, 127)
    if layer.extreme:
        data = rng.choice([-127, 127], shape)
        data[..., rng.random(channels) < 0.2] = 0
    scales = 0.01 * rng.uniform(0.3, 3, channels)
    if layer.power_of_two:
        scales = 2.0 ** np.round(np.log2(scales))
    scale = float(x.quant.scale[0])
    weight = maker.add_constant(data.astype(np.int8), Quant(scales, np.zeros(channels), 3))
    assert weight.quant is not None
    bias_quant = Quant(np.float32(scale) * weight.quant.scale, np.zeros(channels), 0)
    bias = maker.add_constant(rng.integers(-layer.bias, layer.bias, channels).astype(np.int32), bias_quant)
    out_scale = scale * 0.01 * 40 * np.sqrt(np.prod(layer.kernel_size)) * 74 / 60 / layer.gain
    if layer.power_of_two:
        out_scale = 2.0 ** np.round(np.log2(out_scale))
    attrs: dict[str, object] = {
        "activation": layer.activation,
        "stride": layer.stride,
        "dilation": layer.dilation,
        "padding": layer.padding,
        "depth_multiplier": layer.multiplier,
    }
    quant = output or Quant.per_tensor(out_scale, layer.zero_points[1])
    return maker.add_op("depthwise_conv_2d", [x, weight, bias], attrs, quant)


def make_program_of(layers: list[Depthwise], seed: int = 0) -> Graph:
    maker = ProgramMaker(seed)
    for layer in layers:
        add_depthwise(maker, layer)
    return maker.finish()


class Free(Kernel):
    """A kernel that is taken wherever it fits."""

    def __init__(self, *kernels: Kernel) -> None:
        self.kernels = kernels

    def lower(self, call: Call) -> Lowered | None:
        found = (kernel.lower(call) for kernel in self.kernels)
        return next((replace(lowered, cycles=0) for lowered in found if lowered is not None), None)


LINE, PLANE = Free(DspDepthwiseLine()), Free(DspDepthwisePlane())


def run_exactly(graph: Graph, kernel: Kernel, *, fits_all: bool = True, **options: object) -> LayerRun:
    run = run_layer(graph, M4, kernel=kernel, **options)  # type: ignore[arg-type]
    fits = [lowered.function.startswith("ep_dsp_depthwise") for lowered in run.lowered]
    assert all(fits) if fits_all else any(fits), [lowered.function for lowered in run.lowered]
    assert run.worst_difference == 0
    return run


def make_call(graph: Graph, index: int = 0, target: str = "cortex-m4") -> Call:
    op = graph.ops[index]
    x, y = graph.tensors[op.inputs[0]], graph.tensors[op.outputs[0]]
    return Call("layer", op, graph, load_target(target), (x.shape[-1],), y.shape[-1], y.shape[1])


def test_series_around_the_widths_of_blocks() -> None:
    steps = (1, 2, 5, 6, 7, 11, 12, 13, 18, 23, 40)
    kernels = (1, 2, 3, 4, 5, 9, 10, 20, 33, 64, 7)
    layers = [
        Depthwise((1, count, 3 + kernel % 6), (1, kernel), zero_points=(count - 64, -128), activation="relu")
        for count, kernel in zip(steps, kernels, strict=True)
    ]
    run_exactly(make_program_of(layers), LINE)


def test_series_with_dilation_stride_and_valid_padding() -> None:
    layers = [
        Depthwise((1, 61, 6), (1, 20), dilation=(1, 2)),
        Depthwise((1, 61, 5), (1, 10), dilation=(1, 4), padding="valid"),
        Depthwise((1, 23, 4), (1, 3), dilation=(1, 8)),
        Depthwise((1, 23, 4), (1, 3), dilation=(1, 17)),
        Depthwise((1, 50, 7), (1, 9), stride=(1, 2)),
        Depthwise((1, 50, 4), (1, 6), stride=(1, 3), padding="valid"),
        Depthwise((1, 30, 5), (1, 2), stride=(1, 4)),
        Depthwise((1, 300, 900), (1, 3), zero_points=(5, 0)),  # offsets beyond those of STRB; many tiles
    ]
    run_exactly(make_program_of(layers), LINE)


def test_columns_of_maps_along_their_rows() -> None:
    layers = [Depthwise((19, 3, 5), (7, 1)), Depthwise((9, 4, 6), (4, 1), dilation=(2, 1), zero_points=(3, -5))]
    run_exactly(make_program_of(layers), LINE)


def test_maps_of_all_widths() -> None:
    layers = [
        Depthwise((1 + width % 6, width, 4 + width % 3), (3, 3), zero_points=(width, -128), activation="relu")
        for width in (*range(1, 16), 25)
    ]
    run_exactly(make_program_of([layer for layer in layers if layer.shape[0] > 1]), PLANE)


def test_kernels_strides_and_padding_of_maps() -> None:
    layers = [
        Depthwise((9, 9, 5), (3, 3), stride=(2, 2)),
        Depthwise((8, 12, 6), (3, 3), stride=(2, 2), zero_points=(-128, -128), activation="relu"),
        Depthwise((8, 13, 4), (3, 3), stride=(2, 1), padding="valid"),
        Depthwise((8, 14, 4), (2, 5), stride=(1, 2), padding="valid"),
        Depthwise((7, 11, 9), (5, 5)),
        Depthwise((7, 10, 4), (1, 6)),
        Depthwise((6, 20, 4), (3, 11)),
        Depthwise((9, 9, 4), (7, 7)),
        Depthwise((9, 6, 4), (3, 2), dilation=(2, 1)),
        Depthwise((5, 7, 4), (3, 4), stride=(3, 3)),
        Depthwise((3, 3, 260), (3, 3)),
        Depthwise((40, 48, 5), (3, 3), zero_points=(0, 0)),  # several tiles
        Depthwise((40, 48, 5), (3, 3), stride=(2, 2)),
    ]
    run_exactly(make_program_of(layers), PLANE)


def test_few_channels_and_depth_multipliers() -> None:
    shapes = ((1, 1), (1, 8), (2, 3), (3, 1), (4, 2), (6, 3))
    layers = [Depthwise((5, 7, channels), (3, 3), multiplier=m) for channels, m in shapes]
    layers += [Depthwise((6, 9, 3), (3, 5), stride=(2, 2)), Depthwise((6, 9, 1), (3, 4), stride=(1, 3))]
    run_exactly(make_program_of(layers), PLANE)
    layers = [Depthwise((1, 17, channels), (1, 5), multiplier=m) for channels, m in shapes]
    run_exactly(make_program_of(layers), LINE)


@pytest.mark.parametrize("rounding", ["any", "ties"])
def test_activations_zero_points_and_large_sums(rounding: str) -> None:
    layers = [
        Depthwise(
            (4, 5, 6),
            (3, 3),
            activation=activation,
            zero_points=zero_points,
            gain=gain,
            extreme=gain > 2,
            bias=bias,
            power_of_two=rounding == "ties",
        )
        for activation, zero_points, gain, bias in zip(
            ACTIVATIONS * 2,
            ((-128, -128), (3, -128), (127, 5), (-1, 100), (0, -128), (-128, 0), (5, 127), (-128, -128)),
            (1.0, 3.0, 0.2, 1.0, 3.0, 0.1, 1.0, 2.5),
            (9000, 9000, 2**23, 100, 2**27, 9000, 1, 2**20),
            strict=True,
        )
    ]
    run_exactly(make_program_of(layers), PLANE)
    series = [replace(layer, shape=(1, 13, 5), kernel_size=(1, 12)) for layer in layers]
    series.append(Depthwise((1, 13, 5), (1, 64), extreme=True))
    run_exactly(make_program_of(series), LINE)


@pytest.mark.parametrize("pace", [1, 3, 8])
def test_rows_streamed(pace: int) -> None:
    maker = ProgramMaker(2)
    x = add_depthwise(maker, Depthwise((1, 43, 5), (1, 9), dilation=(1, 2)))
    x = add_depthwise(maker, Depthwise((), (1, 6)), x)  # type: ignore[arg-type]
    add_depthwise(maker, Depthwise((), (1, 5), stride=(1, 2)), x)  # type: ignore[arg-type]
    run_exactly(maker.finish(), LINE, pace=pace)
    maker = ProgramMaker(3)
    x = add_depthwise(maker, Depthwise((17, 5, 6), (3, 3)))
    x = add_depthwise(maker, Depthwise((), (5, 3), padding="valid"), x)  # type: ignore[arg-type]
    add_depthwise(maker, Depthwise((), (3, 3), stride=(2, 2)), x)  # type: ignore[arg-type]
    run_exactly(maker.finish(), PLANE, pace=pace)


def test_parts_of_wider_tensors() -> None:
    maker = ProgramMaker(1)
    quant = Quant.per_tensor(0.3, -128)
    source = maker.add_input((4, 6, 7), Quant.per_tensor(0.05, -128))
    parts = [add_depthwise(maker, Depthwise((), (3, 3)), source, quant) for _ in range(2)]  # type: ignore[arg-type]
    joined = maker.add_op("concat", parts, {"axis": 3}, quant)
    add_depthwise(maker, Depthwise((), (3, 3)), joined)  # type: ignore[arg-type]
    add_depthwise(maker, Depthwise((), (2, 2)), parts[0])  # type: ignore[arg-type]
    run = run_exactly(maker.finish(), PLANE, fits_all=False)
    assert sum(lowered.fields.get("channels.y_stride") == 14 for lowered in run.lowered) == 3


def test_refusals() -> None:
    graph = make_program_of([Depthwise((4, 4, 8), (3, 3)), Depthwise((9, 9, 4), (9, 9), extreme=True)])
    assert DspDepthwisePlane().lower(make_call(graph, target="cortex-m3")) is None
    assert DspDepthwisePlane().lower(make_call(graph, target="cortex-m55")) is None
    assert DspDepthwiseLine().lower(make_call(graph)) is None
    assert DspDepthwisePlane().lower(make_call(graph, index=1)) is None
    left_shift = make_program_of([Depthwise((2, 2, 1), (1, 1), gain=500.0)])
    assert DspDepthwisePlane().lower(make_call(left_shift)) is None


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40))
def test_random_layers(seed: int) -> None:
    rng = np.random.default_rng(seed)
    layers = [draw_layer(rng, is_series=seed % 2 == 1) for _ in range(10)]
    run_exactly(make_program_of(layers, seed), LINE if seed % 2 else PLANE, fits_all=False, samples=3, seed=seed)


def draw_layer(rng: np.random.Generator, *, is_series: bool) -> Depthwise:
    """Any layer that has an output."""
    rows, columns = (1, int(rng.integers(1, 90))) if is_series else rng.integers(2, 16, 2).tolist()
    kernel = (1, int(rng.integers(1, 40))) if is_series else tuple(rng.integers(1, 6, 2).tolist())
    stride, dilation = (1, 1), (1, 1)
    if rng.random() < 0.4:
        stride = (1, int(rng.integers(1, 5))) if is_series else tuple(rng.integers(1, 4, 2).tolist())
    elif is_series:
        dilation = (1, int(rng.choice([1, 2, 3, 4, 8])))
    reach = [(kernel[axis] - 1) * dilation[axis] + 1 for axis in (0, 1)]
    fits = reach[0] <= rows and reach[1] <= columns
    return Depthwise(
        (rows, columns, int(rng.integers(1, 14))),
        kernel,
        stride,
        dilation,
        padding="valid" if fits and rng.random() < 0.4 else "same",
        multiplier=int(rng.choice([1, 1, 1, 2, 3, 7, 16])),
        activation=str(rng.choice(ACTIVATIONS)),
        zero_points=(int(rng.integers(-128, 128)), int(rng.choice([-128, -128, -5, 0, 90]))),
        gain=float(2.0 ** rng.uniform(-5, 2)),
        bias=int(2 ** rng.uniform(1, 24)),
        extreme=bool(rng.random() < 0.2),
        power_of_two=bool(rng.random() < 0.3),
    )
