"""Heat maps as small PNG files (https://www.w3.org/TR/png-3/): 8-bit palette, one byte a value."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from itertools import chain

# every eighth of matplotlib's viridis, which rises evenly in lightness and reads without colour
_VIRIDIS = ("440154", "472c7a", "3b518b", "2c718e", "21908d", "27ad81", "5cc863", "aadc32", "fde725")


def list_palette() -> list[tuple[int, int, int]]:
    """256 colours from the lowest value to the highest."""
    anchors = [tuple(bytes.fromhex(color)) for color in _VIRIDIS]
    colors = []
    for index in range(256):
        number, part = divmod(index * (len(anchors) - 1) / 255, 1)
        below = anchors[int(number)]
        above = anchors[min(int(number) + 1, len(anchors) - 1)]
        red, green, blue = (round(low + part * (high - low)) for low, high in zip(below, above, strict=True))
        colors.append((red, green, blue))
    return colors


def write_heat_map(rows: Sequence[Sequence[float]], low: float, high: float) -> bytes:
    """A PNG of one pixel a value, from `low` (darkest) to `high` (brightest). rows: from the top, equally long."""
    scale = 255 / (high - low) if high > low else 0.0
    lines = b"".join(
        b"\0" + bytes(min(255, max(0, round((value - low) * scale))) for value in row)  # 0: no filter
        for row in rows
    )
    header = struct.pack(">IIBBBBB", len(rows[0]), len(rows), 8, 3, 0, 0, 0)  # 8 bits, palette
    palette = bytes(chain.from_iterable(list_palette()))
    chunks = ((b"IHDR", header), (b"PLTE", palette), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
