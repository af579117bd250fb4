"""The table of methods: complete, consistent with the classes, the command line and the settings file."""

from __future__ import annotations

import dataclasses
import re
from typing import get_args, get_type_hints

import pytest
from typer.testing import CliRunner

from edgeprune.cli import app
from edgeprune.config import PruneConfig
from edgeprune.errors import InputError
from edgeprune.method_table import METHODS, METRICS, OPTIONS, STOP_RULES, check_options, explain_refusal, parse_norms
from edgeprune.prune import METHODS as CLASSES
from edgeprune.prune import make_method
from edgeprune.prune.train_settings import TrainSettings


def test_every_method_has_a_class_with_its_options_as_fields() -> None:
    assert set(CLASSES) == set(METHODS) - {"none"}
    for name, kind in CLASSES.items():
        fields = {item.name for item in dataclasses.fields(kind)}  # type: ignore[arg-type]
        assert fields == {*METHODS[name].defaults, "retrain"}, name


@pytest.mark.parametrize("name", [name for name in METHODS if name != "none"])
def test_defaults_and_strengths_are_allowed_values(name: str) -> None:
    info = METHODS[name]
    make_method(name)
    check_options(name, info.defaults)
    for value in info.strengths:
        check_options(name, {str(info.strength): OPTIONS[str(info.strength)].kind(value)})
    assert set(info.recipes) <= set(info.retrain)
    for recipe in info.recipes.values():
        TrainSettings(**recipe)
    assert bool(info.strengths) != info.is_schedule  # --accuracy-drop works with every method, one way or the other


def test_the_settings_file_takes_every_option_and_choice() -> None:
    hints = get_type_hints(PruneConfig)
    assert set(hints) - {"__pydantic_config__"} == {*OPTIONS, "method", "accuracy_drop", "metric"}

    def choices(name: str) -> set[str]:
        return {word for part in get_args(hints[name]) for word in get_args(part)}

    assert choices("method") == set(METHODS)
    assert choices("metric") == set(METRICS)
    assert choices("stop") == set(STOP_RULES)
    for name, option in OPTIONS.items():
        if option.choices:
            assert choices(name) == set(option.choices), name


def test_help_and_methods_name_every_method_and_option() -> None:
    runner = CliRunner()
    text = runner.invoke(app, ["compile", "--help"], env={"COLUMNS": "200"}).output
    listed = runner.invoke(app, ["methods"]).output
    for name, info in METHODS.items():
        assert re.search(rf"\b{re.escape(name)}\b", text), name
        assert re.search(rf"^{re.escape(name)}  ", listed, re.MULTILINE), name
        assert info.paper in listed
    for option in OPTIONS.values():
        assert option.flag in text
        assert option.flag in listed


def test_a_refusal_names_the_methods_that_have_the_option() -> None:
    text = explain_refusal("ratio", "dsp")
    assert text.startswith("--ratio does not go with --method dsp: dsp finds the number of channels by itself.")
    assert text.endswith("Methods that have it: l1, l2, random, taylor, slimming")


@pytest.mark.parametrize("text", ["1", "1,1", "2,3", "0,1", "a,b", "1,2,3", "0.5,0.9"])
def test_norms_that_the_index_does_not_have(text: str) -> None:
    with pytest.raises(InputError, match="--pq is"):
        parse_norms(text)


def test_the_default_epsilon_is_that_of_the_rule() -> None:
    assert check_options("lth", {"stop": "incop-gf"})["epsilon"] == 10.0
    assert check_options("lth", {"stop": "incop-if", "epsilon": 0.3})["epsilon"] == 0.3
    assert check_options("lth", {})["epsilon"] is None
    with pytest.raises(InputError, match="--epsilon goes with --stop incop-if or incop-gf; --stop is epochs"):
        check_options("lth", {"epsilon": 0.3})
