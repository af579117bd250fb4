"""`edgeprune verify` and `edgeprune reproduce` on the output of a real compile."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner, Result

from edgeprune.artifacts import Normalization
from edgeprune.cli import app
from edgeprune.errors import InputError, RegressionError, UntrustedInputError
from edgeprune.load import save_model
from edgeprune.pipeline import compile_model
from edgeprune.settings import CompileSettings
from edgeprune.stages.verify_folder import verify_folder

DATA = Path(__file__).parent.parent / "calibration_data" / "ItalyPowerDemand.npz"


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project folder with a model, its data, and the output of a compile in build/tiny."""
    folder = tmp_path_factory.mktemp("project")
    torch.manual_seed(3)
    module = nn.Sequential(
        nn.Conv1d(1, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    save_model(module, torch.zeros(2, 1, 24), folder / "tiny.pt", normalization=Normalization("per_series"))
    shutil.copy(DATA, folder / "data.npz")
    compile_model(
        CompileSettings(
            model=folder / "tiny.pt",
            data=str(folder / "data.npz"),
            method="l1",
            training={"epochs": 2},
            output=folder / "build" / "tiny",
        )
    )
    return folder


@pytest.fixture
def output(compiled: Path, tmp_path: Path) -> Path:
    """A copy of the project's output, to be damaged."""
    shutil.copytree(compiled, tmp_path / "project")
    return tmp_path / "project" / "build" / "tiny"


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_an_untouched_folder_is_verified(output: Path) -> None:
    assert {check.state for check in verify_folder(output)} == {"ok"}
    result = run("verify", output)
    assert result.exit_code == 0
    assert "all as the manifest names them" in result.output


def test_every_kind_of_damage_is_named(output: Path) -> None:
    tflite = output / "model_int8.tflite"
    tflite.write_bytes(tflite.read_bytes()[:-1] + b"\xff")
    (output / "model_int8.onnx").write_bytes(b"short")
    (output / "firmware" / "model.c").unlink()
    (output / "firmware" / "extra.c").write_text("int x;")
    states = {check.path: check.state for check in verify_folder(output) if check.state != "ok"}
    assert states == {
        "model_int8.tflite": "changed",
        "model_int8.onnx": "changed",
        "firmware/model.c": "missing",
        "firmware/extra.c": "not listed",
    }
    result = run("verify", output)
    assert isinstance(result.exception, InputError)
    assert "changed: model_int8.onnx: 5 bytes, recorded are" in result.output


def test_a_report_of_another_compile_is_noticed(output: Path) -> None:
    report = json.loads((output / "report.json").read_text())
    report["artifacts"][0]["sha256"] = "0" * 64
    (output / "report.json").write_text(json.dumps(report))
    (wrong,) = [check for check in verify_folder(output) if check.state != "ok"]
    assert wrong.path == "report.json"


@pytest.mark.parametrize("content", ["", "{}", '{"artifacts": 5}', '{"artifacts": [{"path": "x"}]}', "\x00"])
def test_a_damaged_manifest_is_refused(output: Path, content: str) -> None:
    (output / "manifest.json").write_text(content)
    with pytest.raises(InputError, match=r"manifest\.json: not a manifest"):
        verify_folder(output)


@pytest.mark.parametrize("path", ["../outside", "/etc/passwd", "firmware/../../x"])
def test_a_manifest_that_points_outside_is_refused(output: Path, path: str) -> None:
    artifact = {"path": path, "bytes": 1, "sha256": "0"}
    (output / "manifest.json").write_text(json.dumps({"artifacts": [artifact]}))
    with pytest.raises(UntrustedInputError):
        verify_folder(output)


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no manifest"):
        verify_folder(tmp_path)


def test_a_report_is_reproduced_from_the_files_beside_it(output: Path, tmp_path: Path) -> None:
    result = run("reproduce", output, "-o", tmp_path / "again", "--quiet", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.output)
    assert found["same"]
    assert found["versions"] == {}
    assert {name for name, state in found["states"].items() if state != "same"} == {"model_pruned.pt"}


def test_a_report_of_other_artifacts_is_not_reproduced(output: Path, tmp_path: Path) -> None:
    report = json.loads((output / "report.json").read_text())
    for artifact in report["artifacts"]:
        if artifact["path"] == "model_int8.tflite":
            artifact["sha256"] = "0" * 64
    report["tools"]["torch"] = "0.0"
    (output / "report.json").write_text(json.dumps(report))
    result = run("reproduce", output / "report.json", "-o", tmp_path / "again", "--quiet")
    assert isinstance(result.exception, RegressionError)
    assert "is not reproduced: model_int8.tflite" in str(result.exception)
    assert "0.0 in the report" in result.output


def test_another_model_or_data_is_refused_before_anything_runs(output: Path, tmp_path: Path) -> None:
    project = output.parent.parent
    other = tmp_path / "other.pt"
    other.write_bytes((project / "tiny.pt").read_bytes() + b"0")
    refused = run("reproduce", output, "--model-file", other, "-o", tmp_path / "again")
    assert isinstance(refused.exception, InputError)
    assert "the report was made from" in str(refused.exception)
    (project / "data.npz").unlink()
    refused = run("reproduce", output, "-o", tmp_path / "again")
    assert isinstance(refused.exception, InputError)
    assert "data.npz is neither in the working folder nor near the report" in str(refused.exception)
    assert not (tmp_path / "again").exists()


def test_code_that_a_report_names_does_not_run(output: Path, tmp_path: Path) -> None:
    report = json.loads((output / "report.json").read_text())
    report["settings"]["train"] = "os:abort"
    (output / "report.json").write_text(json.dumps(report))
    refused = run("reproduce", output, "-o", tmp_path / "again")
    assert isinstance(refused.exception, UntrustedInputError)
