"""Every pruning method, from a model file to firmware that has run, on a small net and real data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from torch import nn

from edgeprune.artifacts import Normalization
from edgeprune.load import save_model
from edgeprune.method_table import METHODS
from edgeprune.pipeline import CompileResult, compile_model
from edgeprune.progress import Progress
from edgeprune.prune import TrainingInterruptedError
from edgeprune.prune import checkpoint as checkpoint_module
from edgeprune.report import load_schema
from edgeprune.settings import CompileSettings

ITALY = Path(__file__).parent.parent / "calibration_data" / "ItalyPowerDemand.npz"
# as small as still shows what the method does; a schedule of two steps, penalties strong enough for a few epochs
OPTIONS: dict[str, dict[str, Any]] = {
    "dsp": {"sparsity_weight": 1e-3},
    "static": {"width": 3},
    "taylor": {"step": 0.3, "step_epochs": 1},
    "prox-slimming": {"sparsity_weight": 1.0, "prox_weight": 100.0},
    "lth": {"iterations": 2, "step_epochs": 2, "step": 0.6, "stop": "incop-gf"},
    "sap": {"iterations": 2, "step_epochs": 2, "stop": "incop-if"},
    "dprp": {"compression_weight": 1.0, "rank_epsilon": 0.7},
}


class SmallNet(nn.Module):
    """Two convolutions with batch norms on 24 values."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(1, 6, 7, padding="same", bias=False)
        self.norm = nn.BatchNorm1d(6)
        self.second = nn.Conv1d(6, 8, 5, padding="same", bias=False)
        self.last_norm = nn.BatchNorm1d(8)
        self.head = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.first(x)))
        return self.head(torch.relu(self.last_norm(self.second(x))).mean(-1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and 40 training, 20 test samples."""
    folder = tmp_path_factory.mktemp("methods")
    torch.manual_seed(2)
    save_model(SmallNet(), torch.zeros(2, 1, 24), folder / "model.pt", normalization=Normalization("per_series"))
    with np.load(ITALY) as data:
        parts = {
            name: data[name][: 40 if "train" in name else 20] for name in ("x_train", "y_train", "x_test", "y_test")
        }
    np.savez(folder / "data.npz", **parts)
    return folder


def compile_with(
    folder: Path, output: Path, method: str, progress: Progress | None = None, **changes: Any
) -> CompileResult:
    settings = CompileSettings(
        model=folder / "model.pt",
        data=str(folder / "data.npz"),
        method=method,
        **{
            "target": "cortex-m4",
            "method_options": OPTIONS.get(method, {}),
            "training": {"epochs": 4, "batch_size": 8, "learning_rate": 0.01},
            "output": output,
            **changes,
        },
    )
    return compile_model(settings, progress or Progress())


@pytest.mark.parametrize("method", [name for name in METHODS if name != "none"])
def test_a_method_goes_from_model_to_firmware(folder: Path, tmp_path: Path, method: str) -> None:
    result = compile_with(folder, tmp_path, method)
    assert (result.exit_code, result.document["outcome"]) == (0, "Built and verified")
    document = json.loads((tmp_path / "report.json").read_text())
    jsonschema.validate(document, load_schema())
    section = document["pruning"]
    assert section["method"] == method
    assert section["options"].keys() == {*METHODS[method].defaults, "retrain"}
    assert section["trainings"]
    assert document["metrics"]["instructions"]["method"] == "emulated_instructions"
    variants = document["variants"]
    if "masks" in section:  # zeros are not fewer parameters, and save bytes only on the way
        assert 0 < section["masks"]["zeros"] < section["masks"]["weights"]
        is_sparse = section["masks"]["zeros"] > 0.5 * section["masks"]["weights"]  # fewer drown in the file's own text
        assert section["transport"]["bytes"] < section["transport"]["base_bytes"] or not is_sparse
    elif method == "dprp":
        assert any(row["rank"] < row["full_rank"] for row in section["ranks"])
        assert section["forms"]["chosen_by"] == "multiply-accumulates and modelled cycles of cortex-m4"
        assert variants["int8"]["macs"] <= variants["base"]["macs"]
    else:
        assert variants["int8"]["parameters"] < variants["base"]["parameters"]


class Interrupter(Progress):
    """Presses Ctrl-C at the n-th training."""

    def __init__(self, at_training: int) -> None:
        self._left = at_training
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)

    def step(self, title: str, total: int | None = None) -> Any:
        self._left -= title.startswith("iteration") or "step" in title
        outer = self

        class Pressing:
            epochs = 0

            def __enter__(self) -> Pressing:
                return self

            def __exit__(self, *_: object) -> None:
                return None

            def advance(self, amount: int = 1, **figures: float | str) -> None:
                self.epochs += 1
                if outer._left == 0 and self.epochs == 2:
                    outer._left = -1
                    raise KeyboardInterrupt

        return Pressing()


def test_a_schedule_that_was_cut_off_ends_in_the_same_bytes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_module, "SECONDS_BETWEEN_COPIES", 0.0)
    changes = {"method_options": {"iterations": 3, "step_epochs": 3}, "target": "host"}
    compile_with(folder, tmp_path / "undisturbed", "lth", use_cache=False, **changes)
    with pytest.raises(TrainingInterruptedError, match="run the same command again, and it goes on"):
        compile_with(folder, tmp_path / "cut", "lth", Interrupter(at_training=2), **changes)
    assert not list((tmp_path / "cut").glob("*.tflite"))
    progress = Interrupter(at_training=-1)
    compile_with(folder, tmp_path / "cut", "lth", progress, **changes)
    assert any("goes on after epoch" in note for note in progress.notes)
    for name in ("model_float32.onnx", "model_int8.tflite"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes()


def test_accuracy_drop_searches_and_says_what_it_tried(folder: Path, tmp_path: Path) -> None:
    changes = {"method_options": {}, "accuracy_drop": 40.0, "metric": "macro_f1", "target": "host"}
    result = compile_with(folder, tmp_path, "l1", **changes)
    section = result.document["pruning"]
    search = section["search"]
    assert (search["metric"], search["drop"]) == ("macro_f1", 0.4)
    assert len(search["tried"]) >= 4
    assert search["trainings"] == len(section["trainings"])
    within = [trial["value"] for trial in search["tried"] if trial["within_limit"]]
    assert search["chosen"] == (max(within) if within else None)
    assert any("validation samples, 20 % of the training samples" in note for note in result.document["notes"])
