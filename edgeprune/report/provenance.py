"""Where a report comes from: sources with their digests, settings, tools and the time each stage took."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from edgeprune.report.picture import Picture
from edgeprune.report.picture_bars import draw_bars
from edgeprune.report.plotting import AFTER_COLOR, Document, make_figure
from edgeprune.report.tables import Table


def list_sources(document: Document) -> Table | None:
    """What went in."""
    model, data = document["model"], document["data"]
    rows = []
    if model:
        shape = " x ".join(str(size) for size in model["input_shape"])
        rows.append(("model", model["name"], f"{model['format']}, input {shape}", model["sha256"]))
    if data:
        samples = ", ".join(f"{count:,} {part}" for part, count in data["samples"].items())
        normalization = data["normalization"]["kind"].replace("_", " ")
        rows.append(("data", data["source"], f"{samples} samples; normalization {normalization}", data["sha256"]))
    return Table("Sources", ("", "name", "what", "sha256"), tuple(rows), (0, 1, 2, 3)) if rows else None


def list_settings(document: Document) -> Table | None:
    """All settings that were not left empty."""
    rows = tuple(
        (name, _write(value)) for name, value in document["settings"].items() if value not in (None, [], {}, "")
    )
    return Table("Settings", ("setting", "value"), rows, (0, 1)) if rows else None


def list_target(document: Document) -> Table | None:
    """The target's figures, each with the document that states it."""
    target = document["target"]
    sources = target.get("sources", {})
    rows = tuple(
        (name, _write(value), sources.get(name, ""))
        for name, value in target.items()
        if name not in ("sources", "aliases", "unknown") and value not in (None, [], "")
    )
    return Table("Target", ("figure", "value", "source"), rows, (0, 1, 2)) if rows else None


def list_tools(document: Document) -> Table | None:
    """Versions of what took part."""
    rows = tuple(document["tools"].items())
    return Table("Tools", ("tool", "version"), rows, (0, 1)) if rows else None


def draw_timings(document: Document) -> Picture | None:
    """Seconds of each stage, in order."""
    timings = {name: round(seconds, 1) for name, seconds in document["timings"].items()}
    if not timings:
        return None
    trace = {
        "type": "bar",
        "orientation": "h",
        "x": list(timings.values()),
        "y": list(timings),
        "marker": {"color": AFTER_COLOR},
    }
    words = f"{sum(timings.values()):,.1f} seconds in all."
    return draw_bars(make_figure([trace], "seconds", "", height=200, title="Seconds of each stage", words=words))


def _write(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={_write(item)}" for name, item in value.items())
    if isinstance(value, list):
        return ", ".join(_write(item) for item in value)
    return value if isinstance(value, str) else json.dumps(value)
