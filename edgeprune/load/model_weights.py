"""Files of `torch.save`: a state_dict for a factory's model, or a pickled module whose classes the user vouches for.

Both are read under weights_only=True, always: nothing is made but tensors, plain containers, and the layer classes that
the user named.
"""

from __future__ import annotations

import contextlib
import io
import pickle
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from edgeprune.errors import InputError, UntrustedInputError
from edgeprune.load.archive import read_entries
from edgeprune.load.formats import HOW_TO_SAVE
from edgeprune.load.model_factory import call_factory, import_attribute

_WRAPPERS = ("state_dict", "model_state_dict", "model")
# what data-parallel, torch.compile and Lightning put before each name
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.")
# these are in many pickled modules and harmless
_PLAIN_GLOBALS = {"builtins.set": set, "__builtin__.set": set, "builtins.slice": slice}


def read_torch_save(
    source: str, data: bytes, factory: str | None, allow_pickle: Sequence[str]
) -> tuple[str, nn.Module]:
    """('state_dict' or 'pickle', the module with its weights).

    Raises UntrustedInputError (naming the classes the file needs) for pickled objects that weren't allowed, InputError
    for weights that don't fit the factory's model and for what holds no weights.
    """
    read_entries(source, data)
    needed = _list_classes(source, data)
    if needed and not allow_pickle:
        raise _refuse_classes(source, needed)
    with _allowed(source, needed, allow_pickle):
        content = _load(source, data)
    if isinstance(content, nn.Module):
        return "pickle", content
    weights = _find_weights(source, content)
    _check_tensors(source, weights)
    if factory is None:
        raise InputError(
            f"{source} is a state_dict: weights without the model they belong to. Name the function that makes the "
            f"model with --model package.module:function, or {HOW_TO_SAVE}"
        )
    module = call_factory(factory)
    _fill(source, module, weights, factory)
    return "state_dict", module


def _load(source: str, data: bytes) -> Any:
    try:
        return torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        raise UntrustedInputError(
            f"{source} holds a pickle that does more than list weights ({_first_sentence(error)}). Refused; "
            f"{HOW_TO_SAVE}"
        ) from error
    except MemoryError as error:
        raise InputError(f"{source}: there is not enough memory to read it") from error
    except Exception as error:
        raise InputError(f"{source} is damaged ({_first_sentence(error)}); save it again") from error


def _list_classes(source: str, data: bytes) -> list[str]:
    """Names beyond plain tensors and containers that the pickle asks for, in order."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(io.BytesIO(data))
    except Exception as error:  # whatever a crafted pickle provokes in the scanner
        raise UntrustedInputError(
            f"{source} holds a pickle that can't be understood without running it ({_first_sentence(error)}). Refused; "
            f"{HOW_TO_SAVE}"
        ) from error
    return sorted(set(names) - set(_PLAIN_GLOBALS))


def _is_torch_layer(name: str) -> bool:
    return name.startswith("torch.nn.modules.")


def _refuse_classes(source: str, needed: Sequence[str]) -> UntrustedInputError:
    own = [name for name in needed if not _is_torch_layer(name)] or list(needed)
    return UntrustedInputError(
        f"{source} is a whole pickled model, which runs code of its classes when it is read; it needs "
        f"{', '.join(own)}. Refused; {HOW_TO_SAVE}; or, if you trust the file, add --allow-pickle {','.join(own)}"
    )


@contextlib.contextmanager
def _allowed(source: str, needed: Sequence[str], allow_pickle: Sequence[str]) -> Iterator[None]:
    """Let torch make the classes the user named, and PyTorch's own layers, if all of them are layers."""
    missing = [name for name in needed if name not in allow_pickle and not _is_torch_layer(name)]
    if missing:
        raise _refuse_classes(source, missing)
    classes: list[Any] = list(_PLAIN_GLOBALS.values()) if needed else []
    for name in needed:
        module_name, _, class_name = name.rpartition(".")
        if module_name == "__main__":
            raise InputError(
                f"{source} holds {class_name} of the script that saved it, which can't be imported. Move the class "
                f"into a module and save again, or {HOW_TO_SAVE}"
            )
        found = import_attribute(module_name, class_name, f"--allow-pickle {name}")
        if not (isinstance(found, type) and issubclass(found, nn.Module)):
            raise UntrustedInputError(
                f"{source} needs {name}, which is not a layer class (torch.nn.Module); only those can be allowed. "
                f"Refused; {HOW_TO_SAVE}"
            )
        classes.append(found)
    with torch.serialization.safe_globals(classes):
        yield


def _find_weights(source: str, content: Any) -> dict[str, Tensor]:
    """The state_dict itself, or the one inside of a checkpoint."""
    if isinstance(content, Mapping):
        for wrapper in _WRAPPERS:
            if isinstance(content.get(wrapper), Mapping):
                content = content[wrapper]
                break
        weights = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
        if weights:
            return weights
        keys = ", ".join(str(key) for key in list(content)[:10])
        raise InputError(
            f"{source} holds no weights: a dict of {keys or 'nothing'}. Save model.state_dict(), alone or under one of "
            f"the keys {', '.join(_WRAPPERS)}"
        )
    raise InputError(f"{source} holds a {type(content).__name__}, not a model or a state_dict; {HOW_TO_SAVE}")


def _check_tensors(source: str, weights: Mapping[str, Tensor]) -> None:
    for name, tensor in weights.items():
        if tensor.device.type != "cpu" or tensor.layout is not torch.strided:
            raise InputError(
                f"{source}: {name} is a {tensor.device.type} {tensor.layout} tensor; save plain CPU tensors"
            )
        stored = tensor.untyped_storage().nbytes()
        claimed = tensor.numel() * tensor.element_size()
        if claimed > stored:
            raise UntrustedInputError(f"{source}: {name} claims {claimed} bytes, {stored} are stored. Refused")


def _fill(source: str, module: nn.Module, weights: dict[str, Tensor], factory: str) -> None:
    """Put the weights into the module; all names and shapes must match."""
    expected = module.state_dict()
    for prefix in _PREFIXES:
        shortened = {name.removeprefix(prefix): value for name, value in weights.items()}
        if set(expected) - set(weights) and not set(expected) - set(shortened):
            weights = {name: shortened[name] for name in expected}
    missing = [name for name in expected if name not in weights]
    unknown = [name for name in weights if name not in expected]
    shapes = [
        f"{name} is {tuple(weights[name].shape)} in the file, {tuple(value.shape)} in the model"
        for name, value in expected.items()
        if name in weights and weights[name].shape != value.shape
    ]
    problems = [f"missing in the file: {_shorten(missing)}"] if missing else []
    problems += [f"unknown to the model: {_shorten(unknown)}"] if unknown else []
    problems += [_shorten(shapes)] if shapes else []
    if problems:
        raise InputError(
            f"{source} does not fit the model of {factory}: {'; '.join(problems)}. Use the matching factory"
        )
    module.load_state_dict(weights)


def _shorten(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _first_sentence(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0][:120] if lines else type(error).__name__).rstrip(". ")
