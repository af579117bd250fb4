"""Tables of a comparison with a baseline, from a report's section `baseline` (as `gate.describe_gate` gives it)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgeprune.report.budget import format_quantity
from edgeprune.report.tables import Document, Table, keep_used_columns
from edgeprune.report.verdict import format_change

# Layers beyond these stand in report.json; a table of hundreds tells a reader nothing.
SHOWN_LAYERS = 10
_LONGEST_VALUE = 60


def list_baseline(document: Document) -> Table | None:
    """Every figure of the baseline and of this report: change, tolerance, verdict."""
    compared: Sequence[Mapping[str, Any]] = document.get("baseline", {}).get("metrics", ())
    if not compared:
        return None
    rows = tuple(
        (
            metric["name"],
            _format_value(metric["baseline"], metric["unit"]),
            _format_value(metric["value"], metric["unit"]),
            format_change(metric["change"], metric["baseline"], metric["unit"]),
            metric["tolerance"] or "",
            metric["verdict"],
            metric["method"] or metric["baseline_method"] or "",
            metric["reason"],
        )
        for metric in compared
    )
    head = ("figure", "baseline", "now", "change", "tolerance", "verdict", "method", "")
    return keep_used_columns(Table("Against the baseline", head, rows, (0, 5, 6, 7)))


def list_baseline_layers(document: Document) -> list[Table]:
    """For each figure that got worse, the layers it got worse in, largest increase first."""
    return [list_layer_changes(changes) for changes in document.get("baseline", {}).get("layers", ())]


def list_layer_changes(changes: Mapping[str, Any]) -> Table:
    """One figure layer by layer, as `gate.describe_changes` gives it."""
    rows = [
        (
            layer["layer"],
            layer["kind"],
            _format_count(layer["before"]),
            _format_count(layer["now"]),
            f"{layer['change']:+,}",
            layer["remark"],
        )
        for layer in changes["layers"][:SHOWN_LAYERS]
    ]
    if len(changes["layers"]) > SHOWN_LAYERS:
        rows.append((f"and {len(changes['layers']) - SHOWN_LAYERS} more", "", "", "", "", ""))
    if changes["rest"]:
        rows.append(("outside of the layers", "", "", "", f"{changes['rest']:+,}", ""))
    for part in changes["parts"]:
        change = f"{part['now'] - part['before']:+,}"
        rows.append((f"in all: {part['name']}", "", f"{part['before']:,}", f"{part['now']:,}", change, ""))
    counted = changes["of"].replace("_", " ")
    caption = f"Where {changes['metric']} moved"
    caption += "" if counted == changes["metric"] else f", by {counted} of each layer"
    caption += "" if changes["is_sum"] else " (the largest decides; they do not add up)"
    return keep_used_columns(Table(caption, ("layer", "kind", "baseline", "now", "change", ""), tuple(rows), (0, 1, 5)))


def list_baseline_differences(document: Document) -> Table | None:
    """What was done differently than for the baseline: model, data, settings, toolchain, versions."""
    return list_differences(
        document.get("baseline", {}).get("differences", ()), "Done differently than for the baseline"
    )


def list_differences(differences: Sequence[Mapping[str, Any]], caption: str) -> Table | None:
    """Rows of `compare.list_differences` as plain data."""
    rows = tuple(
        (item["section"], item["name"], _shorten(item["before"]), _shorten(item["now"])) for item in differences
    )
    return Table(caption, ("", "name", "before", "now"), rows, (0, 1, 2, 3)) if rows else None


def _format_value(value: float | None, unit: str) -> str:
    return "" if value is None else format_quantity(value, unit)


def _format_count(value: int | None) -> str:
    return "none" if value is None else f"{value:,}"


def _shorten(text: str) -> str:
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"
