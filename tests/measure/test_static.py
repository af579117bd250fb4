"""Counts of a program by hand: MACs, parameters, bytes, live ranges."""

from __future__ import annotations

import numpy as np

from edgeprune.graph import Graph
from edgeprune.measure import profile_graph
from edgeprune.quantize import calibrate, quantize_graph
from tests.quantize.small_nets import NetMaker, draw_samples, make_series_net


def test_a_net_counted_by_hand() -> None:
    profile = profile_graph(make_series_net(steps=16, width=8))
    counts = {layer.name: (layer.macs, layer.parameters, layer.output_channels) for layer in profile.layers}
    assert counts == {
        "stem": (16 * 8 * 5 * 2, 8 * 5 * 2 + 8, 8),
        "left": (16 * 4 * 3 * 8, 4 * 3 * 8 + 4, 4),
        "pool": (0, 0, 8),
        "right": (16 * 4 * 8, 4 * 8 + 4, 4),
        "joined": (0, 0, 8),
        "deep": (16 * 8 * 4, 8 * 4 + 8, 8),
        "pooled": (0, 0, 8),
        "output": (3 * 8, 3 * 8 + 3, 3),
    }
    assert profile.macs == sum(macs for macs, _, _ in counts.values())
    assert profile.flops == 2 * profile.macs
    assert profile.parameters == sum(parameters for _, parameters, _ in counts.values())
    assert profile.weight_bytes == 4 * profile.parameters


def test_live_ranges_by_hand() -> None:
    # bytes in float32: input 16*2*4 = 128, stem 512, left 256, pool 512, right 256, joined 512, deep 512, pooled 32
    profile = profile_graph(make_series_net(steps=16, width=8))
    assert {layer.name: layer.live_bytes for layer in profile.layers} == {
        "stem": 128 + 512,
        "left": 512 + 256,
        "pool": 512 + 256 + 512,  # left waits for the concat
        "right": 256 + 512 + 256,  # stem is gone
        "joined": 256 + 256 + 512,
        "deep": 512 + 512,
        "pooled": 512 + 32,
        "output": 32 + 12,
    }
    assert (profile.peak_activation_bytes, profile.peak_layer) == (1280, "pool")


def test_int8_takes_a_quarter_but_for_biases() -> None:
    graph = make_series_net()
    floats = profile_graph(graph)
    int8 = profile_graph(quantize_graph(graph, calibrate(graph, draw_samples(graph))))
    biases = 8 + 4 + 4 + 8 + 3
    assert (int8.macs, int8.parameters) == (floats.macs, floats.parameters)
    assert int8.weight_bytes == int8.parameters + 3 * biases
    assert 4 * int8.peak_activation_bytes == floats.peak_activation_bytes


def test_shared_constants_count_once() -> None:
    net = NetMaker(1, 4, 1)
    net.conv("first", "input", np.ones((1, 1, 3, 1)), [0.0])
    window = {"stride": (1, 1), "dilation": (1, 1), "padding": "same", "activation": "none"}
    net.add("conv_2d", "output", "first", "first/weight", "first/bias", **window)
    profile = profile_graph(net.finish())
    assert [layer.parameters for layer in profile.layers] == [4, 0]
    assert profile.macs == 2 * 4 * 3


def test_outputs_live_to_the_end_and_an_empty_program_costs_nothing() -> None:
    net = NetMaker(1, 4, 1)
    net.add("relu", "first", "input")
    net.add("relu", "second", "first")
    net.add("relu", "third", "second")
    graph = net.finish("first", "third")
    assert [layer.live_bytes for layer in profile_graph(graph).layers] == [32, 32, 48]
    empty = Graph("empty", {"input": graph.tensors["input"]}, (), ("input",), ("input",))
    assert profile_graph(empty).macs == profile_graph(empty).peak_activation_bytes == 0
