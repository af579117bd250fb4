"""The report's pictures, as the plain dictionaries that plotly.js draws (https://plotly.com/javascript/reference/).

Made without plotly's Python classes, which take a second to import; the package only brings the script itself.
"""

from __future__ import annotations

from edgeprune.report.plotting import AFTER_COLOR, BEFORE_COLOR, VARIANT_COLORS, Document, Figure, make_figure
from edgeprune.report.pruning_figures import draw_pruning_figures

SMALLEST_MARKER, LARGEST_MARKER = 10.0, 46.0


def draw_figures(document: Document) -> dict[str, Figure]:
    """All pictures there is data for, by the id of their place in the page."""
    drawers = {
        "accuracy-against-macs": draw_accuracy_against_macs,
        "layers-macs": draw_layer_macs,
        "layers-parameters": draw_layer_parameters,
        "parity": draw_parity,
        "sqnr": draw_sqnr,
        "firmware-layers": draw_firmware_layers,
    }
    figures = {name: draw(document) for name, draw in drawers.items()}
    found = {name: figure for name, figure in figures.items() if figure is not None}
    return {**found, **draw_pruning_figures(document)}


def draw_accuracy_against_macs(document: Document) -> Figure | None:
    """Each form as a disc: cost to the right, accuracy upwards, area by parameters."""
    variants = [variant for variant in document["variants"].values() if variant["accuracy"] is not None]
    if not variants:
        return None
    most = max(variant["parameters"] for variant in variants) or 1
    traces = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": variant["label"],
            "x": [variant["macs"]],
            "y": [100 * variant["accuracy"]],
            "marker": {
                "size": [max(SMALLEST_MARKER, LARGEST_MARKER * (variant["parameters"] / most) ** 0.5)],
                "color": VARIANT_COLORS[index % len(VARIANT_COLORS)],
                "opacity": 0.75,
                "line": {"width": 1, "color": "#333"},
            },
            "hovertemplate": f"{variant['parameters']:,} parameters<br>%{{x:,}} MACs<br>%{{y:.2f}} %",
        }
        for index, variant in enumerate(variants)
    ]
    return make_figure(traces, "MACs of one inference", "test accuracy, %", height=380, xaxis={"rangemode": "tozero"})


def draw_layer_macs(document: Document) -> Figure | None:
    """MACs of each layer before and after."""
    return _draw_before_after(document, "base_macs", "macs", "MACs")


def draw_layer_parameters(document: Document) -> Figure | None:
    """Parameters of each layer before and after."""
    return _draw_before_after(document, "base_parameters", "parameters", "parameters")


def draw_parity(document: Document) -> Figure | None:
    """Largest difference of each operation in LSB, an executor a colour; nothing to see is good."""
    rows = document["parity"].get("lockstep", ())
    if not rows:
        return None
    executors = list(dict.fromkeys(row["executor"] for row in rows))
    traces = []
    for index, executor in enumerate(executors):
        own = [row for row in rows if row["executor"] == executor]
        traces.append(
            {
                "type": "bar",
                "name": executor,
                "x": [row["layer"] for row in own],
                "y": [row["max_lsb"] for row in own],
                "marker": {"color": VARIANT_COLORS[index % len(VARIANT_COLORS)]},
            }
        )
    top = max([1, *(row["max_lsb"] or 0 for row in rows)])  # None: not run, drawn as a gap
    return make_figure(traces, "", "largest difference, LSB", height=320, yaxis={"range": [0, top + 0.2], "dtick": 1})


def draw_sqnr(document: Document) -> Figure | None:
    """Signal to quantization noise of each layer, worst at the top."""
    rows = [row for row in document["sqnr"] if row["sqnr_db"] is not None]
    if not rows:
        return None
    trace = {
        "type": "bar",
        "orientation": "h",
        "x": [row["sqnr_db"] for row in rows],
        "y": [row["layer"] for row in rows],
        "marker": {"color": AFTER_COLOR},
    }
    figure = make_figure([trace], "SQNR, dB", "", height=120 + 20 * len(rows), yaxis={"autorange": "reversed"})
    figure["layout"]["showlegend"] = False
    return figure


def draw_firmware_layers(document: Document) -> Figure | None:
    """Instructions of each layer of the firmware, in order of execution from the top."""
    rows = [row for row in document["firmware"].get("layers", ()) if row["instructions"] is not None]
    if not rows:
        return None
    trace = {
        "type": "bar",
        "orientation": "h",
        "x": [row["instructions"] for row in rows],
        "y": [row["name"] for row in rows],
        "marker": {"color": AFTER_COLOR},
        "customdata": [row["kernel"] for row in rows],
        "hovertemplate": "%{customdata}<br>%{x:,} instructions",
    }
    figure = make_figure([trace], "instructions of one inference", "", height=120 + 22 * len(rows))
    figure["layout"]["yaxis"] = {**figure["layout"].get("yaxis", {}), "autorange": "reversed"}
    figure["layout"]["showlegend"] = False
    return figure


def _draw_before_after(document: Document, before: str, after: str, axis: str) -> Figure | None:
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
    return make_figure(traces, "", axis, height=340)
