"""Ctrl-C in the middle of a training, as a shell sends it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from edgeprune.artifacts import Normalization
from edgeprune.load import save_model
from edgeprune.models import build_model

DATA = Path(__file__).parent.parent / "calibration_data" / "ItalyPowerDemand.npz"


@pytest.mark.slow
def test_ctrl_c_leaves_a_checkpoint_and_the_next_run_goes_on(tmp_path: Path, own_cache: Path) -> None:
    torch.manual_seed(0)
    model = build_model("fcn", in_channels=1, classes=2)
    save_model(model, torch.zeros(2, 1, 24), tmp_path / "model.pt", normalization=Normalization("per_series"))
    command = [sys.executable, "-m", "edgeprune", "compile", "model.pt", "--data", str(DATA), "--epochs", "100000"]
    program = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert program.stderr is not None
        for line in program.stderr:  # the estimate is printed after the first epochs
            if "at most" in line:
                break
        time.sleep(1)
        program.send_signal(signal.SIGINT)
        _, errors = program.communicate(timeout=60)
    finally:
        program.kill()
    assert program.returncode == 130
    assert "Traceback" not in errors
    assert "interrupted after" in errors
    (checkpoint,) = own_cache.rglob("trainings/*.pt")
    assert checkpoint.name in errors
    again = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert again.stderr is not None
        assert any("goes on after epoch" in line for line in again.stderr)
    finally:
        again.kill()
        again.communicate()
