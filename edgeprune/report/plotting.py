"""What all figures share: colours, and the frame around the traces.

A `Figure` is a plain dictionary in the vocabulary of plotly.js (https://plotly.com/javascript/reference/), made without
plotly's Python classes, which take a second to import. `pictures` turns bars, points, lines and heat maps into markup
that needs no script; plotly.js draws whatever else there is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Document = Mapping[str, Any]
Figure = dict[str, Any]

BEFORE_COLOR = "#9aa5b1"
AFTER_COLOR = "#1f77b4"
# colours that people with colour-blindness tell apart (Okabe and Ito)
VARIANT_COLORS = ("#56b4e9", "#e69f00", "#009e73", "#0072b2", "#d55e00", "#cc79a7", "#f0e442", "#999999", "#332288")
TEXT_COLOR = "#8a8f98"
GRID_COLOR = "rgba(128,128,128,0.25)"


def make_figure(
    traces: list[dict[str, Any]],
    x_title: str,
    y_title: str,
    *,
    height: int,
    xaxis: Mapping[str, Any] | None = None,
    yaxis: Mapping[str, Any] | None = None,
    title: str = "",
    words: str = "",
) -> Figure:
    """Traces with their axes, on whatever ground the page has.

    title: stands above the picture; the page makes one of the figure's name where it is empty. words: what there is to
    see, in a sentence, for everybody and for those who cannot see it.
    """
    layout = {
        "height": height,
        "margin": {"l": 60, "r": 20, "t": 50, "b": 60},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, sans-serif", "color": TEXT_COLOR},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom"},  # above: layer names below may be long
        "barmode": "group",
        "xaxis": {
            "title": {"text": x_title},
            "automargin": True,
            "gridcolor": GRID_COLOR,
            **(xaxis or {}),
        },
        "yaxis": {
            "title": {"text": y_title},
            "automargin": True,
            "gridcolor": GRID_COLOR,
            **(yaxis or {}),
        },
    }
    return {"data": traces, "layout": layout, "title": title, "words": words}
