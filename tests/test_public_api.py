"""The names that README shows, and its example, run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import nn

import edgeprune

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", edgeprune.__all__)
def test_public_names_are_there(name: str) -> None:
    assert getattr(edgeprune, name)


def test_an_unknown_name_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="no attribute 'prune_it'"):
        edgeprune.prune_it  # noqa: B018 - reading the attribute is the test


def test_the_example_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    model = nn.Sequential(nn.Conv1d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 3))
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {"model": model, "example": torch.zeros(2, 1, 16)})
    loaded = edgeprune.load_model(tmp_path / "model.pt")
    assert loaded.info.normalization == edgeprune.Normalization("per_series")
    assert loaded.info.class_names == ("rest", "walk", "fall")


def test_every_file_that_the_readme_names_is_there() -> None:
    named = set(re.findall(r"`((?:edgeprune|tools|tests|calibration_data)/[\w./-]+\.\w+)`", README))
    assert named
    missing = [name for name in named if not (Path(__file__).parent.parent / name).is_file()]
    assert missing == []
