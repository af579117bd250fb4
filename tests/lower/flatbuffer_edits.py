"""Changes to written TFLite files that make them look like other converters' files."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema


def unpack(data: bytes) -> schema.ModelT:
    """The file as the schema's mutable objects."""
    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))


def edit(data: bytes, change: Callable[[schema.ModelT], object]) -> bytes:
    """The file after `change`; without the layer names that only edgeprune writes."""
    model = unpack(data)
    model.metadata = None
    change(model)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def add_constant(model: schema.ModelT, name: str, values: np.ndarray) -> int:
    """A constant tensor (int32 or int64); its index."""
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(values.tobytes(), np.uint8)
    model.buffers.append(buffer)
    tensor = schema.TensorT()
    tensor.name = name
    tensor.shape = np.array(values.shape, np.int32)
    tensor.type = schema.TensorType.INT64 if values.dtype == np.int64 else schema.TensorType.INT32
    tensor.buffer = len(model.buffers) - 1
    model.subgraphs[0].tensors.append(tensor)
    return len(model.subgraphs[0].tensors) - 1


def set_operator(model: schema.ModelT, position: int, name: str) -> schema.OperatorT:
    """Turn an operator into another one, without options."""
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, name)
    code.version = 1
    model.operatorCodes.append(code)
    operator = model.subgraphs[0].operators[position]
    operator.opcodeIndex = len(model.operatorCodes) - 1
    operator.builtinOptionsType, operator.builtinOptions = 0, None
    return operator


def find_data_offsets(data: bytes) -> Iterator[tuple[int, int]]:
    """(offset in the file, length) of every buffer that holds something."""
    model = schema.Model.GetRootAs(data, 0)
    whole = np.frombuffer(data, np.uint8)
    for index in range(model.BuffersLength()):
        buffer = model.Buffers(index)
        if not buffer.DataIsNone():
            values = buffer.DataAsNumpy()
            yield values.__array_interface__["data"][0] - whole.__array_interface__["data"][0], values.size


def list_operators(data: bytes) -> list[str]:
    """Names of the file's operators, in order."""
    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
    model = unpack(data)
    return [names[model.operatorCodes[op.opcodeIndex].builtinCode] for op in model.subgraphs[0].operators]
