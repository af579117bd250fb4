"""Writing files so that nothing good is lost: whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import time
from pathlib import Path

from edgeprune.errors import InputError


def write_file_atomically(path: Path, content: bytes) -> None:
    """Put `content` at `path`, or leave what was there; raises InputError when the disk does not take it.

    The content goes to a temporary file in the same folder first, is flushed to the disk, then renamed over `path`.
    """
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o666 & ~_read_umask())  # mkstemp makes files that only their owner reads
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path}: {explain_write_error(error)} Nothing that was there has been changed.") from error
    finally:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)


def remove_leftovers(folder: Path, older_than: float = 3600.0) -> None:
    """Remove what killed writes have left in a folder: `.name.xxxx.part` files and `.part-xxxx` folders.

    older_than: seconds; younger ones may be those of another run that is at work.
    """
    for path in (*folder.glob(".*.part"), *folder.glob(".part-*")):
        try:
            if time.time() - path.stat().st_mtime < older_than:
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        except OSError:  # gone by now, or not ours
            continue


def explain_write_error(error: OSError) -> str:
    """Why a file could not be written, and what to do, in one sentence."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full. Free some space, or name another folder with --output."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "the folder is not writable. Change its permissions, or name another folder with --output."
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return "a file stands where a folder is needed. Name another folder with --output."
    return f"it could not be written ({error.strerror or error}). Name another folder with --output."


def _read_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
