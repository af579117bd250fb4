"""Benches that the tests of methods work at: tiny nets, few samples, a base trained once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from edgeprune.export import export_onnx, read_onnx
from edgeprune.load import raise_module
from edgeprune.prune.bench import Bench
from edgeprune.prune.methods.base import MethodResult
from edgeprune.prune.train_settings import TrainSettings

STEPS = 24
RECIPE = TrainSettings(epochs=4, batch_size=16, device="cpu")


class TinyNet(nn.Module):
    """conv1 (1 -> 6) -> bn -> relu -> conv2 (6 -> 8) -> relu -> mean -> fc, for one channel and two classes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn = nn.Conv1d(1, 6, 5, padding=2, bias=False), nn.BatchNorm1d(6)
        self.conv2, self.fc = nn.Conv1d(6, 8, 3, padding=1), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.relu(self.conv2(torch.relu(self.bn(self.conv1(x))))).mean(-1))


def draw_samples(channels: int = 1, steps: int = STEPS) -> tuple[np.ndarray, np.ndarray]:
    """60 noisy series (60, channels, steps), half of them with a sine: labels 0, 1, 0, ..."""
    y = np.arange(60) % 2
    noise = np.random.default_rng(0).normal(size=(60, channels, steps))
    return (noise + 1.2 * y[:, None, None] * np.sin(np.arange(steps))).astype(np.float32), y


def make_bench(net: nn.Module, x: np.ndarray, y: np.ndarray) -> Bench:
    """A bench whose base is the net, trained by RECIPE; 40 samples to train on, 20 to validate."""
    start = raise_module(net.eval(), torch.from_numpy(x[:2]))
    bench = Bench(start, x[:40], y[:40], x[40:], y[40:], RECIPE)
    return replace(bench, base=bench.train(start, "base").module, trainings=[])


@cache
def _make_tiny_bench() -> Bench:
    torch.manual_seed(0)
    return make_bench(TinyNet(), *draw_samples())


def tiny_bench(**changes: Any) -> Bench:
    """TinyNet's bench; `changes` to its fields."""
    return replace(_make_tiny_bench(), trainings=[], **changes)


@dataclass(frozen=True, eq=False)
class SizeScoredBench(Bench):
    """Scores a net by its size: parameters over those of the base. A schedule's end can then be foretold."""

    def score(self, module: fx.GraphModule, metric: str | None = None) -> float:
        return count_parameters(module) / count_parameters(self.base)


def count_parameters(module: nn.Module) -> int:
    """All parameters, frozen ones too."""
    return sum(parameter.numel() for parameter in module.parameters())


def list_widths(result: MethodResult) -> dict[str, int]:
    """Channels of each layer afterwards, by the record, checked against the deployed module's own weights."""
    widths = {row["layer"]: row["after"] for row in result.record["widths"]}
    for name, width in widths.items():
        assert result.module.get_submodule(name).weight.shape[0] == width
    return widths


def check_exportable(module: fx.GraphModule, sample_shape: tuple[int, ...] = (1, STEPS)) -> None:
    """The deployed net is in eval mode and passes through ONNX into a graph."""
    assert not module.training
    read_onnx(export_onnx(module, sample_shape), name="net")


def equal_states(first: nn.Module, second: nn.Module) -> bool:
    """Whether two modules hold the same parameters and buffers, to the bit."""
    one, two = first.state_dict(), second.state_dict()
    return one.keys() == two.keys() and all(torch.equal(value, two[key]) for key, value in one.items())
