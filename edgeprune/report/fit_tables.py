"""Tables of --fit, from the report's section `fit`: what was tried, how wide each layer became."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeprune.report.budget import METRIC_KINDS, format_quantity
from edgeprune.report.pruning_tables import METRIC_NAMES
from edgeprune.report.tables import Document, Table, keep_used_columns


def list_fit(document: Document) -> Table | None:
    """Every network that was trained for the limits: predicted and measured figures, validation score, which was taken.

    The base stands first; the last column says why one was not taken.
    """
    fit = document.get("fit") or {}
    if not fit.get("candidates"):
        return None
    names = [budget["name"] for budget in fit["budgets"]]
    metric = METRIC_NAMES.get(fit["metric"], fit["metric"])
    rows = [
        (
            "the model as it is",
            *(_format(name, fit["base"]["measured"][name]) for name in names),
            _format_percent(fit["base"]["validation_metric"]),
            f"{fit['base']['parameters']:,}",
            "",
            "",
            "fits" if fit["base"]["fits"] else "does not fit",
        )
    ]
    for candidate in fit["candidates"]:
        rows.append(
            (
                candidate["title"],
                *(_format_both(name, candidate) for name in names),
                _format_percent(candidate["validation_metric"]),
                f"{candidate['parameters']:,}",
                f"{100 * candidate['kept']:.0f} %",
                f"{candidate['trainings']:,}",
                name_state(candidate),
            )
        )
    limits = ", ".join(f"{budget['name']} {_format(budget['name'], budget['limit'])}" for budget in fit["budgets"])
    caption = f"Fit: {limits}: {fit['outcome']}; measured, and predicted before the training"
    head = ("widths", *names, f"validation {metric}", "parameters", "score kept", "trainings", "")
    return keep_used_columns(Table(caption, head, tuple(rows), (0, len(head) - 1)))


def list_fit_widths(document: Document) -> Table | None:
    """Channels of each layer, candidate by candidate."""
    candidates = [candidate for candidate in (document.get("fit") or {}).get("candidates", ()) if candidate["widths"]]
    if not candidates:
        return None
    before = {row["layer"]: row["before"] for row in document["pruning"].get("widths", ())}
    names = list(dict.fromkeys(name for candidate in candidates for name in candidate["widths"]))
    rows = tuple(
        (
            name,
            f"{before[name]:,}" if name in before else "",
            *(f"{candidate['widths'][name]:,}" for candidate in candidates),
        )
        for name in names
    )
    titles = (candidate["title"] + (" (chosen)" if candidate["chosen"] else "") for candidate in candidates)
    return keep_used_columns(
        Table("Widths that were trained: channels of each layer", ("layer", "as it is", *titles), rows)
    )


def name_state(candidate: Mapping[str, Any]) -> str:
    """What became of a candidate, in words."""
    words = ["fits" if candidate["fits"] else "does not fit"]
    if not candidate["within_drop"]:
        words.append("not accurate enough")
    if candidate["chosen"]:
        words.append("chosen")
    return ", ".join(words)


def _format_both(name: str, candidate: Mapping[str, Any]) -> str:
    measured, predicted = candidate["measured"][name], candidate["predicted"].get(name)
    if predicted is None or not measured:
        return _format(name, measured)
    return f"{_format(name, measured)} ({100 * (predicted / measured - 1):+.1f} %)".replace("-", "−")


def _format(name: str, value: float | None) -> str:
    return "" if value is None else format_quantity(value, METRIC_KINDS[name].unit)


def _format_percent(fraction: float) -> str:
    return f"{100 * fraction:.2f} %"
