"""Every bad input: one clear sentence, its exit code, no traceback, and the good artifact of yesterday untouched."""

from __future__ import annotations

import errno
import io
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgeprune.cli import main
from edgeprune.load import save_model
from tests.load import archive_forging as forging
from tests.load.test_archive_forged import forge_pickled_weight, forge_sample_inputs, forge_size_expression

GOOD = b"yesterday's good artifact"


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 4, 3, padding=1)
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.conv(x)).mean(-1))


class ExponentialNet(Net):
    """Has an operation that no target takes."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.erf(self.conv(x)).mean(-1))


def make_data(samples: int = 20, length: int = 12, classes: int = 2) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(samples, 1, length)).astype(np.float32)
    y = np.arange(samples) % classes
    return {"x_train": x, "y_train": y, "x_test": x[: 2 * classes], "y_test": y[: 2 * classes]}


def save_archive(module: nn.Module, path: Path) -> bytes:
    save_model(module, torch.zeros(2, 1, 12), path)
    return path.read_bytes()


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A good model file."""
    return save_archive(Net(), tmp_path_factory.mktemp("good") / "model.pt")


def compress(entries: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in entries.items():
            packed.writestr(f"archive/{name}", content)
    return buffer.getvalue()


# model file: what is made of the good archive -> exit code, words of the sentence
MODELS: dict[str, tuple[Callable[[bytes, Path], bytes | None], int, str]] = {
    "missing": (lambda _data, _marker: None, 2, "does not exist"),
    "empty": (lambda _data, _marker: b"", 2, "empty"),
    "truncated": (lambda data, _marker: data[: len(data) // 2], 2, "truncated"),
    "random bytes": (lambda _data, _marker: np.random.default_rng(0).bytes(5000), 2, "no PyTorch or ONNX model"),
    "zip bomb": (lambda data, _marker: compress({**forging.unpack(data), "extra/big": bytes(10**7)}), 7, "compressed"),
    "name with ..": (lambda data, _marker: forging.pack({**forging.unpack(data), "../../x": b"x"}), 7, ".."),
    "code in sample inputs": (forge_sample_inputs, 7, "code"),
    "code in a weight": (forge_pickled_weight, 7, "code"),
    "code in a size": (forge_size_expression, 7, "code"),
    "plain pickle": (lambda _data, _marker: b"\x80\x04}q\x00.", 7, "pickle"),
}


@pytest.mark.parametrize("case", MODELS)
def test_bad_model_files(
    case: str, archive: bytes, tmp_path: Path, run_compile: Callable[..., tuple[int, str]]
) -> None:
    make, exit_code, words = MODELS[case]
    marker = tmp_path / "marker"
    content = make(archive, marker)
    model = tmp_path / "model.pt"
    if content is not None:
        model.write_bytes(content)
    np.savez(tmp_path / "data.npz", **make_data())
    code, sentence = run_compile(model, tmp_path / "data.npz")
    assert (code, words in sentence) == (exit_code, True), sentence
    assert not marker.exists()


def set_value(key: str, index: tuple[int, ...], value: float) -> Callable[[dict[str, np.ndarray]], None]:
    def change(data: dict[str, np.ndarray]) -> None:
        data[key][index] = value

    return change


def set_array(key: str, make: Callable[[np.ndarray], np.ndarray]) -> Callable[[dict[str, np.ndarray]], None]:
    def change(data: dict[str, np.ndarray]) -> None:
        data[key] = make(data[key])

    return change


# dataset: what is changed in a good one -> words of the sentence; all end with 2
DATASETS: dict[str, tuple[Callable[[dict[str, np.ndarray]], object], str]] = {
    "wrong shape": (
        lambda data: data.update(x_train=data["x_train"][..., :9], x_test=data["x_test"][..., :9]),
        "the data has (1, 9)",
    ),
    "NaN": (set_value("x_train", (3, 0, 5), np.nan), "sample 3"),
    "infinity": (set_value("x_test", (1, 0, 2), np.inf), "sample 1"),
    "one class": (set_array("y_train", np.zeros_like), "one class only"),
    "fewer samples than classes": (lambda data: data.update(make_data(samples=3, classes=5)), "class"),
    "labels that do not fit the head": (lambda data: data.update(make_data(classes=4)), "4 classes"),
    "no samples": (set_array("x_train", lambda x: x[:0]), "empty"),
    "labels missing": (lambda data: data.pop("y_test"), "needed are"),
    "text for values": (set_array("x_train", lambda x: x.astype(str)), "dtype"),
    "no labels at all": (lambda data: (data.pop("y_train"), data.pop("y_test")), "holds no labels"),
}


@pytest.mark.parametrize("case", DATASETS)
def test_bad_datasets(case: str, archive: bytes, tmp_path: Path, run_compile: Callable[..., tuple[int, str]]) -> None:
    change, words = DATASETS[case]
    data = make_data()
    change(data)
    np.savez(tmp_path / "data.npz", **data)
    (tmp_path / "model.pt").write_bytes(archive)
    code, sentence = run_compile(tmp_path / "model.pt", tmp_path / "data.npz")
    assert (code, words in sentence) == (2, True), sentence


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite(value: float, tmp_path: Path, run_compile: Callable[..., tuple[int, str]]) -> None:
    net = Net()
    archive = save_archive(net, tmp_path / "model.pt")
    entries = forging.unpack(archive)
    weights = np.frombuffer(entries["data/weights/weight_0"], np.float32).copy()
    weights[0] = value
    (tmp_path / "model.pt").write_bytes(forging.replace_entry(archive, "data/weights/weight_0", weights.tobytes()))
    np.savez(tmp_path / "data.npz", **make_data())
    code, sentence = run_compile(tmp_path / "model.pt", tmp_path / "data.npz")
    assert code == 2
    assert "conv.weight" in sentence


def test_an_operation_that_is_not_supported(tmp_path: Path, run_compile: Callable[..., tuple[int, str]]) -> None:
    save_archive(ExponentialNet(), tmp_path / "model.pt")
    np.savez(tmp_path / "data.npz", **make_data())
    code, sentence = run_compile(tmp_path / "model.pt", tmp_path / "data.npz")
    assert code == 5
    assert "erf" in sentence.lower()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--target", "cortex-m5"), "cortex-m"),
        (("--target", "missing.toml"), "missing.toml"),
        (("--config", "missing.toml"), "missing.toml"),
        (("--budget", "ram"), "there is no '='"),
        (("--epochs", "0"), "epochs is 0"),
        (("--time-limit", "soon"), "--time-limit"),
        (("--train-device", "tpu"), "allowed: auto, cpu, cuda"),
    ],
)
def test_bad_options(
    options: tuple[str, ...],
    words: str,
    archive: bytes,
    tmp_path: Path,
    run_compile: Callable[..., tuple[int, str]],
) -> None:
    (tmp_path / "model.pt").write_bytes(archive)
    np.savez(tmp_path / "data.npz", **make_data())
    code, sentence = run_compile(tmp_path / "model.pt", tmp_path / "data.npz", *options)
    assert (code, words in sentence) == (2, True), sentence


def test_a_misspelt_setting_names_the_nearest(
    archive: bytes, tmp_path: Path, run_compile: Callable[..., tuple[int, str]]
) -> None:
    (tmp_path / "model.pt").write_bytes(archive)
    (tmp_path / "edgeprune.toml").write_text("[retrain]\nlearning_rat = 0.1\n")
    np.savez(tmp_path / "data.npz", **make_data())
    code, sentence = run_compile(tmp_path / "model.pt", tmp_path / "data.npz")
    assert code == 2
    assert "did you mean learning_rate?" in sentence


def test_an_output_folder_that_is_a_file(
    archive: bytes, tmp_path: Path, run_compile: Callable[..., tuple[int, str]]
) -> None:
    (tmp_path / "model.pt").write_bytes(archive)
    np.savez(tmp_path / "data.npz", **make_data())
    (tmp_path / "file").write_text("in the way")
    code, sentence = run_compile(tmp_path / "model.pt", tmp_path / "data.npz", "--output", str(tmp_path / "file"))
    assert code == 2
    assert "a file stands where a folder is needed" in sentence


def test_an_output_folder_that_is_not_writable(
    archive: bytes, tmp_path: Path, run_compile: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.pt").write_bytes(archive)
    np.savez(tmp_path / "data.npz", **make_data())

    def refuse(*_arguments: object, **_options: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")  # root, who runs CI, may write anywhere

    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    code, sentence = run_compile(tmp_path / "model.pt", tmp_path / "data.npz")
    assert code == 2
    assert "the folder is not writable" in sentence


@pytest.fixture
def run_compile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """Run `edgeprune compile` on a model and data that must fail; gives the exit code and the sentence."""

    def run(model: Path, data: Path, *options: str) -> tuple[int, str]:
        output = tmp_path / "out"
        output.mkdir()
        (output / "model_int8.tflite").write_bytes(GOOD)
        arguments = ["--output", str(output), *options] if "--output" not in options else list(options)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(
            sys, "argv", ["edgeprune", "compile", str(model), "--data", str(data), "--method", "l1", *arguments]
        )
        with pytest.raises(SystemExit) as ending:
            main()
        captured = capsys.readouterr()
        lines = [line for line in captured.err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, captured.err
        assert "Traceback" not in captured.err
        assert "a fault in edgeprune" not in captured.err
        assert [path.name for path in output.iterdir()] == ["model_int8.tflite"]
        assert (output / "model_int8.tflite").read_bytes() == GOOD
        return int(ending.value.code or 0), lines[0]

    return run
