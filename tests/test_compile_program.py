"""`edgeprune compile model_int8.tflite`: a program that others made goes the whole way without a network."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from edgeprune.cli import main
from edgeprune.errors import InputError, UnsupportedModelError
from edgeprune.graph import Graph, is_same_graph
from edgeprune.lower import read_tflite, write_tflite
from edgeprune.pipeline import compile_model
from edgeprune.quantize import calibrate, quantize_graph
from edgeprune.report import load_schema
from edgeprune.settings import CompileSettings, resolve_compile_settings
from edgeprune.stages.evaluate_artifact import evaluate_artifact
from edgeprune.stages.prepare_program import draw_samples
from tests.lower.flatbuffer_edits import edit
from tests.lower.handmade import _Network

DATA = Path(__file__).parent.parent / "calibration_data" / "ItalyPowerDemand.npz"


def make_program() -> Graph:
    """An int8 net for series of 24 values and two classes; its weights are random."""
    net = _Network((1, 1, 24, 1))
    value = net.conv("input", 6, (1, 5), "relu")
    graph = net.finish(net.conv(value, 4, (1, 3), "relu", stride=2), 2, "series")
    samples = np.random.default_rng(0).normal(size=(32, 1, 24, 1)).astype(np.float32)
    return quantize_graph(graph, calibrate(graph, samples))


def squeeze_input(graph: Graph) -> bytes:
    """The same program with time on the other axis of the map, (1, 24, 1, 1), as some converters have it."""

    def turn(model: Any) -> None:
        for tensor in model.subgraphs[0].tensors:
            if tensor.shape is not None and len(tensor.shape) == 4:
                shape = list(tensor.shape)
                tensor.shape = np.array([shape[0], shape[2], shape[1], shape[3]], np.int32)
        for operator in model.subgraphs[0].operators:
            options = operator.builtinOptions
            if hasattr(options, "strideW"):
                options.strideW, options.strideH = options.strideH, options.strideW

    return edit(write_tflite(graph), turn)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "series.tflite"
    path.write_bytes(write_tflite(make_program()))
    return path


def settings_for(model: Path, **changes: Any) -> CompileSettings:
    """For the host: no firmware is built."""
    return CompileSettings(**{"model": model, "target": "host", "output": model.parent / "out", **changes})


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def run_program(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["edgeprune", *arguments])
        with pytest.raises(SystemExit) as ending:
            main()
        captured = capsys.readouterr()
        return int(ending.value.code or 0), captured.out, captured.err

    return run_program


def test_with_data_the_program_has_an_accuracy(model: Path) -> None:
    result = compile_model(settings_for(model, data=str(DATA), normalization="per_series"))
    document = result.document
    jsonschema.validate(json.loads((model.parent / "out" / "report.json").read_text()), load_schema())
    assert result.exit_code == 0
    assert document["model"]["format"] == "tflite"
    assert list(document["variants"]) == ["int8", "int8_xnnpack"]
    assert document["variants"]["int8"]["test_samples"] == 1029
    assert document["parity"]["passed"]
    assert {row["executor"] for row in document["parity"]["end_to_end"]} == {
        *("tflite-micro", "litert-reference", "litert-builtin", "litert-xnnpack")
    }
    assert document["parity"]["checks"][0]["what"] == "16 training samples"
    assert document["metrics"]["accuracy_drop"]["value"] is None
    assert document["pruning"]["method"] == "none"
    assert document["sqnr"] == []
    assert document["profiles"].keys() == {"int8"}
    assert any("is a finished int8 program" in note and "(.pt)" in note for note in document["notes"])
    # the file beside the report is the program, and evaluate agrees with it
    written = model.parent / "out" / "model_int8.tflite"
    assert is_same_graph(read_tflite(written.read_bytes()), make_program())
    assert evaluate_artifact(written, data=str(DATA))["accuracy"] == document["variants"]["int8"]["accuracy"]
    assert {path.name for path in written.parent.iterdir()} == {
        *("model_int8.tflite", "report.json", "report.md", "report.html", "manifest.json")
    }


def test_without_data_it_runs_on_random_inputs_that_are_called_so(model: Path) -> None:
    document = compile_model(settings_for(model)).document
    assert document["variants"]["int8"]["accuracy"] is None
    assert document["data"]["source"] == "random int8 inputs, seed 0"
    assert document["data"]["samples"] == {"train": 0, "validation": 0, "test": 64}
    assert {check["what"] for check in document["parity"]["checks"]} == {"16 random inputs", "64 random inputs"}
    assert any("say nothing of its accuracy" in note for note in document["notes"])
    page = (model.parent / "out" / "report.md").read_text()
    assert "accuracy" not in page.partition("## Parity")[0].partition("## Forms")[2]
    again = compile_model(settings_for(model, output=model.parent / "again")).document
    assert again["data"]["sha256"] == document["data"]["sha256"]


def test_time_may_stand_on_the_other_axis(tmp_path: Path) -> None:
    path = tmp_path / "turned.tflite"
    path.write_bytes(squeeze_input(make_program()))
    assert read_tflite(path.read_bytes()).tensors["input"].shape == (1, 24, 1, 1)
    straight = tmp_path / "series.tflite"
    straight.write_bytes(write_tflite(make_program()))
    scores = [
        compile_model(
            settings_for(model, data=str(DATA), normalization="per_series", output=tmp_path / model.stem)
        ).document["variants"]["int8"]["confusion_matrix"]
        for model in (path, straight)
    ]
    assert scores[0] == scores[1]


def test_random_inputs_cover_all_of_int8() -> None:
    quant = make_program().tensors["input"].quant
    assert quant is not None
    data = draw_samples((1, 8, 8, 3), quant, seed=1)
    assert data.x_test.shape == (64, 3, 8, 8)
    assert len(draw_samples((1, 4096, 4096, 1), quant, seed=1).x_test) == 1
    assert len(np.unique(data.x_test)) == 256


def test_data_that_does_not_fit_is_refused(model: Path) -> None:
    other = DATA.with_name("GunPoint.npz")
    with pytest.raises(InputError, match=r"samples of shape \(1, 150\) .* do not fit the model's input \(1, 24, 1\)"):
        compile_model(settings_for(model, data=str(other)))


def test_samples_beyond_the_inputs_range_are_noted(model: Path) -> None:
    with np.load(DATA) as arrays:
        values = {name: arrays[name] for name in arrays.files}
    for name in values:
        if name.startswith("x_"):
            values[name] = values[name] * 100
    np.savez(model.parent / "loud.npz", **values)
    document = compile_model(settings_for(model, data=str(model.parent / "loud.npz"))).document
    assert any("are at its ends" in note and "--normalization" in note for note in document["notes"])


def test_a_broken_file_names_itself_and_ends_with_its_code(model: Path, run: Callable[..., Any]) -> None:
    whole = model.read_bytes()
    model.write_bytes(whole[: len(whole) // 2])
    code, _, message = run("compile", str(model), "-t", "host", "-o", str(model.parent / "out"))
    assert code == 2
    assert "series.tflite: the TFLite file is damaged" in message
    float_file = model.with_name("float.tflite")
    float_file.write_bytes(write_tflite(_Network((1, 1, 8, 1)).finish("input", 2, "float")))
    code, _, message = run("compile", str(float_file), "-t", "host", "-o", str(model.parent / "out"))
    assert code == 5
    assert "must be int8; give the PyTorch model" in message


def test_rules_of_the_target_hold_for_programs_of_others(tmp_path: Path) -> None:
    net = _Network((1, 4, 4, 2))
    value = net._add("relu_n1_to_1", (net.conv("input", 3, (1, 1)),), {})
    graph = net.finish(value, 2, "clipped")
    samples = np.random.default_rng(0).normal(size=(4, 4, 4, 2)).astype(np.float32)
    path = tmp_path / "clipped.tflite"
    path.write_bytes(write_tflite(quantize_graph(graph, calibrate(graph, samples))))
    with pytest.raises(UnsupportedModelError, match=r"clipped.tflite: .*exists only fused into another layer"):
        compile_model(settings_for(path, target="cortex-m4"))


def test_options_for_a_network_are_refused(model: Path) -> None:
    for options in ({"method": "l1"}, {"epochs": 3}, {"observer": "mse"}, {"train": "a:b"}, {"factory": "a:b"}):
        with pytest.raises(InputError, match=r"does not go with series.tflite: .* Compile the PyTorch model"):
            resolve_compile_settings(model, None, options)
    with pytest.raises(InputError, match="not pruned"):
        compile_model(settings_for(model, method="l1"))


def test_a_settings_file_for_networks_does_not_disturb(model: Path) -> None:
    (model.parent / "edgeprune.toml").write_text('[prune]\nmethod = "l1"\nratio = 0.3\n[retrain]\nepochs = 5\n')
    settings = resolve_compile_settings(model, None, {"target": "host"})
    assert settings.method == "none"
    assert settings.training == {}
