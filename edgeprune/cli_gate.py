"""`edgeprune gate`, `diff` and `history`: what is done with reports once they are written.

Heavy imports are in the functions; see `cli`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeprune.cli_options import OUTPUT, JsonFlag, make_console
from edgeprune.errors import InputError

if TYPE_CHECKING:
    from edgeprune.report.budget import Budget, BudgetResult
    from edgeprune.report.gate import GateResult

GATED, WRITTEN = "What it is held against", OUTPUT

ReportArgument = Annotated[Path, typer.Argument(help="A report.json, or the folder that holds it.")]
BudgetOption = Annotated[
    str | None,
    typer.Option(
        "--budget",
        rich_help_panel=GATED,
        help="Limits, such as flash=256K,latency=20ms; those the report was compiled with hold too. "
        "Exit code 3 when one is missed.",
    ),
]
ScoreBudgetOption = Annotated[
    str | None,
    typer.Option(
        "--budget",
        rich_help_panel=OUTPUT,
        help="Limits, such as accuracy=95%,macro_f1=90%. Exit code 3 when one is missed.",
    ),
]
BaselineOption = Annotated[
    Path | None,
    typer.Option(
        "--baseline",
        rich_help_panel=GATED,
        help="An earlier report.json of the same target. Exit code 4 when a figure is worse than there, 6 when one is "
        "missing or was got by a weaker method.",
    ),
]
ToleranceOption = Annotated[
    str | None,
    typer.Option(
        "--tolerance",
        rich_help_panel=GATED,
        help="How much worse a figure may be, such as instructions=1%,flash=2K,accuracy=0.5pp. (default: none; 10 % "
        "for measured times; accuracy is worse only where McNemar's test has evidence, p < 0.05)",
    ),
]


def gate_command(
    report: ReportArgument,
    budget: BudgetOption = None,
    baseline: BaselineOption = None,
    tolerance: ToleranceOption = None,
    junit: Annotated[
        Path | None, typer.Option("--junit", rich_help_panel=WRITTEN, help="JUnit XML to write, for GitLab and others.")
    ] = None,
    markdown: Annotated[
        Path | None,
        typer.Option("--markdown", rich_help_panel=WRITTEN, help="Markdown to write, for a pull request."),
    ] = None,
    github: Annotated[
        bool, typer.Option("--github", rich_help_panel=WRITTEN, help="Print annotations for GitHub Actions too.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Hold a report against budgets and an earlier report; the exit code says whether it may ship.

    0 good; 1 parity failed; 6 a figure cannot be judged; 4 worse than the baseline; 3 over budget; in this order.

    edgeprune gate build/model-cortex-m4 --budget flash=256K --baseline release.json --tolerance instructions=1%
    """
    from edgeprune.report.budget import parse_budgets
    from edgeprune.report.document import read_report
    from edgeprune.report.gate import describe_gate, hold_report
    from edgeprune.report.tolerance import parse_tolerances

    if github and as_json:
        raise InputError("--github and --json both print: choose one; --markdown and --junit write files beside either")
    budgets, tolerances = parse_budgets(budget or ""), parse_tolerances(tolerance or "")
    document = read_report(report)
    result = hold_report(document, budgets, None if baseline is None else read_report(baseline), tolerances)
    _write_results(result, junit, markdown)
    if as_json:
        typer.echo(json.dumps(describe_gate(result), indent=2))
    else:
        _print_gate(result)
    if github:
        from edgeprune.report.annotations import list_annotations

        for line in list_annotations(result):
            typer.echo(line)
    raise typer.Exit(result.exit_code)


def diff_command(
    left: Annotated[Path, typer.Argument(help="A report.json, or the folder that holds it.")],
    right: Annotated[Path, typer.Argument(help="Another one.")],
    as_json: JsonFlag = False,
) -> None:
    """Show what differs between two reports: figures, layers, settings, versions. For reading; it judges nothing."""
    from edgeprune.report.diff import diff_reports, list_diff_tables
    from edgeprune.report.document import read_report

    diff = diff_reports(read_report(left), read_report(right))
    if as_json:
        typer.echo(json.dumps(diff, indent=2))
        return
    from edgeprune.console import print_tables

    console = make_console()
    for side in ("left", "right"):
        named = diff[side]
        text = f"{side}: {named['model']} for {named['target']}: {named['outcome']}"
        console.print(text, markup=False, highlight=False)
    console.print()
    print_tables(console, list_diff_tables(diff))
    if diff["accuracy_test"] is not None:
        console.print(f"accuracy: {diff['accuracy_test']['message']}", markup=False, highlight=False)


def history_command(
    folder: Annotated[Path, typer.Argument(help="A folder with reports in it, at any depth.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", rich_help_panel=WRITTEN, help="The page; a .png is written beside it.")
    ] = Path("history.html"),
    order: Annotated[
        str,
        typer.Option(
            help="name: by folder or file name, v2 before v10; time: by the files' times, which a git checkout loses."
        ),
    ] = "name",
    as_json: JsonFlag = False,
) -> None:
    """Draw the figures of many reports over time, as a page and a picture; each model and target is a line of its own.

    A report holds no date, so that equal inputs make equal reports: name the folders so that they sort, such as 1.2.0
    or 2026-11-21.
    """
    from edgeprune.report.history import collect_history, describe_history, write_history

    history = collect_history(folder, order)
    written, unwritten = write_history(history, output)
    if as_json:
        typer.echo(json.dumps(describe_history(history), indent=2))
        return
    console = make_console()
    for note in (*history.notes, *unwritten):
        console.print(f"note: {note}", markup=False, highlight=False)
    series = len({(point.model, point.target) for point in history.points})
    text = f"{len(history.points)} reports of {series} {'series' if series != 1 else 'model'}"
    console.print(f"{text}: {', '.join(str(path) for path in written)}", markup=False, highlight=False)


def read_budgets(text: str | None, measured: Sequence[str]) -> tuple[Budget, ...]:
    """--budget of a command that measures just these figures; raises InputError for a budget on any other."""
    from edgeprune.report.budget import parse_budgets

    budgets = parse_budgets(text or "")
    for budget in budgets:
        if budget.name not in measured:
            raise InputError(f"--budget {budget.name} is not measured here; allowed: {', '.join(measured)}")
    return budgets


def hold_budgets(budgets: Sequence[Budget], figures: Mapping[str, float]) -> tuple[list[BudgetResult], int]:
    """Budgets against figures that this command has just measured on this host; the results and the exit code.

    figures: by name, each in the unit of its kind (accuracies in per cent).
    """
    from edgeprune.report.budget import Metric, check_budgets, exit_code_of

    results = check_budgets(budgets, {name: Metric(name, value, "host") for name, value in figures.items()})
    return list(results), exit_code_of(results)


def _write_results(result: GateResult, junit: Path | None, markdown: Path | None) -> None:
    from edgeprune.disk import write_file_atomically

    if junit is not None:
        from edgeprune.report.junit import render_junit

        write_file_atomically(junit, render_junit(result))
    if markdown is not None:
        from edgeprune.report.gate_markdown import render_gate

        write_file_atomically(markdown, render_gate(result).encode())


def _print_gate(result: GateResult) -> None:
    from edgeprune.console import print_tables
    from edgeprune.report import gate_tables, tables
    from edgeprune.report.gate import describe_gate

    section = describe_gate(result)
    document: dict[str, Any] = {"budgets": section["budgets"], "baseline": section}
    console = make_console()
    print_tables(
        console,
        [
            tables.list_budgets(document),
            gate_tables.list_baseline(document),
            *gate_tables.list_baseline_layers(document),
            gate_tables.list_baseline_differences(document),
        ],
    )
    for note in result.notes:
        console.print(f"note: {note}", markup=False, highlight=False)
    console.print(result.outcome, markup=False, highlight=False, style="green" if result.exit_code == 0 else "red")
