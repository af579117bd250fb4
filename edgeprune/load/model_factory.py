"""The user's own Python, named on the command line: factories and classes."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Iterator
from typing import Any

from torch import nn

from edgeprune.errors import InputError


def call_factory(factory: str) -> nn.Module:
    """The module that 'pkg.module:function' makes, called without arguments; the working folder is on the path.

    Raises InputError that says which part failed: the name, the import, the call, or what it returned.
    """
    module_name, colon, name = factory.partition(":")
    if not (colon and module_name and name):
        raise InputError(f"the model factory is {factory!r}; write it as package.module:function")
    function = import_attribute(module_name, name, factory)
    if not callable(function):
        raise InputError(f"{factory} is a {type(function).__name__}; it must be a function that returns the model")
    with _working_folder_on_path():
        try:
            made = function()
        except Exception as error:
            raise InputError(
                f"{factory}() failed: {type(error).__name__}: {error}. It is called without arguments and must return "
                "the model"
            ) from error
    if not isinstance(made, nn.Module):
        raise InputError(f"{factory}() returned a {type(made).__name__}; it must return a torch.nn.Module")
    return made


def import_attribute(module_name: str, name: str, what: str) -> Any:
    """Import `module_name` and take the (dotted) attribute `name`; `what` is how the user named it."""
    with _working_folder_on_path():
        try:
            found: Any = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is not None and (module_name + ".").startswith(error.name + "."):
                raise InputError(
                    f"{what}: no module {error.name!r} is found; run from the folder that holds it, or install it"
                ) from error
            raise InputError(f"{what}: importing {module_name} failed: {error}; install what it needs") from error
        except Exception as error:
            raise InputError(f"{what}: importing {module_name} failed: {type(error).__name__}: {error}") from error
    for part in name.split("."):
        if not hasattr(found, part):
            names = [other for other in vars(found) if not other.startswith("_")] if hasattr(found, "__dict__") else []
            raise InputError(f"{what}: {module_name} has no {part!r}; it has {', '.join(names[:20]) or 'nothing'}")
        found = getattr(found, part)
    return found


@contextlib.contextmanager
def _working_folder_on_path() -> Iterator[None]:
    """As under `python -m`: an installed command doesn't see the working folder by itself."""
    folder = os.getcwd()
    added = folder not in sys.path and "" not in sys.path
    if added:
        sys.path.insert(0, folder)
    try:
        yield
    finally:
        if added and folder in sys.path:
            sys.path.remove(folder)
