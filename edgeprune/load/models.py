"""Model files in: whatever the format, a raised program, or an ONNX file as it is."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from edgeprune.artifacts import LoadedModel, ModelInfo
from edgeprune.errors import InputError, UnsupportedModelError
from edgeprune.load.archive import MAX_FILE_BYTES, read_entries
from edgeprune.load.archive_program import CheckedArchive, check_program_archive
from edgeprune.load.formats import HOW_TO_SAVE, detect_format
from edgeprune.load.model_info import decode_info
from edgeprune.load.model_onnx import read_onnx_file
from edgeprune.load.model_weights import read_torch_save
from edgeprune.load.raising import raise_module, raise_program
from edgeprune.load.raising_batch import read_constant_size
from edgeprune.load.tracing import silence_torch


def load_model(
    path: str | Path,
    *,
    factory: str | None = None,
    allow_pickle: Sequence[str] = (),
    input_shape: tuple[int, ...] | None = None,
) -> LoadedModel:
    """Read a model file; the format is told by its content.

    factory: 'package.module:function' that makes the model a state_dict belongs to.
    allow_pickle: classes ('package.module.Class') that a whole pickled model may be made of; all must be layers.
    input_shape: of one sample, (C, T) or (C, H, W); needed for a state_dict and a pickled model, else checked.

    Raises InputError, UntrustedInputError or UnsupportedModelError; each says what to do.
    """
    path = Path(path)
    data = read_model_file(path)
    source = path.name
    kind = detect_format(source, data)
    sha256 = hashlib.sha256(data).hexdigest()
    if kind == "onnx":
        shape = read_onnx_file(source, data, input_shape)
        return LoadedModel(path.stem, kind, sha256, shape, None, data, ModelInfo())
    if kind == "torch.export":
        module, shape, info = _load_archive(source, data, input_shape)
    else:
        kind, network = read_torch_save(source, data, factory, allow_pickle)
        module, shape = _raise_network(source, network, input_shape)
        info = ModelInfo()
    notes = tuple(module.meta["raise_notes"])
    return LoadedModel(path.stem, kind, sha256, shape, module, None, info, notes)


def read_model_file(path: Path) -> bytes:
    """A model file's content; raises InputError where it cannot be read or is beyond all measure."""
    try:
        if path.is_dir():
            raise InputError(f"{path} is a folder; give the model's file")
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise InputError(f"{path.name} has {size} bytes; models of at most {MAX_FILE_BYTES} bytes are read")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; check the path of the model") from error
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror or error}); check its permissions") from error
    except ValueError as error:  # a NUL in the path
        raise InputError(f"{str(path)!a} is not a path ({error})") from error


def _load_archive(
    source: str, data: bytes, input_shape: tuple[int, ...] | None
) -> tuple[fx.GraphModule, tuple[int, ...], ModelInfo]:
    archive = check_program_archive(source, read_entries(source, data))
    content = decode_info(source, archive.info)
    program = _load_program(source, archive)
    _check_finite(source, {**program.state_dict, **program.constants})
    module = _raise_in_file(source, program)
    shape = _find_input_shape(source, module, archive, input_shape)
    parameters = dict(module.named_parameters())
    for name in content.frozen:  # some versions of torch.export.save forget requires_grad
        if name in parameters:
            parameters[name].requires_grad_(False)
    return module, shape, content.info


def _load_program(source: str, archive: CheckedArchive) -> ExportedProgram:
    try:
        with silence_torch():
            return torch.export.load(io.BytesIO(archive.data))
    except MemoryError as error:
        raise InputError(f"{source}: there is not enough memory to read it") from error
    except Exception as error:
        raise UnsupportedModelError(
            f"{source} can't be read: it was written by PyTorch {archive.torch_version}, installed is "
            f"{torch.__version__}. Save it again with this version, or check that the file is whole"
        ) from error


def _raise_in_file(source: str, program: ExportedProgram) -> fx.GraphModule:
    try:
        return raise_program(program)
    except UnsupportedModelError as error:
        raise UnsupportedModelError(f"{source}: {error}") from error
    except Exception as error:  # a file may hold any program that passed the check, sense or nonsense
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
        raise UnsupportedModelError(
            f"{source} holds a program that does not run or is not understood ({reason}). Save it again with "
            "torch.export.save; if it was saved so, edgeprune is at fault: please report it"
        ) from error


def _find_input_shape(
    source: str, module: fx.GraphModule, archive: CheckedArchive, wanted: tuple[int, ...] | None
) -> tuple[int, ...]:
    """The program's own sample shape; sizes it leaves free come from the data, or the sample it was saved with."""
    value = next(node for node in module.graph.nodes if node.op == "placeholder").meta["val"]
    if value.dtype != torch.float32:
        raise UnsupportedModelError(f"{source} takes {value.dtype}; convert it with model.float() and save it again")
    sizes = [read_constant_size(size) for size in value.shape[1:]]
    free = wanted or archive.sample_shape or ()
    if len(free) != len(sizes) and (wanted is not None or None in sizes):
        raise InputError(f"{source} takes samples of {len(sizes)} axes, the data has {len(free)} ({tuple(free)})")
    shape = tuple(free[index] if size is None else size for index, size in enumerate(sizes))
    if wanted is not None and shape != tuple(wanted):
        raise InputError(
            f"{source} takes samples of shape {shape}, the data has {tuple(wanted)}; give the data it was trained on"
        )
    return shape


def _raise_network(
    source: str, network: nn.Module, input_shape: tuple[int, ...] | None
) -> tuple[fx.GraphModule, tuple[int, ...]]:
    """A module of the user's classes, exported and raised."""
    _check_finite(source, network.state_dict())
    if input_shape is None:
        raise InputError(f"{source} doesn't say what its input looks like; give the data with --data, or {HOW_TO_SAVE}")
    wide = next((name for name, value in network.named_parameters() if value.dtype != torch.float32), None)
    if wide is not None:
        raise UnsupportedModelError(f"{source}: {wide} is not float32; convert the model with model.float() first")
    return raise_module(network, torch.zeros(2, *input_shape)), tuple(input_shape)


def _check_finite(source: str, tensors: dict[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if isinstance(tensor, Tensor) and tensor.is_floating_point() and not torch.isfinite(tensor).all():
            count = int((~torch.isfinite(tensor)).sum())
            raise InputError(
                f"{source}: {name} holds NaN or infinite values ({count} of {tensor.numel()}); the training diverged, "
                "train the model again"
            )
