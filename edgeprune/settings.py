"""All that decides a compile or a training, in one frozen value: the command line over edgeprune.toml over defaults."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from edgeprune.errors import InputError
from edgeprune.file_kinds import is_tflite_file
from edgeprune.report.budget import Budget, parse_budgets

METHODS = ("dsp", "l1", "none")
OBSERVERS = ("minmax", "percentile", "mse")
CONVERTERS = ("edgeprune", "tensorflow")
MEMORY_MODES = ("auto", "arena", "streaming")
TOOLCHAINS = ("zig", "gcc")
EMULATORS = ("auto", "unicorn", "qemu")
RETRAIN_MODES = ("finetune", "scratch", "both", "none")

# Options that only some methods have: giving one to another method is refused, not ignored.
_METHOD_OPTIONS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "ratio": (("l1",), "dsp finds the number of channels by itself, and none prunes nothing"),
    "scope": (("l1",), "only l1 ranks channels against each other"),
    "start": (("dsp",), "only dsp trains before it prunes"),
    "sparsity_weight": (("dsp",), "only dsp trains with a sparsity loss"),
    "retrain": (("dsp", "l1"), "none changes nothing, so there is nothing to retrain"),
}

# What is asked of a network, and has no meaning for a finished int8 program (.tflite).
_NETWORK_OPTIONS = (
    *("factory", "allow_pickle", "method", "ratio", "scope", "start", "sparsity_weight", "retrain", "train"),
    *("observer", "calibration_samples", "converter", "time_limit"),
)

# The recipes of the papers (papers.md P1, P2); what a paper leaves open is ours.
_RECIPES: Mapping[tuple[str, str], Mapping[str, Any]] = {
    ("dsp", "scratch"): {"epochs": 1500},
    ("dsp", "finetune"): {"epochs": 1500},  # of the sparse training; fine-tuning itself takes FINETUNE_EPOCHS
    ("dsp", "both"): {"epochs": 1500},
    ("dsp", "none"): {"epochs": 1500},
    ("l1", "finetune"): {"epochs": 300, "weight_decay": 1e-4, "early_stopping": "macro_f1", "patience": 10},
    ("l1", "scratch"): {"epochs": 300, "weight_decay": 1e-4, "early_stopping": "macro_f1", "patience": 30},
}
DSP_FINETUNE_EPOCHS = 500

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
    "device",
)


@dataclass(frozen=True)
class CompileSettings:
    """Settings of one compile.

    model: the model file. config: the settings file; None: edgeprune.toml beside the model, if there is one.
    data: a dataset, as `load.load_dataset` takes it; None: found by `load.find_dataset`.
    retrain: after pruning; the method's own default where None is given.
    training: names and values of `prune.TrainSettings` that differ from the method's recipe.
    train: 'pkg.module:function' that trains in place of edgeprune's own loop.
    memory: of the firmware: whole maps ('arena'), a few rows at a time ('streaming'), or what is cheap ('auto').
    toolchain: compiler of the firmware. emulator: what runs it; 'auto' takes unicorn where it knows the core.
    budgets: limits the result is held against.
    """

    model: Path
    target: str = "cortex-m"
    config: Path | None = None
    data: str | None = None
    normalization: str | None = None
    factory: str | None = None
    allow_pickle: tuple[str, ...] = ()
    method: str = "dsp"
    ratio: float = 0.5
    scope: str = "layer"
    start: str = "scratch"
    sparsity_weight: float = 1e-5
    retrain: str | None = None
    train: str | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    observer: str = "minmax"
    calibration_samples: int = 512
    converter: str = "edgeprune"
    memory: str = "auto"
    toolchain: str = "zig"
    emulator: str = "auto"
    budgets: tuple[Budget, ...] = ()
    output: Path | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        _require_choice("method", self.method, METHODS)
        _require_choice("observer", self.observer, OBSERVERS)
        _require_choice("converter", self.converter, CONVERTERS)
        _require_choice("memory", self.memory, MEMORY_MODES)
        _require_choice("toolchain", self.toolchain, TOOLCHAINS)
        _require_choice("emulator", self.emulator, EMULATORS)
        _require_choice("scope", self.scope, ("layer", "global"))
        _require_choice("start", self.start, ("scratch", "trained"))
        if self.retrain is None:
            default = {"dsp": "scratch", "l1": "finetune", "none": "none"}[self.method]
            object.__setattr__(self, "retrain", default)
        _require_choice("retrain", str(self.retrain), RETRAIN_MODES)
        if self.retrain == "both" and self.method != "dsp":
            raise InputError("--retrain both is for --method dsp, whose paper compares the two; name one of them")
        if self.train is not None and self.method == "dsp":
            raise InputError(
                "--train does not go with --method dsp, which trains with a loss of its own; use --method l1 or none"
            )
        if not 0 <= self.ratio < 1:
            raise InputError(f"--ratio is {self.ratio}; allowed: 0 up to, but not including, 1")
        if self.sparsity_weight <= 0:
            raise InputError(f"--sparsity-weight is {self.sparsity_weight}; allowed: above 0 (the paper takes 1e-5)")
        if self.calibration_samples < 1:
            raise InputError(f"--calibration-samples is {self.calibration_samples}; allowed: 1 or more")

    @property
    def recipe(self) -> dict[str, Any]:
        """Training settings by name: the method's recipe with what the user asked for over it."""
        return {**_RECIPES.get((self.method, str(self.retrain)), {}), **self.training, "seed": self.seed}


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
    for name, (methods, reason) in _METHOD_OPTIONS.items():
        if name in options and method not in methods:
            raise InputError(f"{_name_flag(name)} does not go with --method {method}: {reason}.")
    return CompileSettings(
        model=model, config=config_path, **_shape_options(merged, CompileSettings, drop=_unused_by(method))
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


def parse_duration(text: str) -> float:
    """Seconds in '90s', '20m', '2h' or a plain number of seconds.

    >>> parse_duration("20m")
    1200.0
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text.strip().lower())
    if match is None or float(match.group(1)) <= 0:
        raise InputError(f"--time-limit is {text!r}; write it like 90s, 20m or 2h")
    return float(match.group(1)) * {"": 1, "s": 1, "m": 60, "h": 3600}[match.group(2)]


def _shape_options(options: Mapping[str, Any], kind: type, drop: tuple[str, ...] = ()) -> dict[str, Any]:
    known = {item.name for item in fields(kind)}
    shaped: dict[str, Any] = {name: value for name, value in options.items() if name in known and name not in drop}
    training = dict(shaped.pop("training", {}))
    training.update({name: options[name] for name in _TRAINING_NAMES if name in options})
    if "time_limit" in options:
        training["time_limit_s"] = parse_duration(str(options["time_limit"]))
    shaped["training"] = training
    if "allow_pickle" in shaped and isinstance(shaped["allow_pickle"], str):
        shaped["allow_pickle"] = tuple(filter(None, (part.strip() for part in shaped["allow_pickle"].split(","))))
    if "budget" in options:
        shaped["budgets"] = parse_budgets(options["budget"])
    return shaped


def _unused_by(method: str) -> tuple[str, ...]:
    """Options a settings file may hold for other methods than the one that runs."""
    return tuple(name for name, (methods, _reason) in _METHOD_OPTIONS.items() if method not in methods)


def _name_flag(option: str) -> str:
    return {"start": "--from", "factory": "--model"}.get(option, f"--{option.replace('_', '-')}")


def _require_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise InputError(f"{_name_flag(name)} is {value!r}; allowed: {', '.join(allowed)}")
