"""Are the artifacts of a folder those that its manifest names?"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from edgeprune.errors import InputError, UntrustedInputError

MANIFEST = "manifest.json"
# what a compile writes beside the artifacts
REPORTS = frozenset({MANIFEST, "report.json", "report.md", "report.html"})


@dataclass(frozen=True)
class FileCheck:
    """One file. state: 'ok', 'changed', 'missing', or 'not listed': it lies there, the manifest does not know it."""

    path: str
    state: str
    detail: str = ""


def verify_folder(folder: Path) -> list[FileCheck]:
    """Hold every file of an output folder against its manifest.json, by size and SHA-256.

    Raises InputError without a manifest of edgeprune, UntrustedInputError for one that names files outside the folder.
    """
    listed = read_manifest(folder)
    checks = [_check(folder, artifact) for artifact in listed]
    known = {str(artifact["path"]) for artifact in listed} | REPORTS
    checks += [
        FileCheck(path, "not listed")
        for path in sorted(
            file.relative_to(folder).as_posix()
            for file in folder.rglob("*")
            if file.is_file() and not file.name.startswith(".")
        )
        if path not in known
    ]
    return [*checks, *_check_report(folder, listed)]


def read_manifest(folder: Path) -> Sequence[Mapping[str, Any]]:
    """The artifacts that a folder's manifest names: path, bytes, sha256."""
    file = folder / MANIFEST
    try:
        artifacts = json.loads(file.read_text(encoding="utf-8"))["artifacts"]
        listed = [{"path": str(a["path"]), "bytes": int(a["bytes"]), "sha256": str(a["sha256"])} for a in artifacts]
    except FileNotFoundError as error:
        raise InputError(f"{folder}: there is no {MANIFEST}; name the output folder of a compile") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file}: not a manifest of edgeprune, or damaged; compile again") from error
    for artifact in listed:
        path = PurePosixPath(str(artifact["path"]))
        if path.is_absolute() or ".." in path.parts:
            raise UntrustedInputError(f"{file}: it names {path}, which lies outside the folder; nothing was read")
    return listed


def _check(folder: Path, artifact: Mapping[str, Any]) -> FileCheck:
    path = artifact["path"]
    try:
        content = (folder / path).read_bytes()
    except OSError:
        return FileCheck(path, "missing")
    if len(content) != artifact["bytes"]:
        return FileCheck(path, "changed", f"{len(content):,} bytes, recorded are {artifact['bytes']:,}")
    if hashlib.sha256(content).hexdigest() != artifact["sha256"]:
        return FileCheck(path, "changed", "the same size, another content")
    return FileCheck(path, "ok")


def _check_report(folder: Path, listed: Sequence[Mapping[str, Any]]) -> Iterator[FileCheck]:
    """The report, if there is one, must speak of the same artifacts."""
    file = folder / "report.json"
    if not file.is_file():
        return
    try:
        reported = {a["path"]: a["sha256"] for a in json.loads(file.read_text(encoding="utf-8"))["artifacts"]}
    except (OSError, ValueError, KeyError, TypeError):
        yield FileCheck(file.name, "changed", "no report of edgeprune, or damaged")
        return
    if reported != {artifact["path"]: artifact["sha256"] for artifact in listed}:
        yield FileCheck(file.name, "changed", "it speaks of other artifacts than the manifest")
