"""The commands behind the tables of LITE, InCoP and DPRP run, at tiny settings."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

TOOLS = Path(__file__).resolve().parent.parent / "tools"


def run_tool(monkeypatch: pytest.MonkeyPatch, name: str, folder: Path, *arguments: str) -> dict[str, Any]:
    """The figures that a tool writes; in this process, which has PyTorch loaded."""
    path = folder / "figures.json"
    monkeypatch.syspath_prepend(str(TOOLS))
    monkeypatch.setattr(sys, "argv", [name, *arguments, "--processes", "1", "--json", str(path)])
    runpy.run_path(str(TOOLS / name), run_name="__main__")
    return json.loads(path.read_text())


def write_samples(path: Path, shape: tuple[int, ...], classes: int) -> str:
    """60 samples that are easy to tell apart, 20 of them for the test."""
    generator = np.random.default_rng(0)
    y = np.arange(60) % classes
    x = generator.normal(size=(60, *shape)) + y.reshape(-1, *(1,) * len(shape))
    x = x.astype(np.float32)
    np.savez(path, x_train=x[:40], y_train=y[:40], x_test=x[40:], y_test=y[40:])
    return str(path)


def test_lite_table_has_every_form(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any) -> None:
    data = write_samples(tmp_path / "series.npz", (1, 24), 2)
    options = ("--epochs", "2", "--sparse-epochs", "2", "--seeds", "1")
    figures = run_tool(monkeypatch, "reproduce_lite.py", tmp_path, data, "--widths", "8", *options)
    (run,) = figures["runs"]
    assert list(run["forms"]) == ["base", "DSP", "static 8", "L1"]
    counts = {form: row["parameters"] - row["trainable"] for form, row in run["forms"].items()}
    assert counts["base"] == 438  # the hand-crafted filters of LITE
    assert counts["static 8"] <= 438
    # L1's count is the nearest that whole channels allow: one step of its ratio is less than 5 % of the net
    difference = abs(run["forms"]["L1"]["trainable"] - run["forms"]["DSP"]["trainable"])
    assert difference < 0.05 * run["forms"]["base"]["trainable"]
    assert "DSP against L1: " in capsys.readouterr().out


def test_incop_chooses_on_validation_and_compares_with_its_control(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    data = write_samples(tmp_path / "images.npz", (1, 8, 8), 2)
    options = ("--base-epochs", "2", "--iterations", "2", "--epochs", "3", "--seeds", "1", "--nets", "vgg")
    grid = ("--if-epsilons", "1e-9", "1e9", "--gf-epsilons", "1e9")
    figures = run_tool(monkeypatch, "reproduce_incop.py", tmp_path, "--data", data, *options, *grid)
    tried = {run["name"]: run for run in figures["tried"]["vgg"]}
    epochs = {name: run["epochs_of_steps"] for name, run in tried.items()}
    # an epsilon that is never reached takes all epochs, one that always is takes one, in as many steps as it needs
    assert epochs["sap"] == epochs["sap + incop-if 1e-09"] == [3, 3]
    assert set(epochs["sap + incop-if 1e+09"]) == set(epochs["sap + incop-gf 1e+09"]) == {1}
    assert [len(step) for step in tried["sap + incop-if 1e-09"]["distances"]] == [3, 3]
    scored = {run["name"]: run for run in figures["scored"]["vgg"]}
    assert next(iter(scored)) == "base"
    assert list(scored)[-3:] == ["control of incop-if", "control of incop-gf", "lth"]
    assert all(run["test"] is not None for run in scored.values())
    assert scored["lth"]["weights_left"] <= scored["sap"]["weights_left"]
    assert "of SAP's epochs (expected: at most 35%)" in capsys.readouterr().out


def test_dprp_tells_ranks_over_epochs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any) -> None:
    images = write_samples(tmp_path / "images.npz", (3, 8, 8), 3)
    page = tmp_path / "page.html"
    options = ("--depth", "8", "--widths", "4", "6", "8", "--epochs", "2", "--page", str(page))
    figures = run_tool(monkeypatch, "reproduce_dprp.py", tmp_path, "--images", images, *options)
    baseline, found = figures["images"]
    assert baseline["net"] == "baseline" and found["net"] == "DPRP"  # noqa: PT018  one list
    assert [step["epoch"] for step in found["record"]["rank_history"]] == [0, 1, 2]
    assert found["curves"]["learning_rate"] == pytest.approx([0.01, 0.005])  # a cosine's half
    assert len(found["curves"]["validation_accuracy"]) == 2
    assert page.read_text().count('<div id="figure') == 5
    assert "| head | " in capsys.readouterr().out


@pytest.mark.slow
def test_dprp_measures_firmware_of_factors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data = write_samples(tmp_path / "series.npz", (1, 24), 2)
    options = ("--series", data, "--nets", "lite", "--series-epochs", "2", "--seeds", "1")
    figures = run_tool(monkeypatch, "reproduce_dprp.py", tmp_path, *options)
    forms = figures["series"][0]["forms"]
    assert list(forms) == [
        "base",
        "DPRP, fewer cycles",
        "DPRP, fewer MACs",
        "DPRP, all dense",
        "DPRP, all factors",
    ]
    assert forms["DPRP, all dense"]["macs"] == forms["base"]["macs"] >= forms["DPRP, fewer MACs"]["macs"]
    assert all(form["instructions"] > 0 for form in forms.values())
