"""`edgeprune verify` and `edgeprune reproduce`: are these the artifacts that the report speaks of?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from edgeprune.cli_options import INPUT, OUTPUT, JsonFlag, QuietFlag, make_console, make_progress
from edgeprune.errors import InputError, RegressionError


def verify_command(
    folder: Annotated[Path, typer.Argument(help="The output folder of a compile.")],
    as_json: JsonFlag = False,
) -> None:
    """Hold the files of an output folder against its manifest, by size and SHA-256.

    Exit code 2 when a file is changed or missing, or when one lies there that the manifest does not know. The manifest
    is no signature: who changes a file can change the manifest too.
    """
    from dataclasses import asdict

    from edgeprune.stages.verify_folder import verify_folder

    checks = verify_folder(folder)
    wrong = [check for check in checks if check.state != "ok"]
    if as_json:
        typer.echo(json.dumps([asdict(check) for check in checks], indent=2))
    for check in wrong:
        if not as_json:
            typer.echo(f"{check.state}: {check.path}{': ' + check.detail if check.detail else ''}")
    if wrong:
        raise InputError(
            f"{folder}: {len(wrong)} of {len(checks)} files are not what the manifest says; compile again, or fetch "
            "them anew"
        )
    if not as_json:
        typer.echo(f"{folder}: {len(checks)} files, all as the manifest names them")


def reproduce_command(
    report: Annotated[Path, typer.Argument(help="A report.json, or the folder that holds it.")],
    model: Annotated[
        Path | None,
        typer.Option("--model-file", rich_help_panel=INPUT, help="The model. (default: looked for near the report)"),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", rich_help_panel=INPUT, help="The dataset. (default: looked for near the report)"),
    ] = None,
    allow_code: Annotated[
        bool,
        typer.Option(
            "--allow-code", rich_help_panel=INPUT, help="Run the functions that the report names (train, factory)."
        ),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", rich_help_panel=OUTPUT, help="(default: build/reproduced-<model>-<target>)"),
    ] = None,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Compile again what a report describes, without the cache, and compare the digests of the artifacts.

    Exit code 4 when one differs. Versions of packages that are others than the report's are named: they are the first
    suspects.
    """
    from edgeprune.report.document import read_report
    from edgeprune.stages.reproduce import reproduce_report

    if output is None:
        settings = read_report(report)["settings"]
        output = Path("build") / f"reproduced-{Path(settings['model']).stem}-{Path(settings['target']).stem}"
    result = reproduce_report(
        report, output, model=model, data=data, allow_code=allow_code, progress=make_progress(quiet or as_json)
    )
    if as_json:
        typer.echo(json.dumps({"states": result.states, "versions": result.versions, "same": result.is_same}, indent=2))
    else:
        from edgeprune.console import print_tables
        from edgeprune.report.tables import Table

        print_tables(make_console(), [Table("Artifacts", ("file", ""), tuple(result.states.items()), (0, 1))])
        for name, (recorded, present) in result.versions.items():
            typer.echo(
                f"note: {name} is {present or 'not installed'} here, {recorded or 'not installed'} in the report"
            )
    if not result.is_same:
        different = [name for name, state in result.states.items() if state in ("differs", "missing", "new")]
        raise RegressionError(f"{report} is not reproduced: {', '.join(different)}. The new files lie in {output}")
    if not as_json:
        typer.echo(f"Reproduced: {list(result.states.values()).count('same')} files have the recorded digests")
