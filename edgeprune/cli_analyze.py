"""`edgeprune analyze ...`: what a model is like, without changing it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from edgeprune.cli_options import (
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

analyze_app = typer.Typer(name="analyze", no_args_is_help=True, help="Look into a model without changing it.")


@analyze_app.callback()
def describe_analyses() -> None:
    """Look into a model without changing it."""


@analyze_app.command("redundancy")
def redundancy_command(
    model: Annotated[Path, typer.Argument(help="A PyTorch model: .pt of edgeprune.save_model, torch.export, ...")],
    pruned: Annotated[
        Path | None,
        typer.Option(
            "--pruned", rich_help_panel=INPUT, help="A second model to compare with, such as model_pruned.pt."
        ),
    ] = None,
    data: DataOption = None,
    normalization: NormalizationOption = None,
    factory: FactoryOption = None,
    allow_pickle: AllowPickleOption = None,
    config: ConfigOption = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", rich_help_panel=OUTPUT, help="(default: build/<model>-redundancy)"),
    ] = None,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """How many of a model's channels repeat each other: effective rank, efficiency score, heat maps.

    For each feature map that DSP observes, on training samples (arXiv 2602.12744, equation 6 and Figure 13). Writes a
    page and JSON; --json prints all of it but the heat maps.
    """
    from edgeprune.stages.analyze import analyze_redundancy

    document, page = analyze_redundancy(
        model,
        pruned,
        data=data,
        normalization=normalization,
        factory=factory,
        allow_pickle=split_names(allow_pickle),
        config=config,
        output=output,
        progress=make_progress(quiet or as_json),
    )
    if as_json:
        typer.echo(json.dumps({key: value for key, value in document.items() if key != "heat_maps"}, indent=2))
        return
    from edgeprune.console import print_tables
    from edgeprune.report.pruning_tables import list_redundancy

    console = make_console()
    print_tables(console, [list_redundancy({"pruning": document})])
    for note in document["notes"]:
        console.print(f"note: {note}", markup=False, highlight=False)
    console.print(f"Heat maps: {page}", markup=False, highlight=False)
