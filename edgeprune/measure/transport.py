"""How many bytes a model takes on its way to a device, compressed by a standard compressor.

The only thing that zeros among the weights save by themselves: a device that unpacks the file again holds every one of
them in flash and multiplies by it.
"""

from __future__ import annotations

import lzma
import zlib
from dataclasses import dataclass

ZLIB_LEVEL = 9
XZ_PRESET = 6 | lzma.PRESET_EXTREME  # a dictionary of 8 MB, more than any model here; 9 would take 674 MB to compress


@dataclass(frozen=True)
class Transport:
    """Bytes of a file as it is and compressed. zlib: level 9 (what HTTP and zip use); xz: LZMA2, preset 6e."""

    plain_bytes: int
    zlib_bytes: int
    xz_bytes: int

    @property
    def compressor(self) -> str:
        """The one that makes it smaller; zlib, which devices can afford, where both do alike."""
        return "zlib -9" if self.zlib_bytes <= self.xz_bytes else "xz -6e"

    @property
    def compressed_bytes(self) -> int:
        """By that compressor."""
        return min(self.zlib_bytes, self.xz_bytes)


def measure_transport(tflite: bytes) -> Transport:
    """Compress a .tflite (or any) file with zlib and xz; both undo it to the byte."""
    return Transport(
        plain_bytes=len(tflite),
        zlib_bytes=len(zlib.compress(tflite, ZLIB_LEVEL)),
        xz_bytes=len(lzma.compress(tflite, preset=XZ_PRESET, check=lzma.CHECK_CRC32)),
    )
