"""The built wheel, outside the checkout: what a user gets from pip."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from the checkout, without fetching anything."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_brings_targets_schema_template_and_licence(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    targets = {path.name for path in (ROOT / "targets").glob("*.toml")}
    assert {name.rsplit("/", 1)[1] for name in names if name.startswith("edgeprune/_targets/")} == targets
    assert {"edgeprune/report/schema.json", "edgeprune/report/page.html.jinja"} <= names
    assert {"edgeprune/measure/linux/bench.c", "edgeprune/stages/linux_readme.md.jinja"} <= names
    assert any(name.endswith("/LICENSE") for name in names)
    assert not any(name.startswith(("tests/", "tools/", "build/")) for name in names)


@pytest.mark.slow
def test_the_wheel_trains_and_compiles_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    data = ROOT / "calibration_data" / "ItalyPowerDemand.npz"
    environment = {**os.environ, "PYTHONPATH": str(site), "PYTHONSAFEPATH": "1"}

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "edgeprune", *arguments]
        result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        return result.stdout

    code = "import edgeprune; print(edgeprune.__file__)"
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout
    assert found.startswith(str(site)), "the checkout was imported, not the wheel"
    assert "cortex-m4" in [target["name"] for target in json.loads(run("targets", "--json"))]
    run("train", "--arch", "lite", "--data", str(data), "--epochs", "3", "-o", "model.pt")
    run("compile", "model.pt", "--target", "nucleo-l4r5zi", "--method", "l1", "--epochs", "3", "-o", "out")
    assert (tmp_path / "out" / "model_int8.tflite").is_file()
