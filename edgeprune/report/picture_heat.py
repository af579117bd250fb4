"""Heat maps as images, one pixel a value, on one colour scale; `pruning_figures.draw_heat_map` makes their figures."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from edgeprune.report.picture import Picture, format_value, join_markup
from edgeprune.report.plotting import Figure
from edgeprune.report.png import list_palette, write_heat_map

_PANEL = Markup(
    '<div class="heat"><p>{name}</p>\n<img alt="{words}" title="{words}" src="data:image/png;base64,{content}">\n'
    '<p class="soft">channels 0 to {last_row} downwards, positions 0 to {last_column}</p></div>\n'
)
_SCALE = Markup(
    '<p class="range soft"><span>{low}</span><span class="ramp" style="background:linear-gradient(to right,{colors})">'
    "</span><span>{high}</span></p>\n"
)


def draw_heat_maps(figure: Figure) -> Picture:
    """Heat map traces side by side, and the scale they share."""
    layout = figure["layout"]
    scale = layout["coloraxis"]
    low, high = float(scale["cmin"]), float(scale["cmax"])
    panels = [_draw_panel(trace, low, high) for trace in figure["data"]]
    colors = ",".join(
        f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in list_palette()[::32] + list_palette()[-1:]
    )
    legend = _SCALE.format(low=format_value(low), high=format_value(high), colors=colors)
    body = Markup('<div class="heats">\n{}</div>\n{}').format(join_markup(panels), legend)
    return Picture(figure.get("title", ""), figure.get("words", ""), (), body)


def _draw_panel(trace: Mapping[str, Any], low: float, high: float) -> Markup:
    rows: Sequence[Sequence[float]] = trace["z"]
    last_row, last_column = _find_last(trace, "y", len(rows)), _find_last(trace, "x", len(rows[0]))
    values = [value for row in rows for value in row]
    words = (
        f"{trace['name']}: {last_row + 1} channels by {last_column + 1} positions, values from "
        f"{format_value(min(values))} to {format_value(max(values))}"
    )
    return _PANEL.format(
        name=trace["name"],
        words=words,
        content=base64.b64encode(write_heat_map(rows, low, high)).decode(),
        last_row=last_row,
        last_column=last_column,
    )


def _find_last(trace: Mapping[str, Any], axis: str, count: int) -> int:
    """The last channel or position: a pixel may be the mean of `d` neighbours."""
    return round(trace.get(f"d{axis}", 1) * count) - 1
