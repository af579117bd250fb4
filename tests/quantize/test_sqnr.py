"""Noise per layer: the definition, the order, and that it finds the layer that was spoilt."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgeprune.errors import InputError
from edgeprune.executors import ReferenceExecutor, run_on_floats
from edgeprune.graph import Quant
from edgeprune.quantize import calibrate, measure_sqnr, quantize_graph
from edgeprune.reference import run_graph
from tests.quantize.small_nets import NetMaker, draw_samples, make_series_net


def test_it_is_ten_log_of_signal_over_noise() -> None:
    graph = make_series_net()
    samples = draw_samples(graph)
    int8 = quantize_graph(graph, calibrate(graph, samples))
    rows = {row.layer: row for row in measure_sqnr(graph, int8, samples)}
    assert set(rows) == {op.name for op in graph.ops}
    expected = run_graph(graph, samples)["output"].astype(np.float64)
    found = run_on_floats(ReferenceExecutor(int8), samples)[0]
    by_hand = 10 * np.log10((expected**2).sum() / ((found - expected) ** 2).sum())
    assert rows["output"].sqnr_db == pytest.approx(by_hand)


def test_worst_first_and_a_late_layers_own_noise_is_less() -> None:
    graph = make_series_net()
    samples = draw_samples(graph)
    rows = measure_sqnr(graph, quantize_graph(graph, calibrate(graph, samples)), samples)
    assert [row.sqnr_db for row in rows] == sorted(row.sqnr_db for row in rows)
    late = next(row for row in rows if row.layer == "deep")
    assert late.own_db > late.sqnr_db + 1


def test_it_finds_the_spoilt_layer() -> None:
    graph = make_series_net()
    samples = draw_samples(graph)
    int8 = quantize_graph(graph, calibrate(graph, samples))
    weight = int8.tensors["deep/weight"]
    assert weight.data is not None
    spoilt = int8.with_tensors([replace(weight, data=np.roll(weight.data, 1, axis=2))])
    rows = measure_sqnr(graph, spoilt, samples)
    assert min(rows, key=lambda row: row.own_db).layer == "deep"
    assert next(row for row in rows if row.layer == "stem").sqnr_db > 30


def test_bridges_and_silent_layers() -> None:
    net = NetMaker(1, 4, 3)
    net.add("logistic", "gate", "input")
    net.conv("zero", "input", np.zeros((3, 1, 1, 3)), [0.0, 0.0, 0.0])
    net.add("concat", "output", "gate", "zero", axis=3)
    graph = net.finish()
    samples = draw_samples(graph)
    rows = {row.layer: row for row in measure_sqnr(graph, quantize_graph(graph, calibrate(graph, samples)), samples)}
    assert set(rows) == {"gate", "zero", "output"}
    assert rows["zero"].sqnr_db == float("inf")  # nothing in, nothing out, no noise
    assert rows["output"].sqnr_db > 30


def test_noise_without_signal_is_0_db() -> None:
    net = NetMaker(1, 4, 1)
    net.add("sub", "output", "input", "input", activation="none")
    graph = net.finish()
    int8 = quantize_graph(graph, {"input": (-1.0, 1.0), "output": (-1.0, 1.0)})
    shifted = int8.with_tensors([replace(int8.tensors["output"], quant=Quant.per_tensor(0.01, 5))])
    assert measure_sqnr(graph, int8, draw_samples(graph))[0].sqnr_db == float("inf")
    assert measure_sqnr(graph, shifted, draw_samples(graph))[0].sqnr_db == float("inf")


def test_it_needs_samples() -> None:
    graph = make_series_net()
    int8 = quantize_graph(graph, calibrate(graph, draw_samples(graph)))
    with pytest.raises(InputError, match="at least one sample"):
        measure_sqnr(graph, int8, draw_samples(graph, 0))
