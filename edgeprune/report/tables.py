"""The report's tables as rows of text, drawn the same way on the screen, in report.md and in report.html.

Each function takes the report document (see `schema.json`) and gives a `Table`, or None where there is nothing to show.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeprune.report.budget import format_quantity

Document = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """A caption, a head and rows of text. Columns named in `text_columns` are text, the others are figures."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    text_columns: tuple[int, ...] = (0,)


def keep_used_columns(table: Table) -> Table:
    """The table without the columns that are empty in every row."""
    used = [column for column in range(len(table.head)) if any(row[column] for row in table.rows)]
    return Table(
        table.caption,
        tuple(table.head[column] for column in used),
        tuple(tuple(row[column] for column in used) for row in table.rows),
        tuple(index for index, column in enumerate(used) if column in table.text_columns),
    )


def summarize(document: Document) -> str:
    """The result in one sentence: what is shipped, against what went in."""
    variants = document["variants"]
    if "int8" not in variants:
        return ""
    int8, base = variants["int8"], variants.get("base")
    parts = [f"int8 model: {int8['file_bytes']:,} bytes, {int8['macs']:,} MACs"]
    if base is not None:
        parts[0] += f" ({_format_change(int8['macs'], base['macs']) or 'as many as the base'})"
    if int8["accuracy"] is not None:
        accuracy = f"accuracy {_format_percent(int8['accuracy'])}"
        parts.append(accuracy if base is None else f"{accuracy} (base {_format_percent(base['accuracy'])})")
    return ", ".join(parts)


def list_variants(document: Document) -> Table | None:
    """Every form of the model: cost, and how well it does on the test set."""
    variants = document["variants"]
    if not variants:
        return None
    base_macs = next(iter(variants.values()))["macs"]
    rows = tuple(
        (
            variant["label"],
            f"{variant['parameters']:,}",
            f"{variant['macs']:,}",
            _format_change(variant["macs"], base_macs),
            f"{variant['file_bytes'] or variant['weight_bytes']:,}",
            _format_percent(variant["accuracy"]),
            _format_percent(variant["macro_f1"]),
            variant["executor"],
        )
        for variant in variants.values()
    )
    samples = max(variant["test_samples"] for variant in variants.values())
    head = ("form", "parameters", "MACs", "MACs vs base", "bytes", "accuracy", "macro-F1", "computed by")
    # a program without base or labels leaves columns empty
    title = f"Forms of the model, on {samples:,} test samples" if samples else "Forms of the model"
    return keep_used_columns(Table(title, head, rows, (0, len(head) - 1)))


def list_confusion(document: Document, key: str = "int8") -> Table | None:
    """Which class one form took for which: true class by row, predicted class by column."""
    variant = document["variants"].get(key)
    if variant is None or variant["confusion_matrix"] is None:
        return None
    names = document["data"]["class_names"]
    rows = tuple(
        (name, *(f"{count:,}" for count in row)) for name, row in zip(names, variant["confusion_matrix"], strict=True)
    )
    return Table(f"Confusion of {variant['label']}: true class by row, predicted by column", ("", *names), rows)


def list_layers(document: Document) -> Table | None:
    """Layers before and after."""
    if not document["layers"]:
        return None
    rows = tuple(
        (
            layer["name"],
            layer["kind"],
            _format_pair(layer["base_channels"], layer["channels"]),
            _format_pair(layer["base_parameters"], layer["parameters"]),
            _format_pair(layer["base_macs"], layer["macs"]),
        )
        for layer in document["layers"]
    )
    return Table("Layers, before → after", ("layer", "kind", "output channels", "parameters", "MACs"), rows, (0, 1))


def list_program(document: Document) -> Table | None:
    """The compiled program, operation by operation."""
    profile = document["profiles"].get("int8")
    if profile is None:
        return None
    rows = tuple(
        (
            layer["name"],
            layer["kind"],
            " x ".join(str(size) for size in layer["output_shape"][1:]),
            *(f"{layer[key]:,}" for key in ("macs", "parameters", "weight_bytes", "live_bytes")),
        )
        for layer in profile["layers"]
    )
    peak = f"{profile['peak_activation_bytes']:,} bytes at {profile['peak_layer']}"
    return Table(
        f"The int8 program (largest sum of activations alive at once: {peak})",
        ("operation", "kind", "output (H x W x C)", "MACs", "parameters", "weight bytes", "activations alive, bytes"),
        rows,
        (0, 1, 2),
    )


def list_unpruned(document: Document) -> Table | None:
    """What could not be pruned, or did not shrink, and why."""
    pruning = document["pruning"]
    entries = [("cannot be pruned", entry) for entry in pruning.get("pinned", ())]
    pinned = {entry["layer"] for _, entry in entries}
    entries += [("did not shrink", entry) for entry in pruning.get("not_shrunk", ()) if entry["layer"] not in pinned]
    if not entries:
        return None
    rows = tuple((entry["layer"], what, entry["reason"]) for what, entry in entries)
    return Table("Layers that keep all their channels", ("layer", "", "why"), rows, (0, 1, 2))


def list_parity(document: Document) -> Table | None:
    """Each executor against the numpy reference: worst operation in lockstep, and end to end."""
    parity = document["parity"]
    if not parity:
        return None
    rows: list[tuple[str, ...]] = []
    for check in parity.get("checks", ()):
        rows.append(
            (check["name"], check["what"], check["difference"], check["limit"], "pass" if check["passed"] else "FAIL")
        )
    return Table(
        "Parity: each form against the last", ("check", "on", "difference", "limit", ""), tuple(rows), (0, 1, 4)
    )


def list_sqnr(document: Document, worst: int | None = None) -> Table | None:
    """Signal to quantization noise of each int8 layer, worst first."""
    entries: Sequence[Mapping[str, Any]] = document["sqnr"][:worst]
    if not entries:
        return None
    rows = tuple((entry["layer"], entry["kind"], _format_db(entry["sqnr_db"])) for entry in entries)
    return Table(
        "Quantization noise of int8 against float32, worst layers first", ("layer", "kind", "SQNR"), rows, (0, 1)
    )


def list_latency(document: Document) -> Table | None:
    """Measured times, each with its method; what could not be measured, with the reason."""
    if not document["latency"]:
        return None
    rows = tuple(
        (
            entry["name"],
            entry["method"],
            *(_format_time(entry.get(key)) for key in ("p50_us", "p90_us", "min_us")),
            str(entry.get("n", "")),
            entry["reason"],
        )
        for entry in document["latency"]
    )
    return Table("Latency of one inference", ("what", "method", "p50", "p90", "min", "n", "note"), rows, (0, 1, 6))


def list_firmware(document: Document) -> Table | None:
    """What the firmware takes on the target, and how each figure was got."""
    measured = document["firmware"].get("measured")
    if not measured:
        return None
    firmware = document["firmware"]
    before = firmware.get("base", {}).get("measured") or {}

    def was(figure: str) -> str:
        """What it took as the model was given."""
        value = before.get(figure)
        return "" if value is None else f"{value:,}"

    rows = [
        (
            "flash",
            was("flash_bytes"),
            f"{measured['flash_bytes']:,} bytes",
            _join_bytes(measured, ("text", "rodata", "data")),
            "linked file",
        ),
    ]
    if measured["emulator"] is not None:
        parts = {"arena": firmware["arena_bytes"], "stack": measured["peak_stack_bytes"], **_io_bytes(measured)}
        run = f"{measured['emulator']}, {measured['core']}"
        rows.append(
            ("RAM", was("ram_bytes"), f"{measured['ram_bytes']:,} bytes", _join_bytes(parts, tuple(parts)), run)
        )
        counted = "of one inference, counted"
        rows.append(("instructions", was("instructions"), f"{measured['instructions']:,}", counted, run))
    if measured["cycles"] is not None:
        model = f"modelled, {measured['cycle_model']['status']}"
        caveat = f"of one inference, no flash wait states; {measured['cycle_model']['note']}"
        rows.append(("cycles", was("cycles"), f"{measured['cycles']:,}", caveat, model))
    caption = f"Firmware, built with {measured['toolchain']}"
    head = ("", "before", "now", "of what", "how") if before else ("", "", "", "of what", "how")
    return keep_used_columns(Table(caption, head, tuple(rows), (0, 3, 4)))


def _io_bytes(measured: Mapping[str, Any]) -> dict[str, int]:
    return {
        "data and bss": measured["data"] + measured["bss"],
        "input": measured["input_bytes"],
        "output": measured["output_bytes"],
    }


def _join_bytes(sizes: Mapping[str, Any], names: Sequence[str]) -> str:
    return " + ".join(f"{name} {sizes[name]:,}" for name in names)


def list_memory_choices(document: Document) -> Table | None:
    """What the memory modes would have cost."""
    choices = document["firmware"].get("choices")
    if not choices:
        return None
    whole = choices[0]
    rows = tuple(
        (
            f"{choice['mode']}{', as asked' if choice['mode'] == document['firmware']['mode'] else ''}",
            "rows are streamed" if choice["streams"] else "whole maps",
            f"{choice['arena_bytes']:,}",
            _format_change(choice["cycles"], whole["cycles"]) or "0 %",
        )
        for choice in choices
    )
    return Table(
        "Memory modes of the firmware (time estimated before it is built)",
        ("mode", "", "arena, bytes", "time vs whole maps"),
        rows,
        (0, 1),
    )


def list_firmware_layers(document: Document) -> Table | None:
    """Each layer of the firmware: kernel, instructions, cycles."""
    layers = [layer for layer in document["firmware"].get("layers", ()) if layer["instructions"] is not None]
    if not layers:
        return None
    rows = tuple(
        (
            layer["name"],
            layer["kind"],
            layer["kernel"],
            f"{layer['macs']:,}",
            f"{layer['instructions']:,}",
            f"{layer['instructions'] / layer['macs']:.2f}" if layer["macs"] else "",
            "" if layer["cycles"] is None else f"{layer['cycles']:,}",
        )
        for layer in layers
    )
    head = ("layer", "kind", "kernel", "MACs", "instructions", "per MAC", "modelled cycles")
    return Table("Layers of the firmware", head, rows, (0, 1, 2))


def list_budgets(document: Document) -> Table | None:
    """Budgets and whether they were met."""
    if not document["budgets"]:
        return None
    rows = tuple(
        (
            result["name"],
            format_quantity(result["limit"], result["unit"]),
            "unavailable" if result["value"] is None else format_quantity(result["value"], result["unit"]),
            result["state"],
        )
        for result in document["budgets"]
    )
    return Table("Budgets", ("figure", "limit", "value", ""), rows, (0, 3))


def list_artifacts(document: Document) -> Table | None:
    """Files written."""
    if not document["artifacts"]:
        return None
    artifacts = [artifact for artifact in document["artifacts"] if "/" not in artifact["path"]]
    rows = tuple(
        (artifact["path"], artifact["kind"], f"{artifact['bytes']:,}", artifact["sha256"]) for artifact in artifacts
    )
    folder = [artifact for artifact in document["artifacts"] if artifact["path"].startswith("firmware/")]
    if folder:
        size = sum(artifact["bytes"] for artifact in folder)
        rows += (("firmware/", f"C firmware, {len(folder)} files", f"{size:,}", "of each: manifest.json"),)
    return Table("Files", ("file", "what", "bytes", "sha256"), rows, (0, 1, 3))


def _format_percent(fraction: float | None) -> str:
    return "" if fraction is None else f"{100 * fraction:.2f} %"


def _format_change(value: float, base: float) -> str:
    if not base or value == base:
        return ""
    return f"{100 * (value / base - 1):+.1f} %"


def _format_pair(before: int | None, after: int | None) -> str:
    if before is None or after is None:
        return "" if before is None and after is None else f"{_count(before)} → {_count(after)}"
    return f"{before:,}" if before == after else f"{before:,} → {after:,}"


def _count(value: int | None) -> str:
    return "none" if value is None else f"{value:,}"


def _format_db(value: float | None) -> str:
    return "exact" if value is None else f"{value:.1f} dB"


def _format_time(microseconds: float | None) -> str:
    return "" if microseconds is None else format_quantity(microseconds, "microseconds")
