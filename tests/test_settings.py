"""Settings: options over the settings file over the recipes of the papers."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeprune import lower, quantize
from edgeprune.errors import InputError
from edgeprune.report import Budget
from edgeprune.settings import (
    CONVERTERS,
    OBSERVERS,
    parse_duration,
    resolve_compile_settings,
    resolve_train_settings,
)

MODEL = Path("model.pt")


def test_dsp_is_the_default_and_follows_the_papers_recipe() -> None:
    settings = resolve_compile_settings(MODEL, None, {})
    assert (settings.method, settings.retrain) == ("dsp", "scratch")
    assert settings.pruning_options == {"start": "scratch", "sparsity_weight": 1e-5}
    assert settings.recipe == {"epochs": 1500, "seed": 0}


def test_l1_fine_tunes_with_early_stopping_on_macro_f1() -> None:
    settings = resolve_compile_settings(MODEL, None, {"method": "l1", "epochs": 40, "seed": 7})
    assert settings.retrain == "finetune"
    assert settings.recipe == {
        "epochs": 40,
        "weight_decay": 1e-4,
        "early_stopping": "macro_f1",
        "patience": 10,
        "seed": 7,
    }


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"ratio": 0.5}, "--ratio does not go with --method dsp"),
        ({"method": "l1", "start": "trained"}, "--from does not go with --method l1"),
        ({"method": "none", "retrain": "finetune"}, "--retrain does not go with --method none"),
        ({"method": "magic"}, "--method is 'magic'; allowed: dsp, l1, l2"),
        ({"method": "none", "accuracy_drop": "1pp"}, "--accuracy-drop does not go with --method none"),
        ({"method": "l1", "accuracy_drop": "1pp", "ratio": 0.3}, "--ratio and --accuracy-drop both say how strongly"),
        ({"method": "l1", "accuracy_drop": "1"}, "--accuracy-drop=1: not a number of percentage points"),
        ({"method": "sap", "step": 0.2}, "--step does not go with --method sap: sap finds the share of weights"),
        ({"method": "sap", "pq": "2,1"}, "--pq is '2,1'; allowed: 0 < p <= 1 <= q"),
        ({"method": "l1", "width": 8}, "--width does not go with --method l1. Methods that have it: static"),
        ({"method": "static", "retrain": "finetune"}, "--retrain finetune does not go with --method static"),
        ({"method": "lth", "train": "a.b:c"}, "--train does not go with --method lth"),
        ({"method": "l1", "stop": "soon"}, "--stop is 'soon'; allowed: epochs, accuracy, incop-if, incop-gf"),
        ({"method": "dprp", "rank_epsilon": 1.0}, "--rank-epsilon is 1.0; allowed: above 0, below 1"),
        ({"method": "l1", "ratio": 1.0}, "--ratio is 1.0"),
        ({"method": "l1", "scope": "everywhere"}, "allowed: layer, global"),
        ({"sparsity_weight": 0.0}, "--sparsity-weight is 0.0"),
        ({"calibration_samples": 0}, "--calibration-samples is 0"),
        ({"observer": "mean"}, "--observer is 'mean'"),
        ({"converter": "tinynn"}, "--converter is 'tinynn'"),
        ({"time_limit": "soon"}, "--time-limit is 'soon'"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(options: dict[str, object], expected: str) -> None:
    with pytest.raises(InputError) as refusal:
        resolve_compile_settings(MODEL, None, options)
    assert expected in str(refusal.value)


def test_the_settings_file_beside_the_model_is_read_and_options_win(tmp_path: Path) -> None:
    (tmp_path / "edgeprune.toml").write_text(
        '[prune]\nmethod = "l1"\nratio = 0.25\n[retrain]\nepochs = 9\nbatch_size = 16\n[budget]\nmacs = "2M"\n'
    )
    settings = resolve_compile_settings(tmp_path / "model.pt", None, {"epochs": 3})
    assert (settings.method, settings.pruning_options["ratio"]) == ("l1", 0.25)
    assert (settings.recipe["epochs"], settings.recipe["batch_size"]) == (3, 16)
    assert settings.budgets == (Budget("macs", 2e6),)


def test_ratios_in_the_settings_file_wait_for_the_method_that_has_them(tmp_path: Path) -> None:
    (tmp_path / "edgeprune.toml").write_text('[prune]\nmethod = "l1"\nratio = 0.25\n')
    settings = resolve_compile_settings(tmp_path / "model.pt", None, {"method": "dsp"})
    assert settings.method_options == {}


def test_a_search_takes_the_place_of_a_strength_in_the_settings_file(tmp_path: Path) -> None:
    (tmp_path / "edgeprune.toml").write_text('[prune]\nmethod = "l1"\nratio = 0.25\nscope = "global"\n')
    settings = resolve_compile_settings(tmp_path / "model.pt", None, {"accuracy_drop": "0.5pp"})
    assert (settings.accuracy_drop, settings.method_options) == (0.5, {"scope": "global"})
    assert settings.watches_validation


def test_a_limit_lets_a_schedule_go_on_to_where_the_limit_ends_it() -> None:
    limited = resolve_compile_settings(MODEL, None, {"method": "taylor", "accuracy_drop": "1pp"})
    assert limited.pruning_options["ratio"] == 0.95
    given = resolve_compile_settings(MODEL, None, {"method": "taylor", "accuracy_drop": "1pp", "ratio": 0.3})
    assert given.pruning_options["ratio"] == 0.3


def test_the_choices_are_those_of_the_rooms() -> None:
    assert set(OBSERVERS) == set(quantize.OBSERVERS)
    assert set(CONVERTERS) == set(lower.CONVERTERS)


def test_training_options_are_gathered() -> None:
    run = resolve_train_settings(
        {"architecture": "lite", "data": "data.npz", "output": MODEL, "epochs": 5, "time_limit": "2m", "seed": 3}
    )
    assert run.training == {"epochs": 5, "time_limit_s": 120.0}
    assert run.seed == 3


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("1.5h", 5400), ("20m", 1200), ("7", 7)])
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds
