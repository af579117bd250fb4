"""`edgeprune gate`, `diff`, `history` and the budgets of other commands, as a user runs them."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from edgeprune.cli import main
from edgeprune.lower import write_tflite
from tests.report.gate_sample import change_layer, make_report
from tests.test_compile_program import make_program

DATA = Path(__file__).parent.parent / "calibration_data" / "ItalyPowerDemand.npz"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run the program in this process, in an empty folder: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def run_program(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["edgeprune", *arguments])
        with pytest.raises(SystemExit) as ending:
            main()
        captured = capsys.readouterr()
        return int(ending.value.code or 0), captured.out, captured.err

    return run_program


@pytest.fixture
def reports(tmp_path: Path) -> None:
    """old.json, new.json (one layer slower), broken.json (a parity check failed), other.json (another target)."""
    slower = make_report({"instructions": 10_700}, layers=change_layer("fc", instructions=2200))
    broken = copy.deepcopy(slower)
    broken["parity"]["passed"] = broken["parity"]["checks"][0]["passed"] = False
    for name, document in {
        "old": make_report(),
        "new": slower,
        "broken": broken,
        "other": make_report(target={"name": "cortex-m7"}),
        "unmeasured": make_report({"instructions": None}),
    }.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(document))


@pytest.mark.usefixtures("reports")
@pytest.mark.parametrize(
    ("arguments", "exit_code", "expected"),
    [
        (("old.json", "--baseline", "old.json"), 0, "Passed against the baseline: 10 same"),
        (("old.json", "--budget", "flash=64K"), 0, "Passed: 1 budget met"),
        (("old.json", "--budget", "flash=1K"), 3, "Over budget: flash: 12,000 B, over 1,024 B"),
        (("new.json", "--baseline", "old.json"), 4, "instructions 10,000 → 10,700 (see layer fc)"),
        (("new.json", "--baseline", "old.json", "--tolerance", "instructions=7%"), 0, "1 within tolerance"),
        (("new.json", "--baseline", "old.json", "--budget", "flash=1K"), 4, "Over budget"),
        (("unmeasured.json", "--baseline", "old.json"), 6, "instructions: refused: the baseline has it"),
        (("broken.json", "--baseline", "old.json"), 1, "Parity failed: TFLite Micro"),
    ],
)
def test_the_exit_code_says_whether_it_may_ship(
    run: Run, arguments: tuple[str, ...], exit_code: int, expected: str
) -> None:
    code, output, errors = run("gate", *arguments)
    assert (code, errors) == (exit_code, "")
    assert expected in " ".join(output.split())


@pytest.mark.usefixtures("reports")
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("gate", "old.json"), "nothing to hold the report against"),
        (("gate", "nowhere.json", "--budget", "flash=1K"), "nowhere.json: cannot be read"),
        (("gate", "old.json", "--baseline", "other.json"), "the report is for cortex-m4, the baseline for cortex-m7"),
        (("gate", "old.json", "--budget", "flsh=1K"), "Did you mean flash?"),
        (("gate", "old.json", "--baseline", "old.json", "--tolerance", "accuracy=1%"), "write percentage points"),
        (("gate", "old.json", "--budget", "flash=1K", "--tolerance", "flash=1%"), "give --baseline"),
        (("gate", "old.json", "--budget", "flash=1K", "--github", "--json"), "choose one"),
        (("gate", "old.json", "--budget", "flash=1K", "--junit", "old.json/gate.xml"), "a file stands where a folder"),
        (("diff", "old.json", "nowhere.json"), "nowhere.json: cannot be read"),
        (("history", "nowhere"), "this is no folder"),
        (("history", ".", "-o", "history.png"), "name a .html file"),
        (("history", ".", "--order", "size"), "allowed: name, time"),
        (("evaluate", "nowhere.tflite", "--budget", "flash=1K"), "not measured here; allowed: accuracy, macro_f1"),
        (
            ("train", "--arch", "lite", "--data", "nowhere", "--budget", "flash=1K"),
            "allowed: accuracy, macro_f1, param",
        ),
    ],
)
def test_mistakes_end_with_one_sentence_and_exit_code_2(run: Run, arguments: tuple[str, ...], expected: str) -> None:
    code, output, errors = run(*arguments)
    assert (code, output) == (2, "")
    assert expected in " ".join(errors.split())
    assert "Traceback" not in errors


@pytest.mark.usefixtures("reports")
def test_all_outputs_tell_the_same(run: Run, tmp_path: Path) -> None:
    arguments = ("new.json", "--baseline", "old.json", "--budget", "flash=64K")
    code, output, _ = run("gate", *arguments, "--junit", "out/gate.xml", "--markdown", "out/gate.md", "--github")
    assert code == 4
    annotations = [line for line in output.splitlines() if line.startswith("::")]
    assert annotations == [
        "::error title=edgeprune%3A instructions%3A worse::instructions: worse, 10,000 → 10,700 (+700, +7.00 %25), "
        "tolerance none%0Afc (fully_connected): 1,500 → 2,200 instructions, +700"
    ]
    suites = ElementTree.parse(tmp_path / "out" / "gate.xml").getroot()
    assert suites.get("failures") == "1"
    assert "FAILED (exit code 4)" in (tmp_path / "out" / "gate.md").read_text()
    code, output, _ = run("gate", *arguments, "--json")
    document = json.loads(output)
    assert code == document["exit_code"] == 4
    assert {metric["name"]: metric["verdict"] for metric in document["metrics"]}["instructions"] == "worse"
    assert document["layers"][0]["layers"][0]["layer"] == "fc"
    assert document["budgets"][0]["state"] == "met"


@pytest.mark.usefixtures("reports")
def test_a_folder_stands_for_its_report(run: Run, tmp_path: Path) -> None:
    (tmp_path / "build").mkdir()
    (tmp_path / "old.json").rename(tmp_path / "build" / "report.json")
    assert run("gate", "build", "--budget", "flash=64K")[0] == 0


@pytest.mark.usefixtures("reports")
@pytest.mark.parametrize("other", ["old", "new", "other", "broken", "unmeasured"])
def test_diff_shows_and_never_judges(run: Run, other: str) -> None:
    code, output, errors = run("diff", "old.json", f"{other}.json")
    assert (code, errors) == (0, "")
    assert "instructions" in output
    assert run("diff", "old.json", f"{other}.json", "--json")[0] == 0


@pytest.mark.usefixtures("reports")
def test_diff_shows_what_moved(run: Run) -> None:
    output = run("diff", "old.json", "new.json")[1]
    assert "+700, +7.00 %" in output
    assert "1,500 → 2,200" in output
    assert "accuracy: McNemar, n = 40: 0 newly wrong, 0 newly right, p = 1" in output


@pytest.mark.usefixtures("reports")
def test_history_draws_each_model_and_target(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeprune.report.history_png.draw_png", lambda *_: b"a picture")
    code, output, _ = run("history", ".")
    assert code == 0
    assert "5 reports of 2 series: history.html, history.png" in output
    assert (tmp_path / "history.png").read_bytes() == b"a picture"
    described = json.loads(run("history", ".", "--json")[1])
    assert [report["label"] for report in described["reports"]] == ["broken", "new", "old", "other", "unmeasured"]


def test_evaluate_holds_its_budgets(run: Run, tmp_path: Path) -> None:
    (tmp_path / "series.tflite").write_bytes(write_tflite(make_program()))
    arguments = (
        "evaluate",
        "series.tflite",
        "--data",
        str(DATA),
        "--normalization",
        "per_series",
        "--executor",
        "reference",
    )
    code, output, _ = run(*arguments, "--budget", "accuracy=1%,macro_f1=100%")
    assert code == 3
    assert "budget met: accuracy: " in output
    assert "budget missed: macro_f1: " in output
    code, output, _ = run(*arguments, "--budget", "accuracy=1%", "--json")
    assert code == 0
    assert json.loads(output)["budgets"][0]["state"] == "met"


@pytest.mark.usefixtures("reports")
def test_a_gate_does_not_wait_for_torch(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom edgeprune.cli import app\n"
        "app(['gate', 'old.json', '--baseline', 'old.json'], standalone_mode=False)\n"
        "print(sorted({'torch', 'onnx', 'plotly', 'matplotlib'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert result.stdout.splitlines()[-1] == "[]"


def test_the_json_of_a_gate_is_plain(run: Run, tmp_path: Path) -> None:
    report: dict[str, Any] = make_report()
    (tmp_path / "report.json").write_text(json.dumps(report))
    document = json.loads(run("gate", ".", "--baseline", ".", "--json")[1])
    assert document["baseline"]["model"] == "model"
    assert [metric["verdict"] for metric in document["metrics"] if metric["name"] == "accuracy"] == ["same"]
