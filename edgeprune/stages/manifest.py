"""What the manifest beside an artifact says of it."""

from __future__ import annotations

import json
from pathlib import Path

from edgeprune.artifacts import Normalization
from edgeprune.errors import InputError


def find_recorded_normalization(artifact: Path) -> Normalization | None:
    """The normalization that the manifest.json beside an artifact records; None where there is no manifest.

    Raises InputError for a manifest.json that edgeprune did not write.
    """
    manifest = artifact.with_name("manifest.json")
    if not manifest.is_file():
        return None
    try:
        recorded = json.loads(manifest.read_text(encoding="utf-8"))["normalization"]
        return Normalization(recorded["kind"], tuple(recorded["mean"]), tuple(recorded["std"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{manifest}: not a manifest of edgeprune; remove it, or give --normalization") from error
