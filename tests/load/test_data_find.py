"""Which reader takes which spec, and where the data of a model is looked for."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from edgeprune.config import Config, DataConfig, load_config
from edgeprune.errors import InputError
from edgeprune.load import find_dataset, load_dataset


def save_npz(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    x = np.zeros((4, 3, 5), np.float32)
    np.savez(path, x_train=x, y_train=[0, 1, 0, 1], x_test=x, y_test=[0, 1, 0, 1])
    return path


def test_option_wins(tmp_path: Path) -> None:
    config = Config(data=DataConfig(path="theirs.npz"), folder=tmp_path)
    assert find_dataset("model.pt", "mine.npz", config) == "mine.npz"


def test_settings_file_comes_next(tmp_path: Path) -> None:
    config = Config(data=DataConfig(path="sub/theirs.npz"), folder=tmp_path)
    assert find_dataset("model.pt", None, config) == str(tmp_path / "sub" / "theirs.npz")
    archive = Config(data=DataConfig(path="ucr:GunPoint"), folder=tmp_path)
    assert find_dataset("model.pt", None, archive) == "ucr:GunPoint"


def test_options_of_the_settings_file_go_with_its_data(tmp_path: Path) -> None:
    save_npz(tmp_path / "a.npz")
    (tmp_path / "edgeprune.toml").write_text('[data]\npath = "a.npz"\noptions = { layout = "NTC" }\n')
    config = load_config(tmp_path / "edgeprune.toml")
    assert load_dataset(find_dataset(tmp_path / "model.pt", None, config)).sample_shape == (5, 3)
    odd = Config(data=DataConfig(path="a.edf", options={"labels": "a&b,c=d e"}), folder=None)
    assert find_dataset("model.pt", None, odd) == "a.edf?labels=a%26b%2Cc%3Dd%20e"


def test_calibration_data_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_npz(tmp_path / "calibration_data" / "GunPoint.npz")
    found = find_dataset("somewhere/GunPoint.pt", None, Config())
    assert load_dataset(found).name == "GunPoint"


def test_nothing_found_lists_the_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"no dataset for model\.pt") as caught:
        find_dataset("somewhere/model.pt", None, None)
    for way in ("--data", "[data]", "edgeprune.toml beside the model", "calibration_data/model.npz"):
        assert way in str(caught.value)


BAD_SPECS = [
    ("missing.npz", "missing.npz: no such file or folder; --data takes a .npz file"),
    ("", "--data is empty; it takes a .npz file"),
    ("data.csv", r"data.csv: \.csv is not a dataset format"),
    ("plain", "no suffix is not a dataset format"),
    ("data.npz?layou=NTC", r"unknown data option 'layou'; did you mean layout\?"),
    ("data.npz?xyz=1", "unknown data option 'xyz'; allowed: layout"),
    ("data.npz?layout", "'layout' is not an option; write them as name=value"),
    ("ucr:GunPoint?layout=NTC", "unknown data option 'layout'; allowed: none"),
    ("empty", "holds no images"),
]


@pytest.mark.parametrize(("spec", "message"), BAD_SPECS)
def test_bad_specs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    save_npz(tmp_path / "data.npz")
    (tmp_path / "data.csv").write_text("1,2,3\n")
    (tmp_path / "plain").write_text("1,2,3\n")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=message):
        load_dataset(spec)


def test_a_question_mark_in_a_file_name_stays(tmp_path: Path) -> None:
    path = save_npz(tmp_path / "what?a=b.npz")
    assert load_dataset(str(path)).sample_shape == (3, 5)
    assert load_dataset(f"{path}?layout=NTC").sample_shape == (5, 3)


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_npz(tmp_path / "data.npz")

    def refuse(*_arguments: object, **_options: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("edgeprune.load.data_npz.zipfile.ZipFile", refuse)
    with pytest.raises(InputError, match=re.escape("data.npz may not be read: change its permissions")):
        load_dataset(str(path))
