"""Depthwise convolution with many filters per channel on an emulated Cortex-M4; one channel as plain convolution."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgeprune.codegen.emit import LAYER_PREFIX
from edgeprune.codegen.kernel import Lowered
from edgeprune.codegen.kernels import list_candidates
from edgeprune.codegen.kernels.dsp_depthwise_filters import Filters
from edgeprune.codegen.kernels.dsp_depthwise_record_code import RecordCode
from edgeprune.codegen.kernels.one_channel import turn_call
from edgeprune.graph import Graph, Quant
from edgeprune.reference import run_graph
from tests.codegen.dsp_layers import Layer, ProgramMaker, make_call
from tests.codegen.harness import LayerRun, run_layer
from tests.codegen.test_dsp_depthwise import LINE, M4, PLANE, Depthwise, add_depthwise, make_program_of, run_exactly
from tests.random_graphs import make_inputs

TOLERANCE = 0.12  # of modelled cycles: a closed formula, which knows nothing of a plan's odd ends


def describe_records(lowered: Lowered) -> str:
    """Where a layer's records lie."""
    fields = lowered.fields
    if fields["channels.keeps_records"]:
        return "kept"
    if not fields["channels.remakes_records"]:
        return "flash"
    return "part" if fields["channels.chunk"] < fields["channels.multiplier"] else "planes"  # type: ignore[operator]


def check_cycles(graph: Graph, run: LayerRun) -> None:
    """The formula holds for each layer."""
    costs = {cost.name: cost.cycles for cost in run.run.costs.layers}
    for op, lowered in zip(graph.ops, run.lowered, strict=True):
        assert lowered.cycles == pytest.approx(costs[LAYER_PREFIX + op.name], rel=TOLERANCE), op.name


def test_filters_of_series() -> None:
    layers = [
        Depthwise((1, 29, 5), (1, 20), multiplier=16),
        Depthwise((1, 30, 4), (1, 40), multiplier=11),
        Depthwise((1, 41, 6), (1, 10), multiplier=3),
        Depthwise((1, 44, 4), (1, 9), multiplier=4, dilation=(1, 4)),
        Depthwise((1, 33, 3), (1, 7), multiplier=6, stride=(1, 2), padding="valid"),
    ]
    graph = make_program_of(layers)
    run = run_exactly(graph, LINE)
    assert [describe_records(lowered) for lowered in run.lowered] == ["part", "part", "planes", "kept", "planes"]


def test_filters_of_maps_and_of_one_channel() -> None:
    maker = ProgramMaker(5)
    for layer in (
        Depthwise((9, 9, 5), (3, 3), multiplier=16),
        Depthwise((30, 30, 4), (3, 3), multiplier=2),
        Depthwise((12, 7, 3), (3, 3), multiplier=4, stride=(2, 2)),
        Depthwise((8, 8, 2), (5, 5), multiplier=7),
        Depthwise((1, 60, 1), (1, 40), multiplier=8),
    ):
        add_depthwise(maker, layer)
    maker.add_layer(Layer((8, 8, 1), 5, (3, 3)))
    maker.add_layer(Layer((9, 7, 1), 4, (2, 3), stride=(2, 2)))
    run = run_layer(maker.finish(), M4)
    assert run.worst_difference == 0
    plane = "ep_dsp_depthwise_plane"
    assert [lowered.function for lowered in run.lowered] == [*[plane] * 4, "ep_dsp_conv", *[plane] * 2]
    assert {describe_records(lowered) for lowered in run.lowered[:4]} == {"part", "planes", "kept"}


def stream_series(pace: int) -> LayerRun:
    maker = ProgramMaker(2)
    x = add_depthwise(maker, Depthwise((1, 43, 5), (1, 9), multiplier=3, dilation=(1, 2)))
    add_depthwise(maker, Depthwise((), (1, 6), multiplier=5), x)  # type: ignore[arg-type]
    return run_exactly(maker.finish(), LINE, pace=pace)


def test_filters_streamed() -> None:
    assert [describe_records(lowered) for lowered in stream_series(1).lowered] == ["flash", "flash"]


@pytest.mark.slow
@pytest.mark.parametrize("pace", [1, 2, 5, 8])
def test_filters_at_other_paces(pace: int) -> None:
    stream_series(pace)
    maker = ProgramMaker(3)
    x = add_depthwise(maker, Depthwise((17, 5, 3), (3, 3), multiplier=5))
    add_depthwise(maker, Depthwise((), (3, 3), multiplier=2, stride=(2, 2)), x)  # type: ignore[arg-type]
    run_exactly(maker.finish(), PLANE, pace=pace)


@pytest.mark.slow
@pytest.mark.parametrize("pace", [None, 1, 4])
def test_cycles_are_modelled(pace: int | None) -> None:
    series = [
        Depthwise((1, 60, channels), (1, taps), multiplier=multiplier)
        for channels, taps, multiplier in ((16, 20, 4), (3, 10, 8), (4, 40, 11), (16, 3, 2))
    ]
    maps = [Depthwise((12, 12, channels), (3, 3), multiplier=4, stride=(s, s)) for channels in (3, 8) for s in (1, 2)]
    for layer in (*series, *maps):
        graph = make_program_of([layer])
        check_cycles(graph, run_layer(graph, M4, pace=pace))


def test_where_records_lie() -> None:
    """Little work per filter: flash; much: the scratch, the smaller part the more there are."""
    filters = Filters(outputs=64, multiplier=16, group=64, records=RecordCode(6, 10, wide=False), passes=1)
    assert filters.choose(5_000, may_take_flash=True).in_flash
    chosen = filters.choose(100_000, may_take_flash=True)
    assert not chosen.in_flash
    assert chosen.chunk == 8
    assert not filters.choose(5_000, may_take_flash=False).in_flash
    assert replace(filters, passes=20).choose(20_000, may_take_flash=False).keeps


@pytest.mark.parametrize("per_channel", [True, False])
def test_a_call_turned_and_turned_back(per_channel: bool) -> None:
    graph = make_program_of([Depthwise((6, 7, 1), (3, 2), multiplier=5)])
    if not per_channel:
        name = graph.ops[0].inputs[1]
        weight = graph.tensors[name]
        graph = replace(graph, tensors={**graph.tensors, name: replace(weight, quant=Quant.per_tensor(0.01, 0))})
    call = make_call(graph)
    turned = turn_call(call)
    inputs = make_inputs(graph, 0, 2)
    twin = replace(turned.graph, ops=(turned.op,))
    expected, found = (run_graph(program, inputs)[call.output.name] for program in (graph, twin))
    assert np.array_equal(expected, found)
    back = turn_call(turned)
    assert dict(back.op.attrs) == dict(call.op.attrs)
    assert np.array_equal(back.inputs[1].data, call.inputs[1].data)


def test_one_channel_has_candidates_of_both_kinds() -> None:
    graph = make_program_of([Depthwise((6, 7, 1), (3, 3), multiplier=5)])
    names = [lowered.kernel for lowered in list_candidates(make_call(graph))]
    assert "depthwise rows, packed pairs" in names
    assert any("convolution" in name for name in names)
