"""Pictures of how the pruning went: schedules, searches, ranks, redundancy and heat maps; see `figures`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from edgeprune.report.plotting import (
    AFTER_COLOR,
    BEFORE_COLOR,
    GRID_COLOR,
    VARIANT_COLORS,
    Document,
    Figure,
    make_figure,
)
from edgeprune.report.pruning_tables import METRIC_NAMES

GOOD_COLOR, BAD_COLOR, LIMIT_COLOR = "#009e73", "#d55e00", "#cc79a7"
HEAT_MAP = "heat-map-"
GAP = 0.08  # between two heat maps, of the figure's width
WIDE_RANGE = 20  # strengths that spread further are drawn on a logarithmic axis


def draw_pruning_figures(document: Document) -> dict[str, Figure]:
    """All pictures of the pruning section there is data for, by the id of their place in the page."""
    pruning = document["pruning"]
    figures = {
        "schedule": draw_schedule(pruning),
        "information-flow": draw_information_flow(pruning),
        "search": draw_search(pruning),
        "rank-history": draw_rank_history(pruning),
        "ranks": draw_ranks(pruning),
        "efficiency": draw_efficiency(pruning),
    }
    for index, heat_map in enumerate(pruning.get("heat_maps", ())):
        figures[f"{HEAT_MAP}{index}"] = draw_heat_map(heat_map)
    return {name: figure for name, figure in figures.items() if figure is not None}


def draw_schedule(pruning: Mapping[str, Any]) -> Figure | None:
    """Validation metric above, what is left below, over the steps; a cross is a step beyond the accuracy limit."""
    steps = pruning.get("steps", ())
    if not steps:
        return None
    numbers = [row["step"] for row in steps]
    by_weights = any(row.get("weights_left") is not None for row in steps)
    left = [_percent(row.get("weights_left")) if by_weights else row.get("parameters") for row in steps]
    limit = pruning.get("limit") or pruning.get("search")
    metric = METRIC_NAMES.get((limit or {}).get("metric"), "metric")
    traces = [
        {
            **_line(f"validation {metric}", numbers, [_percent(row.get("validation_metric")) for row in steps]),
            "marker": {
                "color": AFTER_COLOR,
                "size": 9,
                "symbol": ["x" if row.get("within_limit") is False else "circle" for row in steps],
            },
        },
        _line("weights left" if by_weights else "parameters", numbers, left, VARIANT_COLORS[1], second=True),
    ]
    if limit:
        traces.append(_draw_limit(limit, min(numbers), max(numbers)))
    below = "weights left, %" if by_weights else "parameters"
    axis = {"dtick": max(1, len(numbers) // 15)}
    return _make_two_panels(traces, "step", f"validation {metric}, %", below, axis, "Steps of the schedule")


def draw_information_flow(pruning: Mapping[str, Any]) -> Figure | None:
    """InCoP's criterion epoch by epoch, each step a line, with the epsilon that ends it."""
    steps = [row for row in pruning.get("steps", ()) if row.get("phi")]
    if not steps:
        return None
    epochs: list[int | None] = []
    values: list[float | None] = []
    names: list[str] = []
    done = 0
    for row in steps:
        epochs += [*range(done + 1, done + 1 + len(row["phi"])), None]  # None: the line ends here
        values += [*row["phi"], None]
        names += [f"step {row['step']}"] * (len(row["phi"]) + 1)
        done += len(row["phi"])
    trace = {**_line("change of the information", epochs, values), "text": names}
    trace["hovertemplate"] = "%{text}, epoch %{x}<br>%{y:.4g}<extra></extra>"
    traces = [trace]
    epsilon = pruning.get("options", {}).get("epsilon", pruning.get("epsilon"))
    if epsilon is not None:
        traces.append(_draw_level("epsilon", 1, done, epsilon))
    y_title = "‖Φ − Φ*‖ / ‖Φ*‖"
    title = "Change of the information flow"
    return make_figure(traces, "epochs of retraining", y_title, height=340, yaxis={"rangemode": "tozero"}, title=title)


def draw_search(pruning: Mapping[str, Any]) -> Figure | None:
    """Validation metric of each strength that was tried, and the limit it must not fall below."""
    search = pruning.get("search")
    if not search or not search["tried"]:
        return None
    tried = sorted(search["tried"], key=lambda row: row["value"])
    metric = METRIC_NAMES.get(search["metric"], search["metric"])
    traces = []
    for name, color, is_within in (("within the limit", GOOD_COLOR, True), ("beyond it", BAD_COLOR, False)):
        rows = [row for row in tried if bool(row["within_limit"]) is is_within and row["value"] != search["chosen"]]
        traces.append(_mark(name, color, 11, "circle" if is_within else "x", rows))
    traces.append(_mark("chosen", GOOD_COLOR, 18, "star", [r for r in tried if r["value"] == search["chosen"]]))
    low, high = tried[0]["value"], tried[-1]["value"]
    traces = [*(trace for trace in traces if trace["x"]), _draw_limit(search, low, high)]
    is_wide = low > 0 and high / low >= WIDE_RANGE
    axis = {"type": "log", "dtick": 1, "exponentformat": "power"} if is_wide else {}
    titles = f"strength, {search['option']}", f"validation {metric}, %"
    return make_figure(traces, *titles, height=340, xaxis=axis, title="Search for the strongest pruning")


def draw_rank_history(pruning: Mapping[str, Any]) -> Figure | None:
    """Parameters above and MACs below while ranks are cut, over epochs."""
    history = pruning.get("rank_history", ())
    if not history:
        return None
    epochs = [row["epoch"] for row in history]
    traces = [
        _line("parameters", epochs, [row["parameters"] for row in history]),
        _line("MACs", epochs, [row["macs"] for row in history], VARIANT_COLORS[1], second=True),
    ]
    for trace in traces:
        trace["mode"] = "lines"
        trace["line"]["shape"] = "hv"  # a rank holds until it is cut
    figure = _make_two_panels(traces, "epoch", "parameters", "MACs", {}, "Ranks over the training")
    figure["layout"]["yaxis"]["rangemode"] = "tozero"
    return figure


def draw_ranks(pruning: Mapping[str, Any]) -> Figure | None:
    """First and last rank of each layer."""
    rows = [row for row in pruning.get("ranks", ()) if "rank" in row]
    if not rows:
        return None
    traces = [
        {
            "type": "bar",
            "name": label,
            "x": [row["layer"] for row in rows],
            "y": [row[key] for row in rows],
            "customdata": [row["form"] for row in rows],
            "hovertemplate": "%{x}<br>rank %{y}, deployed as %{customdata}",
            "marker": {"color": color},
        }
        for label, key, color in (("first", "full_rank", BEFORE_COLOR), ("last", "rank", AFTER_COLOR))
    ]
    return make_figure(traces, "", "rank", height=340, title="Rank of each layer")


def draw_efficiency(pruning: Mapping[str, Any]) -> Figure | None:
    """Efficiency score of each observed tensor, a form a colour."""
    forms = pruning.get("redundancy", {}).get("forms", {})
    if not any(chain.from_iterable(forms.values())):
        return None
    traces = [
        {
            "type": "bar",
            "name": name,
            "x": [row.get("layer", row["tensor"]) for row in rows],
            "y": [row["efficiency"] for row in rows],
            "customdata": [[row["effective_rank"], row["active_channels"]] for row in rows],
            "hovertemplate": "%{y:.3f}<br>effective rank %{customdata[0]:.2f} of %{customdata[1]:.2f} active channels",
            "marker": {"color": VARIANT_COLORS[index % len(VARIANT_COLORS)]},
        }
        for index, (name, rows) in enumerate(forms.items())
    ]
    title = "Efficiency of each layer's channels"
    return make_figure(traces, "", "efficiency score", height=340, yaxis={"rangemode": "tozero"}, title=title)


def draw_heat_map(heat_map: Mapping[str, Any]) -> Figure | None:
    """One tensor's values for one sample, channel by position, the forms side by side on one colour scale."""
    forms = heat_map["forms"]
    if not forms:
        return None
    values = [value for rows in forms.values() for value in chain.from_iterable(rows)]
    width = (1 - GAP * (len(forms) - 1)) / len(forms)
    traces, axes, titles = [], {}, []
    for index, (name, rows) in enumerate(forms.items()):
        suffix = "" if index == 0 else str(index + 1)
        start = index * (width + GAP)
        channels, positions = heat_map.get("sizes", {}).get(name, (len(rows), len(rows[0])))
        by_channel, by_position = channels / len(rows), positions / len(rows[0])  # above 1: neighbours were averaged
        traces.append(
            {
                "type": "heatmap",
                "name": name,
                "z": rows,
                "x0": (by_position - 1) / 2,
                "dx": by_position,
                "y0": (by_channel - 1) / 2,
                "dy": by_channel,
                "xaxis": f"x{suffix}",
                "yaxis": f"y{suffix}",
                "coloraxis": "coloraxis",
                "hovertemplate": "channel %{y:.0f}, position %{x:.0f}<br>%{z}",
            }
        )
        frame = {"showgrid": False, "zeroline": False}
        axes[f"xaxis{suffix}"] = {**frame, "domain": [start, start + width], "title": {"text": "position"}}
        axes[f"yaxis{suffix}"] = {**frame, "anchor": f"x{suffix}", "autorange": "reversed", "automargin": True}
        axes[f"xaxis{suffix}"]["anchor"] = f"y{suffix}"
        titles.append(
            {
                "text": f"{name}: {heat_map.get('layer', heat_map['tensor'])}",
                "x": start + width / 2,
                "y": 1.03,
                "xref": "paper",
                "yref": "paper",
                "xanchor": "center",
                "yanchor": "bottom",
                "showarrow": False,
            }
        )
    title = f"Activations of {heat_map.get('layer', heat_map['tensor'])}, training sample {heat_map['sample']}"
    figure = make_figure(traces, "", "", height=360, title=title)
    figure["layout"].update(axes)
    figure["layout"]["yaxis"]["title"] = {"text": f"channel (training sample {heat_map['sample']})"}
    figure["layout"]["annotations"] = titles
    figure["layout"]["coloraxis"] = {
        "colorscale": "Viridis",
        "cmin": min(values, default=0.0),
        "cmax": max(values, default=1.0),
        "colorbar": {"thickness": 12, "outlinewidth": 0},
    }
    return figure


def _line(
    name: str, x: Sequence[Any], y: Sequence[Any], color: str = AFTER_COLOR, *, second: bool = False
) -> dict[str, Any]:
    trace: dict[str, Any] = {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "x": list(x),
        "y": list(y),
        "line": {"color": color},
    }
    return {**trace, "yaxis": "y2"} if second else trace


def _mark(name: str, color: str, size: int, symbol: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [row["value"] for row in rows],
        "y": [_percent(row["validation_metric"]) for row in rows],
        "customdata": [row["parameters"] for row in rows],
        "hovertemplate": "%{x:.4g}: %{y:.2f} %<br>%{customdata:,} parameters",
        "marker": {"color": color, "size": size, "symbol": symbol},
    }


def _draw_limit(limit: Mapping[str, Any], low: float, high: float) -> dict[str, Any]:
    value = 100 * (limit["reference"] - limit["drop"])
    return _draw_level(f"limit ({100 * limit['drop']:g} pp below the base)", low, high, value)


def _draw_level(name: str, low: float, high: float, value: float) -> dict[str, Any]:
    line = {"color": LIMIT_COLOR, "dash": "dash", "width": 2}
    return {"type": "scatter", "mode": "lines", "name": name, "x": [low, high], "y": [value, value], "line": line}


def _make_two_panels(
    traces: list[dict[str, Any]], x_title: str, above: str, below: str, xaxis: Mapping[str, Any], title: str
) -> Figure:
    """Two panels, one above the other, over one x axis; traces of the lower one name the axis y2."""
    figure = make_figure(traces, x_title, above, height=460, xaxis=xaxis, yaxis={"domain": [0.54, 1]}, title=title)
    figure["layout"]["yaxis2"] = {
        "title": {"text": below},
        "domain": [0, 0.46],
        "rangemode": "tozero",
        "automargin": True,
        "gridcolor": GRID_COLOR,
    }
    figure["layout"]["xaxis"]["anchor"] = "y2"
    return figure


def _percent(fraction: float | None) -> float | None:
    return None if fraction is None else 100 * fraction
