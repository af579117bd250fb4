"""`edgeprune analyze redundancy` on tiny models, by its own part of the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from edgeprune import save_model
from edgeprune.artifacts import Normalization
from edgeprune.cli_analyze import analyze_app
from edgeprune.errors import EdgepruneError, InputError, UnsupportedModelError


def make_network(channels: int) -> nn.Module:
    torch.manual_seed(channels)
    conv = nn.Conv1d(1, channels, 3, padding=1)
    return nn.Sequential(conv, nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(channels, 2))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """base.pt (8 channels), pruned.pt (5), other.pt (of raw values), dense.pt (no convolution) and data.npz (300)."""
    path = tmp_path_factory.mktemp("analyze")
    x = np.random.default_rng(0).normal(size=(300, 1, 16)).astype(np.float32)
    np.savez(path / "data.npz", x_train=x, y_train=np.arange(300) % 2, x_test=x[:4], y_test=np.arange(4) % 2)
    example, kind = torch.from_numpy(x[:2]), Normalization("per_series")
    save_model(make_network(8), example, path / "base.pt", normalization=kind)
    save_model(make_network(5), example, path / "pruned.pt", normalization=kind)
    save_model(make_network(5), example, path / "other.pt", normalization=Normalization())
    save_model(nn.Sequential(nn.Flatten(), nn.Linear(16, 2)), example, path / "dense.pt", normalization=kind)
    return path


def run(folder: Path, *arguments: str) -> str:
    """The printed output; errors are raised, as `cli.main` gets them."""
    output = ["-o", str(folder / "out"), "--data", str(folder / "data.npz")]
    result = CliRunner().invoke(analyze_app, ["redundancy", *arguments, *output], standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result.stdout


def test_two_models_are_compared(folder: Path) -> None:
    printed = run(folder, str(folder / "base.pt"), "--pruned", str(folder / "pruned.pt"))
    assert "means over 128 training samples" in printed
    rows = [line.split() for line in printed.splitlines()]
    assert [row[:3] for row in rows if row and row[0] == "0"] == [["0", "Base", "8"], ["0", "Pruned", "5"]]
    assert "redundancy.html" in printed.replace("\n", "")
    document = json.loads((folder / "out" / "redundancy.json").read_text())
    (heat_map,) = document["heat_maps"]
    assert heat_map["sizes"] == {"Base": [8, 16], "Pruned": [5, 16]}
    assert document["data"]["normalization"] == "per_series"
    assert str(folder) not in json.dumps(document)
    assert "heat-map-0" in (folder / "out" / "redundancy.html").read_text()


def test_json_is_for_programs(folder: Path) -> None:
    document = json.loads(run(folder, str(folder / "base.pt"), "--json"))
    (row,) = document["redundancy"]["forms"]["Base"]
    assert row["channels"] == 8
    assert 0 < row["efficiency"] <= 1
    assert "heat_maps" not in document


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("base.pt", "--pruned", "other.pt"), InputError, "record different normalizations"),
        (("dense.pt",), UnsupportedModelError, "no feature map to look at"),
        (("nowhere.pt",), InputError, "nowhere.pt"),
        (("base.pt", "--normalization", "zscore"), InputError, "zscore"),
    ],
)
def test_what_does_not_fit_is_said(
    folder: Path, arguments: tuple[str, ...], error: type[EdgepruneError], message: str
) -> None:
    with pytest.raises(error, match=message):
        run(folder, *(str(folder / part) if part.endswith(".pt") else part for part in arguments))


def test_nothing_heavy_is_imported_for_the_help() -> None:
    heavy = {"torch", "onnx", "onnxruntime", "numpy", "scipy", "pydantic", "plotly", "jinja2"}
    code = f"import sys, edgeprune.cli_analyze; print(sorted({heavy!r} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
