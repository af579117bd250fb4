"""Options that several commands have, and what their functions print with. Nothing heavy at the top; see `cli`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeprune.method_table import METHODS, OPTIONS

if TYPE_CHECKING:
    from rich.console import Console

    from edgeprune.progress import Progress

# a pipe or a CI log has no width of its own: wide enough that no table is folded there
LOG_WIDTH = 160
INPUT, PRUNING, TRAINING, OUTPUT = "What goes in", "Pruning", "Training", "What comes out"
FIRMWARE = "Firmware (Cortex-M)"

DataOption = Annotated[
    str | None,
    typer.Option(
        "--data",
        rich_help_panel=INPUT,
        help="Dataset: .npz, UCR .ts/.tsv, ucr:NAME, .edf, a folder of images per class. "
        "(default: the data entry of the edgeprune.toml beside the model, or calibration_data/<model>.npz)",
    ),
]
NormalizationOption = Annotated[
    str | None,
    typer.Option(
        "--normalization",
        rich_help_panel=INPUT,
        help="none, per_series or per_channel, as in training. (default: what the model file records, or none)",
    ),
]
FactoryOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="PKG.MODULE:FUNCTION",
        rich_help_panel=INPUT,
        help="For a state_dict: the function of yours that returns the nn.Module it belongs to.",
    ),
]
AllowPickleOption = Annotated[
    str | None,
    typer.Option(
        "--allow-pickle",
        metavar="PKG.CLASS,...",
        rich_help_panel=INPUT,
        help="For a pickled module: the nn.Module classes it may hold.",
    ),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", rich_help_panel=INPUT, help="Settings file. (default: edgeprune.toml beside the model, if any)"
    ),
]
EpochsOption = Annotated[int | None, typer.Option(rich_help_panel=TRAINING, help="Epochs of each training.")]
BatchSizeOption = Annotated[int | None, typer.Option(rich_help_panel=TRAINING, help="(default: 64)")]
OptimizerOption = Annotated[str | None, typer.Option(rich_help_panel=TRAINING, help="adam or sgd. (default: adam)")]
LearningRateOption = Annotated[float | None, typer.Option(rich_help_panel=TRAINING, help="(default: 0.001)")]
WeightDecayOption = Annotated[float | None, typer.Option(rich_help_panel=TRAINING, help="(default: 0)")]
EarlyStoppingOption = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=TRAINING,
        help="none, accuracy or macro_f1, watched on a validation split of the training data.",
    ),
]
PatienceOption = Annotated[
    int | None, typer.Option(rich_help_panel=TRAINING, help="Epochs without a better validation score before stopping.")
]
ClassWeightsOption = Annotated[str | None, typer.Option(rich_help_panel=TRAINING, help="none or balanced.")]
TimeLimitOption = Annotated[
    str | None, typer.Option(rich_help_panel=TRAINING, help="For each training, such as 90s, 20m or 2h.")
]
TrainDeviceOption = Annotated[
    str | None, typer.Option(rich_help_panel=TRAINING, help="auto, cpu or cuda, to train on. (default: auto)")
]
SeedOption = Annotated[int | None, typer.Option(rich_help_panel=TRAINING, help="Seed of everything. (default: 0)")]
JsonFlag = Annotated[bool, typer.Option("--json", rich_help_panel=OUTPUT, help="Print JSON for programs instead.")]
QuietFlag = Annotated[bool, typer.Option("--quiet", "-q", rich_help_panel=OUTPUT, help="No progress, no notes.")]


def describe_method_option(name: str) -> Any:
    """The option with its help from the table: what it is, which methods have it, with what default."""
    option = OPTIONS[name]
    methods: dict[Any, list[str]] = {}
    for info in METHODS.values():
        if name in info.defaults:
            methods.setdefault(info.defaults[name], []).append(info.name)
    having = "; ".join(
        ", ".join(names) + ("" if default is None else f" (default: {default})") for default, names in methods.items()
    )
    return typer.Option(
        option.flag, rich_help_panel=PRUNING, help=f"{option.help[0].upper()}{option.help[1:]}. {having}"
    )


def make_console() -> Console:
    """Where results are printed: as wide as the terminal, or LOG_WIDTH."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else LOG_WIDTH)


def make_progress(quiet: bool) -> Progress:
    """Bars and notes on stderr, or silence."""
    from edgeprune.progress import SILENT

    if quiet:
        return SILENT
    from rich.console import Console

    from edgeprune.console import ConsoleProgress

    return ConsoleProgress(Console(stderr=True, width=None if sys.stderr.isatty() else LOG_WIDTH))


def split_names(text: str | None) -> tuple[str, ...]:
    """The names of an option such as --allow-pickle a.B,c.D."""
    return tuple(filter(None, (text or "").split(",")))


def collect_options(values: Mapping[str, Any], leave_out: Sequence[str]) -> dict[str, Any]:
    """The options that were given, by name; what is None falls to the settings file, then to the default."""
    return {
        name: value
        for name, value in values.items()
        if value is not None
        and name not in leave_out
        and not name.startswith("_")
        and name[0].islower()
        and not callable(value)
    }
