"""From figures to pictures: which kind of markup draws which kind of trace."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from edgeprune.report.picture import Picture
from edgeprune.report.picture_bars import draw_bars
from edgeprune.report.picture_heat import draw_heat_maps
from edgeprune.report.picture_points import draw_points
from edgeprune.report.plotting import Figure

DRAWERS: Mapping[str, Callable[[Figure], Picture]] = {
    "bar": draw_bars,
    "scatter": draw_points,
    "heatmap": draw_heat_maps,
}


def draw_picture(figure: Figure) -> Picture | None:
    """The figure without a script; None for one that only plotly.js can draw (another kind of trace, or several)."""
    kinds = {trace.get("type", "scatter") for trace in figure["data"]}
    drawer = DRAWERS.get(next(iter(kinds))) if len(kinds) == 1 else None
    return None if drawer is None else drawer(figure)
