"""Crafted model files. What they would run is one harmless thing: creating the marker file."""

import io
import json
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

PROGRAM = "models/model.json"
SAMPLES = "data/sample_inputs/model.pt"
WEIGHTS = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"


class MakesMarker:
    """Unpickling this creates the marker, a folder."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.marker,)


def pickle_marker(marker: Path) -> bytes:
    """A torch.save file that creates the marker when it is unpickled freely."""
    buffer = io.BytesIO()
    torch.save((MakesMarker(marker),), buffer)
    return buffer.getvalue()


def unpack(data: bytes) -> dict[str, bytes]:
    """Entries by their name below the archive's folder."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def pack(entries: dict[str, bytes], *, root: str = "archive/", compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(f"{root}{name}", content)
    return buffer.getvalue()


def edit_json(data: bytes, name: str, edit: Callable[[Any], Any]) -> bytes:
    """The archive with one of its JSON entries edited (in place, or replaced by what `edit` returns)."""
    entries = unpack(data)
    document = json.loads(entries[name])
    replacement = edit(document)
    entries[name] = json.dumps(document if replacement is None else replacement).encode()
    return pack(entries)


def replace_entry(data: bytes, name: str, content: bytes) -> bytes:
    """The archive with one entry replaced or added."""
    return pack({**unpack(data), name: content})


def set_everywhere(document: Any, field: str, value: Any) -> int:
    """Set a field wherever it stands in a JSON document; returns how often."""
    count = 0
    if isinstance(document, dict):
        for key in document:
            if key == field:
                document[key] = value
                count += 1
            else:
                count += set_everywhere(document[key], field, value)
    elif isinstance(document, list):
        count = sum(set_everywhere(item, field, value) for item in document)
    return count


def get_nodes(program: Any) -> list[Any]:
    return program["graph_module"]["graph"]["nodes"]


def claim_size(data: bytes, size: int) -> bytes:
    """The zip file with the uncompressed size of its last entry overwritten in the directory."""
    place = data.rindex(b"PK\x01\x02") + 24
    return data[:place] + struct.pack("<I", size) + data[place + 4 :]
