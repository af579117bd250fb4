"""Two reports side by side, for reading: figures, layers that moved, what was done differently. No verdicts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from edgeprune.report.budget import METRIC_KINDS, format_quantity
from edgeprune.report.compare import LAYER_SOURCES, list_differences, trace_change
from edgeprune.report.gate import describe_layer_changes
from edgeprune.report.gate_tables import list_differences as list_difference_table
from edgeprune.report.mcnemar import compare_accuracies
from edgeprune.report.tables import Document, Table, keep_used_columns
from edgeprune.report.verdict import format_change

# Figures whose layers are shown; the others are made of the same layers' figures.
_SIDES = ("left", "right")
_SHOWN = tuple(name for name in LAYER_SOURCES if name not in ("latency", "flops", "arena_bytes", "model_bytes"))


def diff_reports(left: Document, right: Document) -> dict[str, Any]:
    """Everything that differs between two reports, as plain data; they may be of different targets.

    metrics: every figure that one of them has, with both methods; layers: by figure, as `describe_layer_changes`;
    accuracy_test: whether the int8 accuracies differ by more than chance, or None; differences: settings, versions, ...
    """
    test = compare_accuracies(right, left)
    traced = (trace_change(name, right, left) for name in _SHOWN)
    return {
        "left": _name_report(left),
        "right": _name_report(right),
        "metrics": [
            _diff_metric(name, left, right)
            for name in METRIC_KINDS
            if name in left["metrics"] or name in right["metrics"]
        ],
        "accuracy_test": None if test is None else {**dataclasses.asdict(test), "message": test.describe()},
        "layers": [describe_layer_changes(changes) for changes in traced if changes is not None and changes.layers],
        "differences": [dataclasses.asdict(item) for item in list_differences(right, left)],
    }


def list_diff_tables(diff: Mapping[str, Any]) -> list[Table | None]:
    """The tables of `diff_reports`."""
    return [
        _list_metrics(diff["metrics"]),
        _list_layers(diff["layers"]),
        list_difference_table(diff["differences"], "Done differently"),
    ]


def _name_report(document: Document) -> dict[str, Any]:
    return {
        "model": document["model"]["name"],
        "target": document["target"]["name"],
        "outcome": document["outcome"],
        "exit_code": document["exit_code"],
    }


def _diff_metric(name: str, left: Document, right: Document) -> dict[str, Any]:
    (old, old_method), (new, new_method) = (_read_metric(name, report) for report in (left, right))
    change = None if old is None or new is None else new - old
    return {
        "name": name,
        "unit": METRIC_KINDS[name].unit,
        "left": old,
        "right": new,
        "left_method": old_method,
        "right_method": new_method,
        "change": change,
    }


def _read_metric(name: str, document: Document) -> tuple[float | None, str | None]:
    metric = document["metrics"].get(name, {})
    return metric.get("value"), metric.get("method")


def _list_metrics(metrics: Sequence[Mapping[str, Any]]) -> Table:
    rows = tuple(
        (
            metric["name"],
            *("none" if metric[side] is None else format_quantity(metric[side], metric["unit"]) for side in _SIDES),
            format_change(metric["change"], metric["left"], metric["unit"]),
            _join_methods(*(metric[f"{side}_method"] for side in _SIDES)),
        )
        for metric in metrics
        if metric["left"] is not None or metric["right"] is not None
    )
    return Table("Figures", ("figure", "left", "right", "change", "method"), rows, (0, 4))


def _join_methods(left: str | None, right: str | None) -> str:
    return left or "" if left == right else f"{left or 'none'} → {right or 'none'}"


def _list_layers(layers: Sequence[Mapping[str, Any]]) -> Table | None:
    """One row for each layer that moved, one column for each figure that did."""
    if not layers:
        return None
    cells: dict[str, dict[str, str]] = {}
    remarks: dict[str, str] = {}
    for changes in layers:
        for layer in changes["layers"]:
            before, now = ("none" if layer[side] is None else f"{layer[side]:,}" for side in ("before", "now"))
            cells.setdefault(layer["layer"], {})[changes["metric"]] = f"{before} → {now}" if before != now else ""
            remarks[layer["layer"]] = max(remarks.get(layer["layer"], ""), layer["remark"], key=len)
    names = [changes["metric"] for changes in layers]
    counted = [changes["of"].replace("_", " ") for changes in layers]
    rows = tuple((layer, *(found.get(name, "") for name in names), remarks[layer]) for layer, found in cells.items())
    return keep_used_columns(Table("Layers that moved", ("layer", *counted, ""), rows, (0, len(names) + 1)))
