"""report.md: the report for a pull request or a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeprune.report import tables
from edgeprune.report.pruning_tables import list_pruning_tables
from edgeprune.report.tables import Table


def render_markdown(document: Mapping[str, Any]) -> str:
    """The report as Markdown."""
    model, target = document["model"], document["target"]
    parts = [
        f"# edgeprune: {model.get('name', 'model')} for {target.get('name', 'no target')}",
        document["outcome"],
        tables.summarize(document),
    ]
    parts += [f"- {note}" for note in document["notes"]]
    sections = (
        tables.list_variants(document),
        tables.list_budgets(document),
        tables.list_firmware(document),
        tables.list_memory_choices(document),
        tables.list_latency(document),
        tables.list_parity(document),
        tables.list_sqnr(document, worst=5),
        tables.list_layers(document),
        tables.list_unpruned(document),
        *list_pruning_tables(document),
        tables.list_firmware_layers(document),
        tables.list_artifacts(document),
    )
    parts += [render_table(table) for table in sections if table is not None]
    return "\n\n".join(_join_lists(parts)) + "\n"


def render_table(table: Table) -> str:
    """One table with its caption as a heading."""
    rule = ["---" if column in table.text_columns else "---:" for column in range(len(table.head))]
    lines = [table.head, rule, *table.rows]
    body = "\n".join("| " + " | ".join(_escape(cell) for cell in line) + " |" for line in lines)
    return f"## {table.caption}\n\n{body}"


def _escape(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")


def _join_lists(parts: list[str]) -> list[str]:
    """Keep list items on neighbouring lines."""
    joined: list[str] = []
    for part in parts:
        if part.startswith("- ") and joined and joined[-1].startswith("- "):
            joined[-1] += "\n" + part
        else:
            joined.append(part)
    return joined
