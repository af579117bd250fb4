"""SIGKILL at any moment: the next run goes on, and its artifacts are those of a run that nobody disturbed."""

from __future__ import annotations

import hashlib
import multiprocessing
import random
import signal
import sys
import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest
import torch
from torch import nn

from edgeprune.artifacts import Normalization
from edgeprune.cache import Cache
from edgeprune.load import save_model
from edgeprune.pipeline import compile_model
from edgeprune.prune import checkpoint
from edgeprune.settings import CompileSettings
from edgeprune.stages.verify_folder import verify_folder

DATA = str(Path(__file__).parent.parent / "calibration_data" / "ItalyPowerDemand.npz")
POINTS = 50
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["edgeprune.pipeline"])
COMPARED = (".onnx", ".tflite", ".c", ".h", ".S", ".elf")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "model.pt"
    layers = [nn.Conv1d(1, 8, 5, padding=2), nn.BatchNorm1d(8), nn.ReLU(), nn.Conv1d(8, 6, 3, padding=1), nn.ReLU()]
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(6, 2))
    save_model(network, torch.zeros(2, 1, 24), path, normalization=Normalization("per_series"))
    return path


def make_settings(model: Path, folder: Path) -> CompileSettings:
    return CompileSettings(
        model=model,
        data=DATA,
        method="dsp",
        training={"epochs": 40},
        output=folder / "out",
        cache=folder / "cache",
    )


def run_compile(settings: CompileSettings) -> None:
    """In a process of its own."""
    # so that a training of a second has checkpoints to be killed between
    checkpoint.SECONDS_BETWEEN_COPIES = checkpoint.SECONDS_BETWEEN_WRITES = 0.0
    sys.exit(compile_model(settings).exit_code)


def start_compile(settings: CompileSettings) -> ForkServerProcess:
    """A compile that runs, forked from a process that has imported PyTorch and done nothing else."""
    process = CONTEXT.Process(target=run_compile, args=(settings,))
    process.start()
    return process


def finish(process: ForkServerProcess) -> int | None:
    """Its exit code; None if it hangs."""
    process.join(300)
    return process.exitcode


def digest_artifacts(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.suffix in COMPARED and not path.name.startswith(".")
    }


@pytest.mark.slow
def test_killed_at_any_moment_the_next_run_ends_with_the_same_bytes(model: Path, tmp_path: Path) -> None:
    start = time.monotonic()
    undisturbed = make_settings(model, tmp_path / "undisturbed")
    assert finish(start_compile(undisturbed)) == 0
    duration = time.monotonic() - start
    expected = digest_artifacts(tmp_path / "undisturbed" / "out")
    assert {Path(name).suffix for name in expected} == set(COMPARED)
    chance = random.Random(7)
    killed, resumed_trainings, found_stages = 0, 0, 0
    for point in range(POINTS):
        settings = make_settings(model, tmp_path / f"run{point}")
        run = start_compile(settings)
        time.sleep(duration * chance.random())
        run.kill()
        killed += finish(run) == -signal.SIGKILL
        left = Cache(settings.cache).list_entries()
        resumed_trainings += any(entry.kind == "training" for entry in left)
        found_stages += any(entry.kind != "training" for entry in left)
        assert finish(start_compile(settings)) == 0, point
        assert settings.output is not None
        assert digest_artifacts(settings.output) == expected, f"killed at point {point}"
        assert {check.state for check in verify_folder(settings.output)} == {"ok"}, point
    print(
        f"{killed} of {POINTS} runs of {duration:.1f} s were killed before their end; {resumed_trainings} left "
        f"trainings, {found_stages} left results of stages"
    )
    assert killed > POINTS // 2  # the others had ended: nothing to kill
    assert resumed_trainings > POINTS // 4
    assert found_stages > POINTS // 4
