"""--accuracy-drop: which strengths are tried, which is taken."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

from edgeprune.load import raise_module
from edgeprune.method_table import METHODS
from edgeprune.prune import AccuracyLimit, Bench, Method, MethodResult, TrainSettings
from edgeprune.prune import methods as methods_package
from edgeprune.prune.search import describe_search, search_strength


class Scored(Bench):
    """A bench on which a net's score falls as its strength grows."""

    def score(self, module: Any, metric: str | None = None) -> float:
        return 1.0 - module.strength.item()


@dataclass(frozen=True)
class Fake(Method):
    """Gives a net that remembers its strength; trains twice."""

    ratio: float
    retrain: str
    scope: str = ""
    iterations: int = 1
    step_epochs: int = 1
    stop: str = ""
    epsilon: float = 1.0

    def run(self, bench: Bench) -> MethodResult:
        module = raise_module(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2)), torch.zeros(2, 1, 4))
        module.register_buffer("strength", torch.tensor(self.ratio, dtype=torch.float64))
        bench.trainings.extend([{}, {}])
        return MethodResult(module, {})


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(methods_package, "METHODS", {"l1": Fake})
    x = np.zeros((4, 1, 4), np.float32)
    y = np.zeros(4, np.int64)
    base = raise_module(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2)), torch.zeros(2, 1, 4))
    return Scored(base, x, y, x, y, TrainSettings(), limit=AccuracyLimit("accuracy", 0.34, 1.0))


def test_bisection_finds_the_strongest_within_the_limit(bench: Bench) -> None:
    info = METHODS["l1"]
    found = search_strength(info, {"retrain": "finetune"}, bench)
    assert found.value == 0.3  # 1 - 0.3 >= 1 - 0.34 > 1 - 0.35
    assert found.result is not None
    assert [trial.value for trial in found.trials] == [0.5, 0.25, 0.35, 0.3]
    assert [trial.within_limit for trial in found.trials] == [False, True, False, True]
    section = describe_search(info, bench, found)
    assert (section["option"], section["chosen"], section["trainings"]) == ("--ratio", 0.3, 8)


def test_nothing_within_the_limit_is_said(bench: Bench) -> None:
    strict = replace(bench, limit=AccuracyLimit("accuracy", 0.01, 1.0))
    found = search_strength(METHODS["l1"], {"retrain": "finetune"}, strict)
    assert (found.result, found.value) == (None, None)
    assert all(not trial.within_limit for trial in found.trials)


def test_a_limit_is_met_exactly_at_its_edge() -> None:
    assert AccuracyLimit("accuracy", 0.01, 0.95).allows(0.94)
    assert not AccuracyLimit("accuracy", 0.01, 0.95).allows(0.9399)
