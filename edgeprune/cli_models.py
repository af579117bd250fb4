"""`edgeprune train` and `edgeprune evaluate`: models before and after a compile. Nothing heavy at its top."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeprune.cli_gate import ScoreBudgetOption, hold_budgets, read_budgets
from edgeprune.cli_options import (
    INPUT,
    OUTPUT,
    AllowPickleOption,
    BatchSizeOption,
    ClassWeightsOption,
    DataOption,
    EarlyStoppingOption,
    EpochsOption,
    FactoryOption,
    JsonFlag,
    LearningRateOption,
    NormalizationOption,
    OptimizerOption,
    PatienceOption,
    QuietFlag,
    SeedOption,
    TimeLimitOption,
    TrainDeviceOption,
    WeightDecayOption,
    collect_options,
    make_console,
    make_progress,
    split_names,
)

if TYPE_CHECKING:
    from edgeprune.report import BudgetResult


def train_command(
    architecture: Annotated[
        str,
        typer.Option(
            "--arch",
            help="Series: lite, inception, fcn, resnet1d, eegcnn. Images: resnet20, resnet32, vgg.",
            rich_help_panel=INPUT,
        ),
    ],
    data: Annotated[str, typer.Option("--data", help="Dataset, as for compile.", rich_help_panel=INPUT)],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The model file to write.", rich_help_panel=OUTPUT)
    ] = Path("model.pt"),
    normalization: NormalizationOption = None,
    epochs: EpochsOption = None,
    batch_size: BatchSizeOption = None,
    optimizer: OptimizerOption = None,
    learning_rate: LearningRateOption = None,
    weight_decay: WeightDecayOption = None,
    early_stopping: EarlyStoppingOption = None,
    patience: PatienceOption = None,
    class_weights: ClassWeightsOption = None,
    time_limit: TimeLimitOption = None,
    train_device: TrainDeviceOption = None,
    seed: SeedOption = None,
    budget: ScoreBudgetOption = None,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Train one of the field's reference networks and save it, ready for `edgeprune compile`.

    An edgeprune.toml that names the data is written beside the model, unless there is one.
    """
    budgets = read_budgets(budget, ("accuracy", "macro_f1", "parameters"))
    from edgeprune.settings import resolve_train_settings
    from edgeprune.stages.train import train_reference_model

    options = collect_options(locals(), leave_out=("as_json", "quiet", "budget", "budgets"))
    summary = train_reference_model(resolve_train_settings(options), make_progress(quiet or as_json))
    scores = {name: 100 * summary[name] for name in ("accuracy", "macro_f1")}
    results, exit_code = hold_budgets(budgets, {**scores, "parameters": summary["parameters"]})
    if as_json:
        typer.echo(json.dumps({**summary, "budgets": [vars(result) for result in results]}, indent=2))
        raise typer.Exit(exit_code)
    typer.echo(
        f"{summary['architecture']}: {summary['parameters']:,} parameters, "
        f"test accuracy {100 * summary['accuracy']:.2f} %, macro-F1 {100 * summary['macro_f1']:.2f} %"
    )
    typer.echo(f"Model: {summary['path']}\nNext:  edgeprune compile {summary['path']} --target cortex-m")
    _print_budgets(results, exit_code)


def evaluate_command(
    artifact: Annotated[Path, typer.Argument(help="Any model or artifact: .pt, .onnx (float or QDQ), .tflite.")],
    data: DataOption = None,
    normalization: NormalizationOption = None,
    factory: FactoryOption = None,
    allow_pickle: AllowPickleOption = None,
    executor: Annotated[
        str | None,
        typer.Option(
            help="For .tflite: tflite-micro, litert, litert-reference or reference. "
            "(default: tflite-micro for int8, litert for float)"
        ),
    ] = None,
    budget: ScoreBudgetOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Accuracy, macro-F1 and confusion matrix of any artifact on the test samples of a dataset."""
    budgets = read_budgets(budget, ("accuracy", "macro_f1"))
    from edgeprune.stages.evaluate_artifact import evaluate_artifact  # after the budgets: a mistake need not wait

    allowed = split_names(allow_pickle)
    summary = evaluate_artifact(
        artifact, data=data, normalization=normalization, factory=factory, allow_pickle=allowed, executor=executor
    )
    results, exit_code = hold_budgets(budgets, {name: 100 * summary[name] for name in ("accuracy", "macro_f1")})
    if as_json:
        typer.echo(json.dumps({**summary, "budgets": [vars(result) for result in results]}, indent=2))
        raise typer.Exit(exit_code)
    from edgeprune.console import print_tables
    from edgeprune.report.tables import Table

    names = summary["class_names"]
    confusion = Table(
        "Confusion: true class by row, predicted by column",
        ("", *names),
        tuple(
            (name, *(f"{count:,}" for count in row))
            for name, row in zip(names, summary["confusion_matrix"], strict=True)
        ),
    )
    typer.echo(
        f"{artifact} on {summary['samples']:,} test samples of {summary['data']}, computed by {summary['executor']}"
    )
    typer.echo(f"accuracy {100 * summary['accuracy']:.2f} %, macro-F1 {100 * summary['macro_f1']:.2f} %\n")
    print_tables(make_console(), [confusion])
    _print_budgets(results, exit_code)


def _print_budgets(results: Sequence[BudgetResult], exit_code: int) -> None:
    """Budgets of a command that writes no report; ends it with the exit code."""
    for result in results:
        typer.secho(f"budget {result.state}: {result.message}", fg="green" if result.state == "met" else "red")
    raise typer.Exit(exit_code)
