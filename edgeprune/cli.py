"""The command line: the only place that prints, and that turns errors into exit codes.

Rooms are imported inside the commands: `edgeprune --help` must answer at once, and torch takes seconds to import.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeprune import __version__
from edgeprune.cli_analyze import analyze_app
from edgeprune.cli_artifacts import reproduce_command, verify_command
from edgeprune.cli_cache import cache_app
from edgeprune.cli_gate import (
    ScoreBudgetOption,
    diff_command,
    gate_command,
    history_command,
    hold_budgets,
    read_budgets,
)
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
    describe_method_option,
    make_console,
    make_progress,
)
from edgeprune.cli_plan import plan_command
from edgeprune.errors import EdgepruneError, InputError
from edgeprune.method_table import METHODS

if TYPE_CHECKING:
    from rich.console import Console

    from edgeprune.report import BudgetResult

app = typer.Typer(
    name="edgeprune",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 ok; 1 fault in edgeprune (a parity failure too); 2 usage or bad input; 3 budget missed; "
    "4 regression; 5 model not supported; 6 measurement unavailable; 7 untrusted input refused.",
)

ModelArgument = Annotated[
    Path,
    typer.Argument(
        help="A .pt made by edgeprune.save_model or torch.export.save; a state_dict; a .onnx file; a full-int8 .tflite."
    ),
]


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"edgeprune {__version__}")
        raise typer.Exit


app.add_typer(analyze_app)
app.add_typer(cache_app)

app.command("plan")(plan_command)
app.command("gate")(gate_command)
app.command("diff")(diff_command)
app.command("history")(history_command)
app.command("verify")(verify_command)
app.command("reproduce")(reproduce_command)


@app.callback()
def describe_program(
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """From a trained PyTorch CNN and its dataset to a pruned, quantized, verified and measured edge model.

    Start here:  edgeprune train --arch lite --data data.npz -o model.pt,  then  edgeprune compile model.pt
    """


@app.command("compile")
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

    options = _collect_options(locals(), leave_out=("model", "config", "as_json", "quiet", "no_cache"))
    options["use_cache"] = not no_cache
    settings = resolve_compile_settings(model, config, options)
    from edgeprune.pipeline import compile_model  # after the settings: a typing mistake need not wait for torch

    result = compile_model(settings, make_progress(quiet or as_json))
    if as_json:
        typer.echo(json.dumps(result.document, indent=2))
    else:
        _print_compile_result(make_console(), result.document, result.page)
    raise typer.Exit(result.exit_code)


@app.command("train")
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

    options = _collect_options(locals(), leave_out=("as_json", "quiet", "budget", "budgets"))
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


@app.command("evaluate")
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

    allowed = tuple(filter(None, (allow_pickle or "").split(",")))
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


@app.command("targets")
def targets_command(as_json: JsonFlag = False) -> None:
    """List the targets: cores and boards, with memory and clock where the datasheet states them."""
    from edgeprune.target import describe_target, list_targets

    targets = [describe_target(target) for target in list_targets()]
    if as_json:
        typer.echo(json.dumps(targets, indent=2))
        return
    from edgeprune.console import print_tables
    from edgeprune.report.tables import Table

    rows = tuple(
        (
            target["name"],
            _format_optional(target["clock_hz"], lambda hertz: f"{hertz / 1e6:g} MHz"),
            _format_optional(target["flash_bytes"], lambda count: f"{count // 1024:,} KB"),
            _format_optional(target["ram_bytes"], lambda count: f"{count // 1024:,} KB"),
            target["description"],
        )
        for target in targets
    )
    print_tables(make_console(), [Table("Targets", ("name", "clock", "flash", "RAM", ""), rows, (0, 4))])
    typer.echo("Your own: a .toml file that inherits one of these; --target ./my.toml")


@app.command("methods")
def methods_command(as_json: JsonFlag = False) -> None:
    """List the pruning methods: what each does, its paper, what it needs, its options with defaults."""
    from edgeprune.method_table import describe_methods

    methods = describe_methods()
    if as_json:
        typer.echo(json.dumps(methods, indent=2))
        return
    for method in methods:
        typer.secho(f"{method['name']}", bold=True, nl=False)
        typer.echo(f"  {method['summary']}")
        for label, text in (
            ("paper", method["paper"]),
            ("needs", method["needs"]),
            ("options", "  ".join(f"{flag} {value}" for flag, value in method["options"].items())),
            ("retrain", ", ".join(method["retrain"])),
            ("--accuracy-drop", method["accuracy_drop"]),
        ):
            if text:
                typer.echo(f"    {label}: {text}")
    typer.echo("\nThe first of `retrain` is the default. edgeprune compile model.pt --method NAME")


@app.command("ops")
def ops_command() -> None:
    """Print the operations that can be deployed and the rules they keep, as Markdown."""
    from edgeprune.lower import describe_constraints

    typer.echo(describe_constraints())


@app.command("doctor")
def doctor_command(as_json: JsonFlag = False) -> None:
    """Show what is installed, and what each missing piece would enable."""
    from dataclasses import asdict

    from edgeprune.doctor import examine_installation

    findings = examine_installation()
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        from edgeprune.console import print_tables
        from edgeprune.report.tables import Table

        rows = tuple(
            (
                finding.name,
                finding.version or "missing",
                finding.purpose,
                "" if finding.version else finding.remedy,
            )
            for finding in findings
        )
        print_tables(
            make_console(), [Table("Packages", ("package", "version", "for", "to get it"), rows, (0, 1, 2, 3))]
        )
    missing = [finding.name for finding in findings if finding.required and finding.version is None]
    if missing:
        raise InputError(f"{', '.join(missing)} missing: edgeprune cannot work without. Run: pip install edgeprune")


def main() -> None:
    """Entry point: run the command; print one line and end with the documented code where it fails."""
    # TensorFlow's and LiteRT's native libraries log to stderr; set before any of them is imported
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # PyTorch's note on its own speed with even kernels, in the middle of a progress bar
    warnings.filterwarnings("ignore", message="Using padding='same'", category=UserWarning)
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        app(arguments)
    except EdgepruneError as error:
        if debug:
            raise
        typer.secho(f"error: {error}", err=True, fg="red")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        typer.secho("stopped: nothing that was finished before is lost", err=True)
        sys.exit(130)
    except Exception as error:  # the last line of defence: a fault of ours must not end in a traceback
        if debug:
            raise
        typer.secho(
            f"error: a fault in edgeprune: {type(error).__name__}: {error}\n"
            "Please report it with the output of the same command and --debug.",
            err=True,
            fg="red",
        )
        sys.exit(EdgepruneError.exit_code)


def _collect_options(values: Mapping[str, Any], leave_out: Sequence[str]) -> dict[str, Any]:
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


def _print_compile_result(console: Console, document: Mapping[str, Any], page: Path) -> None:
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


def _print_budgets(results: Sequence[BudgetResult], exit_code: int) -> None:
    """Budgets of a command that writes no report; ends it with the exit code."""
    for result in results:
        typer.secho(f"budget {result.state}: {result.message}", fg="green" if result.state == "met" else "red")
    raise typer.Exit(exit_code)


def _format_optional(value: Any, format_value: Any) -> str:
    return "" if value is None else str(format_value(value))
