"""The gate's answer as Markdown: for a pull request, or a job's summary."""

from __future__ import annotations

from typing import Any

from edgeprune.report import gate_tables, tables
from edgeprune.report.gate import GateResult, describe_gate
from edgeprune.report.markdown import escape_text, fold_table, join_parts, render_table


def render_gate(result: GateResult) -> str:
    """Outcome, budgets and figures in sight; layers and differences folded away."""
    section = describe_gate(result)
    document: dict[str, Any] = {"budgets": section["budgets"], "baseline": section}
    title = "passed" if result.exit_code == 0 else f"FAILED (exit code {result.exit_code})"
    parts = [
        f"# edgeprune gate: {escape_text(result.model)} for {escape_text(result.target)} {title}",
        escape_text(result.outcome),
    ]
    parts += [f"- {escape_text(note)}" for note in result.notes]
    shown = (tables.list_budgets(document), gate_tables.list_baseline(document))
    parts += [render_table(table) for table in shown if table is not None]
    folded = (*gate_tables.list_baseline_layers(document), gate_tables.list_baseline_differences(document))
    parts += [fold_table(table) for table in folded if table is not None]
    return join_parts(parts)
