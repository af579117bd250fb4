"""Tables of how the pruning went, from the report's section `pruning`; see `tables`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgeprune.report.tables import Document, Table, keep_used_columns

METRIC_NAMES: Mapping[str | None, str] = {"accuracy": "accuracy", "macro_f1": "macro-F1"}
# columns of a step that every method has; what else its row holds is the method's own
STEP_KEYS = ("step", "parameters", "macs", "weights_left", "epochs", "stopped_by", "validation_metric", "within_limit")


def list_trainings(document: Document) -> Table | None:
    """Every training that was done, and how it ended."""
    trainings = document["pruning"].get("trainings", ())
    if not trainings:
        return None
    rows = tuple(
        (
            training["title"],
            _format(training.get("epochs")),
            _format(training.get("best_epoch")),
            training["stopped_by"],
            _format(training.get("loss")),
            _format_percent(training.get("validation_metric")),
            _format_duration(training.get("seconds")),
        )
        for training in trainings
    )
    head = ("training", "epochs", "weights of epoch", "ended by", "loss", "validation metric", "time")
    total = _format_duration(sum(training.get("seconds") or 0 for training in trainings))
    return keep_used_columns(Table(f"Trainings: {len(rows)}, {total} in all", head, rows, (0, 3)))


def list_steps(document: Document) -> Table | None:
    """Iterations of a schedule: what was left, how long it was retrained, how well it did."""
    steps = document["pruning"].get("steps", ())
    if not steps:
        return None
    keys = dict.fromkeys(key for row in steps for key, value in row.items() if _is_plain(value))
    own = [key for key in keys if key not in STEP_KEYS]
    rows = tuple(
        (
            *(_format(row.get(key)) for key in ("step", "parameters", "macs")),
            _format_percent(row.get("weights_left")),
            *(_format(row.get(key)) for key in own),
            _format(row.get("epochs")),
            _format(row.get("stopped_by")),
            _format_percent(row.get("validation_metric")),
            _format(row.get("within_limit")),
        )
        for row in steps
    )
    left = ("step", "parameters", "MACs", "weights left", *(key.replace("_", " ") for key in own))
    head = (*left, "epochs", "ended by", "validation metric", "within limit")
    ended_by = document["pruning"].get("ended_by")
    caption = f"Steps of the schedule, ended by {ended_by}" if ended_by else "Steps of the schedule"
    return keep_used_columns(Table(caption, head, rows, (len(left) + 1, len(left) + 3)))


def list_masks(document: Document) -> Table | None:
    """Zeros among the weights, by layer, and what they save: bytes on the way to the device, nothing on it."""
    masks = document["pruning"].get("masks")
    if not masks:
        return None
    layers = [*masks["layers"], {"layer": "all", "weights": masks["weights"], "zeros": masks["zeros"]}]
    rows = tuple(
        (
            layer["layer"],
            _format(layer["weights"]),
            _format(layer["zeros"]),
            _format_percent(layer["zeros"] / layer["weights"] if layer["weights"] else None),
        )
        for layer in layers
    )
    caption = "Masks: zeros among the weights, which the device still holds and multiplies by"
    removed = masks.get("removed_channels")
    if removed:
        caption += f"; {removed:,} channels that became all zero were removed for real"
    return Table(caption, ("layer", "weights", "zeros", "share"), rows)


def list_transport(document: Document) -> Table | None:
    """Bytes of the int8 model on its way to the device, compressed, against the base's."""
    transport = document["pruning"].get("transport")
    if not transport:
        return None
    size, base = transport["bytes"], transport["base_bytes"]
    rows = [
        (f"compressed by {transport['compressor']}", _format(size)),
        ("the base, compressed", _format(base)),
        ("change", f"{100 * (size / base - 1):+.1f} %" if base else ""),
        ("unpacked, as the device holds it", _format(transport["plain_bytes"])),
    ]
    return Table("The int8 model in transport", ("", "bytes"), tuple(row for row in rows if row[1]))


def list_ranks(document: Document) -> Table | None:
    """Ranks that were found, and the form each layer is deployed in: factors where they cost less."""
    ranks = document["pruning"].get("ranks", ())
    if not ranks:
        return None
    rows = tuple(
        (
            row["layer"],
            " x ".join(str(size) for size in row.get("shape", ())),
            f"{row['full_rank']:,} → {row['rank']:,}" if "rank" in row else "",
            row["form"],
            *(_format_costs(row.get(f"{cost}_dense"), row.get(f"{cost}_factors")) for cost in ("parameters", "macs")),
            row.get("reason") or "",
        )
        for row in ranks
    )
    head = ("layer", "weights", "rank", "deployed as", "parameters", "MACs", "why")
    caption = "Ranks, first → last; parameters and MACs as a dense layer / as factors of the last rank"
    return keep_used_columns(Table(caption, head, rows, (0, 1, 3, 6)))


def list_search(document: Document) -> Table | None:
    """Strengths that were tried for the accuracy limit, and which one was taken."""
    search = document["pruning"].get("search")
    if not search:
        return None
    rows = tuple(
        (
            _format(row["value"]) + (" (chosen)" if row["value"] == search["chosen"] else ""),
            _format_percent(row["validation_metric"]),
            _format(row.get("parameters")),
            _format(row.get("macs")),
            _format(row["within_limit"]),
            _format(row.get("trainings")),
        )
        for row in search["tried"]
    )
    option, metric = search["option"], METRIC_NAMES.get(search["metric"], search["metric"])
    allowed = f"at most {100 * search['drop']:g} pp below {_format_percent(search['reference'])} {metric}"
    ending = "" if search["chosen"] is not None else "; none is"
    caption = f"Search for the strongest {option} {allowed}: {search['trainings']:,} trainings{ending}"
    head = (option, f"validation {metric}", "parameters", "MACs", "within limit", "trainings")
    return keep_used_columns(Table(caption, head, rows, (0, 4)))


def list_redundancy(document: Document) -> Table | None:
    """Effective rank and efficiency score of each observed tensor, form by form."""
    redundancy = document["pruning"].get("redundancy", {})
    forms: Mapping[str, Sequence[Mapping[str, Any]]] = redundancy.get("forms", {})
    names = dict.fromkeys(row["tensor"] for rows in forms.values() for row in rows)
    rows = tuple(
        (
            row.get("layer", row["tensor"]),
            form,
            _format(row["channels"]),
            f"{row['active_channels']:.2f}",
            f"{row['effective_rank']:.2f}",
            "" if row["efficiency"] is None else f"{row['efficiency']:.3f}",
        )
        for name in names
        for form, found in forms.items()
        for row in found
        if row["tensor"] == name
    )
    if not rows:
        return None
    samples = redundancy.get("samples")
    means = f"means over {samples:,} training samples" if samples else "means over training samples"
    head = ("feature map behind", "form", "channels", "active", "effective rank", "efficiency")
    return Table(f"Redundancy: efficiency = effective rank / active channels, {means}", head, rows, (0, 1))


def list_pruning_tables(document: Document) -> list[Table]:
    """All of them that have something to show, in the order of the report."""
    listers = (
        *(list_search, list_steps, list_masks, list_transport, list_ranks),
        *(list_redundancy, list_trainings),
    )
    return [table for table in (lister(document) for lister in listers) if table is not None]


def _is_plain(value: Any) -> bool:
    return isinstance(value, (bool, int, float, str))


def _format(value: Any) -> str:
    """Counts with separators, other numbers to four digits, yes or no."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _format_costs(dense: int | None, factors: int | None) -> str:
    return "" if dense is None or factors is None else f"{dense:,} / {factors:,}"


def _format_percent(fraction: float | None) -> str:
    return "" if fraction is None else f"{100 * fraction:.2f} %"


def _format_duration(seconds: float | None) -> str:
    """A time for people.

    >>> _format_duration(0.52), _format_duration(75.0), _format_duration(7300)
    ('0.5 s', '1 min 15 s', '2 h 1 min')
    """
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
