"""Latency on this host: sane figures with their method, bounded time, the same for all four forms."""

from __future__ import annotations

import time

import numpy as np
import pytest

from edgeprune.errors import InputError, UnsupportedModelError
from edgeprune.lower import write_tflite
from edgeprune.measure import measure_host_latency
from edgeprune.quantize import calibrate, quantize_graph, write_qdq_onnx
from tests.quantize.small_nets import draw_samples, make_series_net

SAMPLE = np.random.default_rng(0).normal(size=(2, 16)).astype(np.float32)


def make_models() -> dict[str, bytes]:
    graph = make_series_net()
    int8 = quantize_graph(graph, calibrate(graph, draw_samples(graph)))
    return {
        "LiteRT float32": write_tflite(graph),
        "LiteRT int8": write_tflite(int8),
        "ONNX Runtime int8": write_qdq_onnx(int8, (2, 16)).SerializeToString(),
    }


def test_every_form_is_timed() -> None:
    for name, model in make_models().items():
        latency = measure_host_latency(name, model, SAMPLE, runs=20, warmup=2)
        assert (latency.name, latency.method, latency.n, latency.threads) == (name, "host", 20, 1)
        assert 0 < latency.min_us <= latency.p50_us <= latency.p90_us < 1e6
        assert latency.runtime.startswith(name.rsplit(" ", 1)[0])
        assert latency.cpu


def test_time_is_bounded() -> None:
    start = time.perf_counter()
    latency = measure_host_latency("bounded", make_models()["LiteRT int8"], SAMPLE, runs=10**9, most_seconds=0.05)
    assert latency.n >= 1
    assert time.perf_counter() - start < 5  # far above 0.06 s, for a busy machine


def test_at_least_one_run() -> None:
    latency = measure_host_latency("once", make_models()["LiteRT int8"], SAMPLE, runs=5, most_seconds=0.0)
    assert latency.n == 1


def test_bad_input() -> None:
    model = make_models()["LiteRT int8"]
    with pytest.raises(InputError, match="runs 0"):
        measure_host_latency("x", model, SAMPLE, runs=0)
    with pytest.raises(InputError, match="do not fit the model"):
        measure_host_latency("x", model, SAMPLE[:, :-1])
    with pytest.raises(UnsupportedModelError, match="refuses"):
        measure_host_latency("x", b"no model at all", SAMPLE)
