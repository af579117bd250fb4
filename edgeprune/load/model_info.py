"""`ModelInfo` as JSON: the extra file that `save_model` puts into an archive."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgeprune.artifacts import ModelInfo, Normalization
from edgeprune.errors import InputError

_VERSION = 1
_MAX_CLASSES = 100_000
_MAX_TEXT = 1000


@dataclass(frozen=True)
class InfoFile:
    """The content of the extra file: the model's description, and the names of its frozen parameters."""

    info: ModelInfo
    frozen: tuple[str, ...] = ()


def encode_info(content: InfoFile) -> str:
    """JSON, equal for equal content.

    Raises InputError for architecture options that JSON can't hold.
    """
    info = content.info
    normalization = info.normalization
    document = {
        "version": _VERSION,
        "normalization": None
        if normalization is None
        else {"kind": normalization.kind, "mean": normalization.mean, "std": normalization.std},
        "class_names": info.class_names,
        "architecture": info.architecture,
        "architecture_options": dict(info.architecture_options),
        "frozen": content.frozen,
    }
    try:
        return json.dumps(document, allow_nan=False, sort_keys=True, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"normalization or architecture_options can't be written as JSON: {error}") from error


def decode_info(source: str, text: bytes | None) -> InfoFile:
    """Read what `encode_info` wrote; nothing there is no fault, nor are fields that are missing or unknown.

    Raises InputError for malformed content.
    """
    if text is None:
        return InfoFile(ModelInfo())
    try:
        document = json.loads(text)
        if not isinstance(document, dict):
            raise TypeError("it is not an object")
        version = document.get("version", _VERSION)
        if version != _VERSION:
            raise TypeError(f"its version is {version!r:.40}, known is {_VERSION}")
        options = _expect(document.get("architecture_options", {}), Mapping, "architecture_options")
        architecture = document.get("architecture")
        info = ModelInfo(
            normalization=_decode_normalization(document.get("normalization")),
            class_names=_decode_texts(document.get("class_names", []), "class_names"),
            architecture=None if architecture is None else _decode_texts([architecture], "architecture")[0],
            architecture_options=dict(options),
        )
        return InfoFile(info, _decode_texts(document.get("frozen", []), "frozen"))
    except (ValueError, TypeError, RecursionError, InputError) as error:
        raise InputError(
            f"{source}: edgeprune.json inside of it is malformed ({error}); save it again with edgeprune.save_model"
        ) from error


def _decode_normalization(document: Any) -> Normalization | None:
    if document is None:
        return None
    fields = _expect(document, Mapping, "normalization")
    mean, std = (
        tuple(float(_expect(value, (int, float), key)) for value in _expect(fields.get(key, []), list, key))
        for key in ("mean", "std")
    )
    if len(mean) != len(std) or not all(value > 0 for value in std):
        raise TypeError("normalization has unequal or non-positive mean and std")
    return Normalization(_decode_texts([fields.get("kind")], "kind")[0], mean, std)


def _decode_texts(values: Any, field: str) -> tuple[str, ...]:
    _expect(values, list, field)
    if len(values) > _MAX_CLASSES or not all(isinstance(value, str) and len(value) <= _MAX_TEXT for value in values):
        raise TypeError(f"{field} must hold texts of at most {_MAX_TEXT} characters")
    return tuple(values)


def _expect(value: Any, kind: Any, field: str) -> Any:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"{field} is {type(value).__name__}")
    return value
