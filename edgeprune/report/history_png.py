"""The history as one PNG, for a README or a chat: drawn by matplotlib, which is an extra (`edgeprune[plots]`)."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgeprune.report.plotting import VARIANT_COLORS

if TYPE_CHECKING:
    from edgeprune.report.history import Line

_COLUMNS = 2
_WIDTH, _HEIGHT = 6.0, 3.0  # inches, of one picture
_MARKERS = "osD^PX"
_STYLES = ("-", "--", ":")  # by method, where a figure has several
_MOST_TICKS = 12


def draw_png(figures: Mapping[str, tuple[str, Sequence[Line]]], labels: Sequence[str]) -> bytes | None:
    """A picture for each figure, side by side; None where matplotlib is not installed.

    figures: name -> (title, lines), as `history.list_figures` gives them. labels: all reports, in order.
    """
    if importlib.util.find_spec("matplotlib") is None:
        return None
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = -(-max(1, len(figures)) // _COLUMNS)
    sheet = Figure(figsize=(_COLUMNS * _WIDTH, rows * _HEIGHT + 0.6), layout="constrained")
    canvas = FigureCanvasAgg(sheet)  # no window system, no global state
    places = {label: index for index, label in enumerate(labels)}
    names = list(dict.fromkeys(line.series for _, lines in figures.values() for line in lines))
    shown: dict[str, Any] = {}
    for index, (title, lines) in enumerate(figures.values()):
        axes = sheet.add_subplot(rows, _COLUMNS, index + 1)
        methods = list(dict.fromkeys(line.method for line in lines))
        axes.set_title(f"{title} ({', '.join(methods)})", fontsize=10)
        for line in lines:
            number = names.index(line.series)
            (drawn,) = axes.plot(
                [places[label] for label in line.labels],
                line.values,
                marker=_MARKERS[number % len(_MARKERS)],
                color=VARIANT_COLORS[number % len(VARIANT_COLORS)],
                linestyle=_STYLES[methods.index(line.method) % len(_STYLES)],
            )
            shown.setdefault(_plain(line.series), drawn)
        step = -(-len(labels) // _MOST_TICKS)
        axes.set_xticks(range(0, len(labels), step), [_plain(label) for label in labels[::step]])
        axes.tick_params(axis="x", labelrotation=30, labelsize=8)
        axes.set_xlim(-0.5, len(labels) - 0.5)
        axes.grid(alpha=0.3)
    if shown:
        sheet.legend(list(shown.values()), list(shown), loc="outside upper center", ncols=2, fontsize=9)
    stream = io.BytesIO()
    canvas.print_png(stream, metadata={"Software": None})
    return stream.getvalue()


def _plain(text: str) -> str:
    """A label as it is: matplotlib takes text between two dollar signs for a formula."""
    return text.replace("$", r"\$")
