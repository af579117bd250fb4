"""`torch.export` archives: checked, cleaned and packed again before torch sees them.

torch.export.load trusts its file. It unpickles sample inputs, weights and constants, evaluates size expressions as
Python, imports the modules that an output's description names, resolves ops by walking attributes from `torch`, and
builds Python source from the names of nodes. So here every string of the archive has a rule by the field that it
stands in (`archive_rules.py`), whatever has none is refused, and what isn't needed (guards, which are Python code;
sample inputs) is left out of the archive that torch gets.

Written against the schema of torch 2.10 to 2.13 (`torch/_export/serde/schema.py`, version 8).
"""

from __future__ import annotations

import io
import json
import math
import pickle
import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from edgeprune.errors import InputError, UnsupportedModelError, UntrustedInputError
from edgeprune.load.archive import pack_entries
from edgeprune.load.archive_expressions import is_size_symbol
from edgeprune.load.archive_rules import check_strings, check_target, refuse_string

INFO_FILE = "edgeprune.json"
_MAX_JSON_BYTES = 64 << 20
_MAX_INFO_BYTES = 1 << 20

_PROGRAM = "models/model.json"
_SAMPLES = "data/sample_inputs/model.pt"
_CONFIGS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
_MARKS = ("archive_format", "archive_version", "byteorder", "version", ".data/version")
_EXPECTED = re.compile(
    r"data/weights/weight_\d+|data/constants/tensor_\d+|\.format_version|\.storage_alignment|\.data/\w+|extra/.+|"
    + "|".join(map(re.escape, (_PROGRAM, _SAMPLES, *_CONFIGS, *_MARKS))),
    re.ASCII,
)
_PICKLES = re.compile(r"data/weights/\w+\.pt|data/constants/(\w+\.pt|custom_obj_\d+|opaque_obj_\d+)", re.ASCII)

_ELEMENT_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 2, 7: 4, 8: 8, 9: 4, 10: 8, 11: 16, 12: 1, 13: 2}  # by ScalarType


@dataclass(frozen=True)
class CheckedArchive:
    """What is safe to hand to torch.export.load.

    data: the cleaned archive.
    info: the content of our own extra file, or None.
    sample_shape: of the one sample input, without its batch axis; None where the archive has none.
    torch_version: that wrote it.
    """

    data: bytes
    info: bytes | None
    sample_shape: tuple[int, ...] | None
    torch_version: str


def check_program_archive(source: str, entries: dict[str, bytes]) -> CheckedArchive:
    """Check and clean the entries of a torch.export archive.

    Raises UntrustedInputError for whatever could run code or was crafted, UnsupportedModelError for honest archives
    that edgeprune can't take (custom ops, several programs, weights on a GPU), InputError for incomplete ones.
    """
    root, contents = _strip_root(source, entries)
    _check_names(source, contents)
    program = _check_program(source, _parse_json(source, _PROGRAM, contents[_PROGRAM]))
    clean = {_PROGRAM: _dump_json(program)}
    for config in _CONFIGS:
        folder = config.rpartition("/")[0]
        clean[config] = _dump_json(
            _check_config(source, _parse_json(source, config, contents[config]), folder, contents)
        )
        clean |= {name: content for name, content in contents.items() if re.fullmatch(rf"{folder}/\w+_\d+", name)}
    clean |= {name: contents[name] for name in _MARKS if name in contents}
    clean[_SAMPLES] = b""  # torch reads this as "none"
    shape = _read_sample_shape(source, contents[_SAMPLES]) if contents.get(_SAMPLES) else None
    info = contents.get(f"extra/{INFO_FILE}")
    if info is not None and len(info) > _MAX_INFO_BYTES:
        raise UntrustedInputError(f"{source}: {INFO_FILE} has {len(info)} bytes; at most {_MAX_INFO_BYTES} are read")
    data = pack_entries({f"{root}/{name}": content for name, content in clean.items()})
    return CheckedArchive(data, info, shape, str(program.get("torch_version", "unknown")))


def _strip_root(source: str, entries: dict[str, bytes]) -> tuple[str, dict[str, bytes]]:
    roots = {name.partition("/")[0] for name in entries}
    if len(roots) != 1:
        raise UntrustedInputError(f"{source}: the archive has entries outside of its one folder. Refused")
    return roots.pop(), {name.partition("/")[2]: content for name, content in entries.items()}


def _check_names(source: str, contents: dict[str, bytes]) -> None:
    programs = [name for name in contents if re.fullmatch(r"models/[^/]+\.json", name)]
    if len(programs) > 1 or (programs and programs[0] != _PROGRAM):
        names = ", ".join(name.removeprefix("models/").removesuffix(".json") for name in programs)
        raise UnsupportedModelError(
            f"{source} holds the programs {names!a}; save the one that is wanted with torch.export.save(program, path)"
        )
    for name in contents:
        if _PICKLES.fullmatch(name):
            raise UntrustedInputError(
                f"{source}: {name} is a pickle, which can run code when it is read (PyTorch 2.9 and older write "
                "weights so). Save the program again with PyTorch 2.10 or newer, or with edgeprune.save_model"
            )
        if not _EXPECTED.fullmatch(name):
            raise UntrustedInputError(
                f"{source}: the entry {name[:80]!a} is not part of an exported program (compiled code, or an object?). "
                "Save with torch.export.save(program, path) and nothing else"
            )
    missing = [name for name in (_PROGRAM, *_CONFIGS) if name not in contents]
    if missing:
        raise InputError(f"{source} is incomplete: {missing[0]} is missing. Save it again with torch.export.save")
    if contents.get("byteorder", b"little") != b"little":
        raise UnsupportedModelError(f"{source} was written on a big-endian machine; save it on a little-endian one")


def _parse_json(source: str, name: str, content: bytes) -> Any:
    if len(content) > _MAX_JSON_BYTES:
        raise UntrustedInputError(f"{source}: {name} has {len(content)} bytes; at most {_MAX_JSON_BYTES} are read")
    try:
        return json.loads(content)
    except RecursionError as error:
        raise UntrustedInputError(f"{source}: {name} is nested too deeply to be a program. Refused") from error
    except ValueError as error:
        raise InputError(f"{source} is damaged: {name} is not JSON ({error}); save it again") from error


def _dump_json(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


# -- the program -----------------------------------------------------------------------------------------------------


def _check_program(source: str, program: Any) -> Any:
    """The program's JSON without guards and without metadata that isn't needed."""
    try:
        graph_module = program["graph_module"]
        for node in graph_module["graph"]["nodes"]:
            check_target(source, node["target"])
            node["metadata"] = _clean_metadata(node.get("metadata", {}))
        graph_module["metadata"] = {}
        program["guards_code"] = []
        if graph_module.pop("treespec_namedtuple_fields", None):
            raise UnsupportedModelError(f"{source}: the model takes or returns a named tuple; use a tensor or a tuple")
        for symbol in program["range_constraints"]:
            if not is_size_symbol(symbol):
                raise refuse_string(source, "range_constraints", symbol)
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{source} is not a program that torch.export.save wrote ({error!r}); save it again"
        ) from error
    check_strings(source, program)
    return program


def _clean_metadata(metadata: Any) -> dict[str, str]:
    """Where a node comes from: the user's lines and modules. Control characters could end a comment line."""
    kept = {}
    for key in ("stack_trace", "nn_module_stack"):
        value = metadata.get(key)
        if isinstance(value, str):
            kept[key] = "".join(character for character in value if character.isprintable() or character == "\n")
    if kept.get("nn_module_stack", "").count(",") < 2:
        kept.pop("nn_module_stack", None)
    return kept


# -- weights, constants, sample inputs -------------------------------------------------------------------------------


def _check_config(source: str, config: Any, folder: str, contents: dict[str, bytes]) -> Any:
    """The table of stored tensors: no pickles, each within the bytes that are there."""
    check_strings(source, config)
    try:
        for name, payload in config["config"].items():
            if payload["use_pickle"] or payload["tensor_meta"] is None:
                raise UntrustedInputError(
                    f"{source}: {name} is stored as a pickle, which can run code when it is read. Refused; "
                    "save plain tensors"
                )
            record = contents.get(f"{folder}/{payload['path_name']}")
            if record is None:
                raise InputError(f"{source} is incomplete: the values of {name} are missing; save it again")
            _check_extent(source, name, payload["tensor_meta"], len(record))
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{source} is damaged: the table of its tensors has no {error}; save it again") from error
    return config


def _check_extent(source: str, name: str, meta: Any, stored_bytes: int) -> None:
    sizes, strides = ([size["as_int"] for size in meta[key]] for key in ("sizes", "strides"))
    numbers = [*sizes, *strides, meta["storage_offset"]["as_int"]]
    element_bytes = _ELEMENT_BYTES.get(meta["dtype"])
    if element_bytes is None:
        raise UnsupportedModelError(f"{source}: {name} has a type that edgeprune doesn't read; save float32 weights")
    if len(sizes) != len(strides) or not all(isinstance(number, int) and number >= 0 for number in numbers):
        raise UntrustedInputError(f"{source}: {name} has a shape that no tensor has. Refused")
    claimed = math.prod(sizes) * element_bytes
    if claimed > stored_bytes:
        raise UntrustedInputError(f"{source}: {name} claims {claimed} bytes, {stored_bytes} are stored. Refused")


def _read_sample_shape(source: str, content: bytes) -> tuple[int, ...] | None:
    """The shape of the one sample input; loaded as plain tensors only, where torch would unpickle anything."""
    try:
        samples = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        raise UntrustedInputError(
            f"{source}: its sample inputs are not plain tensors, and could run code when they are read. Refused; save "
            "the program with tensors as inputs"
        ) from error
    except (RuntimeError, ValueError, EOFError, KeyError, TypeError, AttributeError, MemoryError) as error:
        raise InputError(f"{source} is damaged: its sample inputs can't be read; save it again") from error
    if isinstance(samples, tuple) and samples and isinstance(samples[0], tuple) and len(samples[0]) == 1:
        sample = samples[0][0]
        return tuple(sample.shape[1:]) if isinstance(sample, Tensor) else None
    return None
