"""How a row of a plan is judged, the order of rows, and what to do next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeprune.report.budget import format_quantity, parse_budgets
from edgeprune.settings import FIT_NAMES

Row = Mapping[str, Any]
STATES = ("missed", "fits", "unknown", "no limit")


def judge_row(row: Row, limits: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The row with its `state` (STATES), its tightest limit and all that it misses.

    tightest: figure, limit, use (the figure's share of the limit; above 1 it is missed) and whose limit it is.
    'unknown': a limit was asked for, and its figure cannot be had. 'no limit': nothing to hold the row against.
    """
    held = [{**limit, "value": row["figures"][limit["figure"]]["value"]} for limit in limits]
    used = [
        {**limit, "use": limit["value"] / limit["limit"] if limit["limit"] else _use(limit["value"])}
        for limit in held
        if limit["value"] is not None
    ]
    missed = [limit for limit in used if limit["use"] > 1]
    unknown = [limit for limit in held if limit["value"] is None]
    state = "missed" if missed else "unknown" if unknown else "fits" if used else "no limit"
    tightest = max(used, key=lambda limit: float(limit["use"]), default=None)
    return {**row, "state": state, "tightest": tightest, "missed": missed, "unknown": unknown}


def _use(value: float) -> float:
    """Of a limit of 0."""
    return float("inf") if value else 0.0


def sort_rows(rows: Sequence[Row]) -> list[Row]:
    """The narrowest miss first, then what fits, the widest and least tight first, then what cannot be judged.

    Rows that nothing limits stay in the order of targets and widths.
    """

    def rank(row: Row) -> tuple[float, ...]:
        use = 0.0 if row["tightest"] is None else float(row["tightest"]["use"])
        if row["state"] == "missed":
            return 0, use, -row["width"]
        if row["state"] == "no limit":
            return (STATES.index("no limit"),)
        return STATES.index(row["state"]), -row["width"], use

    return sorted(rows, key=rank)


def advise(
    model: Path,
    rows: Sequence[Row],
    targets: Mapping[str, Mapping[str, Any]],
    is_network: bool,
    budget: str,
    memory: str,
) -> str:
    """One sentence or two on what to do now."""
    if not rows:
        first = next(target for target in targets.values())
        return (
            f"No target asked for runs this model. {first['reasons'][0]}"
            if first["reasons"]
            else "No target asked for runs this model."
        )
    options = (f" --budget {budget}" if budget else "") + (f" --memory {memory}" if memory != "auto" else "")
    command = f"edgeprune compile {model} --target"
    whole = next((row for row in rows if row["state"] == "fits" and row["width"] == 100), None)
    if whole is not None:
        extra = "" if is_network else " --method none" if model.suffix == ".onnx" else ""
        return f"As it is, it fits {whole['target']}. Next: {command} {whole['target']}{options}{extra}"
    narrower = next((row for row in rows if row["state"] == "fits"), None)
    if narrower is not None:
        prune = f" --method l1 --ratio {1 - narrower['width'] / 100:g}{options}"
        if budget and {item.name for item in parse_budgets(budget)} <= set(FIT_NAMES):
            prune = options.replace("--budget", "--fit", 1)  # widths by the cost of each layer do better than one share
        return (
            f"As it is, it fits nowhere; at {narrower['width']} % of its channels it fits {narrower['target']}, if "
            f"retraining keeps the accuracy. Next: {command} {narrower['target']}{prune}"
        )
    missed = next((row for row in rows if row["state"] == "missed"), None)
    if missed is not None:
        return _advise_on_miss(missed, is_network, memory)
    row = rows[0]
    if row["state"] == "unknown":
        limit = row["unknown"][0]
        reason = row["figures"][limit["figure"]]["reason"]
        return f"{limit['figure']} cannot be judged on {row['target']}: {reason}."
    board = "" if targets[row["target"]]["family"] != "cortex-m" else " (name a board to hold it against its memory)"
    return f"Nothing limits it on {row['target']}{board}. Next: {command} {row['target']}{options}"


def _advise_on_miss(row: Row, is_network: bool, memory: str) -> str:
    limit = row["tightest"]
    value, most = (format_quantity(limit[key], limit["unit"]) for key in ("value", "limit"))
    width = "" if row["width"] == 100 else f" at {row['width']} % of the channels"
    ways = ["a larger board", "a smaller network"]
    if limit["figure"] in ("ram", "arena_bytes") and memory != "streaming":
        ways.insert(0, "--memory streaming, which trades time for RAM")
    if not is_network:
        ways.insert(0, "the PyTorch model, which can be pruned")
    return (
        f"It fits nowhere. Nearest: {row['target']}{width}, where {limit['figure']} is {value}, {limit['use']:.2f} "
        f"times the {most} there are. Ways out: {', '.join(ways[:-1])}, or {ways[-1]}."
    )
