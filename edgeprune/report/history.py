"""Many reports over time: which figures moved, release by release, as a page and as a picture.

Each model and target is a line of its own, and each method too: a modelled time and a measured one are not one line.
"""

from __future__ import annotations

import dataclasses
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeprune.disk import write_file_atomically
from edgeprune.errors import InputError
from edgeprune.report.budget import METRIC_KINDS, format_quantity
from edgeprune.report.document import find_reports
from edgeprune.report.plotting import VARIANT_COLORS, Figure, make_figure
from edgeprune.report.tables import Table, keep_used_columns

ORDERS = ("name", "time")
# What is drawn, in this order; figures that follow from these (flops, drops) are left out.
DRAWN = (
    *("latency", "cycles", "instructions", "flash", "ram", "model_bytes", "arena_bytes"),
    *("macs", "parameters", "accuracy", "macro_f1"),
)
# A figure in its unit -> in the unit of its axis
_AXIS_UNITS: Mapping[str, tuple[float, str]] = {
    "bytes": (1024, "KiB"),
    "count": (1, ""),
    "microseconds": (1000, "ms"),
    "percent": (1, "%"),
}
_MARKERS = ("circle", "square", "diamond", "triangle-up", "cross", "x")


@dataclass(frozen=True, eq=False)
class Point:
    """One report: where it lies (`label`), what it is of, its figures by name with value, unit and method."""

    label: str
    model: str
    target: str
    version: str
    outcome: str
    exit_code: int
    metrics: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, eq=False)
class History:
    """Reports in order; notes: on files that could not be read."""

    points: tuple[Point, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Line:
    """One figure of one model for one target (`series`) by one method: labels and values, in the axis's unit."""

    series: str
    method: str
    labels: tuple[str, ...]
    values: tuple[float, ...]


def collect_history(folder: Path, order: str = "name") -> History:
    """The reports below a folder in the order of their names, or of their files' times.

    Raises InputError for a folder without reports, and for another order.
    """
    if order not in ORDERS:
        raise InputError(f"--order is {order!r}; allowed: {', '.join(ORDERS)}")
    reports, notes = find_reports(folder)
    if order == "time":
        reports = tuple(sorted(reports, key=lambda report: report.modified))  # stable: equal times stay by name
    points = tuple(
        Point(
            report.label,
            report.document["model"]["name"],
            report.document["target"]["name"],
            report.document["edgeprune_version"],
            report.document["outcome"],
            report.document["exit_code"],
            report.document["metrics"],
        )
        for report in reports
    )
    return History(points, notes)


def describe_history(history: History) -> dict[str, Any]:
    """The history as plain data."""
    return {"reports": [dataclasses.asdict(point) for point in history.points], "notes": list(history.notes)}


def list_lines(history: History, metric: str) -> list[Line]:
    """The lines of one figure; reports without it have no point."""
    scale, _ = _AXIS_UNITS[METRIC_KINDS[metric].unit]
    found: dict[tuple[str, str, str], list[tuple[str, float]]] = {}
    for point in history.points:
        figure = point.metrics.get(metric, {})
        if figure.get("value") is not None:
            key = (point.model, point.target, figure["method"])
            found.setdefault(key, []).append((point.label, figure["value"] / scale))
    return [
        Line(f"{model} for {target}", method, *(tuple(column) for column in zip(*values, strict=True)))
        for (model, target, method), values in found.items()
    ]


def list_figures(history: History) -> dict[str, tuple[str, list[Line]]]:
    """What is drawn: figure -> (title of its axis, lines)."""
    figures = {}
    for metric in DRAWN:
        lines = list_lines(history, metric)
        if lines:
            _, unit = _AXIS_UNITS[METRIC_KINDS[metric].unit]
            figures[metric] = (f"{metric.replace('_', ' ')}{f', {unit}' if unit else ''}", lines)
    return figures


def list_history(history: History) -> Table:
    """Every report with its figures."""
    names = [name for name in DRAWN if any(_has(point, name) for point in history.points)]
    rows = tuple(
        (
            point.label,
            point.model,
            point.target,
            *(
                format_quantity(point.metrics[name]["value"], METRIC_KINDS[name].unit) if _has(point, name) else ""
                for name in names
            ),
            "ok" if point.exit_code == 0 else f"exit code {point.exit_code}",
        )
        for point in history.points
    )
    head = ("report", "model", "target", *(name.replace("_", " ") for name in names), "outcome")
    return keep_used_columns(Table("Reports, in order", head, rows, (0, 1, 2, len(head) - 1)))


def _has(point: Point, name: str) -> bool:
    return point.metrics.get(name, {}).get("value") is not None


def write_history(history: History, page: Path) -> tuple[list[Path], list[str]]:
    """Write the page, and the picture beside it; returns the files written, and notes on what could not be drawn.

    Raises InputError when the folder does not take the files.
    """
    from edgeprune.report.history_png import draw_png

    if page.suffix != ".html":
        raise InputError(f"--output is {page}: name a .html file; the .png is written beside it")
    write_file_atomically(page, render_history(history).encode())
    content = draw_png(list_figures(history), [point.label for point in history.points])
    if content is None:
        return [page], ["no picture was drawn: matplotlib is missing. Run: pip install 'edgeprune[plots]'"]
    picture = page.with_suffix(".png")
    write_file_atomically(picture, content)
    return [page, picture], []


def render_history(history: History) -> str:
    """The page: one file that works without a network."""
    import jinja2

    from edgeprune.report.html import load_plotly_script

    labels = [point.label for point in history.points]
    drawn = {metric: _draw(title, lines, labels) for metric, (title, lines) in list_figures(history).items()}
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # no '</script>' can appear in the JSON
    embedded = json.dumps(drawn).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return environment.get_template("history.html.jinja").render(
        series=list(dict.fromkeys(f"{point.model} for {point.target}" for point in history.points)),
        names=list(drawn),
        table=list_history(history),
        notes=history.notes,
        figures_json=embedded,
        plotly_script=load_plotly_script(),
    )


def _draw(title: str, lines: Sequence[Line], labels: Sequence[str]) -> Figure:
    """One figure with its lines; every picture has all reports on its x axis, so that they line up."""
    traces = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": html.escape(f"{line.series} ({line.method})"),  # plotly.js reads tags in names
            "x": [html.escape(label) for label in line.labels],
            "y": list(line.values),
            "line": {"color": VARIANT_COLORS[index % len(VARIANT_COLORS)], "width": 2},
            "marker": {"symbol": _MARKERS[index % len(_MARKERS)], "size": 9},
        }
        for index, line in enumerate(lines)
    ]
    axis = {"type": "category", "categoryorder": "array", "categoryarray": [html.escape(label) for label in labels]}
    return make_figure(traces, "", title, height=320, xaxis=axis, yaxis={"rangemode": "normal"})
