"""`edgeprune compile`: its options, and what it prints at the end. Nothing heavy at the top; see `cli`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeprune.cli_options import (
    FIRMWARE,
    INPUT,
    OUTPUT,
    PRUNING,
    TRAINING,
    AllowPickleOption,
    BatchSizeOption,
    ClassWeightsOption,
    ConfigOption,
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
    describe_method_option,
    make_console,
    make_progress,
)
from edgeprune.method_table import METHODS

if TYPE_CHECKING:
    from rich.console import Console

ModelArgument = Annotated[
    Path,
    typer.Argument(
        help="A .pt made by edgeprune.save_model or torch.export.save; a state_dict; a .onnx file; a full-int8 .tflite."
    ),
]


def compile_command(
    model: ModelArgument,
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            "-t",
            rich_help_panel=INPUT,
            help="A name of `edgeprune targets`, or a .toml file. (default: cortex-m)",
        ),
    ] = None,
    data: DataOption = None,
    normalization: NormalizationOption = None,
    factory: FactoryOption = None,
    allow_pickle: AllowPickleOption = None,
    config: ConfigOption = None,
    method: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=PRUNING,
            help=f"{', '.join(METHODS)}; `edgeprune methods` tells about each. (default: dsp, no ratio to tune)",
        ),
    ] = None,
    accuracy_drop: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=PRUNING,
            help="Find the strongest pruning that costs at most so much on validation samples, such as 1pp.",
        ),
    ] = None,
    fit: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=PRUNING,
            help="Search the width of each layer: the most accurate model within limits, such as "
            "latency=20ms,ram=24K,flash=96K. Exit code 3, and the nearest miss, where there is none.",
        ),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=PRUNING, help="Of --accuracy-drop and --fit: accuracy or macro_f1. (default: accuracy)"
        ),
    ] = None,
    ratio: Annotated[float | None, describe_method_option("ratio")] = None,
    scope: Annotated[str | None, describe_method_option("scope")] = None,
    width: Annotated[int | None, describe_method_option("width")] = None,
    start: Annotated[str | None, describe_method_option("start")] = None,
    sparsity_weight: Annotated[float | None, describe_method_option("sparsity_weight")] = None,
    prox_weight: Annotated[float | None, describe_method_option("prox_weight")] = None,
    iterations: Annotated[int | None, describe_method_option("iterations")] = None,
    step: Annotated[float | None, describe_method_option("step")] = None,
    step_epochs: Annotated[int | None, describe_method_option("step_epochs")] = None,
    stop: Annotated[str | None, describe_method_option("stop")] = None,
    epsilon: Annotated[float | None, describe_method_option("epsilon")] = None,
    rewind: Annotated[str | None, describe_method_option("rewind")] = None,
    pq: Annotated[str | None, describe_method_option("pq")] = None,
    compression_weight: Annotated[float | None, describe_method_option("compression_weight")] = None,
    rank_epsilon: Annotated[float | None, describe_method_option("rank_epsilon")] = None,
    retrain: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=PRUNING,
            help="finetune, scratch, both (dsp) or none after pruning. (default: the method's own)",
        ),
    ] = None,
    train: Annotated[
        str | None,
        typer.Option(
            metavar="PKG.MODULE:FUNCTION",
            rich_help_panel=TRAINING,
            help="Your own training function, for losses other than classification.",
        ),
    ] = None,
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
    observer: Annotated[
        str | None,
        typer.Option(rich_help_panel=OUTPUT, help="Calibration: minmax, percentile or mse. (default: minmax)"),
    ] = None,
    calibration_samples: Annotated[
        int | None,
        typer.Option(rich_help_panel=OUTPUT, help="Training samples to calibrate on. (default: 512 at most)"),
    ] = None,
    converter: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=OUTPUT, help="Who writes the .tflite: edgeprune or tensorflow. (default: edgeprune)"
        ),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=FIRMWARE,
            help="arena (whole maps), streaming (a few rows at a time), or auto: the least RAM for 7 % more cycles. "
            "(default: auto)",
        ),
    ] = None,
    toolchain: Annotated[
        str | None, typer.Option(rich_help_panel=FIRMWARE, help="zig, or gcc (arm-none-eabi-gcc). (default: zig)")
    ] = None,
    emulator: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=FIRMWARE, help="unicorn, qemu (qemu-system-arm), or auto: qemu for M55. (default: auto)"
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=OUTPUT,
            help="Limits, such as flash=64K,ram=16K,latency=20ms,accuracy_drop=1pp. Exit code 3 when one is missed.",
        ),
    ] = None,
    baseline: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel=OUTPUT,
            help="An earlier report.json to compare with, by figure and by layer. Exit code 4 when one got worse.",
        ),
    ] = None,
    tolerance: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=OUTPUT,
            help="How much worse than the baseline a figure may be, such as instructions=1%,accuracy=0.5pp.",
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            metavar="SSH://USER@HOST[:PORT]",
            rich_help_panel=OUTPUT,
            help="Measure on this ARM Linux device, over ssh; for --target cortex-a53 and its like.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", rich_help_panel=OUTPUT, help="(default: build/<model>-<target>)"),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel=OUTPUT,
            help="Folder where results are found again. (default: $EDGEPRUNE_CACHE, or .edgeprune)",
        ),
    ] = None,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", rich_help_panel=OUTPUT, help="Compute everything anew, keep nothing.")
    ] = False,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Prune, retrain, export, quantize, verify and measure a trained model; write firmware, artifacts and a report.

    With a dataset beside it, `edgeprune compile model.pt --target cortex-m` is all it takes: DSP finds by itself which
    channels the model does not need. Nothing is judged on the test set before the end.

    A full-int8 .tflite that others made is proven, measured and deployed as it is; --data is optional then.
    """
    from edgeprune.settings import resolve_compile_settings

    options = collect_options(locals(), leave_out=("model", "config", "as_json", "quiet", "no_cache"))
    options["use_cache"] = not no_cache
    settings = resolve_compile_settings(model, config, options)
    from edgeprune.pipeline import compile_model  # after the settings: a typing mistake need not wait for torch

    result = compile_model(settings, make_progress(quiet or as_json))
    if as_json:
        typer.echo(json.dumps(result.document, indent=2))
    else:
        _print_result(make_console(), result.document, result.page)
    raise typer.Exit(result.exit_code)


def _print_result(console: Console, document: Mapping[str, Any], page: Path) -> None:
    from edgeprune.console import print_tables
    from edgeprune.report import device_tables, fit_tables, gate_tables, linux_tables, pruning_tables, tables

    print_tables(
        console,
        [
            tables.list_variants(document),
            pruning_tables.list_search(document),
            fit_tables.list_fit(document),
            pruning_tables.list_masks(document),
            pruning_tables.list_transport(document),
            tables.list_parity(document),
            tables.list_firmware(document),
            tables.list_memory_choices(document),
            linux_tables.list_linux_programs(document),
            device_tables.list_device(document),
            tables.list_latency(document),
            tables.list_budgets(document),
            gate_tables.list_baseline(document),
            *gate_tables.list_baseline_layers(document),
        ],
    )
    console.print(tables.summarize(document), markup=False, highlight=False)
    for note in document["notes"]:
        console.print(f"note: {note}", markup=False, highlight=False)
    console.print(
        document["outcome"], markup=False, highlight=False, style="green" if document["exit_code"] == 0 else "red"
    )
    console.print(f"Report: {page}", markup=False, highlight=False)
