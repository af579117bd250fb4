"""Points and lines over one x axis, as SVG that takes the width it is given.

Across, everything is placed in per cent of the plot's width, upwards in pixels: text keeps its size from a phone to a
wide screen, without a script. The SVG element is the plot itself; axes stand outside of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from markupsafe import Markup

from edgeprune.report.axis import Axis, choose_axis
from edgeprune.report.picture import LegendEntry, Picture, find_color, format_value, join_markup
from edgeprune.report.plotting import Figure

PLOT_HEIGHT, PANEL_HEIGHT = 240, 180
X_TICKS = 4  # so that their labels have room on a phone
_LINE_UNITS = 1000  # a line's own coordinates across the plot
_MARK_SIZE = 8.0
_FEW_SERIES = 12  # series that are named in words one by one

_PLOT = Markup(
    '<p class="axis-title">{y_title}</p>\n'
    '<svg class="plot" height="{height}" role="img" aria-label="{words}">\n{grid}{marks}</svg>\n'
    '<p class="axis-title below">{x_title}</p>\n'
)
_Y_TICK = Markup(
    '<line x1="0" x2="100%" y1="{y:.1f}" y2="{y:.1f}"/><text x="-8" y="{y:.1f}" dy=".35em">{label}</text>\n'
)
_X_TICK = Markup('<text class="x {anchor}" x="{x:.2f}%" y="{y}">{label}</text>\n')
_PATH = Markup(
    '<svg viewBox="0 0 {units} {height}" preserveAspectRatio="none" width="100%" height="{height}" overflow="visible">'
    '<path d="{path}" style="stroke:{color}"{dash}/></svg>\n'
)
_DISC = Markup('<circle cx="{x:.2f}%" cy="{y:.1f}" r="{r:.1f}" style="fill:{color}"><title>{title}</title></circle>\n')
_SIGN = Markup(
    '<svg x="{x:.2f}%" y="{y:.1f}" overflow="visible"><path class="sign" transform="scale({scale:.2f})" d="{shape}" '
    'style="fill:{color}"><title>{title}</title></path></svg>\n'
)
_SHAPES = {
    "x": "M-1-.6-.6-1 0-.4.6-1 1-.6.4 0 1 .6.6 1 0 .4-.6 1-1 .6-.4 0Z",
    "star": "M0-1.1.3-.4 1-.35.5.15.65.9 0 .5-.65.9-.5.15-1-.35-.3-.4Z",
    "diamond": "M0-1.1 1 0 0 1.1-1 0Z",
    "square": "M-.9-.9H.9V.9H-.9Z",
    "triangle-up": "M0-1.1 1 .7H-1Z",
    "cross": "M-.35-1H.35V-.35H1V.35H.35V1H-.35V.35H-1V-.35H-.35Z",
}


def draw_points(figure: Figure) -> Picture:
    """Scatter traces with markers, lines or both, in one panel, or in two where a trace names the axis y2."""
    traces, layout = figure["data"], figure["layout"]
    x_axis = choose_axis([x for trace in traces for x in trace["x"] if x is not None], layout["xaxis"], X_TICKS)
    panels = [name for name in ("y", "y2") if any(trace.get("yaxis", "y") == name for trace in traces)]
    words = figure.get("words") or describe_points(traces)
    parts = []
    for name in panels:
        own = [trace for trace in traces if trace.get("yaxis", "y") == name]
        options = layout["yaxis" + name.removeprefix("y")]
        is_last = name == panels[-1]
        height = PLOT_HEIGHT if len(panels) == 1 else PANEL_HEIGHT
        y_axis = choose_axis([y for trace in own for y in trace["y"] if y is not None], options)
        parts.append(
            _PLOT.format(
                y_title=_find_title(options),
                x_title=_find_title(layout["xaxis"]) if is_last else "",
                height=height,
                words=words,
                grid=_draw_grid(x_axis, y_axis, height),
                marks=join_markup([_draw_trace(trace, x_axis, y_axis, height) for trace in own]),
            )
        )
    legend = tuple(_describe_trace(trace) for trace in traces if trace.get("name"))
    shown = figure.get("words", "")
    return Picture(figure.get("title", ""), shown, legend if len(traces) > 1 else (), join_markup(parts))


def describe_points(traces: Sequence[Mapping[str, Any]]) -> str:
    """What a screen reader says of points: each series, by its value or from its first to its last."""
    parts = []
    for trace in traces[:_FEW_SERIES]:
        values = [(x, y) for x, y in zip(trace["x"], trace["y"], strict=True) if x is not None and y is not None]
        if not values:
            continue
        (x, y), (last_x, last_y) = values[0], values[-1]
        place = f"{_format(y)} at {_format(x)}"
        if len(values) > 1:
            place = f"{len(values)} points, from {place} to {_format(last_y)} at {_format(last_x)}"
        parts.append(f"{trace.get('name', 'points')}: {place}")
    if len(traces) > _FEW_SERIES:
        parts.append(f"and {len(traces) - _FEW_SERIES} more")
    return "; ".join(parts)


def _format(value: Any) -> str:
    return value if isinstance(value, str) else format_value(value)


def _find_title(axis: Mapping[str, Any]) -> str:
    return str(axis.get("title", {}).get("text", ""))


def _draw_grid(x_axis: Axis, y_axis: Axis, height: int) -> Markup:
    parts = [_Y_TICK.format(y=height * (1 - y_axis.place(value)), label=label) for value, label in y_axis.ticks]
    for value, label in x_axis.ticks:
        x = 100 * x_axis.place(x_axis.names[int(value)] if x_axis.names else value)
        anchor = "start" if x < 2 else "end" if x > 98 else "middle"
        parts.append(_X_TICK.format(x=x, y=height + 18, anchor=anchor, label=label))
    return Markup('<g class="grid">{}</g>\n').format(join_markup(parts))


def _draw_trace(trace: Mapping[str, Any], x_axis: Axis, y_axis: Axis, height: int) -> Markup:
    mode = trace.get("mode", "lines")
    points = [
        None if x is None or y is None else (x_axis.place(x), height * (1 - y_axis.place(y)))
        for x, y in zip(trace["x"], trace["y"], strict=True)
    ]
    parts = [_draw_line(trace, points, height)] if "lines" in mode else []
    if "markers" in mode:
        parts += [_draw_mark(trace, index, point) for index, point in enumerate(points) if point is not None]
    return join_markup(parts)


def _draw_line(trace: Mapping[str, Any], points: Sequence[tuple[float, float] | None], height: int) -> Markup:
    line = trace.get("line", {})
    path = ""
    for before, point in pairwise([None, *points]):
        if point is None:
            continue
        x, y = _LINE_UNITS * point[0], point[1]
        if before is None:
            path += f"M{x:.1f} {y:.1f}"
        else:
            path += f"H{x:.1f}V{y:.1f}" if line.get("shape") == "hv" else f"L{x:.1f} {y:.1f}"
    dash = Markup(' class="dash"') if line.get("dash") else ""
    return _PATH.format(units=_LINE_UNITS, height=height, path=path, color=_find_line_color(trace), dash=dash)


def _draw_mark(trace: Mapping[str, Any], index: int, point: tuple[float, float]) -> Markup:
    marker = trace.get("marker", {})
    size = _pick(marker.get("size", _MARK_SIZE), index)
    color = find_color(_pick(marker.get("color", trace.get("line", {}).get("color")), index))
    symbol = _pick(marker.get("symbol", "circle"), index)
    title = f"{_format(trace['x'][index])}, {_format(trace['y'][index])}"
    for words in (_pick(trace.get("text"), index), trace.get("name")):
        if words:
            title = f"{words}: {title}"
    place = {"x": 100 * point[0], "y": point[1], "color": color, "title": title}
    if symbol in _SHAPES:
        return _SIGN.format(**place, scale=size / 2, shape=_SHAPES[symbol])
    return _DISC.format(**place, r=size / 2)


def _pick(values: Any, index: int) -> Any:
    """The element of a list, or what stands for all of them."""
    return values[index] if isinstance(values, (list, tuple)) else values


def _find_line_color(trace: Mapping[str, Any]) -> str:
    return find_color(trace.get("line", {}).get("color") or _pick(trace.get("marker", {}).get("color"), 0))


def _describe_trace(trace: Mapping[str, Any]) -> LegendEntry:
    if "markers" in trace.get("mode", "lines"):
        color = _pick(trace.get("marker", {}).get("color") or trace.get("line", {}).get("color"), 0)
        return LegendEntry(trace["name"], find_color(color), "disc")
    return LegendEntry(trace["name"], _find_line_color(trace), "dash" if trace.get("line", {}).get("dash") else "line")
