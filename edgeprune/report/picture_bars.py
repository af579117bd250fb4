"""Bars as a list of text and boxes: it reads aloud, prints, wraps on a phone, and names stay where they belong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from edgeprune.report.picture import LegendEntry, Picture, find_color, format_value, join_markup
from edgeprune.report.plotting import Figure

MOST_ROWS = 16  # further ones are scrolled to

_ROW = Markup('<li><span class="name" title="{name}">{name}</span><span class="bars-of">{bars}</span></li>\n')
_BAR = Markup(
    '<span class="bar"><span class="track">'
    '<i style="--from:{start:.2f}%;--size:{size:.2f}%;--color:{color}"></i></span>'
    '<b><span class="unseen">{label} </span>{text}</b></span>'
)


def draw_bars(figure: Figure) -> Picture:
    """Bar traces, standing or lying, as rows: a category a row, a trace a bar."""
    traces = figure["data"]
    is_lying = any(trace.get("orientation") == "h" for trace in traces)
    names_key, values_key = ("y", "x") if is_lying else ("x", "y")
    names = list(dict.fromkeys(str(name) for trace in traces for name in trace[names_key]))
    columns = [dict(zip(map(str, trace[names_key]), trace[values_key], strict=True)) for trace in traces]
    values = [value for column in columns for value in column.values() if value is not None]
    low, high = min([0, *values]), max([0, *values])
    span = (high - low) or 1
    rows = []
    for name in names:
        bars = [
            _draw_bar(trace, column[name], low, span)
            for trace, column in zip(traces, columns, strict=True)
            if column.get(name) is not None
        ]
        rows.append(_ROW.format(name=name, bars=join_markup(bars)))
    legend = tuple(LegendEntry(trace["name"], _find_bar_color(trace)) for trace in traces if trace.get("name"))
    body = Markup('<ol class="bars">\n{}</ol>').format(join_markup(rows))
    unit = figure["layout"]["xaxis" if is_lying else "yaxis"].get("title", {}).get("text", "")
    words = figure.get("words") or unit
    is_long = len(names) > MOST_ROWS
    return Picture(figure.get("title", ""), words, legend if len(legend) > 1 else (), body, is_long)


def _draw_bar(trace: Mapping[str, Any], value: float, low: float, span: float) -> Markup:
    start = 100 * (min(value, 0) - low) / span
    return _BAR.format(
        start=start,
        size=100 * abs(value) / span,
        color=_find_bar_color(trace),
        label=trace.get("name", ""),
        text=format_value(value),
    )


def _find_bar_color(trace: Mapping[str, Any]) -> str:
    return find_color(trace.get("marker", {}).get("color"))
