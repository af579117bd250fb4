"""Two reports side by side, without judging: where a figure moved, layer by layer, and what was done differently."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Document = Mapping[str, Any]

# Settings that say where files lie, not what is made; budgets and baselines judge, they change nothing.
_NOT_COMPARED = ("output", "config", "budgets", "baseline", "tolerances")


@dataclass(frozen=True)
class LayerChange:
    """What a layer adds to a figure, before and now; None on the side where there is no such layer.

    kernel: of the firmware, '' where there is none; before_kernel likewise.
    """

    layer: str
    kind: str
    before: int | None
    now: int | None
    before_kernel: str = ""
    kernel: str = ""

    @property
    def change(self) -> int:
        return (self.now or 0) - (self.before or 0)

    @property
    def remark(self) -> str:
        """What happened to the layer beside its figure: '' or 'new', 'gone', 'kernel A → B'."""
        if self.before is None:
            return f"new{f', kernel {self.kernel}' if self.kernel else ''}"
        if self.now is None:
            return "gone"
        return "" if self.kernel == self.before_kernel else f"kernel {self.before_kernel} → {self.kernel}"


@dataclass(frozen=True)
class Difference:
    """Something that is not the same in two reports; before, now: as JSON, or 'absent'."""

    section: str
    name: str
    before: str
    now: str


@dataclass(frozen=True)
class LayerSource:
    """Where a figure is split by layers: the layers of a report, the key of the figure in each of them.

    is_sum: whether the layers add up to the figure; of a peak, such as RAM, the largest layer decides.
    """

    read: Callable[[Document], Sequence[Mapping[str, Any]]]
    key: str
    is_sum: bool = True


def _read_firmware(document: Document) -> Sequence[Mapping[str, Any]]:
    return document["firmware"].get("layers", ())


def _read_profile(document: Document) -> Sequence[Mapping[str, Any]]:
    return document["profiles"].get("int8", {}).get("layers", ())


def _read_network(document: Document) -> Sequence[Mapping[str, Any]]:
    return document["layers"]


# The first source that both reports have is taken.
LAYER_SOURCES: Mapping[str, Sequence[LayerSource]] = {
    "instructions": (LayerSource(_read_firmware, "instructions"),),
    "cycles": (LayerSource(_read_firmware, "cycles"),),
    "latency": (LayerSource(_read_firmware, "cycles"),),
    "flash": (LayerSource(_read_firmware, "constant_bytes"), LayerSource(_read_profile, "weight_bytes")),
    "ram": (
        LayerSource(_read_firmware, "live_bytes", is_sum=False),
        LayerSource(_read_profile, "live_bytes", is_sum=False),
    ),
    "arena_bytes": (LayerSource(_read_profile, "live_bytes", is_sum=False),),
    "model_bytes": (LayerSource(_read_profile, "weight_bytes"),),
    "macs": (LayerSource(_read_profile, "macs"), LayerSource(_read_network, "macs")),
    "flops": (LayerSource(_read_profile, "macs"), LayerSource(_read_network, "macs")),
    "parameters": (LayerSource(_read_profile, "parameters"), LayerSource(_read_network, "parameters")),
}


@dataclass(frozen=True)
class LayerChanges:
    """Where a figure moved. `of`: what is counted per layer ('instructions', 'live_bytes', ...).

    layers: those that moved, largest increase first. is_sum: whether the changes add up (see LayerSource).
    rest: what of the figure's change no layer accounts for (calls, code); None for a peak, or another unit.
    parts: of flash and RAM: the sections or buffers that moved, such as text, arena, stack.
    """

    metric: str
    of: str
    is_sum: bool
    layers: tuple[LayerChange, ...]
    rest: int | None
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True)
class Part:
    """A part of the firmware's flash or RAM that is not of the size it was, in bytes."""

    name: str
    before: int
    now: int


def trace_change(name: str, document: Document, baseline: Document) -> LayerChanges | None:
    """Which layers a figure's change comes from; None for a figure that has no layers in both reports.

    For a peak (RAM), layers that now need more than the baseline's largest are what made it grow; they come first.
    """
    for source in LAYER_SOURCES.get(name, ()):
        before, now = _sum_by_layer(source, baseline), _sum_by_layer(source, document)
        if before and now:
            parts = _list_parts(name, document, baseline)
            values = _get_value(name, baseline), _get_value(name, document)
            return _trace(name, source, (before, now), values, parts)
    return None


def _list_parts(name: str, document: Document, baseline: Document) -> tuple[Part, ...]:
    before, now = (_measure_parts(name, report["firmware"]) for report in (baseline, document))
    return tuple(Part(part, before[part], now[part]) for part in now if part in before and before[part] != now[part])


def _measure_parts(name: str, firmware: Mapping[str, Any]) -> dict[str, int]:
    """The parts that a firmware's flash or RAM adds up from, as far as the report tells them."""
    measured = firmware.get("measured") or {}
    keys = {
        "flash": {"text": "text", "rodata": "rodata", "data": "data"},
        "ram": {
            "data": "data",
            "bss": "bss",
            "stack": "peak_stack_bytes",
            "input": "input_bytes",
            "output": "output_bytes",
        },
    }.get(name, {})
    parts = {"arena": firmware.get("arena_bytes")} if name == "ram" else {}
    parts |= {part: measured.get(key) for part, key in keys.items()}
    return {part: size for part, size in parts.items() if isinstance(size, int)}


@dataclass(frozen=True)
class _Entry:
    kind: str
    kernel: str
    amount: int


def _trace(
    name: str,
    source: LayerSource,
    layers: tuple[Mapping[str, _Entry], Mapping[str, _Entry]],
    values: tuple[float | None, float | None],
    parts: tuple[Part, ...],
) -> LayerChanges:
    """layers, values, each: before and now."""
    (before, now), (old_value, value) = layers, values
    changes = []
    for layer in dict.fromkeys((*now, *before)):
        old, new = before.get(layer), now.get(layer)
        known = new or old
        assert known is not None  # the name comes from one of the two
        change = LayerChange(
            layer,
            known.kind,
            None if old is None else old.amount,
            None if new is None else new.amount,
            "" if old is None else old.kernel,
            "" if new is None else new.kernel,
        )
        if change.change or change.remark:
            changes.append(change)
    largest = max(entry.amount for entry in before.values())
    if source.is_sum:
        changes.sort(key=lambda change: -change.change)
    else:
        changes.sort(key=lambda change: (-max(0, (change.now or 0) - largest), -change.change))
    rest = None
    if source.is_sum and name not in ("latency", "flops") and value is not None and old_value is not None:
        rest = round(value - old_value) - sum(change.change for change in changes)
    return LayerChanges(name, source.key, source.is_sum, tuple(changes), rest, parts)


def _sum_by_layer(source: LayerSource, document: Document) -> dict[str, _Entry]:
    """Each layer's amount by its name; {} unless every layer has one. A layer of several steps is their sum."""
    entries: dict[str, _Entry] = {}
    for layer in source.read(document):
        amount = layer.get(source.key)
        if amount is None:
            if source.read is _read_network:
                continue  # a layer that pruning took away
            return {}
        name = layer["name"]
        known = entries.get(name)
        entries[name] = _Entry(
            layer["kind"],
            layer.get("kernel", "") if known is None else known.kernel,
            amount + (known.amount if known is not None else 0),
        )
    return entries


def _get_value(name: str, document: Document) -> float | None:
    value: float | None = document["metrics"].get(name, {}).get("value")
    return value


def list_differences(document: Document, baseline: Document) -> tuple[Difference, ...]:
    """What was done differently: model and data, settings, target, toolchain, versions. Figures are not among it."""
    found = []
    for section, now, before in (
        ("model", document["model"], baseline["model"]),
        ("data", document["data"], baseline["data"]),
        ("target", document["target"], baseline["target"]),
        ("settings", document["settings"], baseline["settings"]),
        ("firmware", _describe_build(document), _describe_build(baseline)),
        ("version", _list_versions(document), _list_versions(baseline)),
    ):
        left, right = dict(_flatten(before)), dict(_flatten(now))
        for name in dict.fromkeys((*right, *left)):
            if left.get(name) != right.get(name):
                found.append(Difference(section, name, left.get(name, "absent"), right.get(name, "absent")))
    return tuple(found)


def _describe_build(document: Document) -> Mapping[str, Any]:
    """How the firmware was built and run."""
    firmware = document["firmware"]
    measured = firmware.get("measured") or {}
    built = {name: measured[name] for name in ("core", "toolchain", "flags", "emulator") if name in measured}
    return {**built, **{name: firmware[name] for name in ("mode", "streams") if name in firmware}}


def _list_versions(document: Document) -> Mapping[str, str]:
    return {"edgeprune": document["edgeprune_version"], **document["tools"]}


def _flatten(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """(dotted name, value as JSON) of every leaf; lists are leaves, an empty mapping is one too."""
    for name, item in value.items():
        if name in _NOT_COMPARED:
            continue
        if isinstance(item, Mapping) and item:
            yield from _flatten(item, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", item if isinstance(item, str) else json.dumps(item, ensure_ascii=False)
