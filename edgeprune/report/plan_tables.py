"""Tables of a plan's document (`edgeprune plan`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeprune.report.budget import METRIC_KINDS, format_quantity
from edgeprune.report.tables import Document, Table, keep_used_columns

PREDICTED = "predicted"
_FIGURES = {
    "flash": "flash",
    "ram": "RAM",
    "instructions": "instructions",
    "cycles": "cycles (modelled)",
    "latency": "time (modelled)",
}


def list_widths(document: Document) -> Table:
    """What does not depend on the target."""
    rows = tuple(
        (
            f"{row['width']} %",
            f"{row['parameters']:,}",
            f"{row['macs']:,}",
            format_quantity(row["model_bytes"], "bytes"),
            format_quantity(row["arena_bytes"], "bytes"),
        )
        for row in document["widths"]
    )
    head = ("channels", "parameters", "MACs", "model_int8.tflite", "activations")
    return Table("The int8 model, on any target (static)", head, rows, ())


def list_plan(document: Document) -> Table | None:
    """Figures on microcontrollers, the narrowest miss first, then what fits best."""
    families = {target["name"]: target["family"] for target in document["targets"]}
    rows = tuple(
        (
            row["target"],
            f"{row['width']} %",
            *(_format_figure(row["figures"][name], METRIC_KINDS[name].unit) for name in _FIGURES),
            _describe_verdict(row),
            _describe_tightest(row),
        )
        for row in document["rows"]
        if families[row["target"]] == "cortex-m"
    )
    if not rows:
        return None
    head = ("target", "channels", *_FIGURES.values(), "verdict", "tightest limit")
    caption = f"On microcontrollers{' (~: predicted)' if any('~' in cell for row in rows for cell in row) else ''}"
    return keep_used_columns(Table(caption, head, rows, (0, 7, 8)))


def list_linux(document: Document) -> Table | None:
    """Targets that run the model, of which a plan has static figures only."""
    kept = [target for target in document["targets"] if target["family"] != "cortex-m" and target["runs"]]
    if not kept:
        return None
    rows = []
    for target in kept:
        own = [row for row in document["rows"] if row["target"] == target["name"]]
        states = ", ".join(f"{row['width']} %: {row['state']}" for row in own if row["state"] in ("missed", "fits"))
        rows.append((target["name"], "yes", own[0]["figures"]["latency"]["reason"] if own else "", states))
    return keep_used_columns(
        Table("With an operating system", ("target", "runs", "time", "budget"), tuple(rows), (0, 1, 2, 3))
    )


def list_refusals(document: Document) -> Table | None:
    """Targets that cannot run the model: layer, rule and way out."""
    refused: dict[str, list[str]] = {}
    for target in document["targets"]:
        for reason in target["reasons"]:
            refused.setdefault(reason.replace(f"; {target['name']}: ", "; "), []).append(target["name"])
    if not refused:
        return None
    rows = tuple((", ".join(names), reason) for reason, names in refused.items())
    return Table("Cannot run it", ("target", "why, and what to do"), rows, (0, 1))


def list_methods(document: Document) -> str:
    """How the figures were got, in one sentence."""
    methods: dict[str, dict[str, None]] = {}
    for row in document["rows"]:
        for name, words in _FIGURES.items():
            method = row["figures"][name]["method"]
            if method is not None:
                methods.setdefault(method, {})[words.removesuffix(" (modelled)")] = None
    parts = [f"{method}: {', '.join(names)}" for method, names in methods.items()]
    return f"how each figure was got: {'; '.join(parts)}. Nothing was measured on silicon" if parts else ""


def _format_figure(figure: Mapping[str, Any], unit: str) -> str:
    if figure["value"] is None:
        return ""
    return f"{'~' if figure['method'] == PREDICTED else ''}{format_quantity(figure['value'], unit)}"


def _describe_verdict(row: Mapping[str, Any]) -> str:
    if row["state"] == "missed":
        return "too large" if row["tightest"]["unit"] == "bytes" else "over"
    if row["state"] == "unknown":
        return f"{', '.join(limit['figure'] for limit in row['unknown'])} unknown"
    return str(row["state"])


def _describe_tightest(row: Mapping[str, Any]) -> str:
    limit = row["tightest"]
    if limit is None:
        return ""
    share = f"{limit['use']:.2f} x" if limit["use"] > 1 else f"{100 * limit['use']:.0f} %"
    whose = "" if limit["of"] == row["target"] else f" ({limit['of']})"
    return f"{limit['figure']} {share} of {format_quantity(limit['limit'], limit['unit'])}{whose}"
