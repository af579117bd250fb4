"""The ready CI files: what they hold, and every step of theirs run for real, in a repository with a tiny model."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
import yaml
from torch import nn

from edgeprune.artifacts import Normalization
from edgeprune.load import save_model
from edgeprune.lower import write_tflite
from edgeprune.report.budget import parse_budgets
from edgeprune.report.tolerance import parse_tolerances
from tests.test_compile_program import make_program

ROOT = Path(__file__).parent.parent
DATA = ROOT / "calibration_data" / "ItalyPowerDemand.npz"
GITHUB = ROOT / "tools" / "ci" / "edgeprune-github.yml"
GITLAB = ROOT / "tools" / "ci" / "edgeprune-gitlab.yml"
SECONDS = 300  # of one step, on a busy machine


def read(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text())


@dataclass
class Repository:
    """A checkout with a model, and a folder of commands that stand in for those of the CI system."""

    folder: Path
    commands: Path

    def run(self, script: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """One step as the runners run it: bash -e -o pipefail."""
        values = {
            **{name: os.environ[name] for name in ("HOME", "EDGEPRUNE_CACHE") if name in os.environ},
            "PATH": f"{self.commands}:/usr/bin:/bin",
            "OMP_NUM_THREADS": "1",
            **environment,
        }
        return subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
            cwd=self.folder,
            env=values,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    def stand_in(self, name: str, text: str) -> None:
        path = self.commands / name
        path.write_text(f"#!/bin/bash\nset -e\n{text}\n")
        path.chmod(0o755)

    def new_checkout(self) -> None:
        shutil.rmtree(self.folder / "build", ignore_errors=True)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    made = Repository(tmp_path / "checkout", tmp_path / "commands")
    made.folder.mkdir()
    made.commands.mkdir()
    made.stand_in("pip", f'echo "pip $*" >> {tmp_path}/pip.log')
    made.stand_in("edgeprune", f'export PYTHONPATH={ROOT}\nexec {sys.executable} -m edgeprune "$@"')
    shutil.copy(DATA, made.folder / "data.npz")
    return made


def publish(repository: Repository, artifact: Path | None) -> None:
    """What gh and curl find: the artifact of the default branch's last run, or none."""
    if artifact is None:
        repository.stand_in("gh", "exit 0")
        repository.stand_in("curl", "exit 22")
        return
    arrive = 'while [ "$1" != "$flag" ]; do shift; done'
    listing = 'if [ "$2" = list ]; then echo 77; exit; fi'
    repository.stand_in("gh", f'{listing}\n[ "$3" = 77 ]\nflag=--dir; {arrive}; cp {artifact} "$2/report.json"')
    repository.stand_in("curl", f'flag=--output; {arrive}; cp {artifact} "$2"')


# --- what the files hold


def test_the_workflow_is_one_that_github_runs() -> None:
    workflow = read(GITHUB)
    assert set(workflow) == {"name", True, "permissions", "env", "jobs"}  # YAML 1.1 reads the key `on` as true
    assert set(workflow[True]) == {"push", "pull_request"}
    assert workflow["permissions"] == {"contents": "read", "actions": "read"}
    (job,) = workflow["jobs"].values()
    assert set(job) == {"runs-on", "timeout-minutes", "defaults", "steps"}
    for step in job["steps"]:
        assert ("run" in step) != ("uses" in step)
        assert set(step) <= {"name", "if", "env", "run", "uses", "with"}
        if "uses" in step:
            assert re.fullmatch(r"actions/[a-z-]+@v\d+", step["uses"])  # GitHub's own actions only
    uploaded = [step["with"] for step in job["steps"] if step.get("uses", "").startswith("actions/upload-artifact")]
    assert [(item["name"], item["path"]) for item in uploaded] == [("edgeprune", "build/edgeprune")]


def test_steps_take_values_from_the_environment_only() -> None:
    """A ${{ }} in a script is pasted into it: a branch's name could run code."""
    for step in read(GITHUB)["jobs"]["edgeprune"]["steps"]:
        assert "${{" not in step.get("run", "")


def test_the_job_is_one_that_gitlab_runs() -> None:
    document = read(GITLAB)
    assert list(document) == ["edgeprune"]
    job = document["edgeprune"]
    assert set(job) == {"stage", "image", "timeout", "rules", "variables", "cache", "script", "artifacts"}
    assert all(isinstance(line, str) for line in job["script"])
    assert all(isinstance(value, str) for value in job["variables"].values())
    artifacts = job["artifacts"]
    assert artifacts["when"] == "always"
    assert artifacts["reports"] == {"junit": "build/gate.xml"}
    assert not any("*" in path for path in artifacts["paths"])  # GitLab exposes no artifacts by patterns


@pytest.mark.parametrize("values", [read(GITHUB)["env"], read(GITLAB)["edgeprune"]["variables"]])
def test_the_values_to_set_are_ones_that_edgeprune_reads(values: dict[str, str]) -> None:
    assert set(values) == {"PACKAGE", "MODEL", "DATA", "TARGET", "BUDGET", "TOLERANCE", "OPTIONS"}
    assert parse_budgets(values["BUDGET"])
    assert parse_tolerances(values["TOLERANCE"])


@pytest.mark.parametrize("path", [GITHUB, GITLAB])
def test_every_script_is_one_that_bash_reads(path: Path) -> None:
    for script in list_scripts(path):
        subprocess.run(["bash", "-n", "-c", script], check=True, capture_output=True)


def list_scripts(path: Path) -> list[str]:
    if path == GITLAB:
        return ["\n".join(read(GITLAB)["edgeprune"]["script"])]
    return [step["run"] for step in read(GITHUB)["jobs"]["edgeprune"]["steps"] if "run" in step]


# --- what their steps do


@dataclass
class Ending:
    """How a job ended: the first exit code that is not 0, what it printed, its summary (GitHub)."""

    exit_code: int
    output: str
    summary: str = ""


def run_github(repository: Repository, values: Mapping[str, str]) -> Ending:
    """The workflow's steps one after the other, with `if` as GitHub reads it; actions are left out."""
    workflow = read(GITHUB)
    summary = repository.folder.parent / "summary.md"
    summary.write_text("")
    environment = {**workflow["env"], **values, "GITHUB_STEP_SUMMARY": str(summary)}
    ending = Ending(0, "")
    for step in workflow["jobs"]["edgeprune"]["steps"]:
        if "run" not in step or not is_wanted(step.get("if"), ending.exit_code, repository.folder):
            continue
        own = {name: expand(value) for name, value in step.get("env", {}).items()}
        result = repository.run(step["run"], {**environment, **own})
        ending.output += result.stdout + result.stderr
        ending.exit_code = ending.exit_code or result.returncode
    ending.summary = summary.read_text()
    return ending


def is_wanted(condition: str | None, exit_code: int, folder: Path) -> bool:
    """The three conditions that the workflow has."""
    if condition is None:
        return exit_code == 0
    assert condition in (
        "${{ !cancelled() }}",
        "${{ !cancelled() && hashFiles('build/edgeprune/report.json') != '' }}",
    )
    return "hashFiles" not in condition or (folder / "build/edgeprune/report.json").exists()


def expand(value: str) -> str:
    return {"${{ github.token }}": "secret", "${{ github.event.repository.default_branch }}": "main"}[value]


def run_gitlab(repository: Repository, values: Mapping[str, str]) -> Ending:
    """The job's script as one, as GitLab's runner joins it."""
    given = {
        "CI_JOB_TOKEN": "secret",
        "CI_API_V4_URL": "https://gitlab.invalid/api/v4",
        "CI_PROJECT_ID": "1",
        "CI_DEFAULT_BRANCH": "main",
    }
    (script,) = list_scripts(GITLAB)
    result = repository.run(script, {**read(GITLAB)["edgeprune"]["variables"], **given, **values})
    return Ending(result.returncode, result.stdout + result.stderr)


@pytest.fixture
def program(repository: Repository) -> dict[str, str]:
    """A finished int8 program: the quickest thing to compile."""
    (repository.folder / "model.tflite").write_bytes(write_tflite(make_program()))
    return {
        "MODEL": "model.tflite",
        "TARGET": "cortex-m4",
        "BUDGET": "flash=256K,accuracy=1%",
        "OPTIONS": "--normalization per_series --quiet",
    }


def test_the_steps_build_gate_and_report(repository: Repository, program: dict[str, str]) -> None:
    """GitHub's steps with no baseline yet; then GitLab's, where a layer has become slower than in the last report."""
    publish(repository, None)
    first = run_github(repository, program)
    assert first.exit_code == 0, first.output
    assert "::notice::no earlier run of main" in first.output
    assert "# edgeprune gate: model for cortex-m4 passed" in first.summary
    assert "# edgeprune: model for cortex-m4\n" in first.summary
    assert (repository.folder.parent / "pip.log").read_text() == "pip install --quiet edgeprune[cortex-m]\n"

    report = json.loads((repository.folder / "build/edgeprune/report.json").read_text())
    released = repository.folder.parent / "released.json"
    released.write_text(json.dumps(make_faster(report, "conv_2d1", 100)))
    publish(repository, released)
    repository.new_checkout()
    second = run_gitlab(repository, program)
    assert second.exit_code == 4, second.output
    assert "(see layer conv_2d1)" in second.output
    suite = ElementTree.parse(repository.folder / "build/gate.xml").getroot()[0]
    assert [case.get("name") for case in suite if case.find("failure") is not None] == ["instructions"]


def make_faster(report: dict[str, Any], layer: str, instructions: int) -> dict[str, Any]:
    """The same report with fewer instructions in one layer: what the default branch had."""
    names = [entry["name"] for entry in report["firmware"]["layers"]]
    assert layer in names, names
    for entry in report["firmware"]["layers"]:
        if entry["name"] == layer:
            entry["instructions"] -= instructions
    report["metrics"]["instructions"]["value"] -= instructions
    return report


# --- the whole job with training, twice, with a deliberate regression in between


class Network(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv1d(1, 8, 7, padding="same")
        self.second = nn.Conv1d(8, width, 3, padding=1)
        self.head = nn.Linear(width, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.second(torch.relu(self.first(x)))).mean(-1))


@pytest.mark.slow
@pytest.mark.parametrize("run", [run_github, run_gitlab])
def test_a_regression_stops_the_job_and_names_the_layer(repository: Repository, run: Any) -> None:
    values = {
        "MODEL": "model.pt",
        "TARGET": "nucleo-l4r5zi",
        "BUDGET": "flash=256K,latency=20ms",
        "OPTIONS": "--method l1 --epochs 3 --quiet",
    }
    publish(repository, None)
    for width, exit_code in ((10, 0), (10, 0), (24, 4)):
        torch.manual_seed(0)
        save_model(
            Network(width),
            torch.zeros(2, 1, 24),
            repository.folder / "model.pt",
            normalization=Normalization("per_series"),
        )
        repository.new_checkout()
        ending = run(repository, values)
        assert ending.exit_code == exit_code, ending.output
        report = repository.folder.parent / "released.json"
        shutil.copy(repository.folder / "build/edgeprune/report.json", report)
        publish(repository, report)
    assert re.search(r"instructions [\d,]+ → [\d,]+ \(see layer second\)", re.sub(r"\s+", " ", ending.output))


@pytest.mark.slow
@pytest.mark.parametrize("run", [run_github, run_gitlab])
def test_a_job_over_budget_still_gates_and_reports(repository: Repository, run: Any, program: dict[str, str]) -> None:
    publish(repository, None)
    ending = run(repository, {**program, "BUDGET": "flash=1K"})
    assert ending.exit_code == 3, ending.output
    assert (repository.folder / "build/gate.xml").exists()
    assert "flash: " in ending.output


@pytest.mark.slow
@pytest.mark.parametrize("run", [run_github, run_gitlab])
def test_a_job_without_a_model_ends_with_the_compilers_code(repository: Repository, run: Any) -> None:
    publish(repository, None)
    ending = run(repository, {"MODEL": "nowhere.pt"})
    assert ending.exit_code == 2, ending.output
    assert list((repository.folder / "build").glob("gate.*")) == []
