"""What a model file is, by its content; its name may say anything."""

from __future__ import annotations

import io
import zipfile

import onnx
from google.protobuf.message import DecodeError

from edgeprune.errors import InputError, UnsupportedModelError, UntrustedInputError
from edgeprune.file_kinds import TFLITE_IDENTIFIER

HOW_TO_SAVE = "save the model with edgeprune.save_model(model, example, path) or torch.export.save(program, path)"

# Files of other tools, told by their first bytes: (offset, bytes, what it is).
_FOREIGN = (
    (4, TFLITE_IDENTIFIER, "a TensorFlow Lite file (`edgeprune compile` deploys a full-int8 one, but cannot train it)"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"\x1f\x8b", "gzip-compressed; unpack it first"),
    (0, b"GGUF", "a GGUF file"),
    (0, b"\x7fELF", "an ELF program"),
)


def detect_format(source: str, data: bytes) -> str:
    """'torch.export', 'torch.save' (a state_dict or a pickled module) or 'onnx'.

    Raises InputError for what is no model file, UnsupportedModelError for TorchScript and older formats,
    UntrustedInputError for plain pickles.
    """
    if not data:
        raise InputError(f"{source} is empty (0 bytes); {HOW_TO_SAVE}")
    if data.startswith(b"PK"):
        return _detect_archive(source, data)
    if data[0] == 0x80 and 2 <= data[1:2][0] <= 5 if len(data) > 1 else False:
        raise UntrustedInputError(
            f"{source} is a plain pickle, which can run code when it is read. Refused; {HOW_TO_SAVE}, or a state_dict "
            "with torch.save of PyTorch 1.6 or newer"
        )
    for offset, magic, description in _FOREIGN:
        if data[offset:].startswith(magic):
            raise InputError(f"{source} is {description}, not a PyTorch or ONNX model; {HOW_TO_SAVE}")
    if data[8:9] == b"{" and int.from_bytes(data[:8], "little") < len(data):
        raise InputError(
            f"{source} is a safetensors file, which edgeprune doesn't read; load it in PyTorch and {HOW_TO_SAVE}"
        )
    if _is_onnx(data):
        return "onnx"
    raise InputError(f"{source} is no PyTorch or ONNX model, or it is damaged; {HOW_TO_SAVE}")


def _detect_archive(source: str, data: bytes) -> str:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError, EOFError) as error:
        raise InputError(f"{source} is a truncated or damaged archive ({error}); copy or save it again") from error
    members = {name.partition("/")[2] for name in names}
    if "archive_format" in members or "models/model.json" in members:
        return "torch.export"
    if "constants.pkl" in members and any(name.startswith("code/") for name in members):
        raise UnsupportedModelError(
            f"{source} is a TorchScript file, whose layers can't be trained or pruned any more. Go back to the Python "
            f"model it was made from and {HOW_TO_SAVE}"
        )
    if "data.pkl" in members:
        return "torch.save"
    if "serialized_exported_program.json" in names:
        raise UnsupportedModelError(
            f"{source} was written by torch.export.save of PyTorch 2.7 or older; save it again with 2.10 or newer"
        )
    if any(name.endswith(".npy") for name in names):
        raise InputError(f"{source} is an .npz dataset, not a model; give it with --data")
    raise InputError(f"{source} is a zip archive, but no model of PyTorch; {HOW_TO_SAVE}")


def _is_onnx(data: bytes) -> bool:
    """Almost any short byte string parses as some protobuf message: a model also has a version and a graph."""
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError:
        return False
    return model.ir_version > 0 and len(model.opset_import) > 0 and len(model.graph.output) > 0
