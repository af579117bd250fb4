"""edgeprune.toml: what a project says once, so that nobody types it at every compile.

    [model]
    factory = "mynet.models:build"              # for a state_dict
    [data]
    path = "train.npz"                          # or "ucr:GunPoint", "recording.edf", ...
    normalization = "per_series"
    options = { window_s = 2 }                  # of the data's reader
    [compile]
    target = "cortex-m4"
    output = "build"
    [prune]
    method = "l1"
    ratio = 0.5
    [retrain]
    mode = "finetune"
    epochs = 300
    early_stopping = "macro_f1"
    [quantize]
    observer = "minmax"
    [fit]
    latency = "20ms"
    [budget]
    model_bytes = "64K"

Every key is optional; the command line wins over the file. Paths are relative to the file's folder. The classes below
are the schema: pydantic reads their annotations, and is imported only when there is a file to check.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, get_args, get_type_hints

from annotated_types import Ge, Gt, Lt

from edgeprune.errors import InputError
from edgeprune.toml_file import read_toml

if TYPE_CHECKING:
    from pydantic import TypeAdapter

FILE_NAME = "edgeprune.toml"

_FORBID = {"extra": "forbid", "strict": True, "allow_inf_nan": False}

Fraction = Annotated[float, Gt(0), Lt(1)]
Positive = Annotated[float, Gt(0)]
NotNegative = Annotated[float, Ge(0)]
Count = Annotated[int, Ge(1)]


@dataclass(frozen=True)
class ModelConfig:
    """[model]: how to read the model file; meanings as of `load.load_model`."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    factory: str | None = None
    allow_pickle: tuple[str, ...] | None = None


@dataclass(frozen=True)
class DataConfig:
    """[data]: the dataset, and the options of its reader."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    path: str | None = None
    normalization: Literal["none", "per_series", "per_channel"] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CompileConfig:
    """[compile]: for which target, and where the artifacts go."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    target: str | None = None
    output: str | None = None


@dataclass(frozen=True)
class PruneConfig:
    """[prune]: which channels go; options as of `method_table`."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    method: (
        Literal[
            "dsp", "l1", "l2", "random", "static", "taylor", "slimming", "prox-slimming", "lth", "sap", "dprp", "none"
        ]
        | None
    ) = None
    ratio: Annotated[float, Ge(0), Lt(1)] | None = None
    scope: Literal["layer", "global"] | None = None
    width: Count | None = None
    start: Literal["scratch", "trained"] | None = None
    sparsity_weight: Positive | None = None
    prox_weight: Positive | None = None
    iterations: Count | None = None
    step: Fraction | None = None
    step_epochs: Count | None = None
    stop: Literal["epochs", "accuracy", "incop-if", "incop-gf"] | None = None
    epsilon: Positive | None = None
    rewind: Literal["none", "warmup", "init"] | None = None
    pq: str | None = None
    compression_weight: Positive | None = None
    rank_epsilon: Fraction | None = None
    accuracy_drop: str | NotNegative | None = None
    metric: Literal["accuracy", "macro_f1"] | None = None


@dataclass(frozen=True)
class RetrainConfig:
    """[retrain]: how to train; names and meanings as of `prune.TrainSettings`.

    mode: finetune, scratch, both or none. train: 'pkg.module:function' in place of the built-in loop.
    time_limit: seconds, or text such as "20m".
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    mode: Literal["finetune", "scratch", "both", "none"] | None = None
    train: str | None = None
    epochs: Count | None = None
    batch_size: Annotated[int, Ge(2)] | None = None
    optimizer: Literal["adam", "sgd"] | None = None
    learning_rate: Positive | None = None
    weight_decay: NotNegative | None = None
    momentum: Annotated[float, Ge(0), Lt(1)] | None = None
    schedule: Literal["plateau", "none"] | None = None
    plateau_factor: Fraction | None = None
    plateau_patience: Annotated[int, Ge(0)] | None = None
    min_learning_rate: NotNegative | None = None
    early_stopping: Literal["none", "accuracy", "macro_f1"] | None = None
    patience: Count | None = None
    class_weights: Literal["none", "balanced"] | None = None
    device: Literal["auto", "cpu", "cuda"] | None = None
    seed: Annotated[int, Ge(0)] | None = None
    time_limit: str | Positive | None = None


@dataclass(frozen=True)
class QuantizeConfig:
    """[quantize]: calibration, and who writes the .tflite."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    observer: Literal["minmax", "percentile", "mse"] | None = None
    samples: Count | None = None
    converter: Literal["edgeprune", "tensorflow"] | None = None


@dataclass(frozen=True)
class FirmwareConfig:
    """[firmware]: how memory is used, what compiles the C and what runs it."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    memory: Literal["auto", "arena", "streaming"] | None = None
    toolchain: Literal["zig", "gcc"] | None = None
    emulator: Literal["auto", "unicorn", "qemu"] | None = None


@dataclass(frozen=True)
class Config:
    """A settings file, checked; `Config()` is that of a project without one.

    budget, fit: name -> limit as written; `report.budget.parse_budgets` gives them meaning.
    folder: the one that paths in the file are relative to; None without a file.
    """

    model: ModelConfig = ModelConfig()
    data: DataConfig = field(default_factory=DataConfig)
    compile: CompileConfig = CompileConfig()
    prune: PruneConfig = PruneConfig()
    retrain: RetrainConfig = RetrainConfig()
    quantize: QuantizeConfig = QuantizeConfig()
    firmware: FirmwareConfig = FirmwareConfig()
    fit: Mapping[str, str] = field(default_factory=dict)
    budget: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None


TABLES: Mapping[str, type] = {
    "model": ModelConfig,
    "data": DataConfig,
    "compile": CompileConfig,
    "prune": PruneConfig,
    "retrain": RetrainConfig,
    "quantize": QuantizeConfig,
    "firmware": FirmwareConfig,
}
LIMITS = ("fit", "budget")  # tables of free keys


def load_config(path: Path | str) -> Config:
    """Read and check a settings file.

    Raises InputError naming the file, the table and the key; for an unknown key also the nearest known one.
    """
    path = Path(path)
    content = read_toml(path, "settings file")
    for name, value in content.items():
        if name not in TABLES and name not in LIMITS:
            raise InputError(f"{path.name}: {_describe_unknown_table(name, value)}")
        if not isinstance(value, dict):
            raise InputError(
                f"{path.name}: {name} must be a table: write [{name}] on a line of its own, its keys below"
            )
    tables = {name: _check_table(path.name, name, content[name]) for name in TABLES if name in content}
    if "data" in tables:
        options = _read_values(f"{path.name}: [data.options]", tables["data"].options)
        tables["data"] = dataclasses.replace(tables["data"], options=options)
    fit, budget = (_read_values(f"{path.name}: [{name}]", content.get(name, {})) for name in LIMITS)
    return Config(**tables, fit=fit, budget=budget, folder=path.parent)


def load_config_beside(model: Path | str, config_path: Path | None = None) -> Config:
    """The settings file named, else the edgeprune.toml beside the model, else an empty Config."""
    if config_path is not None:
        return load_config(config_path)
    beside = Path(model).parent / FILE_NAME
    return load_config(beside) if beside.is_file() else Config()


def load_config_options(config_path: Path | None, model: Path | str) -> dict[str, Any]:
    """What the settings file says, by the names of the command line's options; only what it says.

    [retrain] mode is `retrain`, its device `train_device`, [quantize] samples is `calibration_samples`, [fit] and
    [budget] are one text each. The data is not among them: `load.find_dataset` takes it from the Config, after --data.
    """
    config = load_config_beside(model, config_path)
    options: dict[str, Any] = {}
    for part in (config.model, config.compile, config.prune, config.retrain, config.quantize, config.firmware):
        values = {item.name: getattr(part, item.name) for item in dataclasses.fields(part)}
        options.update({name: value for name, value in values.items() if value is not None})
    for name, option in (("mode", "retrain"), ("samples", "calibration_samples"), ("device", "train_device")):
        if name in options:
            options[option] = options.pop(name)
    if config.data.normalization is not None:
        options["normalization"] = config.data.normalization
    for option, limits in (("fit", config.fit), ("budget", config.budget)):
        if limits:
            options[option] = ",".join(f"{name}={limit}" for name, limit in limits.items())
    folder = config.folder or Path()
    if "output" in options:
        options["output"] = folder / options["output"]
    if str(options.get("target", "")).endswith(".toml"):
        options["target"] = str(folder / options["target"])
    return options


def _check_table(source: str, table: str, values: dict[str, Any]) -> Any:
    """One table as its dataclass."""
    from pydantic import ValidationError

    try:
        # pydantic's strict mode takes tables for dataclasses and arrays for tuples only when they come as JSON
        return _make_checker(table).validate_json(json.dumps(values, default=str))
    except ValidationError as errors:
        # several at once: the misspelt key first, since a missing or wrong value may follow from it
        every = sorted(errors.errors(), key=lambda error: error["type"] not in _UNKNOWN_KEY)
        raise InputError(f"{source}: {_describe_error(table, dict(every[0]), values)}") from errors


@functools.cache
def _make_checker(table: str) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(TABLES[table])


_UNKNOWN_KEY = ("extra_forbidden", "unexpected_keyword_argument")
_TYPE_NAMES = {bool: "a boolean", str: "a text", int: "an integer", float: "a number", list: "a list", dict: "a table"}
_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "a text in quotes",
    "tuple_type": 'a list, as in ["a", "b"]',
    "mapping_type": "a table, as in { name = 1 }",
    "dict_type": "a table, as in { name = 1 }",
}


def _describe_error(table: str, error: dict[str, Any], values: dict[str, Any]) -> str:
    key = str(error["loc"][0]) if error["loc"] else ""
    where = f"[{table}] {key}"
    if error["type"] in _UNKNOWN_KEY:
        return _describe_unknown_key(table, key)
    value = values.get(key)
    found = f"{where} is {value if isinstance(value, date | time) else repr(value)}"
    context = error.get("ctx", {})
    if len(error["loc"]) > 1 and isinstance(error["loc"][1], str):  # of a choice of types, none fits
        return f"{found}; a text in quotes or a number above 0 is expected"
    match error["type"]:
        case "literal_error":
            return f"{found}; allowed: {context['expected']}"
        case "greater_than" | "greater_than_equal" | "less_than" | "less_than_equal":
            return f"{found}; it must be {_describe_range(table, key)}"
        case kind if kind in _EXPECTED:
            return f"{found}, {_TYPE_NAMES.get(type(value), 'a date')}; {_EXPECTED[kind]} is expected"
        case _:
            return f"{found}; {error['msg']}"


def _describe_range(table: str, key: str) -> str:
    """The bounds in a field's annotation, in words."""
    hint = get_type_hints(TABLES[table], include_extras=True)[key]
    words = {Gt: "above {0.gt:g}", Ge: "at least {0.ge:g}", Lt: "below {0.lt:g}"}
    bounds = [
        words[type(bound)].format(bound)
        for choice in get_args(hint)
        for bound in getattr(choice, "__metadata__", ())
        if type(bound) in words
    ]
    return " and ".join(bounds)


def _describe_unknown_key(table: str, key: str) -> str:
    known = [item.name for item in dataclasses.fields(TABLES[table])]
    for other, kind in TABLES.items():
        if key in {item.name for item in dataclasses.fields(kind)}:
            return f"[{table}] {key} is not a setting; {key} belongs under [{other}]"
    close = difflib.get_close_matches(key, known, 1)
    if close:
        return f"[{table}] {key} is not a setting; did you mean {close[0]}?"
    return f"[{table}] {key} is not a setting; [{table}] takes {', '.join(known)}"


def _describe_unknown_table(name: str, value: object) -> str:
    tables = [*TABLES, *LIMITS]
    close = difflib.get_close_matches(name, tables, 1)
    if isinstance(value, dict):
        hint = f"did you mean [{close[0]}]?" if close else f"tables are {', '.join(f'[{table}]' for table in tables)}"
        return f"[{name}] is not a table of settings; {hint}"
    for table, kind in TABLES.items():
        if name in {item.name for item in dataclasses.fields(kind)}:
            return f"{name} stands outside of any table; put it under [{table}]"
    return f"{name} is not a setting; tables are {', '.join(f'[{table}]' for table in tables)}"


def _read_values(where: str, values: Mapping[str, Any]) -> dict[str, str]:
    """A table of free keys, each value as text: numbers as written, lists joined by commas."""
    texts = {}
    for key, value in values.items():
        parts = value if isinstance(value, list) else [value]
        if not parts or any(isinstance(part, bool) or not isinstance(part, str | int | float) for part in parts):
            raise InputError(f"{where} {key} is {value!r}; a text or a number is expected")
        texts[key] = ",".join(part if isinstance(part, str) else f"{part:.15g}" for part in parts)
    return texts
