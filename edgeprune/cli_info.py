"""`edgeprune targets`, `methods`, `ops` and `doctor`: what there is to choose from, and what is installed."""

from __future__ import annotations

import json
from typing import Any

import typer

from edgeprune.cli_options import (
    JsonFlag,
    make_console,
)
from edgeprune.errors import InputError


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


def ops_command() -> None:
    """Print the operations that can be deployed and the rules they keep, as Markdown."""
    from edgeprune.lower import describe_constraints

    typer.echo(describe_constraints())


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


def _format_optional(value: Any, format_value: Any) -> str:
    return "" if value is None else str(format_value(value))
