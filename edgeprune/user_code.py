"""Functions that users name on the command line, as 'package.module:function'."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeprune.errors import InputError


def load_function(spec: str, option: str) -> Callable[..., Any]:
    """Import what `spec` names; modules of the current folder are found too.

    option: the option it was given with, for messages, such as "--train".

    Raises InputError if there is no such module or function, or if importing it fails.
    """
    module_name, separator, name = spec.partition(":")
    if not (separator and module_name and name):
        raise InputError(f"{option} is {spec!r}; write it as package.module:function")
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever a user's module raises while it is imported
        raise InputError(
            f"{option} {spec}: importing {module_name} failed ({type(error).__name__}: {error}). Modules are looked "
            "for in the current folder and among the installed packages"
        ) from error
    finally:
        sys.path.remove(here)
    function = getattr(module, name, None)
    if not callable(function):
        offered = ", ".join(key for key, value in vars(module).items() if callable(value) and not key.startswith("_"))
        raise InputError(f"{option} {spec}: {module_name} has no function {name}; it has: {offered or 'none'}")
    return function
