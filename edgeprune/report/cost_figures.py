"""What the firmware costs, before and after: accuracy against each cost, and each layer's share of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from edgeprune.report.plotting import AFTER_COLOR, BEFORE_COLOR, Document, Figure, make_figure

BEFORE, AFTER = "before", "after"
LEAST_RANGE = 2.0  # percentage points of accuracy


def draw_accuracy_against_flash(document: Document) -> Figure | None:
    """Accuracy of the firmware before and after against its flash."""
    return _draw_against(document, "flash_bytes", "flash, bytes", "Accuracy against flash")


def draw_accuracy_against_ram(document: Document) -> Figure | None:
    """Accuracy of the firmware before and after against its RAM."""
    return _draw_against(document, "ram_bytes", "RAM, bytes", "Accuracy against RAM")


def draw_accuracy_against_time(document: Document) -> Figure | None:
    """Accuracy of the firmware before and after against its modelled latency; against instructions without a clock."""
    by_latency = _draw_against(document, "latency_ms", "modelled latency, ms", "Accuracy against latency")
    return by_latency or _draw_against(
        document, "instructions", "instructions of one inference", "Accuracy against instructions"
    )


def draw_layer_time(document: Document) -> Figure | None:
    """Modelled cycles of each layer of the firmware; instructions where the core has no cycle model."""
    for key, unit in (("cycles", "modelled cycles"), ("instructions", "instructions")):
        figure = _draw_layers(document, key, unit, f"{unit.capitalize()} of each layer", sum)
        if figure is not None:
            return figure
    return None


def draw_layer_ram(document: Document) -> Figure | None:
    """Bytes of the arena that are alive while each layer runs."""
    return _draw_layers(document, "live_bytes", "bytes of the arena alive", "RAM of each layer", max)


def draw_layer_flash(document: Document) -> Figure | None:
    """Bytes of each layer's weights and tables."""
    return _draw_layers(document, "constant_bytes", "bytes of constants", "Flash of each layer", sum)


def choose_accuracy_range(percents: Sequence[float]) -> dict[str, Any]:
    """An axis of at least LEAST_RANGE points: a difference of a sample or two must not fill the picture.

    >>> choose_accuracy_range([95.0, 95.2])
    {'range': [94.0, 96.0]}
    """
    low, high = min(percents), max(percents)
    if high - low >= LEAST_RANGE:
        return {}
    start = min(round((low + high) / 2) - LEAST_RANGE / 2, 100 - LEAST_RANGE)
    return {"range": [min(start, low), max(start + LEAST_RANGE, high)]}


def merge_names(before: Iterable[str], after: Iterable[str]) -> list[str]:
    """All names once: those before in their order, new ones behind the one that they follow.

    >>> merge_names(["a", "b", "d"], ["a", "c", "d"])
    ['a', 'c', 'b', 'd']
    """
    merged = list(dict.fromkeys(before))
    place = 0
    for name in dict.fromkeys(after):
        if name not in merged:
            merged.insert(place, name)
        place = merged.index(name) + 1
    return merged


def _draw_layers(
    document: Document, key: str, unit: str, title: str, combine: Callable[[Iterable[int]], int]
) -> Figure | None:
    firmware = document["firmware"]
    base = firmware.get("base") or {}
    sides = {
        label: _collect(section.get("layers", ()), key, combine)
        for label, section in ((BEFORE, base), (AFTER, firmware))
    }
    if not any(sides[AFTER].values()):
        return None
    names = [
        name for name in merge_names(sides[BEFORE], sides[AFTER]) if any(side.get(name) for side in sides.values())
    ]
    traces = [
        {
            "type": "bar",
            "orientation": "h",
            "name": label,
            "x": [sides[label].get(name) for name in names],
            "y": names,
            "marker": {"color": color},
        }
        for label, color in ((BEFORE, BEFORE_COLOR), (AFTER, AFTER_COLOR))
        if sides[label]
    ]
    totals = {label: combine(side.values()) for label, side in sides.items() if side}
    what = "in all" if combine is sum else "at most"
    words = f"{what.capitalize()} {totals[AFTER]:,} {unit}"
    if totals.get(BEFORE):
        words += f", before {totals[BEFORE]:,} ({100 * (totals[AFTER] / totals[BEFORE] - 1):+.1f} %)".replace("-", "−")
    figure = make_figure(traces, unit, "", height=120 + 22 * len(names), title=title, words=f"{words}.")
    figure["layout"]["yaxis"] = {**figure["layout"]["yaxis"], "autorange": "reversed"}
    return figure


def _collect(layers: Sequence[Mapping[str, Any]], key: str, combine: Callable[[Iterable[int]], int]) -> dict[str, int]:
    """The figure by layer; the calls of one layer (a concat's, one for each operand) are combined."""
    found: dict[str, list[int]] = {}
    for layer in layers:
        if layer.get(key) is not None:
            found.setdefault(layer["name"], []).append(layer[key])
    return {name: combine(values) for name, values in found.items()}


def _draw_against(document: Document, key: str, x_title: str, title: str) -> Figure | None:
    firmware = document["firmware"]
    base = firmware.get("base") or {}
    points = []
    for label, section, variant, color in (
        (BEFORE, base, document["variants"].get("base"), BEFORE_COLOR),
        (AFTER, firmware, document["variants"].get("int8"), AFTER_COLOR),
    ):
        cost = (section.get("measured") or {}).get(key)
        accuracy = section.get("accuracy", (variant or {}).get("accuracy"))
        if cost is not None and accuracy is not None:
            points.append((label, cost, 100 * accuracy, color))
    if len(points) < 2:
        return None
    traces = [
        {
            "type": "scatter",
            "mode": "lines",
            "x": [point[1] for point in points],
            "y": [point[2] for point in points],
            "line": {"color": BEFORE_COLOR, "dash": "dot"},
        },
        *(
            {
                "type": "scatter",
                "mode": "markers",
                "name": label,
                "x": [cost],
                "y": [accuracy],
                "marker": {"color": color, "size": 14},
            }
            for label, cost, accuracy, color in points
        ),
    ]
    (_, old, old_accuracy, _), (_, new, new_accuracy, _) = points
    old_cost, new_cost = (f"{cost:,}" if isinstance(cost, int) else f"{cost:,.2f}" for cost in (old, new))
    words = (
        f"From {old_accuracy:.2f} % at {old_cost} to {new_accuracy:.2f} % at {new_cost} "
        f"({100 * (new / old - 1):+.1f} %)."
    )
    if "accuracy" not in base:
        words += " Before: cost of the unpruned int8 firmware, accuracy of the float32 base."
    return make_figure(
        traces,
        x_title,
        "test accuracy, %",
        height=320,
        xaxis={"rangemode": "tozero"},
        yaxis=choose_accuracy_range([point[2] for point in points]),
        title=title,
        words=words.replace("-", "−"),
    )
