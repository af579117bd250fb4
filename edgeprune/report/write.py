"""Putting the report and the manifest on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeprune.disk import write_file_atomically
from edgeprune.report.html import render_html, render_redundancy
from edgeprune.report.markdown import render_markdown

MANIFEST_VERSION = 1


def write_report(document: Mapping[str, Any], folder: Path) -> Path:
    """Write report.json, report.md and report.html into `folder`; returns the path of the page.

    document: as `record.to_json` gives it. Raises InputError when the folder does not take the files.
    """
    write_file_atomically(folder / "report.json", _encode(document))
    write_file_atomically(folder / "report.md", render_markdown(document).encode())
    page = folder / "report.html"
    write_file_atomically(page, render_html(document).encode())
    return page


def write_redundancy(document: Mapping[str, Any], folder: Path) -> Path:
    """Write an analysis as redundancy.json and redundancy.html into `folder`; returns the path of the page.

    document: as `stages.analyze` makes it. Raises InputError when the folder does not take the files.
    """
    write_file_atomically(folder / "redundancy.json", _encode(document))
    page = folder / "redundancy.html"
    write_file_atomically(page, render_redundancy(document).encode())
    return page


def write_manifest(document: Mapping[str, Any], folder: Path) -> None:
    """Write manifest.json: each artifact's size and digest, and what it was made from and with."""
    manifest = {
        "manifest_version": MANIFEST_VERSION,
        "edgeprune_version": document["edgeprune_version"],
        "artifacts": document["artifacts"],
        "model_sha256": document["model"].get("sha256"),
        "data_sha256": document["data"].get("sha256"),
        "normalization": document["data"].get("normalization"),
        "settings": document["settings"],
        "tools": document["tools"],
    }
    write_file_atomically(folder / "manifest.json", _encode(manifest))


def load_schema() -> dict[str, Any]:
    """The JSON Schema of report.json."""
    schema: dict[str, Any] = json.loads(Path(__file__).with_name("schema.json").read_text(encoding="utf-8"))
    return schema


def _encode(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
