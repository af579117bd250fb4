"""Zip archives as torch writes them, read with suspicion.

torch never compresses its entries, so a compressed one is either a bomb or made by something else. Everything is read
once, checked here, and handed on as bytes: whoever loads them loads exactly what was checked, however differently two
zip readers may understand a crafted file.
"""

from __future__ import annotations

import io
import re
import struct
import zipfile
from collections.abc import Mapping

from edgeprune.errors import InputError, UntrustedInputError

MAX_FILE_BYTES = 1 << 30  # no model for an edge device comes near
_MAX_ENTRIES = 100_000
_MAX_NAME_CHARACTERS = 512
_DAMAGED = (zipfile.BadZipFile, ValueError, EOFError, OSError, NotImplementedError, struct.error, OverflowError)


def read_entries(source: str, data: bytes) -> dict[str, bytes]:
    """All entries of a zip file by name.

    source: the file's name, for messages.

    Raises InputError for a damaged file, UntrustedInputError for one that torch can't have written: compressed or
    encrypted entries, names that leave the archive or stand twice, sizes beyond the file's own.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = archive.infolist()
            _check_directory(source, infos, len(data))
            return {info.filename: archive.read(info) for info in infos}
    except _DAMAGED as error:
        raise InputError(f"{source} is damaged or truncated ({error}); copy or save it again") from error


def pack_entries(entries: Mapping[str, bytes]) -> bytes:
    """A zip file of these entries, stored, in their order; equal entries give equal bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in entries.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


def _check_directory(source: str, infos: list[zipfile.ZipInfo], file_bytes: int) -> None:
    if infos and min(info.header_offset for info in infos) != 0:
        # a cut file may end within an archive that was stored inside of it
        raise InputError(f"{source} is damaged or truncated (its archive is not the whole file); copy or save it again")
    if len(infos) > _MAX_ENTRIES:
        raise UntrustedInputError(f"{source} holds {len(infos)} entries; at most {_MAX_ENTRIES} are read. Refused")
    seen: set[str] = set()
    for info in infos:
        problem = _find_entry_problem(info, seen)
        if problem is not None:
            name = ascii(info.filename[:80])
            raise UntrustedInputError(f"{source}: the entry {name} {problem}, which PyTorch never writes. Refused")
        seen.add(info.filename)
    claimed = sum(info.file_size for info in infos)
    if claimed > file_bytes:
        raise UntrustedInputError(f"{source} claims {claimed} bytes of content in a file of {file_bytes}. Refused")


def _find_entry_problem(info: zipfile.ZipInfo, seen: set[str]) -> str | None:
    name = info.orig_filename  # before zipfile cuts it at a NUL
    parts = name.split("/")
    if name in seen:
        return "stands in the archive twice"
    if len(name) > _MAX_NAME_CHARACTERS:
        return "has an overlong name"
    if name.startswith("/") or ".." in parts or "" in parts or re.search(r"[\\:\x00-\x1f\x7f]", name):
        return "has a name that leads out of the archive"
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
        return "is compressed"
    if info.flag_bits & 1:
        return "is encrypted"
    return None
