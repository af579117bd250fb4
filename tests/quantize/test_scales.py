"""Scales: which tensors share one, fixed ones, bridges, and the bounds of integer arithmetic."""

from __future__ import annotations

import numpy as np
import pytest

from edgeprune.errors import InputError
from edgeprune.graph import Graph
from edgeprune.quantize import calibrate, quantize_graph
from edgeprune.quantize.scales import choose_quant
from tests.quantize.small_nets import NetMaker, draw_samples, make_series_net


def scale_of(graph: Graph, name: str) -> tuple[float, int]:
    quant = graph.tensors[name].quant
    assert quant is not None
    return float(quant.scale[0]), int(quant.zero_point[0])


def quantize(graph: Graph, seed: int = 0) -> Graph:
    return quantize_graph(graph, calibrate(graph, draw_samples(graph, seed=seed)))


@pytest.mark.parametrize(
    ("low", "high", "scale", "zero_point"),
    [
        (0.0, 255.0, 1.0, -128),
        (-255.0, 0.0, 1.0, 127),
        (-128.0, 127.0, 1.0, 0),
        (100.0, 255.0, 1.0, -128),  # widened to hold 0
        (-255.0, -100.0, 1.0, 127),
    ],
)
def test_choose_quant(low: float, high: float, scale: float, zero_point: int) -> None:
    quant = choose_quant(low, high)
    assert (quant.scale.tolist(), quant.zero_point.tolist()) == ([scale], [zero_point])


def test_ranges_are_covered_to_half_a_step() -> None:
    rng = np.random.default_rng(0)
    for low, high in np.sort(rng.normal(size=(200, 2)) * 10 ** rng.uniform(-6, 6, (200, 1))):
        quant = choose_quant(low, high)
        scale, zero_point = float(quant.scale[0]), int(quant.zero_point[0])
        assert scale * (-128 - zero_point) <= min(low, 0) + 0.51 * scale
        assert scale * (127 - zero_point) >= max(high, 0) - 0.51 * scale


def test_concat_and_pools_share_one_scale() -> None:
    graph = quantize(make_series_net())
    assert scale_of(graph, "stem") == scale_of(graph, "pool")
    assert scale_of(graph, "left") == scale_of(graph, "right") == scale_of(graph, "joined")
    assert scale_of(graph, "stem") != scale_of(graph, "joined")


def test_the_shared_range_is_the_union() -> None:
    net = NetMaker(1, 4, 1)
    net.conv("small", "input", [[[[1.0]]]], [0.0])
    net.conv("large", "input", [[[[100.0]]]], [0.0])
    net.add("concat", "output", "small", "large", axis=3)
    graph = net.finish()
    ranges = calibrate(graph, draw_samples(graph))
    expected = choose_quant(*ranges["large"])
    assert scale_of(quantize_graph(graph, ranges), "small") == (
        float(expected.scale[0]),
        int(expected.zero_point[0]),
    )


@pytest.mark.parametrize(
    ("kind", "attrs", "fixed"),
    [("softmax", {"beta": 1.0}, (1 / 256, -128)), ("logistic", {}, (1 / 256, -128)), ("tanh", {}, (1 / 128, 0))],
)
def test_fixed_scales(kind: str, attrs: dict[str, float], fixed: tuple[float, int]) -> None:
    net = NetMaker(1, 4, 3)
    net.add(kind, "activation", "input", **attrs)
    net.max_pool("pool", "activation")
    net.add("reshape", "output", "pool", shape=(1, 12))
    graph = quantize(net.finish())
    assert {scale_of(graph, name) for name in ("activation", "pool", "output")} == {fixed}


def test_a_fixed_scale_meets_a_free_one_over_a_bridge() -> None:
    net = NetMaker(1, 4, 3)
    net.add("logistic", "gate", "input")
    net.conv("conv", "input", np.eye(3).reshape(3, 1, 1, 3) * 7, [0.0, 0.0, 0.0])
    net.add("concat", "output", "gate", "conv", "gate", axis=3)
    graph = quantize(net.finish())
    assert [op.kind for op in graph.ops] == ["logistic", "conv_2d", "quantize", "quantize", "concat"]
    assert scale_of(graph, "gate") == (1 / 256, -128)
    assert scale_of(graph, "conv") == scale_of(graph, "output")
    assert {scale_of(graph, name) for name in graph.ops[-1].inputs} == {scale_of(graph, "output")}


def test_equal_fixed_scales_need_no_bridge() -> None:
    net = NetMaker(1, 4, 3)
    net.add("logistic", "first", "input")
    net.add("logistic", "second", "first")
    net.add("concat", "output", "first", "second", axis=3)
    graph = quantize(net.finish())
    assert [op.kind for op in graph.ops] == ["logistic", "logistic", "concat"]
    assert scale_of(graph, "output") == (1 / 256, -128)


def test_different_fixed_scales_are_bridged() -> None:
    net = NetMaker(1, 4, 3)
    net.add("logistic", "first", "input")
    net.add("tanh", "second", "input")
    net.add("concat", "output", "first", "second", axis=3)
    graph = quantize(net.finish())
    assert [op.kind for op in graph.ops] == ["logistic", "tanh", "quantize", "quantize", "concat"]
    assert scale_of(graph, "output")[0] > 1 / 256  # it holds -1 to 1


def test_missing_and_absurd_ranges_are_refused() -> None:
    graph = make_series_net()
    ranges = calibrate(graph, draw_samples(graph))
    with pytest.raises(InputError, match="joined: calibration gave no range"):
        quantize_graph(graph, {name: span for name, span in ranges.items() if name != "joined"})
    for span in ((-np.inf, 0.0), (0.0, np.nan), (0.0, 1e30), (1.0, -1.0)):
        with pytest.raises(InputError, match="joined: its values span"):
            quantize_graph(graph, {**ranges, "joined": span})
