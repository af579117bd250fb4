"""The whole way, from a model file to artifacts and report, on a small net and real data."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import importlib.util
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from torch import nn

from edgeprune.artifacts import Normalization
from edgeprune.errors import InputError, UnsupportedModelError
from edgeprune.executors import MICRO_AVAILABLE
from edgeprune.load import save_model
from edgeprune.lower import read_tflite
from edgeprune.pipeline import CompileResult, compile_model
from edgeprune.report import load_schema, parse_budgets
from edgeprune.settings import CompileSettings
from edgeprune.stages import verify
from edgeprune.stages.evaluate_artifact import evaluate_artifact

DATA = str(Path(__file__).parent.parent / "calibration_data" / "ItalyPowerDemand.npz")
ARTIFACTS = (
    "model_float32.onnx",
    "model_int8.onnx",
    "model_float32.tflite",
    "model_int8.tflite",
    "model_pruned.pt",
)


class SmallNet(nn.Module):
    """Two convolutions, one of them with a branch to concat, on 24 values."""

    def __init__(self, outputs: int = 2) -> None:
        super().__init__()
        self.wide = nn.Conv1d(1, 8, 7, padding="same", bias=False)
        self.narrow = nn.Conv1d(1, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm1d(12)
        self.last = nn.Conv1d(12, 10, 3, stride=2, padding=1)
        self.head = nn.Linear(10, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(torch.cat([self.wide(x), self.narrow(x)], 1)))
        return self.head(torch.relu(self.last(x)).mean(-1))


def make_settings(model: Path, output: Path, **changes: Any) -> CompileSettings:
    values: dict[str, Any] = {
        "model": model,
        "data": DATA,
        "method": "l1",
        "training": {"epochs": 25},
        "output": output,
        **changes,
    }
    return CompileSettings(**values)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained net: pruning and retraining do not mind."""
    torch.manual_seed(5)
    path = tmp_path_factory.mktemp("model") / "small.pt"
    save_model(SmallNet(), torch.zeros(2, 1, 24), path, normalization=Normalization("per_series"))
    return path


@pytest.fixture(scope="module")
def compiled(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[CompileResult, Path]:
    output = tmp_path_factory.mktemp("compiled")
    return compile_model(make_settings(model, output)), output


@pytest.fixture(scope="module")
def document(compiled: tuple[CompileResult, Path]) -> Mapping[str, Any]:
    return json.loads((compiled[1] / "report.json").read_text())


def test_a_compile_ends_well(compiled: tuple[CompileResult, Path]) -> None:
    result, output = compiled
    assert result.exit_code == 0
    assert result.document["outcome"] == "Built and verified"
    expected = {*ARTIFACTS, "firmware", "firmware.elf", "report.json", "report.md", "report.html", "manifest.json"}
    assert {path.name for path in output.iterdir()} == expected


def test_the_report_keeps_its_schema(document: Mapping[str, Any]) -> None:
    jsonschema.validate(document, load_schema())


def test_the_manifest_names_every_artifact_with_its_digest(compiled: tuple[CompileResult, Path]) -> None:
    manifest = json.loads((compiled[1] / "manifest.json").read_text())
    firmware = {f"firmware/{path.name}" for path in (compiled[1] / "firmware").iterdir()}
    assert {artifact["path"] for artifact in manifest["artifacts"]} == {*ARTIFACTS, "firmware.elf", *firmware}
    for artifact in manifest["artifacts"]:
        content = (compiled[1] / artifact["path"]).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (artifact["bytes"], artifact["sha256"])
    assert manifest["normalization"]["kind"] == "per_series"


def test_half_of_the_channels_are_gone_and_the_rest_adds_up(document: Mapping[str, Any]) -> None:
    widths = {row["layer"]: (row["before"], row["after"]) for row in document["pruning"]["widths"]}
    assert widths["wide"] == (8, 4)
    assert widths["narrow"] == (4, 2)
    assert widths["last"] == (10, 5)
    base, retrained = document["variants"]["base"], document["variants"]["retrained"]
    assert base["parameters"] == 8 * 7 + 4 * 3 + 2 * 12 + (12 * 10 * 3 + 10) + (10 * 2 + 2)
    assert retrained["parameters"] == 4 * 7 + 2 * 3 + 2 * 6 + (6 * 5 * 3 + 5) + (5 * 2 + 2)
    assert retrained["macs"] == 24 * (4 * 7 + 2 * 3) + 12 * 6 * 5 * 3 + 5 * 2
    assert retrained["flops"] == 2 * retrained["macs"]


def test_parity_was_proven_by_every_executor(document: Mapping[str, Any]) -> None:
    assert MICRO_AVAILABLE, "tflite-micro is not installed: make install says how"
    parity = document["parity"]
    assert parity["passed"]
    executors = {row["executor"] for row in parity["lockstep"]}
    assert executors == {"tflite-micro", "litert-reference", "litert-builtin", "litert-xnnpack", "onnxruntime"}
    assert {row["max_lsb"] for row in parity["lockstep"] if row["executor"] == "tflite-micro"} == {0}
    whole = {row["executor"]: row for row in parity["end_to_end"]}
    assert whole["tflite-micro"]["max_lsb"] == 0
    assert whole["tflite-micro"]["samples"] == 256


def test_every_form_was_scored_on_the_whole_test_set(document: Mapping[str, Any]) -> None:
    for variant in document["variants"].values():
        assert variant["test_samples"] == 1029
        assert np.sum(variant["confusion_matrix"]) == 1029
        assert variant["executor"]
    assert list(document["variants"])[:3] == ["base", "pruned", "retrained"]
    # int8 keeps the decisions of the network it was made from
    assert abs(document["variants"]["int8"]["accuracy"] - document["variants"]["retrained"]["accuracy"]) < 0.03


def test_a_microcontroller_gets_no_host_time(document: Mapping[str, Any]) -> None:
    latency = {row["name"]: row for row in document["latency"]}
    assert latency["cortex-m4"]["method"] == "unavailable"
    assert "states no clock" in latency["cortex-m4"]["reason"]
    assert document["metrics"]["latency"]["value"] is None
    assert {row["method"] for name, row in latency.items() if name != "cortex-m4"} == {"host"}


def test_the_firmware_was_run_and_equals_the_reference(document: Mapping[str, Any]) -> None:
    measured = document["firmware"]["measured"]
    assert measured["different"] == 0
    assert measured["samples"] == document["data"]["samples"]["test"]
    firmware, int8 = document["variants"]["firmware"], document["variants"]["int8"]
    assert firmware["confusion_matrix"] == int8["confusion_matrix"]
    assert firmware["executor"].startswith("cortex-m4 in unicorn")
    layers = document["firmware"]["layers"]
    inside = sum(layer["instructions"] for layer in layers)
    assert 0.5 * measured["instructions"] < inside <= measured["instructions"]
    parts = ("peak_stack_bytes", "input_bytes", "output_bytes", "data", "bss")
    assert measured["ram_bytes"] == document["firmware"]["arena_bytes"] + sum(measured[part] for part in parts)
    assert document["metrics"]["ram"]["value"] == measured["ram_bytes"]
    check = next(check for check in document["parity"]["checks"] if check["name"].startswith("firmware"))
    assert check["passed"] is True


def test_no_artifact_tells_where_it_was_made(compiled: tuple[CompileResult, Path], model: Path) -> None:
    places = [str(Path.cwd()), str(Path.home()), str(compiled[1]), str(model.parent), sys.prefix]
    for path in (path for path in compiled[1].rglob("*") if path.is_file()):
        content = path.read_bytes()
        for place in places:
            assert place.encode() not in content, f"{path.name} holds {place}"


def test_the_same_inputs_give_the_same_bytes(compiled: tuple[CompileResult, Path], model: Path, tmp_path: Path) -> None:
    compile_model(make_settings(model, tmp_path))
    for name in ARTIFACTS:
        if name != "model_pruned.pt":  # torch.export writes a fresh id into every archive
            assert (tmp_path / name).read_bytes() == (compiled[1] / name).read_bytes(), name
    for path in (tmp_path / "firmware.elf", *(tmp_path / "firmware").iterdir()):
        assert path.read_bytes() == (compiled[1] / path.relative_to(tmp_path)).read_bytes(), path.name


@pytest.mark.parametrize("name", ARTIFACTS)
def test_evaluate_finds_the_figures_of_the_report(
    compiled: tuple[CompileResult, Path], document: Mapping[str, Any], name: str
) -> None:
    keys = {
        "model_float32.onnx": "onnx_float32",
        "model_int8.onnx": "int8_onnxruntime",
        "model_float32.tflite": "tflite_float32",
        "model_int8.tflite": "int8",
        "model_pruned.pt": "retrained",
    }
    summary = evaluate_artifact(compiled[1] / name, data=DATA)
    assert summary["accuracy"] == document["variants"][keys[name]]["accuracy"]
    assert summary["confusion_matrix"] == document["variants"][keys[name]]["confusion_matrix"]
    assert summary["normalization"] == "per_series"


def test_an_onnx_file_is_deployed_as_it_is(compiled: tuple[CompileResult, Path], tmp_path: Path) -> None:
    onnx_file = compiled[1] / "model_float32.onnx"
    result = compile_model(make_settings(onnx_file, tmp_path, method="none", training={}, normalization="per_series"))
    assert result.exit_code == 0
    assert (tmp_path / "model_int8.tflite").read_bytes() == (compiled[1] / "model_int8.tflite").read_bytes()
    with pytest.raises(UnsupportedModelError, match="add --method none"):
        compile_model(make_settings(onnx_file, tmp_path))


@pytest.mark.parametrize(
    ("budget", "exit_code"),
    [
        ("model_bytes=64K,macs=1M", 0),
        ("macs=1", 3),
        ("flash=1M,ram=64K,instructions=1M,cycles=1M", 0),
        ("ram=64", 3),
        ("macs=1,latency=1ms", 6),  # a core alone has no clock
    ],
)
def test_budgets_decide_the_exit_code_and_the_report_is_written(
    compiled: tuple[CompileResult, Path], tmp_path: Path, budget: str, exit_code: int
) -> None:
    settings = make_settings(
        compiled[1] / "model_float32.onnx",
        tmp_path,
        method="none",
        training={},
        normalization="per_series",
        budgets=parse_budgets(budget),
    )
    assert compile_model(settings).exit_code == exit_code
    assert json.loads((tmp_path / "report.json").read_text())["exit_code"] == exit_code


def test_a_parity_failure_ends_with_1_and_keeps_the_evidence(
    compiled: tuple[CompileResult, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compare_wrongly(*arguments: Any, **options: Any) -> Any:
        rows = real_compare(*arguments, **options)
        return tuple(
            dataclasses.replace(row, max_lsb=3, different=1, passed=False) if row.must_be_equal else row for row in rows
        )

    real_compare = verify.compare_end_to_end
    monkeypatch.setattr(verify, "compare_end_to_end", compare_wrongly)
    settings = make_settings(
        compiled[1] / "model_float32.onnx", tmp_path, method="none", training={}, budgets=parse_budgets("macs=1")
    )
    result = compile_model(settings)
    assert result.exit_code == 1  # before the missed budget
    assert "tflite-micro, end to end" in result.document["outcome"]
    assert (tmp_path / "model_int8.tflite").is_file()
    assert not json.loads((tmp_path / "report.json").read_text())["parity"]["passed"]


def test_a_disk_that_fills_up_leaves_the_old_artifacts(
    compiled: tuple[CompileResult, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_settings(compiled[1] / "model_float32.onnx", tmp_path, method="none", training={})
    (tmp_path / "model_int8.tflite").write_bytes(b"the last good one")

    def fail(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(InputError, match="the disk is full"):
        compile_model(settings)
    assert os.listdir(tmp_path) == ["model_int8.tflite"]
    assert (tmp_path / "model_int8.tflite").read_bytes() == b"the last good one"


def test_an_output_folder_that_cannot_be_made_is_said_before_any_work(model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="a file stands where a folder is needed"):
        compile_model(make_settings(model, tmp_path / "file" / "out"))


def test_data_of_another_shape_is_refused_with_both_shapes(model: Path, tmp_path: Path) -> None:
    data = str(Path(DATA).with_name("GunPoint.npz"))
    with pytest.raises(InputError, match=r"takes samples of shape \(1, 24\), the data has \(1, 150\)"):
        compile_model(make_settings(model, tmp_path, data=data))


def test_the_deployed_program_is_what_the_file_holds(
    compiled: tuple[CompileResult, Path], document: Mapping[str, Any]
) -> None:
    graph = read_tflite((compiled[1] / "model_int8.tflite").read_bytes())
    kinds = [op.kind for op in graph.ops]
    assert "transpose" not in kinds
    assert "reshape" not in kinds
    assert len({row["layer"] for row in document["parity"]["lockstep"]}) == len(kinds)


class Autoencoder(nn.Module):
    """As many values out as in, not a classifier of anything."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Conv1d(1, 8, 5, stride=2, padding=2)
        self.decode = nn.Linear(8 * 12, 24)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.decode(torch.relu(self.encode(x)).flatten(1))


def fit_autoencoder(context: Any) -> nn.Module:
    """A training function of a user's: reconstruction, on the samples alone."""
    samples = torch.from_numpy(context.x_train)
    optimizer = torch.optim.Adam(context.module.parameters(), 1e-2)
    context.module.train()
    for _ in range(20):
        optimizer.zero_grad()
        (context.module(samples) - samples.flatten(1)).square().mean().backward()
        optimizer.step()
    return context.module


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(6)
    folder = tmp_path_factory.mktemp("autoencoder")
    save_model(Autoencoder(), torch.zeros(2, 1, 24), folder / "model.pt")
    rng = np.random.default_rng(0)
    samples = rng.normal(size=(30, 1, 24)).astype(np.float32)
    np.savez(folder / "unlabelled.npz", x_train=samples[:20], x_test=samples[20:])
    return folder


def test_a_head_that_is_no_classifier_needs_its_own_training(autoencoder: Path, tmp_path: Path) -> None:
    model = autoencoder / "model.pt"
    with pytest.raises(InputError, match="holds no labels"):
        compile_model(make_settings(model, tmp_path, data=str(autoencoder / "unlabelled.npz")))
    with pytest.raises(InputError, match=r"output of shape \(2, 24\).* has 2 classes"):
        compile_model(make_settings(model, tmp_path))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("method", ["none", "l1"])
def test_an_autoencoder_is_deployed_without_an_accuracy(autoencoder: Path, tmp_path: Path, method: str) -> None:
    settings = make_settings(
        autoencoder / "model.pt",
        tmp_path,
        data=str(autoencoder / "unlabelled.npz"),
        method=method,
        train=f"{__name__}:fit_autoencoder" if method == "l1" else None,
        training={},
        budgets=parse_budgets("macs=1M"),
    )
    result = compile_model(settings)
    assert result.exit_code == 0
    assert result.document["parity"]["passed"]
    assert result.document["variants"]["int8"]["accuracy"] is None
    assert result.document["metrics"]["accuracy"]["reason"]
    jsonschema.validate(json.loads((tmp_path / "report.json").read_text()), load_schema())


def test_a_budget_on_an_accuracy_that_there_is_not_is_unavailable(autoencoder: Path, tmp_path: Path) -> None:
    settings = make_settings(
        autoencoder / "model.pt",
        tmp_path,
        data=str(autoencoder / "unlabelled.npz"),
        method="none",
        training={},
        budgets=parse_budgets("accuracy=90%"),
    )
    assert compile_model(settings).exit_code == 6


def test_evaluate_needs_labels_that_fit(
    compiled: tuple[CompileResult, Path], autoencoder: Path, tmp_path: Path
) -> None:
    artifact = compiled[1] / "model_int8.tflite"
    with pytest.raises(InputError, match="holds no labels"):
        evaluate_artifact(artifact, data=str(autoencoder / "unlabelled.npz"))
    with np.load(DATA) as stored:
        arrays = dict(stored)
    arrays["y_train"] = np.arange(len(arrays["y_train"])) % 3
    np.savez(tmp_path / "three.npz", **arrays)
    with pytest.raises(InputError, match=r"gives 2 values for a sample, .* has 3 classes"):
        evaluate_artifact(artifact, data=str(tmp_path / "three.npz"))
    with pytest.raises(InputError, match=r"is for [.]tflite files"):
        evaluate_artifact(compiled[1] / "model_float32.onnx", data=DATA, executor="litert")


@pytest.mark.slow
def test_tensorflow_as_the_converter(compiled: tuple[CompileResult, Path], tmp_path: Path) -> None:
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("TensorFlow is not installed (pip install tensorflow-cpu)")
    settings = make_settings(
        compiled[1] / "model_float32.onnx",
        tmp_path,
        method="none",
        training={},
        normalization="per_series",
        converter="tensorflow",
    )
    result = compile_model(settings)
    assert result.exit_code == 0
    ours, theirs = (document["variants"]["int8"] for document in (compiled[0].document, result.document))
    assert abs(ours["accuracy"] - theirs["accuracy"]) < 0.01  # 10 of 1,029 decisions: steps of other sizes
    assert any("no noise per layer" in note for note in result.document["notes"])


@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is not None, reason="TensorFlow is there")
def test_tensorflow_that_is_missing_is_said_before_any_work(model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="pip install tensorflow-cpu"):
        compile_model(make_settings(model, tmp_path, converter="tensorflow"))
