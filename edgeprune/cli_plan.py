"""`edgeprune plan`: does it run there, and what would it take, before anything is trained."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeprune.cli_options import (
    FIRMWARE,
    INPUT,
    OUTPUT,
    AllowPickleOption,
    ConfigOption,
    DataOption,
    FactoryOption,
    JsonFlag,
    NormalizationOption,
    QuietFlag,
    make_console,
    make_progress,
    split_names,
)


def plan_command(
    model: Annotated[
        Path,
        typer.Argument(
            help="A .pt made by edgeprune.save_model or torch.export.save; a .onnx file; a full-int8 .tflite."
        ),
    ],
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            "-t",
            rich_help_panel=INPUT,
            help="A name of `edgeprune targets`, or a .toml file; may be given several times. (default: all targets)",
        ),
    ] = None,
    data: DataOption = None,
    normalization: NormalizationOption = None,
    factory: FactoryOption = None,
    allow_pickle: AllowPickleOption = None,
    config: ConfigOption = None,
    budget: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=OUTPUT,
            help="Limits, such as flash=64K,ram=16K,latency=20ms, beside the boards' own memory. "
            "Exit code 3 when no width keeps them on any target.",
        ),
    ] = None,
    memory: Annotated[
        str, typer.Option(rich_help_panel=FIRMWARE, help="arena, streaming or auto, as in compile.")
    ] = "auto",
    toolchain: Annotated[str, typer.Option(rich_help_panel=FIRMWARE, help="zig, or gcc (arm-none-eabi-gcc).")] = "zig",
    emulator: Annotated[
        str, typer.Option(rich_help_panel=FIRMWARE, help="unicorn, qemu, or auto: qemu for M55.")
    ] = "auto",
    cache: Annotated[
        Path | None,
        typer.Option(rich_help_panel=OUTPUT, help="Where results are kept to be found again. (default: .edgeprune)"),
    ] = None,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", rich_help_panel=OUTPUT, help="Compute everything anew.")
    ] = False,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Would it fit? Flash, RAM and time on targets, as it is and at 75, 50 and 25 % of its channels; trains nothing.

    The untrained smaller nets are built and emulated where that is quick, and predicted from those where it is not. The
    narrowest miss comes first. Exit code 0 if something fits, 3 if a limit is missed at every width, 5 if no target
    runs the model.
    """
    from edgeprune.stages.plan import plan_model

    document = plan_model(
        model,
        targets=target or (),
        data=data,
        normalization=normalization,
        factory=factory,
        allow_pickle=split_names(allow_pickle),
        config=config,
        budget=budget or "",
        memory=memory,
        toolchain=toolchain,
        emulator=emulator,
        cache=cache,
        use_cache=not no_cache,
        progress=make_progress(quiet or as_json),
    )
    if as_json:
        typer.echo(json.dumps(document, indent=2))
    else:
        _print_plan(document, quiet)
    raise typer.Exit(document["exit_code"])


def _print_plan(document: Mapping[str, Any], quiet: bool) -> None:
    from edgeprune.console import print_tables
    from edgeprune.report import plan_tables

    console = make_console()
    print_tables(
        console,
        [
            plan_tables.list_widths(document),
            plan_tables.list_plan(document),
            plan_tables.list_linux(document),
            plan_tables.list_refusals(document),
        ],
    )
    if not quiet:
        for note in (plan_tables.list_methods(document), *document["notes"]):
            if note:
                console.print(f"note: {note}", markup=False, highlight=False)
    console.print(
        document["next"], markup=False, highlight=False, style="green" if document["exit_code"] == 0 else "red"
    )
