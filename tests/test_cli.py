"""The command line, run as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeprune import __version__
from edgeprune.cli import main

DATA = Path(__file__).parent.parent / "calibration_data" / "ItalyPowerDemand.npz"
Run = Callable[..., tuple[int, str, str]]
COMMANDS = ("compile", "plan", "train", "evaluate", "targets", "ops", "doctor", "gate", "diff", "history")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the program in this process, which has torch imported: exit code, stdout, stderr."""

    def run_program(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["edgeprune", *arguments])
        with pytest.raises(SystemExit) as ending:
            main()
        captured = capsys.readouterr()
        return int(ending.value.code or 0), captured.out, captured.err

    return run_program


def test_the_program_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "edgeprune", "--version"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == f"edgeprune {__version__}"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(run: Run, command: str) -> None:
    code, output, _ = run(command, "--help")
    assert code == 0
    assert f"edgeprune {command}" in output


def test_help_does_not_wait_for_heavy_packages() -> None:
    heavy = {"torch", "onnx", "onnxruntime", "numpy", "scipy", "pydantic", "plotly", "jinja2"}
    code = f"import sys, edgeprune.cli; print(sorted({heavy!r} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_doctor_lists_packages_as_json(run: Run) -> None:
    code, output, _ = run("doctor", "--json")
    findings = {finding["name"]: finding for finding in json.loads(output)}
    assert code == 0
    assert findings["torch"]["version"]
    assert findings["torch"]["required"]
    assert findings["tflite-micro"]["remedy"]
    assert findings["ziglang"]["version"]


def test_doctor_looks_for_programs_too(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    compiler = tmp_path / "arm-none-eabi-gcc"
    compiler.write_text("#!/bin/sh\necho 12.2.1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    code, output, _ = run("doctor", "--json")
    findings = {finding["name"]: finding for finding in json.loads(output)}
    assert code == 0
    assert findings["arm-none-eabi-gcc"]["version"] == "12.2.1"
    assert findings["qemu-system-arm"]["version"] is None
    assert "apt install" in findings["qemu-system-arm"]["remedy"]


def test_targets_are_listed(run: Run) -> None:
    names = [target["name"] for target in json.loads(run("targets", "--json")[1])]
    assert "cortex-m4" in names
    assert "nucleo-l4r5zi" in names


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("compile",), "Missing argument"),
        (("compile", "nowhere.pt", "--data", "nowhere.npz"), "nowhere.npz"),
        (("compile", "model.pt", "--ratio", "0.5"), "--ratio does not go with --method dsp"),
        (("compile", "model.pt", "--budget", "flsh=3"), "Did you mean flash?"),
        (("compile", "model.pt", "--target", "cortex-m44"), "cortex-m4"),
        (("compile", "model.pt", "--ratoi", "1"), "No such option"),
        (("train", "--arch", "lte", "--data", str(DATA)), "Did you mean 'lite'?"),
    ],
)
def test_mistakes_end_with_one_sentence_and_exit_code_2(
    run: Run, arguments: tuple[str, ...], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, errors = run(*arguments)
    assert code == 2, errors
    assert expected in errors.replace("\n", " ")
    assert "Traceback" not in errors
    assert not (tmp_path / "build").exists() or not any((tmp_path / "build").rglob("*.tflite"))
