"""All that decides a compile or a training, in one frozen value: the command line over edgeprune.toml over defaults."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from edgeprune.errors import InputError
from edgeprune.file_kinds import is_tflite_file
from edgeprune.method_table import (
    FIT_OPTIONS,
    FIT_REFUSALS,
    METHODS,
    METRICS,
    OPTIONS,
    RETRAIN_MODES,
    check_options,
    explain_refusal,
)
from edgeprune.report.budget import Budget, parse_budgets, parse_quantity

OBSERVERS = ("minmax", "percentile", "mse")
CONVERTERS = ("edgeprune", "tensorflow")
MEMORY_MODES = ("auto", "arena", "streaming")
TOOLCHAINS = ("zig", "gcc")
EMULATORS = ("auto", "unicorn", "qemu")
FIT_NAMES = ("latency", "cycles", "instructions", "ram", "flash")  # what widths can be searched for

# What is asked of a network, and has no meaning for a finished int8 program (.tflite).
_NETWORK_OPTIONS = (
    *("factory", "allow_pickle", "method", *OPTIONS, "retrain", "accuracy_drop", "fit", "metric", "train"),
    *("observer", "calibration_samples", "converter", "time_limit"),
)

_TRAINING_NAMES = (
    "epochs",
    "batch_size",
    "optimizer",
    "learning_rate",
    "weight_decay",
    "momentum",
    "schedule",
    "plateau_factor",
    "plateau_patience",
    "min_learning_rate",
    "early_stopping",
    "patience",
    "class_weights",
)


@dataclass(frozen=True)
class CompileSettings:
    """Settings of one compile.

    model: the model file. config: the settings file; None: edgeprune.toml beside the model, if there is one.
    data: a dataset, as `load.load_dataset` takes it; None: found by `load.find_dataset`.
    method_options: options of the method that differ from its defaults; `pruning_options` has all of them.
    retrain: after pruning; the method's own default where None is given.
    accuracy_drop: how many percentage points of `metric` pruning may cost on validation samples; None: not asked.
    fit: limits that the widths of the layers are searched for; empty: the method prunes by its own strength.
    training: names and values of `prune.TrainSettings` that differ from the method's recipe.
    train: 'pkg.module:function' that trains in place of edgeprune's own loop.
    memory: of the firmware: whole maps ('arena'), a few rows at a time ('streaming'), or what is cheap ('auto').
    toolchain: compiler of the firmware. emulator: what runs it; 'auto' takes unicorn where it knows the core.
    budgets: limits the result is held against.
    device: where a model for ARM Linux is measured, ssh://user@host[:port]; None: nowhere.
    baseline: an earlier report to compare with. tolerances: how much worse a figure may be than there, as text.
    cache: folder of results to find again; None: as `cache.find_cache_folder` says. use_cache: False: none is used.
    """

    model: Path
    target: str = "cortex-m"
    config: Path | None = None
    data: str | None = None
    normalization: str | None = None
    factory: str | None = None
    allow_pickle: tuple[str, ...] = ()
    method: str = "dsp"
    method_options: Mapping[str, Any] = field(default_factory=dict)
    retrain: str | None = None
    accuracy_drop: float | None = None
    fit: tuple[Budget, ...] = ()
    metric: str = "accuracy"
    train: str | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    observer: str = "minmax"
    calibration_samples: int = 512
    converter: str = "edgeprune"
    memory: str = "auto"
    toolchain: str = "zig"
    emulator: str = "auto"
    budgets: tuple[Budget, ...] = ()
    device: str | None = None
    baseline: Path | None = None
    tolerances: str = ""
    output: Path | None = None
    seed: int = 0
    cache: Path | None = None
    use_cache: bool = True

    def __post_init__(self) -> None:
        _require_choice("method", self.method, METHODS)
        _require_choice("observer", self.observer, OBSERVERS)
        _require_choice("converter", self.converter, CONVERTERS)
        _require_choice("memory", self.memory, MEMORY_MODES)
        _require_choice("toolchain", self.toolchain, TOOLCHAINS)
        _require_choice("emulator", self.emulator, EMULATORS)
        _require_choice("metric", self.metric, METRICS)
        check_options(self.method, self.method_options)
        info = METHODS[self.method]
        if self.retrain is None:
            object.__setattr__(self, "retrain", info.retrain[0])
        _require_choice("retrain", str(self.retrain), RETRAIN_MODES)
        if self.retrain not in info.retrain:
            raise InputError(
                f"--retrain {self.retrain} does not go with --method {self.method}; allowed: {', '.join(info.retrain)}"
            )
        if self.train is not None and not info.takes_trainer:
            having = ", ".join(other.name for other in METHODS.values() if other.takes_trainer)
            raise InputError(
                f"--train does not go with --method {self.method}, which needs edgeprune's own training loop for what "
                f"it does inside it. Methods that take it: {having}"
            )
        self._check_accuracy_drop()
        self._check_fit()
        if self.tolerances and self.baseline is None:
            raise InputError("--tolerance is for comparisons with a baseline; give --baseline, or leave it out")
        if self.calibration_samples < 1:
            raise InputError(f"--calibration-samples is {self.calibration_samples}; allowed: 1 or more")

    def _check_accuracy_drop(self) -> None:
        if self.accuracy_drop is None:
            return
        info = METHODS[self.method]
        if self.method == "none":
            raise InputError("--accuracy-drop does not go with --method none, which prunes nothing")
        if not 0 <= self.accuracy_drop < 100:
            raise InputError(
                f"--accuracy-drop is {self.accuracy_drop:g}; allowed: 0 or more, below 100 percentage points"
            )
        if info.strength in self.method_options and not self.fit:
            flag = OPTIONS[str(info.strength)].flag
            raise InputError(
                f"{flag} and --accuracy-drop both say how strongly {self.method} prunes: give {flag} for a fixed "
                f"strength, or --accuracy-drop to have {flag} searched"
            )

    def _check_fit(self) -> None:
        if not self.fit:
            return
        for budget in self.fit:
            if budget.name not in FIT_NAMES:
                raise InputError(
                    f"--fit {budget.name}: widths are searched for {', '.join(FIT_NAMES)}; hold {budget.name} with "
                    "--budget"
                )
            if budget.limit <= 0:
                raise InputError(f"--fit {budget.name} is {budget.limit:g}; allowed: above 0")
        if self.method in FIT_REFUSALS:
            having = ", ".join(name for name in METHODS if name not in FIT_REFUSALS)
            raise InputError(
                f"--fit does not go with --method {self.method}: {FIT_REFUSALS[self.method]}. Methods whose widths can "
                f"be searched: {having}"
            )
        given = next((name for name in self.method_options if name not in FIT_OPTIONS), None)
        if given is not None:
            flag = OPTIONS[given].flag
            raise InputError(
                f"{flag} and --fit both say how {self.method} prunes: give {flag} for a fixed strength, held by "
                "--budget, or --fit to have the widths searched"
            )

    @property
    def fit_options(self) -> dict[str, Any]:
        """The method's options that --fit leaves it."""
        return {name: value for name, value in self.pruning_options.items() if name in FIT_OPTIONS}

    @property
    def limits(self) -> tuple[Budget, ...]:
        """All that the result is held against."""
        return (*self.fit, *(budget for budget in self.budgets if budget not in self.fit))

    @property
    def pruning_options(self) -> dict[str, Any]:
        """All options of the method."""
        given = self.method_options
        if self.accuracy_drop is not None:
            given = {**METHODS[self.method].limit_defaults, **given}
        return check_options(self.method, given)

    @property
    def recipe(self) -> dict[str, Any]:
        """Training settings by name: the method's recipe with what the user asked for over it."""
        recipes = METHODS[self.method].recipes
        return {**recipes.get(str(self.retrain), {}), **self.training, "seed": self.seed}

    @property
    def watches_validation(self) -> bool:
        """Whether anything is decided on validation samples, so that some have to be held back."""
        if self.method == "none":
            return False
        decides = self.recipe.get("early_stopping", "none") != "none" or self.pruning_options.get("stop") == "accuracy"
        return decides or self.accuracy_drop is not None or bool(self.fit)


@dataclass(frozen=True)
class TrainingRun:
    """Settings of `edgeprune train`."""

    architecture: str
    data: str
    output: Path
    normalization: str = "per_series"
    training: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0


def resolve_compile_settings(model: Path, config_path: Path | None, options: Mapping[str, Any]) -> CompileSettings:
    """Merge command-line `options` over the settings file (named, or edgeprune.toml beside the model) over defaults.

    Raises InputError for a value that is not allowed and for an option that the method does not have.
    """
    from edgeprune.config import load_config_options

    merged = {**load_config_options(config_path, model), **options}
    if is_tflite_file(model):
        _refuse_network_options(model, options)
        unused = (*_NETWORK_OPTIONS, *_TRAINING_NAMES)
        merged = {name: value for name, value in merged.items() if name not in unused} | {"method": "none"}
    method = merged.get("method", CompileSettings.method)
    _require_choice("method", method, METHODS)
    info = METHODS[method]
    for name in options:
        if (name in OPTIONS and name not in info.defaults) or (name == "retrain" and method == "none"):
            raise InputError(explain_refusal(name, method))
    if "accuracy_drop" in merged:
        merged["accuracy_drop"] = _parse_drop(merged["accuracy_drop"])
        if info.strength not in options:
            merged.pop(str(info.strength), None)  # the settings file's fixed strength gives way to the search
    if "fit" in merged:  # so does what it says of how much goes
        for name in (name for name in info.defaults if name not in FIT_OPTIONS and name not in options):
            merged.pop(name, None)
    # a settings file may hold options for other methods than the one that runs
    chosen = {name: merged[name] for name in info.defaults if name in merged}
    if method == "none":
        merged.pop("retrain", None)
    return CompileSettings(
        model=model, config=config_path, **_shape_options({**merged, "method_options": chosen}, CompileSettings)
    )


def _refuse_network_options(model: Path, options: Mapping[str, Any]) -> None:
    for name in (*_NETWORK_OPTIONS, *_TRAINING_NAMES):
        if name in options and (name, options[name]) != ("method", "none"):
            raise InputError(
                f"{_name_flag(name)} does not go with {model.name}: an int8 .tflite is deployed as it is. Compile the "
                "PyTorch model (.pt) to prune, train or quantize."
            )


def resolve_train_settings(options: Mapping[str, Any]) -> TrainingRun:
    """The settings of `edgeprune train` from its command-line options."""
    return TrainingRun(**_shape_options(options, TrainingRun))


def parse_duration(text: str, where: str = "--time-limit") -> float:
    """Seconds in '90s', '20m', '2h', '30d' or a plain number of seconds.

    >>> parse_duration("20m")
    1200.0
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", text.strip().lower())
    if match is None or float(match.group(1)) <= 0:
        raise InputError(f"{where} is {text!r}; write it like 90s, 20m, 2h or 30d")
    return float(match.group(1)) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match.group(2)]


def _parse_drop(value: str | float) -> float:
    """Percentage points in '1pp' or '0.5%'; a number, as a settings file may have it, as it is."""
    return parse_quantity(value, "percentage points", "--accuracy-drop") if isinstance(value, str) else float(value)


def _shape_options(options: Mapping[str, Any], kind: type) -> dict[str, Any]:
    known = {item.name for item in fields(kind)}
    shaped: dict[str, Any] = {name: value for name, value in options.items() if name in known}
    training = dict(shaped.pop("training", {}))
    training.update({name: options[name] for name in _TRAINING_NAMES if name in options})
    if "train_device" in options:  # --device is where the compiled model is measured
        training["device"] = options["train_device"]
    if "time_limit" in options:
        training["time_limit_s"] = parse_duration(str(options["time_limit"]))
    shaped["training"] = training
    if "allow_pickle" in shaped and isinstance(shaped["allow_pickle"], str):
        shaped["allow_pickle"] = tuple(filter(None, (part.strip() for part in shaped["allow_pickle"].split(","))))
    if "tolerance" in options:
        shaped["tolerances"] = options["tolerance"]
    if "budget" in options:
        shaped["budgets"] = parse_budgets(options["budget"])
    if "fit" in options:
        shaped["fit"] = parse_budgets(options["fit"], "--fit")
    return shaped


def _name_flag(option: str) -> str:
    return {"start": "--from", "factory": "--model"}.get(option, f"--{option.replace('_', '-')}")


def _require_choice(name: str, value: str, allowed: Iterable[str]) -> None:
    if value not in allowed:
        raise InputError(f"{_name_flag(name)} is {value!r}; allowed: {', '.join(allowed)}")
