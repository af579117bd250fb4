"""Pictures of --fit: validation accuracy against what each network takes, with the limits as lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgeprune.report.budget import METRIC_KINDS, format_quantity
from edgeprune.report.cost_figures import choose_accuracy_range
from edgeprune.report.plotting import AFTER_COLOR, BEFORE_COLOR, Document, Figure, make_figure
from edgeprune.report.pruning_figures import BAD_COLOR, GOOD_COLOR, LIMIT_COLOR
from edgeprune.report.pruning_tables import METRIC_NAMES

AXES: Mapping[str, tuple[str, float]] = {  # figure -> title of its axis, and what its values are divided by
    "latency": ("modelled latency, ms", 1000),
    "cycles": ("modelled cycles", 1),
    "instructions": ("instructions of one inference", 1),
    "ram": ("RAM, bytes", 1),
    "flash": ("flash, bytes", 1),
}


def draw_fit_figures(document: Document) -> dict[str, Figure]:
    """A picture for time, RAM and flash each, and for every other figure with a limit; then the way of the search."""
    fit = document.get("fit") or {}
    if not fit.get("candidates"):
        return {}
    limited = [budget["name"] for budget in fit["budgets"]]
    time = next((name for name in ("latency", "cycles", "instructions") if fit["base"]["measured"][name]), None)
    names = [name for name in AXES if name in (*limited, time, "ram", "flash")]
    figures = {f"fit-{name}": draw_fit(fit, name) for name in names}
    path = draw_path(fit)
    return figures if path is None else {**figures, "fit-path": path}


def draw_fit(fit: Mapping[str, Any], name: str) -> Figure:
    """Validation score of every network that was trained against one figure; a star is the one that was taken."""
    title, divisor = AXES[name]
    metric = METRIC_NAMES.get(fit["metric"], fit["metric"])
    candidates = fit["candidates"]
    traces = [_mark("the model as it is", BEFORE_COLOR, "circle", 12, [fit["base"]], name, ["the model as it is"])]
    for label, color, symbol, size, wanted in (
        ("fits", GOOD_COLOR, "circle", 11, lambda row: row["fits"] and not row["chosen"]),
        ("does not fit", BAD_COLOR, "x", 11, lambda row: not row["fits"] and not row["chosen"]),
        ("chosen", AFTER_COLOR, "star", 18, lambda row: row["chosen"]),
    ):
        rows = [row for row in candidates if wanted(row)]
        if rows:
            traces.append(_mark(label, color, symbol, size, rows, name, [row["title"] for row in rows]))
    percents = [value for trace in traces for value in trace["y"]]
    yaxis = choose_accuracy_range(percents)
    low, high = yaxis.get("range", (min(percents), max(percents)))
    limit = next((budget["limit"] for budget in fit["budgets"] if budget["name"] == name), None)
    if limit is not None:
        traces.append(_line("limit", [limit / divisor] * 2, [low, high]))
    if fit["drop"] is not None:
        floor = 100 * (fit["reference"] - fit["drop"])
        furthest = [value for trace in traces for value in trace["x"]]
        traces.append(_line("least accuracy", [min(furthest), max(furthest)], [floor, floor]))
    chosen = next(row for row in candidates if row["chosen"])
    words = f"Chosen: {format_quantity(chosen['measured'][name], METRIC_KINDS[name].unit)}"
    if limit is not None:
        words += f", limit {format_quantity(limit, METRIC_KINDS[name].unit)}"
    words += f", validation {metric} {100 * chosen['validation_metric']:.2f} %."
    heading = f"Fit: accuracy against {title.rpartition(',')[0] or title}"
    return make_figure(traces, title, f"validation {metric}, %", height=340, yaxis=yaxis, title=heading, words=words)


def draw_path(fit: Mapping[str, Any]) -> Figure | None:
    """Share of the channels' scores that is kept against the worst of the limits, of all widths on the way."""
    families: dict[str, list[tuple[float, float]]] = {}
    limits = {budget["name"]: budget["limit"] for budget in fit["budgets"]}
    for point in fit["path"]:
        worst = max(point["figures"][name] / limit for name, limit in limits.items())
        families.setdefault(point["family"], []).append((100 * worst, 100 * point["kept"]))
    if not families:
        return None
    traces: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": family,
            "x": [x for x, _ in sorted(points)],
            "y": [y for _, y in sorted(points)],
            "marker": {"color": color, "size": 7},
        }
        for (family, points), color in zip(families.items(), (AFTER_COLOR, BAD_COLOR, BEFORE_COLOR), strict=False)
    ]
    every = [y for points in families.values() for _, y in points]
    traces.append(_line("limits", [100.0, 100.0], [min(every), max(every)]))
    words = f"{sum(map(len, families.values())):,} widths, sized by prediction, without a training."
    titles = "predicted, % of the limit that is missed most", "score kept, %"
    return make_figure(traces, *titles, height=340, title="Fit: widths on the way", words=words)


def _mark(
    label: str,
    color: str,
    symbol: str,
    size: int,
    rows: Sequence[Mapping[str, Any]],
    name: str,
    texts: Sequence[str],
) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": label,
        "x": [row["measured"][name] / AXES[name][1] for row in rows],
        "y": [100 * row["validation_metric"] for row in rows],
        "text": list(texts),
        "marker": {"color": color, "size": size, "symbol": symbol},
    }


def _line(label: str, x: Sequence[float], y: Sequence[float]) -> dict[str, Any]:
    line = {"color": LIMIT_COLOR, "dash": "dash"}
    return {"type": "scatter", "mode": "lines", "name": label, "x": list(x), "y": list(y), "line": line}
