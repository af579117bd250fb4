"""What a file is by its first bytes, for those who must know before a room is imported."""

from __future__ import annotations

from pathlib import Path

TFLITE_IDENTIFIER = b"TFL3"  # bytes 4 to 8 of a TFLite flatbuffer (schema.fbs: file_identifier)


def is_tflite_file(path: Path) -> bool:
    """Whether the file is a TFLite flatbuffer; False for what cannot be read: the reader says why."""
    try:
        with path.open("rb") as stream:
            return stream.read(8)[4:] == TFLITE_IDENTIFIER
    except (OSError, ValueError):
        return False
