"""Calibration: exact ranges, whatever the batches; bad samples end with a sentence."""

from __future__ import annotations

import time

import numpy as np
import pytest

from edgeprune.errors import InputError
from edgeprune.graph import Graph
from edgeprune.quantize import OBSERVERS, calibrate, calibration
from edgeprune.reference import run_graph
from tests.quantize.small_nets import NetMaker, draw_samples, make_series_net


def test_minmax_is_that_of_every_activation() -> None:
    graph = make_series_net()
    samples = draw_samples(graph)
    ranges = calibrate(graph, samples)
    activations = {**run_graph(graph, samples, keep="all"), "input": samples}
    assert set(ranges) == set(activations)
    for name, values in activations.items():
        # float32 sums may come out differently in another batch size
        np.testing.assert_allclose(ranges[name], (values.min(), values.max()), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("observer", OBSERVERS)
def test_batches_do_not_matter(observer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = make_series_net()
    samples = draw_samples(graph, 7)
    whole = calibrate(graph, samples, observer)
    monkeypatch.setattr(calibration, "_ELEMENTS_AT_A_TIME", 1)
    parts = calibrate(graph, samples, observer)
    for name, span in whole.items():
        np.testing.assert_allclose(parts[name], span, rtol=1e-4, atol=1e-6)  # float32 sums, see above


def test_one_sample_is_enough() -> None:
    graph = make_series_net()
    assert set(calibrate(graph, draw_samples(graph, 1))) >= {"input", "output"}


def test_padding_with_the_lowest_value_has_its_inputs_range() -> None:
    net = NetMaker(1, 6, 1)
    net.add("pad", "padded", "input", paddings=((0, 0), (0, 0), (1, 1), (0, 0)), mode="lowest")
    net.add("max_pool_2d", "output", "padded", kernel_size=(1, 3), stride=(1, 1), padding="valid", activation="none")
    graph = net.finish()
    ranges = calibrate(graph, draw_samples(graph))
    assert ranges["padded"] == ranges["input"]


def make_exploding_net() -> Graph:
    net = NetMaker(1, 4, 1)
    for layer in range(6):
        net.conv(f"conv{layer}", "input" if layer == 0 else f"conv{layer - 1}", [[[[1e4]]]], [0.0])
    return net.finish()


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros((0, 1, 16, 2), np.float32), "calibration set is empty"),
        (np.zeros((3, 1, 16, 2), np.float32), "all zeros"),
        (np.full((3, 1, 16, 2), np.nan, np.float32), "3 of 3 calibration samples hold NaN"),
        (np.array([0.0, np.inf], np.float32).reshape(2, 1, 1, 1) * np.ones((1, 1, 16, 2), np.float32), "1 of 2|2 of 2"),
        (np.ones((3, 1, 15, 2), np.float32), r"are \(1, 15, 2\) each .* takes \(1, 16, 2\)"),
    ],
)
def test_bad_samples(samples: np.ndarray, message: str) -> None:
    with np.errstate(invalid="ignore"), pytest.raises(InputError, match=message):
        calibrate(make_series_net(), samples)


def test_overflow_names_the_layer() -> None:
    with pytest.raises(InputError, match=r"conv3 \(conv_2d\): its values reach"):
        calibrate(make_exploding_net(), np.ones((1, 1, 4, 1), np.float32))


def test_unknown_observer() -> None:
    with pytest.raises(InputError, match="minmax, percentile, mse"):
        calibrate(make_series_net(), draw_samples(make_series_net()), "entropy")


def test_calibration_is_fast() -> None:
    graph = make_series_net(steps=24, width=96)
    samples = draw_samples(graph, 67)
    for observer in OBSERVERS:
        calibrate(graph, samples, observer)  # warm
        start = time.process_time()
        calibrate(graph, samples, observer)
        assert time.process_time() - start < 0.5  # 0.03 to 0.05 s here; a regression would be tenfold
