"""A compile that finds what an earlier one has made, and computes just what a change touches."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgeprune.artifacts import Normalization
from edgeprune.load import save_model
from edgeprune.pipeline import CompileResult, compile_model
from edgeprune.report import parse_budgets
from edgeprune.settings import CompileSettings

DATA = str(Path(__file__).parent.parent / "calibration_data" / "ItalyPowerDemand.npz")
# of the compiled network: the base was exported and scored before
COMPILED = ["calibrate", "firmware", "host-latency", "outputs", "verify"]


class TinyNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(1, 6, 3, padding=1)
        self.last = nn.Conv1d(6, 4, 3, stride=2, padding=1)
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.last(torch.relu(self.first(x)))).mean(-1))


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> CompileSettings:
    folder = tmp_path_factory.mktemp("kept")
    torch.manual_seed(3)
    save_model(TinyNet(), torch.zeros(2, 1, 24), folder / "tiny.pt", normalization=Normalization("per_series"))
    return CompileSettings(
        model=folder / "tiny.pt",
        data=DATA,
        method="l1",
        training={"epochs": 3},
        cache=folder / "cache",
        output=folder / "first",
    )


@pytest.fixture(scope="module")
def first(settings: CompileSettings) -> CompileResult:
    return compile_model(settings)


def digest_artifacts(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith("report.")
    }


def compile_again(settings: CompileSettings, folder: Path, **changes: object) -> tuple[CompileResult, list[str]]:
    """A compile into another folder, and the stages that it computed."""
    result = compile_model(dataclasses.replace(settings, output=folder, **changes))  # type: ignore[arg-type]
    return result, sorted(set(result.cache.made))


def test_the_same_inputs_recompute_nothing(first: CompileResult, settings: CompileSettings, tmp_path: Path) -> None:
    result, made = compile_again(settings, tmp_path / "again")
    assert made == []
    assert len(result.cache.found) == len(first.cache.made) + len(first.cache.found)
    found, before = result.document, first.document
    ignored = ("timings", "settings")  # the name of the output folder stands in the settings
    assert {key: found[key] for key in found if key not in ignored} == {
        key: before[key] for key in before if key not in ignored
    }
    assert settings.output is not None
    assert {**digest_artifacts(tmp_path / "again"), "manifest.json": ""} == {
        **digest_artifacts(settings.output),
        "manifest.json": "",
    }


def test_a_budget_recomputes_nothing(first: CompileResult, settings: CompileSettings, tmp_path: Path) -> None:
    result, made = compile_again(settings, tmp_path, budgets=parse_budgets("macs=1"))
    assert made == []
    assert result.exit_code == 3


def test_another_target_is_built_for_and_nothing_else(
    first: CompileResult, settings: CompileSettings, tmp_path: Path
) -> None:
    _, made = compile_again(settings, tmp_path, target="cortex-m0plus")
    assert made == ["firmware"]


def test_another_calibration_keeps_the_exports(first: CompileResult, settings: CompileSettings, tmp_path: Path) -> None:
    _, made = compile_again(settings, tmp_path, calibration_samples=5)
    assert made == COMPILED


def test_another_ratio_keeps_the_base(first: CompileResult, settings: CompileSettings, tmp_path: Path) -> None:
    result, made = compile_again(settings, tmp_path, method_options={"ratio": 0.25})
    assert made == sorted([*COMPILED, "export", "pruned-model"])
    assert "export" in result.cache.found  # of the base


def test_one_byte_of_the_data_is_other_data(first: CompileResult, settings: CompileSettings, tmp_path: Path) -> None:
    with np.load(DATA) as content:
        arrays = dict(content)
    arrays["x_train"] = arrays["x_train"].copy()
    arrays["x_train"].reshape(-1)[0] += 1
    np.savez(tmp_path / "data.npz", **arrays)
    _, made = compile_again(settings, tmp_path / "out", data=str(tmp_path / "data.npz"))
    assert {"calibrate", "verify", "firmware", "export"} <= set(made)


def test_without_a_cache_the_bytes_are_the_same(
    first: CompileResult, settings: CompileSettings, tmp_path: Path
) -> None:
    result, made = compile_again(settings, tmp_path, use_cache=False)
    assert made == result.cache.found == []
    assert settings.output is not None
    with_cache, without = digest_artifacts(settings.output), digest_artifacts(tmp_path)
    for name in with_cache:
        # torch.export writes a fresh id into every archive; the manifest names the output folder and that file
        if name not in ("model_pruned.pt", "manifest.json"):
            assert without[name] == with_cache[name], name
