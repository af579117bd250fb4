"""--fit: widths searched for limits, on a small net and real data: what fits, what cannot, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch

from edgeprune.artifacts import Normalization
from edgeprune.config import load_config_options
from edgeprune.errors import InputError, MeasurementUnavailableError, UnsupportedModelError
from edgeprune.load import save_model
from edgeprune.pipeline import CompileResult, compile_model
from edgeprune.report import load_schema, parse_budgets
from edgeprune.report.fit_figures import draw_fit_figures
from edgeprune.report.fit_tables import list_fit, list_fit_widths
from edgeprune.report.html import render_html
from edgeprune.report.markdown import render_markdown
from edgeprune.settings import CompileSettings, resolve_compile_settings
from tests.test_pipeline import DATA, SmallNet

TARGET = "nucleo-l4r5zi"
LIMITS = "latency=150us,ram=1100"


def make_settings(model: Path, output: Path, fit: str, **changes: Any) -> CompileSettings:
    values: dict[str, Any] = {
        "data": DATA,
        "method": "l1",
        "target": TARGET,
        "memory": "arena",  # the search for what to stream takes its time
        "training": {"epochs": 12, "learning_rate": 0.01, "early_stopping": "none"},
        **changes,
    }
    return CompileSettings(model=model, output=output, fit=parse_budgets(fit, "--fit"), **values)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(5)
    path = tmp_path_factory.mktemp("model") / "small.pt"
    save_model(SmallNet(), torch.zeros(2, 1, 24), path, normalization=Normalization("per_series"))
    return path


@pytest.fixture(scope="module")
def fitted(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[CompileResult, Path]:
    output = tmp_path_factory.mktemp("fitted")
    return compile_model(make_settings(model, output, LIMITS)), output


@pytest.fixture(scope="module")
def fit(fitted: tuple[CompileResult, Path]) -> Mapping[str, Any]:
    return fitted[0].document["fit"]


@pytest.fixture(scope="module")
def impossible(model: Path, tmp_path_factory: pytest.TempPathFactory) -> CompileResult:
    output = tmp_path_factory.mktemp("impossible")
    return compile_model(make_settings(model, output, "flash=1K,ram=1100", accuracy_drop=1.0))


def test_what_is_deployed_fits(fitted: tuple[CompileResult, Path], fit: Mapping[str, Any]) -> None:
    result, output = fitted
    assert result.exit_code == 0
    assert result.document["outcome"] == "Built and verified, within 2 budgets"
    assert not fit["base"]["fits"]  # else there was nothing to search
    measured = result.document["firmware"]["measured"]
    assert 1000 * measured["latency_ms"] <= 150
    assert measured["ram_bytes"] <= 1100
    assert (output / "model_pruned.pt").is_file()


def test_the_candidate_that_was_taken_is_the_most_accurate_that_fits(fit: Mapping[str, Any]) -> None:
    (chosen,) = (candidate for candidate in fit["candidates"] if candidate["chosen"])
    fitting = [candidate for candidate in fit["candidates"] if candidate["fits"]]
    assert len(fitting) >= 2
    assert chosen["validation_metric"] == max(candidate["validation_metric"] for candidate in fitting)
    assert fit["outcome"] == "fits"
    assert fit["missed"] == ""


def test_figures_before_the_training_are_near_those_after_it(fit: Mapping[str, Any]) -> None:
    for candidate in fit["candidates"]:
        for name in ("flash", "ram"):
            # 5 %: the bound of a prediction; on a firmware of 9 KB half of it is 200 bytes
            assert candidate["predicted"][name] == pytest.approx(candidate["measured"][name], rel=0.05)


def test_validation_samples_decide_and_the_report_agrees_with_its_schema(fitted: tuple[CompileResult, Path]) -> None:
    document = json.loads((fitted[1] / "report.json").read_text())
    jsonschema.validate(document, load_schema())
    assert document["data"]["samples"]["validation"] > 0
    assert document["pruning"]["options"] == {}
    widths = {row["layer"]: row["after"] for row in document["pruning"]["widths"]}
    (chosen,) = (candidate for candidate in document["fit"]["candidates"] if candidate["chosen"])
    assert widths == chosen["widths"]
    assert len(document["pruning"]["trainings"]) == document["fit"]["trainings"] == len(document["fit"]["candidates"])


def test_the_report_shows_the_search(fitted: tuple[CompileResult, Path]) -> None:
    document = fitted[0].document
    table, widths, figures = list_fit(document), list_fit_widths(document), draw_fit_figures(document)
    assert table is not None
    assert widths is not None
    assert [row[0] for row in table.rows] == [
        "the model as it is",
        *(candidate["title"] for candidate in document["fit"]["candidates"]),
    ]
    assert any("chosen" in row[-1] for row in table.rows)
    assert set(figures) == {"fit-latency", "fit-ram", "fit-flash", "fit-path"}
    assert "limit" in [trace["name"] for trace in figures["fit-ram"]["data"]]
    assert "limit" not in [trace["name"] for trace in figures["fit-flash"]["data"]]
    page = render_html(document)
    for figure in figures.values():
        assert figure["title"] in page
    assert table.caption in render_markdown(document)


def test_a_report_without_a_search_has_nothing_to_show() -> None:
    assert list_fit({}) is None
    assert list_fit_widths({"fit": {}}) is None
    assert draw_fit_figures({"fit": {}}) == {}


@pytest.mark.slow
def test_the_same_command_gives_the_same_bytes_and_computes_nothing_twice(model: Path, tmp_path: Path) -> None:
    settings = make_settings(model, tmp_path / "first", "ram=1000", cache=tmp_path / "cache")
    first = compile_model(settings).document
    again = compile_model(dataclasses.replace(settings, output=tmp_path / "again"))
    assert again.cache is not None
    assert again.cache.made == []  # plans, figures, exports: all found
    assert again.document["fit"] == first["fit"]
    assert again.document["artifacts"] == first["artifacts"]
    anew = compile_model(dataclasses.replace(settings, output=tmp_path / "anew", use_cache=False)).document
    assert anew["fit"] == first["fit"]
    assert anew["artifacts"] == first["artifacts"]


@pytest.mark.slow
def test_limits_that_nothing_keeps_end_with_the_nearest_miss(impossible: CompileResult) -> None:
    document = impossible.document
    assert impossible.exit_code == 3
    assert document["fit"]["outcome"] == "does not fit"
    assert "the nearest miss takes" in document["outcome"]
    assert "with one channel in every layer it still takes flash" in document["outcome"]
    (chosen,) = (candidate for candidate in document["fit"]["candidates"] if candidate["chosen"])
    assert chosen["measured"]["flash"] == min(row["measured"]["flash"] for row in document["fit"]["candidates"])
    assert len(document["fit"]["candidates"]) >= 2  # wider ones too: the curve of what accuracy costs
    assert {budget["name"]: budget["state"] for budget in document["budgets"]} == {"flash": "missed", "ram": "met"}
    assert document["artifacts"]
    jsonschema.validate(document, load_schema())


@pytest.mark.slow
def test_what_fits_as_it_is_is_not_pruned(model: Path, tmp_path: Path) -> None:
    result = compile_model(make_settings(model, tmp_path, "ram=64K"))
    fit = result.document["fit"]
    assert (result.exit_code, fit["outcome"], fit["trainings"]) == (0, "fits as it is", 0)
    assert result.document["variants"]["int8"]["parameters"] == fit["base"]["parameters"] - 12  # scales are folded
    render_html(result.document)


def test_a_limit_on_a_figure_that_the_target_lacks_is_told_before_any_training(model: Path, tmp_path: Path) -> None:
    with pytest.raises(MeasurementUnavailableError, match="cortex-m4: it states no clock"):
        compile_model(make_settings(model, tmp_path, "latency=1ms", target="cortex-m4"))


def test_targets_without_a_firmware_are_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--fit does not go with cortex-a72"):
        compile_model(make_settings(model, tmp_path, "ram=1K", target="cortex-a72"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fit": "ram=8K", "method": "lth"}, "--fit does not go with --method lth: lth makes zeros"),
        ({"fit": "ram=8K", "method": "sap"}, "--fit does not go with --method sap"),
        ({"fit": "ram=8K", "method": "dprp"}, "dprp cuts ranks, not channels. Methods whose widths"),
        ({"fit": "ram=8K", "method": "none"}, "none prunes nothing"),
        ({"fit": "ram=8K", "method": "l1", "ratio": 0.5}, "--ratio and --fit both say how l1 prunes"),
        ({"fit": "ram=8K", "method": "l1", "iterations": 3}, "--iterations and --fit both"),
        ({"fit": "macs=1M"}, "--fit macs: widths are searched for latency, cycles, instructions, ram, flash"),
        ({"fit": "rma=1M"}, "--fit rma: no such figure. Did you mean ram"),
        ({"fit": "ram=lots"}, "--fit ram=lots: not a number of bytes"),
        ({"fit": "ram=0"}, "--fit ram is 0; allowed: above 0"),
    ],
)
def test_mistakes_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        resolve_compile_settings(tmp_path / "model.pt", None, options)


def test_finished_programs_are_refused(model: Path, tmp_path: Path, fitted: tuple[CompileResult, Path]) -> None:
    with pytest.raises(InputError, match=r"--fit does not go with model_int8\.tflite"):
        resolve_compile_settings(fitted[1] / "model_int8.tflite", None, {"fit": "ram=8K"})
    with pytest.raises(UnsupportedModelError, match="can be quantized and deployed but not pruned"):
        compile_model(make_settings(fitted[1] / "model_float32.onnx", tmp_path, "ram=1K"))


def test_the_settings_file_may_name_the_limits(tmp_path: Path) -> None:
    (tmp_path / "edgeprune.toml").write_text('[prune]\nmethod = "l1"\nratio = 0.3\n[fit]\nram = "8K"\n')
    model = tmp_path / "model.pt"
    assert load_config_options(None, model)["fit"] == "ram=8K"
    settings = resolve_compile_settings(model, None, {"budget": "flash=1M"})
    assert [(budget.name, budget.limit) for budget in settings.fit] == [("ram", 8192)]
    assert settings.method_options == {}  # the file's strength gives way
    assert [budget.name for budget in settings.limits] == ["ram", "flash"]
    assert settings.watches_validation
