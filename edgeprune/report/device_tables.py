"""Tables of a run on an ARM Linux device: what the device is, its state, and its times by runtime and threads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeprune.report.budget import format_quantity
from edgeprune.report.tables import Document, Table, keep_used_columns

UNREADABLE = "not readable"


def list_device(document: Document) -> Table | None:
    """What the device is, and clock, governor, temperature and throttling before and after the runs."""
    device = document.get("device", {})
    if "facts" not in device:
        return None
    facts, before, after = device["facts"], device["before"], device["after"]
    packages = {"Python": device["python"], **device["packages"]}
    having = ", ".join(f"{name} {version}" for name, version in packages.items() if version is not None)
    memory = facts["memory_bytes"]
    rows = [
        ("CPU", facts["cpu"] or UNREADABLE, ""),
        ("board", facts["board"] or UNREADABLE, ""),
        ("cores", str(facts["cores"] or UNREADABLE), ""),
        ("memory", UNREADABLE if memory is None else f"{memory / 2**20:,.0f} MiB", ""),
        ("system", f"{facts['kernel'] or 'unknown kernel'}, {facts['machine']}", ""),
        ("Python packages there", having or "no Python", ""),
        ("clock now", _format_clock(before), _format_clock(after)),
        *((name, _format(before[key], unit), _format(after[key], unit)) for name, key, unit in _STATE),
        ("throttled", _format_throttling(before), _format_throttling(after)),
    ]
    rows += [("note", note, "") for note in device["notes"]]
    return keep_used_columns(Table("The device", ("", "before", "after"), tuple(rows), (0, 1, 2)))


_STATE = (
    ("governor", "governor", ""),
    ("temperature", "temperature_c", " °C"),
    ("load, mean of a minute", "load", ""),
)


def list_device_runs(document: Document) -> Table | None:
    """Every runtime with every number of threads on the device; what did not run, with the reason."""
    runs = document.get("device", {}).get("runs")
    if not runs:
        return None
    rows = tuple(
        (
            run["name"],
            run["runtime"],
            _format_count(run["threads"]),
            *(_format_time(run[key]) for key in ("p50_us", "p90_us", "p99_us", "min_us")),
            _format_count(run["n"]),
            _format_count(run["warmup"]),
            run["reason"],
        )
        for run in runs
    )
    head = ("form", "run by", "threads", "p50", "p90", "p99", "min", "n", "warm-up", "note")
    samples = document["device"]["samples"]
    caption = f"Times of one inference on the device (outputs compared on {samples:,} samples)"
    return keep_used_columns(Table(caption, head, rows, (0, 1, 9)))


def _format(value: Any, unit: str) -> str:
    return UNREADABLE if value is None else f"{value}{unit}"


def _format_clock(state: Mapping[str, Any]) -> str:
    if state["frequency_hz"] is None:
        return UNREADABLE
    most = "" if state["most_hz"] is None else f" of {state['most_hz'] / 1e6:,.0f}"
    return f"{state['frequency_hz'] / 1e6:,.0f}{most} MHz"


def _format_throttling(state: Mapping[str, Any]) -> str:
    if state["throttled"] is None:
        return UNREADABLE
    return f"yes, by {state['throttled_by']}" if state["throttled"] else "no"


def _format_time(microseconds: float | None) -> str:
    return "" if microseconds is None else format_quantity(microseconds, "microseconds")


def _format_count(count: int | None) -> str:
    return "" if count is None else f"{count:,}"
