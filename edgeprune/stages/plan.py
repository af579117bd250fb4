"""`edgeprune plan`: whether a model would run on targets, and what it would take there, before anything is trained."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgeprune import __version__
from edgeprune.cache import Cache, find_cache_folder
from edgeprune.codegen import MEMORY_MODES
from edgeprune.errors import BudgetMissedError, InputError, MeasurementUnavailableError, UnsupportedModelError
from edgeprune.lower import check_supported
from edgeprune.lower.constraints import dense_has_one_scale
from edgeprune.measure.cortex_m.cycle_validation import CYCLE_MODEL_ERROR
from edgeprune.progress import SILENT, Progress
from edgeprune.report.budget import METRIC_KINDS, Budget, parse_budgets
from edgeprune.settings import EMULATORS, TOOLCHAINS
from edgeprune.stages.measure import NEEDS
from edgeprune.stages.plan_programs import PlanPrograms, PlanSource, make_programs
from edgeprune.stages.plan_sizes import SizingOptions, find_core_key, set_clock, size_programs
from edgeprune.stages.plan_verdict import advise, judge_row, sort_rows
from edgeprune.stages.sizing import Sizing
from edgeprune.target import Target, list_targets, load_target

SCHEMA = 1
# figures of a plan -> the field of a Sizing
_SIZED = {
    "flash": "flash_bytes",
    "ram": "ram_bytes",
    "instructions": "instructions",
    "cycles": "cycles",
    "latency": "latency_us",
}
_STATIC = ("parameters", "macs", "model_bytes", "arena_bytes")
PLANNED = (*_SIZED, *_STATIC, "flops")


def plan_model(
    model: Path | str,
    *,
    targets: Sequence[str] = (),
    data: str | None = None,
    normalization: str | None = None,
    factory: str | None = None,
    allow_pickle: Sequence[str] = (),
    config: Path | None = None,
    budget: str = "",
    memory: str = "auto",
    toolchain: str = "zig",
    emulator: str = "auto",
    cache: Path | None = None,
    use_cache: bool = True,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """What a model takes on targets as it is and at 75, 50 and 25 % of its channels; nothing is trained.

    targets: names or .toml files; none: all that edgeprune knows. Other arguments: the options of `edgeprune plan`.
    Returns a document of plain values: "model", "data", "rows" (a row for each target and width, the narrowest miss
    first, then what fits best), "targets" (whether each runs it), "widths", "next" and "exit_code": 0 where something
    fits, 3 where a limit is missed at every width, 5 where no target runs it, 6 where a limit cannot be judged.

    Raises InputError for a bad option or file; UnsupportedModelError for a network that cannot be exported at all.
    """
    started = time.perf_counter()
    budgets = _check_options(budget, memory, toolchain, emulator)
    chosen = [load_target(name) for name in dict.fromkeys(targets)] or list(list_targets())
    kept = Cache(find_cache_folder(cache) if use_cache else None)
    source = PlanSource(Path(model), data, normalization, factory, tuple(allow_pickle), config)
    programs = make_programs(source, kept, progress)
    runnable, described = _check_targets(programs, chosen)
    microcontrollers = [target for target in runnable if target.is_microcontroller]
    options = SizingOptions(memory, toolchain, emulator)
    sizes = size_programs(programs.programs, microcontrollers, programs.samples, options, kept, progress)
    judged: list[dict[str, Any]] = []
    for target in runnable:
        sizings = sizes.get(find_core_key(target)) if target.is_microcontroller else {}
        if isinstance(sizings, UnsupportedModelError):
            described[target.name] |= {"runs": False, "reasons": [str(sizings)]}
            continue
        for width in programs.programs:
            sizing = None if not sizings else set_clock(sizings[width], target)
            judged.append(judge_row(_describe_row(programs, target, width, sizing), _list_limits(target, budgets)))
    rows = sort_rows(judged)
    notes = [*programs.notes, *_note_missing_tools(rows), *([kept.problem] if kept.problem else [])]
    return {
        "schema": SCHEMA,
        "edgeprune_version": __version__,
        "model": {
            "name": programs.name,
            "file": source.model.name,
            "format": programs.format,
            "sha256": programs.sha256,
            "input_shape": list(programs.input_shape),
        },
        "data": {"source": programs.source, "normalization": programs.normalization, "is_random": programs.is_random},
        "options": {**asdict(options), "budget": budget},
        "widths": [{"width": width, **asdict(figures)} for width, figures in programs.figures.items()],
        "targets": list(described.values()),
        "rows": rows,
        "notes": notes,
        "next": advise(source.model, rows, described, programs.is_network, budget, memory),
        "exit_code": _choose_exit_code(rows),
        "seconds": round(time.perf_counter() - started, 2),
    }


def _check_options(budget: str, memory: str, toolchain: str, emulator: str) -> tuple[Budget, ...]:
    """The budgets; raises InputError for what is not known or cannot be planned."""
    for option, value, allowed in (
        ("--memory", memory, MEMORY_MODES),
        ("--toolchain", toolchain, TOOLCHAINS),
        ("--emulator", emulator, EMULATORS),
    ):
        if value not in allowed:
            raise InputError(f"{option} {value}: not known; allowed: {', '.join(allowed)}")
    budgets = parse_budgets(budget)
    for item in budgets:
        if item.name not in PLANNED:
            raise InputError(
                f"--budget {item.name}: nothing is trained or run on data here, so there is no such figure; allowed in "
                f"a plan: {', '.join(PLANNED)}. `edgeprune compile` judges {item.name}"
            )
    return budgets


def _check_targets(programs: PlanPrograms, targets: Sequence[Target]) -> tuple[list[Target], dict[str, dict[str, Any]]]:
    """The targets whose rules the program keeps, and all of them described."""
    exempt = () if programs.is_network or programs.format == "onnx" else (dense_has_one_scale,)
    whole = next(iter(programs.programs.values()))
    runnable: list[Target] = []
    described: dict[str, dict[str, Any]] = {}
    for target in targets:
        reasons = [violation.message for violation in check_supported(whole, target, exempt)]
        described[target.name] = {
            "name": target.name,
            "description": target.description,
            "family": target.family,
            "core": target.core,
            "clock_hz": target.clock_hz,
            "flash_bytes": target.flash_bytes,
            "ram_bytes": target.ram_bytes,
            "runs": not reasons,
            "reasons": reasons,
        }
        if target.is_microcontroller:
            error = CYCLE_MODEL_ERROR[target.core]
            described[target.name]["cycle_model"] = {"status": error.status, "note": error.note}
        if not reasons:
            runnable.append(target)
    return runnable, described


def _describe_row(programs: PlanPrograms, target: Target, width: int, sizing: Sizing | None) -> dict[str, Any]:
    """All figures of a program on a target, each with its method, or the reason why it is missing."""
    figures = asdict(programs.figures[width])
    row: dict[str, Any] = {name: _give(figures[name], "static") for name in _STATIC}
    row["flops"] = _give(2 * figures["macs"], "static")
    for name, attribute in _SIZED.items():
        value = None if sizing is None else getattr(sizing, attribute)
        if sizing is None or value is None:
            row[name] = {"value": None, "method": None, "reason": _explain_missing(name, target, sizing)}
        else:
            row[name] = _give(value, sizing.methods[attribute])
    return {
        "target": target.name,
        "width": width,
        "streams": None if sizing is None else sizing.streams,
        "firmware_arena_bytes": None if sizing is None else sizing.arena_bytes,
        "reason": "" if sizing is None else sizing.reason,
        "figures": row,
    }


def _give(value: float, method: str) -> dict[str, Any]:
    return {"value": value, "method": method, "reason": ""}


def _explain_missing(name: str, target: Target, sizing: Sizing | None) -> str:
    if sizing is None:
        return NEEDS.get(target.family, "needs a run: edgeprune compile measures on this machine")
    if name == "latency" and target.clock_hz is None and sizing.cycles is not None:
        return f"{target.name} states no clock; name a board of `edgeprune targets`, or a .toml with clock_hz"
    if name in ("latency", "cycles") and sizing.instructions is not None:
        return f"there is no cycle model for {target.core}"
    return sizing.reason


def _list_limits(target: Target, budgets: Sequence[Budget]) -> list[dict[str, Any]]:
    """What a row is held against: the board's own memory, and the budget."""
    limits: list[dict[str, Any]] = []
    if target.is_microcontroller:
        for figure, limit in (("flash", target.flash_bytes), ("ram", target.ram_bytes)):
            if limit is not None:
                limits.append({"figure": figure, "limit": limit, "unit": "bytes", "of": target.name})
    limits += [
        {"figure": item.name, "limit": item.limit, "unit": METRIC_KINDS[item.name].unit, "of": "--budget"}
        for item in budgets
    ]
    return limits


def _note_missing_tools(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Why figures are predictions that could have been measured, once each."""
    return [f"predicted, not run: {reason}" for reason in dict.fromkeys(row["reason"] for row in rows) if reason]


def _choose_exit_code(rows: Sequence[Mapping[str, Any]]) -> int:
    states = {row["state"] for row in rows}
    if not states:
        return UnsupportedModelError.exit_code
    if states & {"fits", "no limit"}:
        return 0
    return BudgetMissedError.exit_code if "missed" in states else MeasurementUnavailableError.exit_code
