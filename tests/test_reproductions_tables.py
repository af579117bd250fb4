"""The commands behind the tables of all methods and of EEG run, at tiny settings."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeprune.errors import InputError
from edgeprune.method_table import METHODS

TOOLS = Path(__file__).resolve().parent.parent / "tools"
SAMPLES = 1024  # of a recording: 4 windows of 128 means of two


@pytest.fixture
def eeg(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the tool defines."""
    monkeypatch.syspath_prepend(str(TOOLS))
    return runpy.run_path(str(TOOLS / "reproduce_eeg.py"))


def write_recordings(folder: Path) -> Path:
    """Three sets of 10 recordings; each holds its own number; the last set is the largest."""
    numbers = np.arange(30)
    noise = np.random.default_rng(0).normal(size=(30, SAMPLES))
    x = (1000 * (numbers >= 20) + 10 * numbers)[:, None] + np.clip(noise, -2, 2)
    path = folder / "recordings.npz"
    np.savez(path, x=x.astype(np.float32), y=(numbers // 10).astype(np.uint8))
    return path


def run_tool(monkeypatch: pytest.MonkeyPatch, name: str, *arguments: str) -> None:
    """In this process, which has PyTorch loaded."""
    monkeypatch.syspath_prepend(str(TOOLS))
    monkeypatch.setattr(sys, "argv", [name, *arguments, "--quick", "--processes", "1", "--seeds", "1"])
    runpy.run_path(str(TOOLS / name), run_name="__main__")


def test_eeg_is_split_by_recording(eeg: dict[str, Any], tmp_path: Path) -> None:
    windows = eeg["load_windows"](write_recordings(tmp_path))
    data = windows.data
    assert windows.recordings == (18, 6, 6)
    assert data.x_train.shape == (18 * 4, 1, 128)
    # the mean of a window tells its recording, as noise of +-2 is far from the step of 10
    scale = data.x_train.std() / 1
    parts = [
        {round(float(value), 3) for value in (x.reshape(-1, 4 * 128).mean(axis=1) / scale)}
        for x in (data.x_train, windows.x_val, data.x_test)
    ]
    assert [len(part) for part in parts] == [18, 6, 6]
    assert not parts[0] & parts[1] and not parts[0] & parts[2] and not parts[1] & parts[2]  # noqa: PT018  one claim
    for y in (data.y_train, windows.y_val, data.y_test):
        assert y.mean() == pytest.approx(1 / 3)  # every set gives its share, and one set of three is the seizures
    assert data.x_train.mean() == pytest.approx(0, abs=1e-5)  # scaled by the training windows: float32 rounding


def test_eeg_windows_are_means_of_two_samples(eeg: dict[str, Any]) -> None:
    x = np.arange(2 * 10, dtype=np.float32).reshape(2, 10)
    windows, y = eeg["cut_windows"](x, np.array([0, 1]), 2)
    assert windows[:, 0].tolist() == [[0.5, 2.5], [4.5, 6.5], [10.5, 12.5], [14.5, 16.5]]
    assert y.tolist() == [0, 0, 1, 1]


def test_eeg_refuses_other_files(eeg: dict[str, Any], tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", x_train=np.zeros(3))
    with pytest.raises(InputError, match=r"other.npz holds x_train; needed are x \(recordings, samples\) and y"):
        eeg["load_windows"](tmp_path / "other.npz")


def test_eeg_takes_the_smallest_net_near_the_base_on_validation(eeg: dict[str, Any], tmp_path: Path) -> None:
    def make(row: str, candidate: str, macro_f1: float, parameters: int, seed: int = 1) -> Any:
        return eeg["Trial"](row, candidate, seed, macro_f1, 0.5, parameters, 1, 1.0, tmp_path)

    trials = [
        make("base", "none", 0.95, 1000),
        make("base", "none", 0.97, 1000, seed=2),
        make("dsp", "weak", 0.97, 800),
        make("dsp", "middle", 0.94, 500),
        make("dsp", "middle", 0.971, 500, seed=2),  # mean 0.9555, against 0.96
        make("dsp", "strong", 0.954, 100),
        make("prox", "weak", 0.8, 100),
        make("prox", "strong", 0.7, 50),
    ]
    assert eeg["choose"](trials) == {"base": "none", "dsp": "middle", "prox": "weak"}


def test_eeg_tries_strengths_on_validation_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any) -> None:
    path = str(write_recordings(tmp_path))
    options = ("--rows", "base", "l2", "dsp", "--dsp-weights", "1e-5", "1e-3")
    run_tool(monkeypatch, "reproduce_eeg.py", path, "--validation-only", "--epochs", "1", *options)
    rows = [line.split("|")[1].strip() for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert rows[2:] == ["base", "l2 50%", "dsp", "dsp"]


@pytest.mark.slow
def test_eeg_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any) -> None:
    path, figures = str(write_recordings(tmp_path)), tmp_path / "figures.json"
    run_tool(monkeypatch, "reproduce_eeg.py", path, "--epochs", "3", "--json", str(figures))
    rows = json.loads(figures.read_text())["rows"]
    names = ["base", "l1 25%", "l1 50%", "l1 75%", "l2 50%", "random 50%", "taylor 50%", "dsp", "slimming 50%"]
    assert [row["row"] for row in rows] == [*names, "prox-slimming"]
    costs = [row["costs"] for row in rows[:4]]
    for name in ("parameters", "macs"):
        assert sorted((cost[name] for cost in costs), reverse=True) == [cost[name] for cost in costs]
    assert all(cost["instructions"] > 10_000 and cost["flash_bytes"] > cost["parameters"] for cost in costs)
    assert all(sum(map(sum, row["test_int8"]["confusion"])) == 6 * 4 for row in rows)
    assert "L1 at 50 %: " in capsys.readouterr().out


@pytest.mark.slow
def test_methods_table_has_every_method(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any) -> None:
    figures = tmp_path / "figures.json"
    run_tool(monkeypatch, "reproduce_methods.py", "--arch", "eegcnn", "--epochs", "2", "--json", str(figures))
    rows = {row["method"]: row for row in json.loads(figures.read_text())["rows"]}
    assert list(rows) == ["none", *(name for name in METHODS if name != "none")]
    assert rows["l1"]["costs"]["macs"] < rows["none"]["costs"]["macs"]
    assert [name for name, row in rows.items() if row["costs"]["zeros"]] == ["lth", "sap"]
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(rows)
