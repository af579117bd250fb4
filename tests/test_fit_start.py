"""What --fit starts from, method by method."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgeprune.load import raise_module
from edgeprune.method_table import FIT_OPTIONS, FIT_REFUSALS, METHODS
from edgeprune.prune import Bench, TrainSettings
from edgeprune.prune.widths import Widths
from edgeprune.stages.fit_start import make_start
from tests.test_pipeline import SmallNet


@pytest.fixture(scope="module")
def bench() -> Bench:
    torch.manual_seed(5)
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((24, 1, 24)).astype(np.float32), np.arange(24) % 2
    base = raise_module(SmallNet().eval(), torch.zeros(2, 1, 24))
    return Bench(base, x, y, x[:0], y[:0], TrainSettings(epochs=3, batch_size=8))


@pytest.mark.parametrize("method", [name for name in METHODS if name not in FIT_REFUSALS])
def test_every_method_scores_channels_of_a_whole_network(method: str, bench: Bench) -> None:
    options = {name: value for name, value in METHODS[method].defaults.items() if name in FIT_OPTIONS}
    start = make_start(method, options, bench)
    shapes = [tuple(parameter.shape) for parameter in start.module.parameters()]
    assert shapes == [tuple(parameter.shape) for parameter in bench.base.parameters()]  # nothing is cut out yet
    assert len(start.scores) == 8 + 4 + 10 if "slimming" not in method else len(start.scores) == 8 + 4
    assert all(score >= 0 for score in start.scores.values())
    trains_first = method in ("dsp", "slimming", "prox-slimming")
    assert (start.module is not bench.base) == trains_first
    assert bool(start.variants) == trains_first
    if not trains_first:
        assert start.removed == frozenset()
    widths = Widths([group.units for group in start.units.groups], start.scores, start.removed)
    assert len(widths.collect(widths.narrowest)) <= 22 - len(start.units.groups)
