"""TFLite file -> plain records, safely: every length and index is checked before it is used.

Nothing here knows what an operator means; `tflite_reader.py` does. The flatbuffers library checks no bounds, so that a
damaged or crafted file shows as an exception out of the depths (turned into one `InputError`), as a vector longer than
the file (checked), or as a table that thousands of entries share (the whole file may be read `READ_BUDGET` times over,
no more).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgeprune.errors import InputError, UnsupportedModelError
from edgeprune.lower.tflite_schema import FILE_IDENTIFIER, LAYER_NAMES_METADATA, SCHEMA_VERSION

READ_BUDGET = 4
MAX_ELEMENTS = 2**31 - 1  # of one tensor: TFLite counts them in int32
MAX_AXES = 8

OPERATOR_CODES: Mapping[int, str] = {
    code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)
}
TYPE_NAMES: Mapping[int, str] = {code: name for name, code in vars(schema.TensorType).items() if isinstance(code, int)}

# The types of which constants can be read, by the file's name of the type.
VALUE_DTYPES: Mapping[str, np.dtype[Any]] = {
    "FLOAT32": np.dtype("<f4"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
}

# The options table of each operator that has one and that the reader knows.
_OPTIONS: Mapping[str, str] = {
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "ADD": "AddOptions",
    "SUB": "SubOptions",
    "MUL": "MulOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "MEAN": "ReducerOptions",
    "CONCATENATION": "ConcatenationOptions",
    "LEAKY_RELU": "LeakyReluOptions",
    "SOFTMAX": "SoftmaxOptions",
    "STRIDED_SLICE": "StridedSliceOptions",
}

# What reading outside a damaged flatbuffer raises: struct (fixed fields), numpy (vectors), flatbuffers (number ranges).
_DAMAGE = (struct.error, IndexError, ValueError, TypeError, OverflowError)

Item = TypeVar("Item")


@dataclass(frozen=True, eq=False)
class TensorRecord:
    """A tensor of the file. `data` is the constant's bytes; scales and zero points are empty without quantization."""

    name: str
    shape: tuple[int, ...]
    type_name: str
    data: memoryview | None
    scale: np.ndarray
    zero_point: np.ndarray
    axis: int
    free_axes: tuple[int, ...]
    oddity: str | None


@dataclass(frozen=True, eq=False)
class OperatorRecord:
    """An operator of the file: tensors by index (-1: left out) and the unpacked options table."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Any


@dataclass(frozen=True, eq=False)
class FileRecord:
    """The one subgraph of a file. `layer_names`: one per operator (None: that of its output), or empty."""

    name: str
    tensors: tuple[TensorRecord, ...]
    operators: tuple[OperatorRecord, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    layer_names: tuple[str | None, ...]


def parse_tflite(data: bytes) -> FileRecord:
    """The records of a TFLite file.

    Raises `InputError` for bytes that are no TFLite file or a damaged one, `UnsupportedModelError` for files with more
    than one subgraph or with weights outside the flatbuffer.
    """
    if len(data) < 8 or data[4:8] != FILE_IDENTIFIER:
        raise InputError(
            f"this is no TFLite file: bytes 4 to 8 are {bytes(data[4:8])!r}, expected {FILE_IDENTIFIER!r}; "
            "give a .tflite file"
        )
    try:
        return _Parser(data).parse()
    except _DAMAGE as error:
        raise _damaged("a part of it points outside the file") from error


def _damaged(what: str) -> InputError:
    return InputError(f"the TFLite file is damaged: {what}; write it again or fetch a whole copy")


def read_values(record: TensorRecord) -> np.ndarray | None:
    """The values of a constant in its shape; None where there are none, of a known type, that fill the shape."""
    dtype = VALUE_DTYPES.get(record.type_name)
    if record.data is None or dtype is None or len(record.data) != dtype.itemsize * _multiply(record.shape):
        return None
    return np.frombuffer(record.data, dtype).reshape(record.shape)


class _Parser:
    """One pass over the bytes of a file."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.budget = READ_BUDGET * len(data) + 4096
        self.model = schema.Model.GetRootAs(data, 0)

    def parse(self) -> FileRecord:
        """The records, or one of the exceptions in _DAMAGE."""
        model = self.model
        if model.Version() != SCHEMA_VERSION:
            raise InputError(
                f"the TFLite file has schema version {model.Version()}; allowed: {SCHEMA_VERSION}; "
                "convert the model again"
            )
        if model.SubgraphsLength() != 1:
            raise UnsupportedModelError(
                f"the TFLite file holds {model.SubgraphsLength()} subgraphs; allowed: 1 (no control flow); "
                "export the model without conditions and loops"
            )
        subgraph = model.Subgraphs(0)
        buffers = self._items(model.BuffersLength(), model.Buffers, self._parse_buffer)
        codes = self._items(model.OperatorCodesLength(), model.OperatorCodes, self._parse_code)
        tensors = self._items(
            subgraph.TensorsLength(), subgraph.Tensors, lambda record: self._parse_tensor(record, buffers)
        )
        operators = self._items(
            subgraph.OperatorsLength(),
            subgraph.Operators,
            lambda record: self._parse_operator(record, codes, len(tensors)),
        )
        return FileRecord(
            self._text(subgraph.Name()) or "model",
            tensors,
            operators,
            self._indices(subgraph, "Inputs", len(tensors)),
            self._indices(subgraph, "Outputs", len(tensors)),
            self._find_layer_names(buffers, len(operators)),
        )

    def _spend(self, byte_count: int) -> None:
        self.budget -= byte_count
        if self.budget < 0:
            raise _damaged("its parts overlap")

    def _items(self, count: int, get: Callable[[int], Any], parse: Callable[[Any], Item]) -> tuple[Item, ...]:
        self._spend(4 * count)  # before the loop: a count beyond the file must not start one
        return tuple(parse(get(index)) for index in range(count))

    def _vector(self, record: Any, field: str) -> np.ndarray:
        if getattr(record, f"{field}IsNone")():
            return np.zeros(0, np.int32)
        values: np.ndarray = getattr(record, f"{field}AsNumpy")()
        self._spend(values.nbytes)
        return values

    def _text(self, raw: bytes | None) -> str:
        raw = raw or b""
        self._spend(len(raw))
        return _replace_controls(raw.decode("utf-8", errors="replace"))

    def _indices(self, record: Any, field: str, count: int, lowest: int = 0) -> tuple[int, ...]:
        indices = tuple(int(index) for index in self._vector(record, field))
        wrong = [index for index in indices if not lowest <= index < count]
        if wrong:
            raise _damaged(f"it names tensor {wrong[0]} of {count}")
        return indices

    def _parse_buffer(self, buffer: schema.Buffer) -> memoryview | None:
        if buffer.Offset() > 1 or buffer.Size() > 1:
            raise UnsupportedModelError(
                "the TFLite file keeps weights outside the flatbuffer; microcontrollers cannot read those; "
                "convert the model with its weights inside"
            )
        values = self._vector(buffer, "Data")
        return values.data if values.size else None

    def _parse_code(self, code: schema.OperatorCode) -> str:
        # files older than TensorFlow 2.4 fill only the deprecated field, newer ones the greater of the two is right
        builtin = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        name = OPERATOR_CODES.get(builtin, f"operator {builtin}")
        return f"CUSTOM {self._text(code.CustomCode())}" if name == "CUSTOM" else name

    def _parse_tensor(self, record: schema.Tensor, buffers: tuple[memoryview | None, ...]) -> TensorRecord:
        name = self._text(record.Name())
        shape = tuple(int(size) for size in self._vector(record, "Shape"))
        if not record.Buffer() and shape[:1] in ((-1,), (0,)):
            shape = (1, *shape[1:])  # a free batch, as some converters write it
        if len(shape) > MAX_AXES:
            raise _damaged(f"tensor {name} has {len(shape)} axes, at most {MAX_AXES} are allowed")
        if any(size < 0 for size in shape) or _multiply(shape) > MAX_ELEMENTS:
            raise _damaged(f"tensor {name} has the shape {shape}")
        if not 0 <= record.Buffer() < max(len(buffers), 1):
            raise _damaged(f"tensor {name} names buffer {record.Buffer()} of {len(buffers)}")
        signature = tuple(int(size) for size in self._vector(record, "ShapeSignature"))
        quantization = record.Quantization()
        oddity = None
        if record.IsVariable():
            oddity = "is a variable"
        elif record.Sparsity() is not None:
            oddity = "is sparse"
        elif quantization is not None and quantization.DetailsType() != 0:
            oddity = "has a custom quantization"
        return TensorRecord(
            name,
            shape,
            TYPE_NAMES.get(record.Type(), f"type {record.Type()}"),
            buffers[record.Buffer()] if buffers else None,
            np.zeros(0, np.float32) if quantization is None else self._vector(quantization, "Scale"),
            np.zeros(0, np.int64) if quantization is None else self._vector(quantization, "ZeroPoint"),
            0 if quantization is None else quantization.QuantizedDimension(),
            tuple(axis for axis, size in enumerate(signature) if size < 0),
            oddity,
        )

    def _parse_operator(self, record: schema.Operator, codes: tuple[str, ...], tensor_count: int) -> OperatorRecord:
        if not 0 <= record.OpcodeIndex() < len(codes):
            raise _damaged(f"an operator names code {record.OpcodeIndex()} of {len(codes)}")
        name = codes[record.OpcodeIndex()]
        return OperatorRecord(
            name,
            self._indices(record, "Inputs", tensor_count, lowest=-1),
            self._indices(record, "Outputs", tensor_count),
            self._parse_options(record, name),
        )

    def _parse_options(self, record: schema.Operator, operator: str) -> Any:
        if operator not in _OPTIONS:
            return None
        table_name = _OPTIONS[operator]
        if record.BuiltinOptionsType() == schema.BuiltinOptions.NONE or record.BuiltinOptions() is None:
            return getattr(schema, f"{table_name}T")()  # the schema's defaults
        if record.BuiltinOptionsType() != getattr(schema.BuiltinOptions, table_name):
            raise _damaged(f"a {operator} has the options of another operator")
        table = getattr(schema, table_name)()
        union = record.BuiltinOptions()
        table.Init(union.Bytes, union.Pos)
        return getattr(schema, f"{table_name}T").InitFromObj(table)

    def _find_layer_names(self, buffers: tuple[memoryview | None, ...], op_count: int) -> tuple[str | None, ...]:
        for index in range(self.model.MetadataLength()):
            entry = self.model.Metadata(index)
            if self._text(entry.Name()) == LAYER_NAMES_METADATA and entry.Buffer() < len(buffers):
                return _decode_layer_names(buffers[entry.Buffer()], op_count)
        return ()


def _decode_layer_names(data: memoryview | None, op_count: int) -> tuple[str | None, ...]:
    """The names, or () for an entry that is not what the writer writes: names are for reading, not worth a refusal."""
    try:
        names = json.loads(bytes(data or b"").decode("utf-8"))
    except (ValueError, RecursionError):
        return ()
    if isinstance(names, list) and len(names) == op_count:
        return tuple(_replace_controls(name) if isinstance(name, str) else None for name in names)
    return ()


def _replace_controls(text: str) -> str:
    """Names end up in messages and reports: no control characters of other people's making."""
    return text if text.isprintable() else "".join(char if char.isprintable() else "?" for char in text)


def _multiply(sizes: tuple[int, ...]) -> int:
    product = 1
    for size in sizes:
        product *= size
    return product
