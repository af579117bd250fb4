"""The gate's answer as GitHub workflow commands, which show as annotations on a run and its pull request.

Format and escaping: GitHub docs, "Workflow commands for GitHub Actions"; actions/toolkit, packages/core/src/command.ts.
"""

from __future__ import annotations

from edgeprune.report.gate import GateResult, describe_worst_layers
from edgeprune.report.verdict import NO_EVIDENCE, REFUSED, WITHIN, WORSE


def list_annotations(result: GateResult) -> list[str]:
    """One line for each thing a reviewer should see: errors for what fails the gate, notices for what nearly does."""
    lines = [_command("error", "parity failed", name) for name in result.failed_parity]
    lines += [
        _command("error", f"budget {budget.name} {budget.state}", budget.message)
        for budget in result.budgets
        if budget.state != "met"
    ]
    levels = {WORSE: "error", REFUSED: "error", WITHIN: "notice", NO_EVIDENCE: "notice"}
    for metric in result.metrics:
        if metric.verdict in (WORSE, REFUSED) or (metric.verdict in levels and metric.got_worse):
            text = "\n".join((metric.describe(), *describe_worst_layers(result, metric.name)))
            lines.append(_command(levels[metric.verdict], f"{metric.name}: {metric.verdict}", text))
    lines += [_command("warning", "baseline", note) for note in result.notes]
    return lines


def _command(level: str, title: str, message: str) -> str:
    return f"::{level} title={_escape_property(f'edgeprune: {title}')}::{_escape(message)}"


def _escape(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _escape_property(text: str) -> str:
    return _escape(text).replace(":", "%3A").replace(",", "%2C")
