"""edgeprune.toml: read, checked, and merged by the names of the command line."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeprune import config as config_module
from edgeprune.config import TABLES, Config, load_config, load_config_beside, load_config_options
from edgeprune.errors import InputError


def write(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "edgeprune.toml"
    path.write_text(text, encoding=encoding)
    return path


def read_example() -> str:
    lines = str(config_module.__doc__).splitlines()
    return "\n".join(line[4:] for line in lines if line.startswith("    "))


def test_the_example_in_the_docstring(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, read_example()))
    assert config.model.factory == "mynet.models:build"
    assert config.data.path == "train.npz"
    assert config.data.options == {"window_s": "2"}
    assert config.budget == {"model_bytes": "64K"}
    assert config.folder == tmp_path
    assert load_config_options(None, tmp_path / "model.pt") == {
        "factory": "mynet.models:build",
        "normalization": "per_series",
        "target": "cortex-m4",
        "output": tmp_path / "build",
        "method": "l1",
        "ratio": 0.5,
        "retrain": "finetune",
        "epochs": 300,
        "early_stopping": "macro_f1",
        "observer": "minmax",
        "fit": "latency=20ms",
        "budget": "model_bytes=64K",
    }


def test_no_file_is_an_empty_config(tmp_path: Path) -> None:
    assert load_config_beside(tmp_path / "model.pt") == Config()
    assert load_config_options(None, tmp_path / "model.pt") == {}


def test_a_named_file_wins_over_the_one_beside(tmp_path: Path) -> None:
    write(tmp_path, "[retrain]\nepochs = 3\n")
    other = tmp_path / "other.toml"
    other.write_text("[retrain]\nepochs = 4\n")
    assert load_config_beside(tmp_path / "model.pt").retrain.epochs == 3
    assert load_config_options(other, tmp_path / "model.pt") == {"epochs": 4}


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    write(tmp_path, '[compile]\ntarget = "boards/mine.toml"\n')
    assert load_config_options(None, tmp_path / "model.pt") == {"target": str(tmp_path / "boards" / "mine.toml")}


def test_free_values_become_text(tmp_path: Path) -> None:
    text = '[data]\noptions = { window_s = 2.5, channels = ["Fz", "Cz"] }\n[budget]\nmacs = 2000000\naccuracy = "90%"\n'
    config = load_config(write(tmp_path, text))
    assert config.data.options == {"window_s": "2.5", "channels": "Fz,Cz"}
    assert config.budget == {"macs": "2000000", "accuracy": "90%"}


BAD_FILES = [
    # content, words of the message
    ("[retrain]\nlearning_rat = 1", r"\[retrain\] learning_rat is not a setting; did you mean learning_rate\?"),
    ("[retrain]\nepochs = 0\nepoch = 3", r"\[retrain\] epoch is not a setting; did you mean epochs\?"),
    ("[retrain]\nratio = 0.5", r"ratio belongs under \[prune\]"),
    ("[prune]\nxyz = 1", r"\[prune\] xyz is not a setting; \[prune\] takes method, ratio"),
    ("[retrian]\nepochs = 3", r"\[retrian\] is not a table of settings; did you mean \[retrain\]\?"),
    ("[xyz]\n", r"\[xyz\] is not a table of settings; tables are \[model\]"),
    ("epochs = 3", r"epochs stands outside of any table; put it under \[retrain\]"),
    ("xyz = 3", "xyz is not a setting; tables are"),
    ("prune = 3", r"prune must be a table: write \[prune\]"),
    ("[retrain]\nepochs = 0", r"\[retrain\] epochs is 0; it must be at least 1"),
    ('[retrain]\nepochs = "3"', r"\[retrain\] epochs is '3', a text; a whole number is expected"),
    ("[retrain]\nepochs = true", "epochs is True, a boolean; a whole number"),
    ("[retrain]\nepochs = 1.5", "epochs is 1.5, a number; a whole number"),
    ("[retrain]\nseed = 1979-05-27", "seed is 1979-05-27, a date; a whole number"),
    ("[retrain]\nlearning_rate = nan", "learning_rate is nan, a number; a finite number"),
    ("[retrain]\nlearning_rate = 0", "learning_rate is 0; it must be above 0"),
    ("[retrain]\ntime_limit = [1]", r"time_limit is \[1\]; a text in quotes or a number above 0"),
    ("[prune]\nratio = 1", r"\[prune\] ratio is 1; it must be at least 0 and below 1"),
    ('[prune]\nmethod = "dps"', "method is 'dps'; allowed: 'dsp', 'l1', 'l2'"),
    ('[model]\nallow_pickle = "a"', "allow_pickle is 'a', a text; a list"),
    ('[model]\nallow_pickle = ["a", 1]', "allow_pickle is .*; a text in quotes is expected"),
    ("[data]\noptions = 3", r"\[data\] options is 3, an integer; a table"),
    ("[data]\noptions = { window_s = true }", r"\[data.options\] window_s is True; a text or a number"),
    ("[budget]\nmacs = {}", r"\[budget\] macs is {}; a text or a number"),
    ("[retrain]\nepochs = = 3", r"is not valid TOML: .*line 2, column"),
    ("[retrain", "is not valid TOML"),
]


@pytest.mark.parametrize(("text", "message"), BAD_FILES)
def test_bad_settings(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_config(write(tmp_path, text))
    assert str(caught.value).startswith("edgeprune.toml")
    assert "\n" not in str(caught.value)


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such settings file"):
        load_config_beside(tmp_path / "model.pt", tmp_path / "missing.toml")
    with pytest.raises(InputError, match="is not text in UTF-8"):
        load_config(write(tmp_path, "[model]\nfactory = 'ä'", "latin-1"))
    with pytest.raises(InputError, match="a settings file has a page of text"):
        load_config(write(tmp_path, "#" * (1024**2 + 1)))
    with pytest.raises(InputError, match=r"nested too deeply|is not valid TOML"):
        load_config(write(tmp_path, "x = " + "[" * 50_000))
    with pytest.raises(InputError, match="cannot be read"):
        load_config(tmp_path)


@settings(max_examples=100, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=60), st.sampled_from(["", "[retrain]\n", "[data]\npath = ", "[budget]\n"]))
def test_any_text_is_read_or_refused(tmp_path: Path, text: str, start: str) -> None:
    path = tmp_path / "edgeprune.toml"
    path.write_bytes((start + text).encode("utf-8", "surrogatepass"))
    try:
        load_config(path)
    except InputError:
        return  # anything but InputError fails the test


def find_choices(table: str, key: str) -> set[str]:
    """What a Literal in the schema allows."""
    hint = get_type_hints(TABLES[table])[key]
    return {value for choice in get_args(hint) for value in get_args(choice)}


def test_choices_are_those_of_the_rooms() -> None:
    from edgeprune import settings as compile_settings
    from edgeprune.artifacts import NORMALIZATION_KINDS
    from edgeprune.prune import train_settings

    assert find_choices("data", "normalization") == set(NORMALIZATION_KINDS)
    assert find_choices("prune", "method") == set(compile_settings.METHODS)
    assert find_choices("retrain", "mode") == set(compile_settings.RETRAIN_MODES)
    assert find_choices("retrain", "optimizer") == set(train_settings.OPTIMIZERS)
    assert find_choices("retrain", "schedule") == set(train_settings.SCHEDULES)
    assert find_choices("retrain", "early_stopping") == set(train_settings.EARLY_STOPPING)
    assert find_choices("retrain", "class_weights") == set(train_settings.CLASS_WEIGHTS)
    assert find_choices("retrain", "device") == set(train_settings.DEVICES)


def test_training_names_are_those_of_train_settings() -> None:
    from edgeprune.prune.train_settings import TrainSettings

    ours = {item.name for item in dataclasses.fields(TABLES["retrain"])}
    theirs = {item.name for item in dataclasses.fields(TrainSettings)}
    assert ours - {"mode", "train", "time_limit"} == theirs - {"time_limit_s"}


def test_pydantic_is_imported_late() -> None:
    code = "import sys, edgeprune.config; sys.exit('pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_compile_option_that_is_not_about_one_run_has_a_key() -> None:
    """What the command line offers can be written down once; names as the settings take them."""
    from edgeprune.settings import CompileSettings

    keys = {item.name for kind in TABLES.values() for item in dataclasses.fields(kind)} - {"path", "options"}
    keys = keys - {"mode", "samples"} | {
        "retrain",
        "calibration_samples",
        "training",
        "budgets",
        "fit",
        "data",
        "method_options",
    }
    of_one_run = {"model", "config", "cache", "use_cache", "device", "baseline", "tolerances"}
    assert {item.name for item in dataclasses.fields(CompileSettings)} - of_one_run <= keys
