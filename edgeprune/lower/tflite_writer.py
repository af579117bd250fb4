"""Graph -> TFLite file: a float32 or int8 program as the flatbuffer that LiteRT and TFLite Micro load.

The file holds nothing but the program: the same graph gives the same bytes, on any machine. Layout:

- Weights stand inside the file, 16-byte aligned. (`schema.fbs` asks for that, the Python flatbuffers library does not
  do it, and TFLite Micro reads weights in place.) Equal weights stand once, and so do equal scales and zero points.
- Attributes that TFLite keeps in tensors (paddings, axes, permutations) are int32 constants, equal ones once. They are
  not tensors of the `Graph`; the reader turns them back into attributes.
- A batch axis stays free where TFLite would fix it: RESHAPE gets -1, STRIDED_SLICE masks, so that LiteRT can resize.
- `alpha` of leaky_relu and `beta` of softmax are float32 in the file.
"""

from __future__ import annotations

import json
from dataclasses import replace

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgeprune.graph import Graph, Op, Quant, Tensor, verify_graph
from edgeprune.lower.tflite_encoders import ENCODERS
from edgeprune.lower.tflite_schema import (
    BUFFER_ALIGNMENT,
    FILE_IDENTIFIER,
    LAYER_NAMES_METADATA,
    RUNTIME_VERSION_BYTES,
    RUNTIME_VERSION_METADATA,
    SCHEMA_VERSION,
    SIGNATURE_KEY,
    TYPE_CODES,
    derive_layer_name,
    newest_runtime_version,
    operator_name,
    operator_version,
)


def write_tflite(graph: Graph) -> bytes:
    """The program as a TFLite file.

    Raises `GraphError` for a graph that breaks its own rules. Whether a runtime supports it: `constraints.py`.
    """
    verify_graph(graph)
    tables = _Tables(graph)
    operators = [_pack_operator(op, graph, tables) for op in graph.ops]
    subgraph = schema.SubGraphT()
    subgraph.name = graph.name
    subgraph.inputs = np.array([tables.tensor_index(name) for name in graph.inputs], np.int32)
    subgraph.outputs = np.array([tables.tensor_index(name) for name in graph.outputs], np.int32)
    subgraph.tensors = tables.tensors
    subgraph.operators = operators

    model = schema.ModelT()
    model.version = SCHEMA_VERSION
    model.description = "edgeprune"
    model.operatorCodes = tables.operator_codes
    model.subgraphs = [subgraph]
    model.signatureDefs = [_describe_signature(graph, tables)]
    model.metadata = _describe_metadata(graph, tables)
    model.buffers = tables.buffers
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), FILE_IDENTIFIER)
    return bytes(builder.Output())


class _AlignedBuffer(schema.BufferT):
    """A buffer of the file whose bytes start at a multiple of BUFFER_ALIGNMENT."""

    def Pack(self, builder: flatbuffers.Builder) -> int:  # noqa: N802  (the schema's own name)
        data = None
        if self.data is not None:
            # The builder writes backwards: pad now, so that the vector's first byte ends up aligned.
            builder.Prep(BUFFER_ALIGNMENT, len(self.data))
            data = builder.CreateByteVector(self.data)
        schema.BufferStart(builder)
        if data is not None:
            schema.BufferAddData(builder, data)
        return schema.BufferEnd(builder)


class _Quantization(schema.QuantizationParametersT):
    """Quantization whose vectors stand in the file once where they are equal.

    Weights have a zero point of 0 for each channel, 8 bytes each: shared, LITE's int8 file is a sixth smaller.
    """

    def __init__(self, quant: Quant, written: dict[bytes, int]) -> None:
        super().__init__()
        self.scale = quant.scale
        self.zeroPoint = quant.zero_point.astype(np.int64)
        self.quantizedDimension = quant.axis or 0
        self._written = written

    def Pack(self, builder: flatbuffers.Builder) -> int:  # noqa: N802  (the schema's own name)
        scale, zero_point = (self._share_vector(builder, values) for values in (self.scale, self.zeroPoint))
        schema.QuantizationParametersStart(builder)
        schema.QuantizationParametersAddScale(builder, scale)
        schema.QuantizationParametersAddZeroPoint(builder, zero_point)
        schema.QuantizationParametersAddQuantizedDimension(builder, self.quantizedDimension)
        return schema.QuantizationParametersEnd(builder)

    def _share_vector(self, builder: flatbuffers.Builder, values: np.ndarray) -> int:
        key = values.dtype.str.encode() + values.tobytes()
        if key not in self._written:
            self._written[key] = builder.CreateNumpyVector(values)
        return self._written[key]


class _Tables:
    """The tables of the file while it is being written: buffers, tensors, operator codes, in order of first use."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.buffers: list[_AlignedBuffer] = [_AlignedBuffer()]  # by convention buffer 0 is empty: no constant
        self.tensors: list[schema.TensorT] = []
        self.operator_codes: list[schema.OperatorCodeT] = []
        self.used_operators: list[tuple[str, int]] = []
        self._buffer_index: dict[bytes, int] = {}
        self._tensor_index: dict[str, int] = {}
        self._quant_vectors: dict[bytes, int] = {}
        self._operand_name: dict[tuple[str, tuple[int, ...], bytes, bytes], str] = {}
        for name in graph.inputs:
            self.tensor_index(name)

    def buffer_index(self, data: bytes) -> int:
        """The buffer that holds these bytes."""
        if data not in self._buffer_index:
            buffer = _AlignedBuffer()
            buffer.data = data
            self.buffers.append(buffer)
            self._buffer_index[data] = len(self.buffers) - 1
        return self._buffer_index[data]

    def tensor_index(self, name: str) -> int:
        """The index of one of the graph's tensors."""
        return self._add_tensor(self.graph.tensors[name])

    def operand_index(self, operand: Tensor) -> int:
        """The index of a constant that the graph holds as an attribute; equal ones are one tensor."""
        data = b"" if operand.data is None else _little_endian_bytes(operand.data)
        quant = b"" if operand.quant is None else operand.quant.scale.tobytes() + operand.quant.zero_point.tobytes()
        key = (operand.dtype, operand.shape, data, quant)
        if key not in self._operand_name:
            name = operand.name
            while name in self.graph.tensors or name in self._tensor_index:
                name += "_"
            self._operand_name[key] = name
        return self._add_tensor(replace(operand, name=self._operand_name[key]))

    def operator_index(self, name: str, version: int) -> int:
        """The index of an (operator, version) pair."""
        if (name, version) not in self.used_operators:
            code = schema.OperatorCodeT()
            code.builtinCode = getattr(schema.BuiltinOperator, name)
            code.deprecatedBuiltinCode = min(code.builtinCode, 127)  # what runtimes before 2.4 read
            code.version = version
            self.operator_codes.append(code)
            self.used_operators.append((name, version))
        return self.used_operators.index((name, version))

    def _add_tensor(self, tensor: Tensor) -> int:
        if tensor.name not in self._tensor_index:
            record = schema.TensorT()
            record.name = tensor.name
            record.shape = np.array(tensor.shape, np.int32)
            record.type = TYPE_CODES[tensor.dtype]
            record.buffer = 0 if tensor.data is None else self.buffer_index(_little_endian_bytes(tensor.data))
            record.hasRank = len(tensor.shape) == 0  # an empty shape means 'unknown' without it
            if tensor.quant is not None:
                record.quantization = _Quantization(tensor.quant, self._quant_vectors)
            self._tensor_index[tensor.name] = len(self.tensors)
            self.tensors.append(record)
        return self._tensor_index[tensor.name]


def _little_endian_bytes(data: np.ndarray) -> bytes:
    return data.astype(data.dtype.newbyteorder("<"), copy=False).tobytes()


def _pack_operator(op: Op, graph: Graph, tables: _Tables) -> schema.OperatorT:
    encoded = ENCODERS[op.kind](op, graph)
    record = schema.OperatorT()
    record.opcodeIndex = tables.operator_index(operator_name(op), operator_version(op, graph))
    inputs = [tables.tensor_index(name) for name in op.inputs]
    inputs += [tables.operand_index(operand) for operand in encoded.operands]
    record.inputs = np.array(inputs, np.int32)
    record.outputs = np.array([tables.tensor_index(name) for name in op.outputs], np.int32)
    if encoded.options is not None:
        # the object API names the table Conv2DOptions as the class Conv2DOptionsT
        record.builtinOptionsType = getattr(schema.BuiltinOptions, type(encoded.options).__name__.removesuffix("T"))
        record.builtinOptions = encoded.options
    return record


def _describe_signature(graph: Graph, tables: _Tables) -> schema.SignatureDefT:
    signature = schema.SignatureDefT()
    signature.signatureKey = SIGNATURE_KEY
    signature.subgraphIndex = 0
    signature.inputs = [_map_tensor(name, tables) for name in graph.inputs]
    signature.outputs = [_map_tensor(name, tables) for name in graph.outputs]
    return signature


def _map_tensor(name: str, tables: _Tables) -> schema.TensorMapT:
    entry = schema.TensorMapT()
    entry.name = name
    entry.tensorIndex = tables.tensor_index(name)
    return entry


def _describe_metadata(graph: Graph, tables: _Tables) -> list[schema.MetadataT]:
    entries = {
        RUNTIME_VERSION_METADATA: newest_runtime_version(tables.used_operators)
        .encode()
        .ljust(RUNTIME_VERSION_BYTES, b"\0")
    }
    layer_names = [0 if op.name == derive_layer_name(op.outputs[0]) else op.name for op in graph.ops]
    if any(name != 0 for name in layer_names):
        entries[LAYER_NAMES_METADATA] = json.dumps(layer_names, ensure_ascii=False, separators=(",", ":")).encode()
    records = []
    for name, data in entries.items():
        record = schema.MetadataT()
        record.name = name
        record.buffer = tables.buffer_index(data)
        records.append(record)
    return records
