"""The commands behind README's tables run, at a few epochs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parent.parent / "tools"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tool", "forms"),
    [
        ("reproduce_dsp.py", ["Base", "Pretrained", "Pruned", "Scratch-trained", "int8"]),
        ("reproduce_l1_eeg.py", ["Base", "Pruned", "Retrained", "int8"]),
    ],
)
def test_reproduction_prints_every_seed_and_the_ensemble(tool: str, forms: list[str], tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    command = [sys.executable, str(TOOLS / tool), "--epochs", "3", "--seeds", "1", "2", "--json", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert [row.split("|")[1].strip() for row in rows] == ["seed", "---", "1", "2", "mean", "ensemble of 2"]
    figures = json.loads(path.read_text())
    assert list(figures["ensemble"]) == forms
    assert all(0.4 < figures["mean"][form]["accuracy"] <= 1 for form in forms)
