"""Means and averages over whole maps on an emulated Cortex-M4."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgeprune.codegen.kernels.dsp_pooling import DspMapSum
from edgeprune.graph import Graph, Quant
from edgeprune.target import load_target
from tests.codegen.dsp_layers import ProgramMaker
from tests.codegen.harness import run_layer
from tests.codegen.test_dsp_depthwise import Free, make_call

M4 = load_target("cortex-m4")


def make_means(shapes: list[tuple[int, int, int]], *, averages: bool = True) -> Graph:
    """A mean to another scale, and an average pool, of each shape."""
    maker = ProgramMaker(0)
    for number, shape in enumerate(shapes):
        quant = Quant.per_tensor(0.05, (-128, 3, 127)[number % 3])
        to = Quant.per_tensor(0.011 * (1 + number), (5, -128, 40)[number % 3])
        maker.add_op("mean", [maker.add_input(shape, quant)], {"axes": (1, 2), "keep_dims": number % 2 == 0}, to)
        if averages:
            attrs = {"kernel_size": shape[:2], "stride": shape[:2], "padding": "valid", "activation": "relu"}
            maker.add_op("average_pool_2d", [maker.add_input(shape, quant)], attrs, quant)
    return maker.finish()


def test_maps_around_the_width_of_sums() -> None:
    """252 pixels are added in 16 bits at a time; channels go by fours."""
    run = run_layer(
        make_means([(1, 1, 4), (5, 5, 7), (1, 251, 5), (1, 252, 4), (23, 11, 9), (1, 1000, 6), (16, 63, 4)]),
        M4,
        kernel=Free(DspMapSum()),
    )
    assert {lowered.function for lowered in run.lowered} == {"ep_dsp_mean_map", "ep_dsp_average_map"}
    assert run.worst_difference == 0


@pytest.mark.parametrize("pace", [1, 7])
def test_maps_row_by_row(pace: int) -> None:
    run = run_layer(make_means([(1, 300, 10)], averages=False), M4, kernel=Free(DspMapSum()), pace=pace)
    assert run.lowered[0].function == "ep_dsp_mean_map"
    assert run.worst_difference == 0


def test_cost_of_a_mean() -> None:
    """The prototype took 1.6 instructions per value, TFLite Micro 139."""
    run = run_layer(make_means([(25, 5, 64)], averages=False), M4, kernel=Free(DspMapSum()))
    layer = run.run.costs.layers[0]
    assert layer.instructions < 1.4 * 25 * 5 * 64
    lowered = DspMapSum().lower(replace(make_call(make_means([(25, 5, 64)], averages=False)), rows=25))
    assert lowered is not None
    assert layer.cycles == pytest.approx(lowered.cycles, rel=0.1)  # a closed formula, fitted
