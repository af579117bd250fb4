"""Reading a report.json that may be anything: of another program, cut off, of another version, edited by hand."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeprune.errors import InputError
from edgeprune.report.budget import METRIC_KINDS
from edgeprune.report.record import SCHEMA_VERSION

FILE_NAME = "report.json"
# A report of a net with hundreds of layers, heat maps among them, stays below a few MB.
LARGEST_BYTES = 256 * 1024**2


def read_report(path: Path) -> dict[str, Any]:
    """A report as `edgeprune compile` wrote it; path: the file, or the folder that holds a report.json.

    Raises InputError, naming the file and what is wrong with it, for everything that is no whole report of this schema.
    """
    file = path / FILE_NAME if path.is_dir() else path
    document = _parse(file, _read_text(file))
    check_report(document, str(file))
    return document


def check_report(document: Mapping[str, Any], where: str) -> None:
    """Raise InputError unless every section that comparisons read is there and has its form."""
    version = document.get("schema_version")
    if "edgeprune_version" not in document or version is None:
        raise InputError(
            f"{where}: this is no report of edgeprune. Name the report.json that `edgeprune compile` wrote."
        )
    if version != SCHEMA_VERSION:
        raise InputError(
            f"{where}: it has schema version {version!r}, written by edgeprune {document['edgeprune_version']}; this "
            f"edgeprune reads version {SCHEMA_VERSION}. Compile again with one edgeprune for both reports."
        )
    from pydantic import ValidationError

    from edgeprune.report.document_shape import Report

    try:
        Report.model_validate(document)
    except ValidationError as error:
        first, count = error.errors()[0], error.error_count()
        place = ".".join(str(part) for part in first["loc"])
        more = f" ({count - 1} more like it)" if count > 1 else ""
        what = "is missing" if first["type"] == "missing" else f"is damaged ({first['msg']})"
        raise InputError(f"{where}: {place} {what}{more}. Compile again to get a whole report.") from error
    _check_metrics(document["metrics"], where)
    for budget in document["budgets"]:
        if budget["name"] not in METRIC_KINDS:
            raise InputError(
                f"{where}: a budget is on {budget['name']!r}, which is no figure that this edgeprune knows."
            )


def _check_metrics(metrics: Mapping[str, Mapping[str, Any]], where: str) -> None:
    """A figure of a known name must have that name's unit and direction: its budget and tolerance are in that unit."""
    for name, metric in metrics.items():
        kind = METRIC_KINDS.get(name)
        if kind is None:
            nearest = difflib.get_close_matches(name, METRIC_KINDS, 1)
            hint = f" Is it {nearest[0]}?" if nearest else ""
            raise InputError(f"{where}: metrics.{name} is no figure that this edgeprune knows.{hint}")
        found, expected = (metric["name"], metric["unit"], metric["better"]), (name, kind.unit, kind.better)
        if found != expected:
            raise InputError(f"{where}: metrics.{name} says {', '.join(found)}; it must say {', '.join(expected)}.")
        if (metric["value"] is None) != (metric["method"] is None):
            raise InputError(f"{where}: metrics.{name} has a value without a method, or a method without a value.")


def _read_text(file: Path) -> str:
    try:
        if file.stat().st_size > LARGEST_BYTES:
            raise InputError(f"{file}: {file.stat().st_size:,} bytes; a report has {LARGEST_BYTES:,} at most.")
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"{file}: cannot be read ({error.strerror or error}). Name a report.json, or a folder that holds one."
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: this is no text, so no report. Name the report.json of a compile.") from error


def _parse(file: Path, text: str) -> dict[str, Any]:
    try:
        document = json.loads(text, parse_constant=_refuse_constant)
        json.dumps(document, ensure_ascii=False).encode()  # half a surrogate pair is no text that could be printed
    except (ValueError, RecursionError) as error:
        place = f" (line {error.lineno}, {error.msg})" if isinstance(error, json.JSONDecodeError) else ""
        raise InputError(f"{file}: damaged, or no JSON{place}. Name a whole report.json.") from error
    if not isinstance(document, dict):
        raise InputError(
            f"{file}: this is no report of edgeprune. Name the report.json that `edgeprune compile` wrote."
        )
    return document


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


@dataclass(frozen=True, eq=False)
class FoundReport:
    """A report in a folder of them.

    label: where it lies, seen from that folder, without what all reports' names share.
    modified: when the file was last changed, seconds since 1970.
    """

    label: str
    path: Path
    modified: float
    document: dict[str, Any]


def find_reports(folder: Path) -> tuple[tuple[FoundReport, ...], tuple[str, ...]]:
    """All reports below a folder, by name as people count (v2 before v10), and a note on each that could not be read.

    Other JSON files are passed over in silence; a report.json never is. Raises InputError where there is no report.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: this is no folder. Name a folder that holds report.json files, at any depth.")
    found, notes = [], []
    for path in sorted(_list_json(folder), key=lambda path: _natural_key(_label(path, folder))):
        try:
            document = read_report(path)
        except InputError as error:
            if path.name == FILE_NAME:
                notes.append(str(error))
            continue
        found.append(FoundReport(_label(path, folder), path, path.stat().st_mtime, document))
    if not found:
        why = f": {notes[0]}" if notes else ""
        raise InputError(f"{folder}: there is no report below this folder{why}. Keep each compile's report.json in it.")
    return tuple(found), tuple(notes)


def _list_json(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):  # follows no links, so it ends
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(parent) / name for name in names if name.endswith(".json") and not name.startswith("."))


def _natural_key(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"([0-9]+)", name)]


def _label(path: Path, folder: Path) -> str:
    relative = path.relative_to(folder)
    place = relative.parent if path.name == FILE_NAME else relative.with_suffix("")
    return folder.resolve().name if place == Path(".") else place.as_posix()
