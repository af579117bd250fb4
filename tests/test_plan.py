"""`edgeprune plan`: what fits where, before anything is trained."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from edgeprune import plan_model, save_model
from edgeprune.cli import main
from edgeprune.errors import InputError, UnsupportedModelError
from edgeprune.export import export_onnx
from edgeprune.lower import Violation
from edgeprune.report.budget import METHODS
from edgeprune.report.plan_tables import list_linux, list_methods, list_plan, list_refusals, list_widths
from edgeprune.stages import plan, plan_sizes
from edgeprune.stages.measure import NEEDS
from edgeprune.stages.plan_verdict import judge_row, sort_rows

SHAPE = (2, 24)
Run = Callable[..., tuple[int, str, str]]


class Small(nn.Module):
    """A convolution that can be pruned, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv1d(2, 16, 5, padding=2), nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.conv(x)).mean(-1))


class Pinned(nn.Module):
    """All of its channels are outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.conv(x)).flatten(1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("plan") / "small.pt"
    save_model(Small().eval(), torch.randn(2, *SHAPE), path)
    return path


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the tests of this file size is sized once."""
    return tmp_path_factory.mktemp("plan-cache")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], cache: Path) -> Run:
    def run_plan(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["edgeprune", "plan", "--cache", str(cache), *arguments])
        with pytest.raises(SystemExit) as ending:
            main()
        captured = capsys.readouterr()
        return int(ending.value.code or 0), captured.out, captured.err

    return run_plan


def find_row(document: Mapping[str, Any], target: str, width: int) -> Mapping[str, Any]:
    (row,) = [row for row in document["rows"] if (row["target"], row["width"]) == (target, width)]
    return row


def test_a_board(run: Run, model: Path) -> None:
    code, output, _ = run(str(model), "--target", "nucleo-l4r5zi", "--json")
    document = json.loads(output)
    assert code == document["exit_code"] == 0
    assert [row["width"] for row in document["rows"]] == [100, 75, 50, 25]
    assert document["data"]["is_random"]
    whole, quarter = (find_row(document, "nucleo-l4r5zi", width) for width in (100, 25))
    figures = whole["figures"]
    assert {name: figures[name]["method"] for name in ("flash", "ram", "instructions", "latency", "macs")} == {
        "flash": "static",
        "ram": "emulated_instructions",
        "instructions": "emulated_instructions",
        "latency": "modelled_cycles",
        "macs": "static",
    }
    assert figures["macs"]["value"] == 2 * 5 * 16 * 24 + 16 * 3
    assert quarter["figures"]["macs"]["value"] == 2 * 5 * 4 * 24 + 4 * 3
    assert figures["latency"]["value"] == pytest.approx(figures["cycles"]["value"] / 120)  # us at 120 MHz
    for name in ("flash", "ram", "instructions"):
        assert quarter["figures"][name]["value"] < figures[name]["value"]
    assert whole["state"] == "fits"
    assert (whole["tightest"]["figure"], whole["tightest"]["of"]) in {
        ("flash", "nucleo-l4r5zi"),
        ("ram", "nucleo-l4r5zi"),
    }
    assert "edgeprune compile" in document["next"]
    assert "--target nucleo-l4r5zi" in document["next"]


def test_what_was_sized_is_found_again(model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    assert run(str(model), "--target", "nucleo-l4r5zi", "--json")[0] == 0

    def fail(*_arguments: object, **_options: object) -> None:
        raise AssertionError("sized a second time")

    monkeypatch.setattr(plan_sizes, "schedule_program", fail)
    document = plan_model(model, targets=["nucleo-l4r5zi", "nrf52840-dk"], cache=cache)  # one core, two clocks
    times = [find_row(document, name, 100)["figures"]["latency"]["value"] for name in ("nucleo-l4r5zi", "nrf52840-dk")]
    assert times[1] == pytest.approx(times[0] * 120 / 64)
    with pytest.raises(AssertionError, match="second time"):
        plan_model(model, targets=["nucleo-l4r5zi"], use_cache=False)


def test_narrowest_miss_first(run: Run, model: Path) -> None:
    arguments = (str(model), "-t", "nucleo-l4r5zi", "--json")
    document = json.loads(run(*arguments)[1])
    flash = {row["width"]: row["figures"]["flash"]["value"] for row in document["rows"]}
    limit = (flash[50] + flash[75]) // 2
    code, output, _ = run(*arguments, "--budget", f"flash={limit}")
    document = json.loads(output)
    assert code == 0
    assert [(row["width"], row["state"]) for row in document["rows"]] == [
        *((75, "missed"), (100, "missed")),
        *((50, "fits"), (25, "fits")),
    ]
    assert f"--fit flash={limit}" in document["next"]
    document = json.loads(run(*arguments, "--budget", f"flash={limit},arena_bytes=1M")[1])
    assert "--method l1 --ratio 0.5" in document["next"]  # the arena is no figure that widths are searched for
    code, output, _ = run(*arguments, "--budget", "flash=1K,latency=1s")
    document = json.loads(output)
    assert code == 3
    assert [row["width"] for row in document["rows"]] == [25, 50, 75, 100]
    assert document["next"].startswith("It fits nowhere. Nearest: nucleo-l4r5zi at 25 %")


def test_a_board_of_ones_own_that_is_too_small(run: Run, model: Path, tmp_path: Path) -> None:
    board = tmp_path / "tiny.toml"
    board.write_text('inherit = "nucleo-l4r5zi"\nram_bytes = 256\n')
    code, output, _ = run(str(model), "-t", str(board), "-q")
    assert code == 3
    assert "too large" in output
    assert "--memory streaming" in output


def test_a_core_without_clock(run: Run, model: Path) -> None:
    code, output, _ = run(str(model), "-t", "cortex-m4", "--budget", "latency=20ms", "--json")
    document = json.loads(output)
    assert code == 6
    assert {row["state"] for row in document["rows"]} == {"unknown"}
    assert "states no clock" in document["next"]
    code, output, _ = run(str(model), "-t", "cortex-m4")
    assert code == 0
    assert "no limit" in output
    assert "name a board" in output


def test_linux_and_host_have_static_figures(run: Run, model: Path) -> None:
    code, output, _ = run(str(model), "-t", "cortex-a72", "-t", "host", "--budget", "macs=3K", "--json")
    document = json.loads(output)
    assert code == 0, "at a quarter of its channels it keeps the limit"
    row = find_row(document, "cortex-a72", 100)
    assert row["state"] == "missed"
    assert row["figures"]["latency"] == {"value": None, "method": None, "reason": NEEDS["cortex-a"]}
    assert row["figures"]["model_bytes"]["method"] == "static"
    assert find_row(document, "host", 25)["state"] == "fits"


def test_tables(run: Run, model: Path) -> None:
    code, output, errors = run(str(model), "-t", "nucleo-l4r5zi", "-t", "host")
    assert code == 0
    assert "fits" in output
    assert "no data was given" in output
    assert "needs a run" in output
    assert not errors
    quiet = run(str(model), "-t", "nucleo-l4r5zi", "-t", "host", "-q")[1]
    assert "note:" not in quiet


def test_data_beside_the_model(run: Run, model: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((12, *SHAPE)).astype(np.float32)
    y = np.arange(12) % 3
    np.savez(tmp_path / "data.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    data = ("--data", str(tmp_path / "data.npz"), "--normalization", "per_series")
    code, output, _ = run(str(model), "-t", "host", *data, "--json")
    document = json.loads(output)
    assert code == 0
    assert document["data"] == {"source": "data.npz", "normalization": "per_series", "is_random": False}
    narrow = tmp_path / "narrow.npz"
    np.savez(narrow, x_train=x[:, :1], y_train=y, x_test=x[:, :1], y_test=y)
    code, _, errors = run(str(model), "-t", "host", "--data", str(narrow))
    assert code == 2
    assert "takes samples of shape (2, 24)" in errors


def test_nothing_to_prune(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "pinned.pt"
    save_model(Pinned().eval(), torch.randn(2, *SHAPE), path)
    document = json.loads(run(str(path), "-t", "host", "--json")[1])
    assert [row["width"] for row in document["rows"]] == [100]
    assert any(note.startswith("nothing can be pruned at 75, 50, 25 %") for note in document["notes"])


def test_onnx_and_tflite_as_they_are(run: Run, tmp_path: Path, model: Path, cache: Path) -> None:
    torch.manual_seed(0)
    onnx.save(export_onnx(Small().eval(), SHAPE), tmp_path / "small.onnx")
    document = json.loads(run(str(tmp_path / "small.onnx"), "-t", "nucleo-l4r5zi", "--json")[1])
    assert [row["width"] for row in document["rows"]] == [100]
    assert document["next"].endswith("--target nucleo-l4r5zi --method none")
    whole = plan_model(model, targets=["nucleo-l4r5zi"], cache=cache)
    figures = [find_row(item, "nucleo-l4r5zi", 100)["figures"] for item in (document, whole)]
    assert figures[0]["instructions"] == figures[1]["instructions"]
    program = next(cache.glob("objects/plan-programs-*/100.tflite"))
    (tmp_path / "small.tflite").write_bytes(program.read_bytes())
    document = json.loads(run(str(tmp_path / "small.tflite"), "-t", "nucleo-l4r5zi", "--json")[1])
    assert document["model"]["format"] == "tflite"
    assert "--method" not in document["next"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"targets": ["nucleo-l4r5"]}, "no such target"),
        ({"budget": "accuracy=90%"}, "nothing is trained"),
        ({"budget": "flash"}, "there is no '='"),
        ({"memory": "heap"}, "--memory heap"),
        ({"toolchain": "icc"}, "--toolchain icc"),
        ({"emulator": "renode"}, "--emulator renode"),
        ({"normalization": "per_channel"}, "fitted on data"),
    ],
)
def test_bad_options(model: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan_model(model, **{"targets": ["host"], **options})


def test_a_state_dict_without_its_model(tmp_path: Path) -> None:
    torch.save(Small().state_dict(), tmp_path / "weights.pt")
    with pytest.raises(InputError, match="state_dict"):
        plan_model(tmp_path / "weights.pt", targets=["host"])


def test_a_network_that_no_target_runs(tmp_path: Path) -> None:
    class Odd(Small):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(torch.cos(self.conv(x)).mean(-1))

    save_model(Odd().eval(), torch.randn(2, *SHAPE), tmp_path / "odd.pt")
    with pytest.raises(UnsupportedModelError, match=r"cos \(Cos\)"):
        plan_model(tmp_path / "odd.pt")


def test_targets_are_refused_one_by_one(run: Run, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_graph: object, target: Any, _exempt: object) -> tuple[Violation, ...]:
        if not target.is_microcontroller:
            return ()
        return (Violation("conv", "conv_2d", target.name, "it is odd", "Must be even.", "Make it even."),)

    monkeypatch.setattr(plan, "check_supported", refuse)
    code, output, _ = run(str(model), "-t", "nucleo-l4r5zi", "-t", "cortex-m4", "-t", "host")
    assert code == 0
    assert "nucleo-l4r5zi, cortex-m4" in output  # one row for one reason
    assert "Make it even." in output
    code, output, _ = run(str(model), "-t", "nucleo-l4r5zi")
    assert code == 5
    assert "No target asked for runs this model" in output


def test_large_nets_are_predicted_from_small_ones(model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = plan_model(model, targets=["nucleo-l4r5zi"], cache=cache)
    quarter, half, whole = (
        find_row(known, "nucleo-l4r5zi", width)["figures"]["instructions"]["value"] for width in (25, 50, 100)
    )
    monkeypatch.setattr(plan_sizes, "MOST_INSTRUCTIONS", {"unicorn": (quarter + half) / 2, "qemu": 0})
    document = plan_model(model, targets=["nucleo-l4r5zi"], use_cache=False)
    methods = {row["width"]: row["figures"]["instructions"]["method"] for row in document["rows"]}
    assert methods == {100: "predicted", 75: "predicted", 50: "predicted", 25: "emulated_instructions"}
    figures = find_row(document, "nucleo-l4r5zi", 100)["figures"]
    assert figures["flash"]["method"] == "static"
    assert figures["instructions"]["value"] == pytest.approx(whole, rel=0.1)  # the bound
    assert "predicted" not in METHODS, "a prediction stands in no report"
    table = list_plan(document)
    assert table is not None
    assert "~: predicted" in table.caption
    assert "predicted: " in list_methods(document)


def test_rows_are_judged_by_their_tightest_limit() -> None:
    figures = {"flash": {"value": 50}, "ram": {"value": 30}, "latency": {"value": None}}
    limits = [
        {"figure": name, "limit": limit, "unit": "bytes", "of": "board"}
        for name, limit in (("flash", 100), ("ram", 40))
    ]
    row = judge_row({"figures": figures, "width": 100, "target": "a"}, limits)
    assert (row["state"], row["tightest"]["figure"], row["tightest"]["use"]) == ("fits", "ram", 0.75)
    late = [*limits, {"figure": "latency", "limit": 1, "unit": "microseconds", "of": "--budget"}]
    assert judge_row(row, late)["state"] == "unknown"
    none = [{"figure": "flash", "limit": 0, "unit": "bytes", "of": "--budget"}]
    over = judge_row(row, none)
    assert over["state"] == "missed"
    assert [item["state"] for item in sort_rows([row, judge_row(row, []), over])] == ["missed", "fits", "no limit"]


def test_tables_of_an_empty_plan() -> None:
    document: dict[str, Any] = {"rows": [], "targets": [], "widths": []}
    assert list_plan(document) is None
    assert list_linux(document) is None
    assert list_refusals(document) is None
    assert list_methods(document) == ""
    assert list_widths(document).rows == ()
