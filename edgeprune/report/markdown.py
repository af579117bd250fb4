"""report.md: the report for a pull request or a terminal: outcome, budgets and baseline on top, layers folded away."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from edgeprune.report import tables
from edgeprune.report.device_tables import list_device
from edgeprune.report.fit_tables import list_fit, list_fit_widths
from edgeprune.report.gate_tables import list_baseline, list_baseline_differences, list_baseline_layers
from edgeprune.report.linux_tables import list_linux_layers, list_linux_programs
from edgeprune.report.pruning_tables import list_pruning_tables
from edgeprune.report.tables import Table


def render_markdown(document: Mapping[str, Any]) -> str:
    """The report as Markdown."""
    model, target = document["model"].get("name", "model"), document["target"].get("name", "no target")
    parts = [
        f"# edgeprune: {escape_text(model)} for {escape_text(target)}",
        escape_text(document["outcome"]),
        tables.summarize(document),
    ]
    parts += [f"- {escape_text(note)}" for note in document["notes"]]
    shown = (
        tables.list_budgets(document),
        list_baseline(document),
        list_fit(document),
        tables.list_variants(document),
        tables.list_firmware(document),
        tables.list_memory_choices(document),
        list_linux_programs(document),
        tables.list_latency(document),
        tables.list_parity(document),
    )
    folded = (
        *list_baseline_layers(document),
        list_baseline_differences(document),
        list_device(document),
        list_fit_widths(document),
        tables.list_sqnr(document, worst=5),
        tables.list_layers(document),
        tables.list_unpruned(document),
        *list_pruning_tables(document),
        tables.list_firmware_layers(document),
        list_linux_layers(document),
        tables.list_artifacts(document),
    )
    parts += [render_table(table) for table in shown if table is not None]
    parts += [fold_table(table) for table in folded if table is not None]
    return join_parts(parts)


def render_table(table: Table) -> str:
    """One table with its caption as a heading."""
    return f"## {table.caption}\n\n{_render_rows(table)}"


def fold_table(table: Table) -> str:
    """One table that a reader opens by its caption."""
    # GitHub and GitLab read Markdown inside <details> only between empty lines
    return f"<details><summary>{escape_text(table.caption)}</summary>\n\n{_render_rows(table)}\n\n</details>"


def _render_rows(table: Table) -> str:
    rule = ["---" if column in table.text_columns else "---:" for column in range(len(table.head))]
    lines = [table.head, rule, *table.rows]
    return "\n".join("| " + " | ".join(escape_text(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def escape_text(text: str) -> str:
    """Text from models and data files on one line, without HTML in it."""
    return html.escape(" ".join(text.splitlines()), quote=False)


def join_parts(parts: Sequence[str]) -> str:
    """Paragraphs with an empty line between them; list items on neighbouring lines."""
    joined: list[str] = []
    for part in filter(None, parts):
        if part.startswith("- ") and joined and joined[-1].startswith("- "):
            joined[-1] += "\n" + part
        else:
            joined.append(part)
    return "\n\n".join(joined) + "\n"
