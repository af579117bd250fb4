"""The report's figures by name; `plotting` says what a figure is, `pictures` how the page draws it."""

from __future__ import annotations

from edgeprune.report.cost_figures import (
    choose_accuracy_range,
    draw_accuracy_against_flash,
    draw_accuracy_against_ram,
    draw_accuracy_against_time,
    draw_layer_flash,
    draw_layer_ram,
    draw_layer_time,
)
from edgeprune.report.device_figures import draw_device_times
from edgeprune.report.fit_figures import draw_fit_figures
from edgeprune.report.plotting import AFTER_COLOR, BEFORE_COLOR, VARIANT_COLORS, Document, Figure, make_figure
from edgeprune.report.pruning_figures import draw_pruning_figures

SMALLEST_MARKER, LARGEST_MARKER = 9.0, 24.0
MOST_NOISY = 20  # layers in the picture of quantization noise; the table has all


def draw_figures(document: Document) -> dict[str, Figure]:
    """All pictures there is data for, by the id of their place in the page."""
    drawers = {
        "accuracy-against-macs": draw_accuracy_against_macs,
        "layers-macs": draw_layer_macs,
        "layers-parameters": draw_layer_parameters,
        "accuracy-against-flash": draw_accuracy_against_flash,
        "accuracy-against-ram": draw_accuracy_against_ram,
        "accuracy-against-time": draw_accuracy_against_time,
        "layers-time": draw_layer_time,
        "layers-ram": draw_layer_ram,
        "layers-flash": draw_layer_flash,
        "device-times": draw_device_times,
        "sqnr": draw_sqnr,
    }
    figures = {name: draw(document) for name, draw in drawers.items()}
    found = {name: figure for name, figure in figures.items() if figure is not None}
    return {**found, **draw_fit_figures(document), **draw_pruning_figures(document)}


def draw_accuracy_against_macs(document: Document) -> Figure | None:
    """Each form as a disc: cost to the right, accuracy upwards, area by parameters; equal forms share one."""
    variants = [variant for variant in document["variants"].values() if variant["accuracy"] is not None]
    if not variants:
        return None
    most = max(variant["parameters"] for variant in variants) or 1
    alike: dict[tuple[int, int, float], list[str]] = {}
    for variant in variants:
        key = variant["macs"], variant["parameters"], variant["accuracy"]
        alike.setdefault(key, []).append(variant["label"])
    traces = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": " = ".join(labels),
            "x": [macs],
            "y": [100 * accuracy],
            "text": f"{parameters:,} parameters",
            "marker": {
                "size": max(SMALLEST_MARKER, LARGEST_MARKER * (parameters / most) ** 0.5),
                "color": VARIANT_COLORS[index % len(VARIANT_COLORS)],
            },
        }
        for index, ((macs, parameters, accuracy), labels) in enumerate(alike.items())
    ]
    return make_figure(
        traces,
        "MACs of one inference",
        "test accuracy, %",
        height=380,
        xaxis={"rangemode": "tozero"},
        yaxis=choose_accuracy_range([100 * variant["accuracy"] for variant in variants]),
        title="Accuracy against MACs",
    )


def draw_layer_macs(document: Document) -> Figure | None:
    """MACs of each layer before and after."""
    return _draw_before_after(document, "base_macs", "macs", "MACs", "MACs of each layer")


def draw_layer_parameters(document: Document) -> Figure | None:
    """Parameters of each layer before and after."""
    return _draw_before_after(document, "base_parameters", "parameters", "parameters", "Parameters of each layer")


def draw_sqnr(document: Document) -> Figure | None:
    """Signal to quantization noise of each layer, worst at the top, up to MOST_NOISY."""
    rows = [row for row in document["sqnr"] if row["sqnr_db"] is not None][:MOST_NOISY]
    if not rows:
        return None
    trace = {
        "type": "bar",
        "orientation": "h",
        "x": [row["sqnr_db"] for row in rows],
        "y": [row["layer"] for row in rows],
        "marker": {"color": AFTER_COLOR},
    }
    figure = make_figure(
        [trace],
        "SQNR, dB",
        "",
        height=120 + 20 * len(rows),
        yaxis={"autorange": "reversed"},
        title="Signal to quantization noise, worst layers first",
        words="In dB; 6 dB more is half the noise.",
    )
    figure["layout"]["showlegend"] = False
    return figure


def _draw_before_after(document: Document, before: str, after: str, axis: str, title: str) -> Figure | None:
    layers = [layer for layer in document["layers"] if layer[before] or layer[after]]
    if not layers:
        return None
    names = [layer["name"] for layer in layers]
    traces = [
        {
            "type": "bar",
            "name": label,
            "x": names,
            "y": [layer[key] or 0 for layer in layers],
            "marker": {"color": color},
        }
        for label, key, color in (("before", before, BEFORE_COLOR), ("after", after, AFTER_COLOR))
    ]
    return make_figure(traces, "", axis, height=340, title=title)
