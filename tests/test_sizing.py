"""What a program takes, built and predicted: figures of the two held against each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import fx, nn

from edgeprune.load import raise_module
from edgeprune.stages.sizing import PREDICTED, measure_sizing, predict_sizing, quantize_for_sizing
from edgeprune.target import load_target

SHAPE = (2, 32)


class Small(nn.Module):
    """Two convolutions and a head."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(2, width, 5, padding=2), nn.Conv1d(width, width, 3, padding=1)
        self.head = nn.Linear(width, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.second(torch.relu(self.first(x)))).mean(-1))


def make_small(width: int) -> fx.GraphModule:
    torch.manual_seed(0)
    return raise_module(Small(width).eval(), torch.zeros(2, *SHAPE), compare_training=False)


@pytest.fixture(scope="module")
def samples() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((4, *SHAPE)).astype(np.float32)


def test_predicted_beside_built(samples: np.ndarray) -> None:
    target = load_target("nucleo-l4r5zi")
    wide, narrow = (quantize_for_sizing(make_small(width), SHAPE, samples) for width in (16, 8))
    anchor = measure_sizing(wide, target, samples)
    assert anchor.methods["flash_bytes"] == "static"
    assert anchor.latency_us == pytest.approx(anchor.cycles / 120)
    built = measure_sizing(narrow, target, samples)
    guess = predict_sizing(narrow, target, anchor=anchor)
    assert set(guess.methods.values()) == {PREDICTED}
    assert guess.constant_bytes == built.constant_bytes
    assert guess.arena_bytes == built.arena_bytes
    assert guess.flash_bytes == pytest.approx(built.flash_bytes, rel=0.05)  # the bound
    assert guess.ram_bytes == pytest.approx(built.ram_bytes, rel=0.05)
    assert guess.instructions == pytest.approx(built.instructions, rel=0.10)
