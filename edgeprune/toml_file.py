"""Reading the TOML files that people write: settings and targets."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from edgeprune.errors import InputError

_MOST_BYTES = 1024**2  # such files are a page; more is some other file


def read_toml(path: Path, kind: str) -> dict[str, Any]:
    """The tables of a TOML file; `kind` says in messages what it should be, such as 'settings file'.

    Raises InputError: missing, too large, not text, not TOML (with its line).
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(f"{path.name} is {path.stat().st_size:,} bytes; a {kind} has a page of text")
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such {kind}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path.name} is not text in UTF-8 (byte {error.start}); a TOML file is expected") from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path.name} is not valid TOML: {error}") from error
    except RecursionError as error:
        raise InputError(f"{path.name} is nested too deeply to be a {kind}") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def suggest(name: str, known: Iterable[str], otherwise: str) -> str:
    """'did you mean X?' for the nearest known name, else `otherwise`.

    >>> suggest("cortex-m5", ["cortex-m55", "host"], "see `edgeprune targets`")
    'did you mean cortex-m55?'
    """
    close = difflib.get_close_matches(name, list(known), 1)
    return f"did you mean {close[0]}?" if close else otherwise
