"""Pictures of a reproduction: one HTML file that works without a network."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeprune.report.html import load_plotly_script

Figure = Mapping[str, Any]  # {"data": traces, "layout": ...}, as plotly.js takes it


def make_lines(
    title: str, y_title: str, lines: Mapping[str, Sequence[float]], *, x_title: str = "epoch", first: int = 0
) -> Figure:
    """A line for each name over first, first + 1, ..."""
    traces = [
        {"type": "scatter", "mode": "lines", "name": name, "x": list(range(first, first + len(values))), "y": values}
        for name, values in ((name, list(values)) for name, values in lines.items())
    ]
    return {"data": traces, "layout": _lay_out(title, x_title, y_title)}


def make_bars(title: str, y_title: str, places: Sequence[str], bars: Mapping[str, Sequence[float]]) -> Figure:
    """Groups of bars: one group for each place, one colour for each name."""
    traces = [{"type": "bar", "name": name, "x": list(places), "y": list(values)} for name, values in bars.items()]
    return {"data": traces, "layout": {**_lay_out(title, "", y_title), "barmode": "group"}}


def _lay_out(title: str, x_title: str, y_title: str) -> Figure:
    return {
        "title": {"text": title},
        "xaxis": {"title": {"text": x_title}, "automargin": True},
        "yaxis": {"title": {"text": y_title}, "rangemode": "tozero"},
        "template": "plotly_white",
        "height": 380,
    }


def write_page(path: Path, title: str, figures: Sequence[Figure]) -> None:
    """Write the page with plotly's script in it, about 5 MB."""
    places = "\n".join(f'<div id="figure{index}"></div>' for index in range(len(figures)))
    # no "</script>" may appear in the JSON
    content = json.dumps(list(figures)).replace("<", "\\u003c")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>\n'
        f"<script>{load_plotly_script()}</script></head>\n<body><h1>{html.escape(title)}</h1>\n{places}\n"
        f"<script>{content}.forEach((figure, index) => "
        "Plotly.newPlot('figure' + index, figure.data, figure.layout, {responsive: true}));</script>\n"
        "</body></html>\n",
        encoding="utf-8",
    )
