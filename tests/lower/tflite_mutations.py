"""Seeded damage to TFLite files: bytes flipped, cut and overwritten, and tables that say senseless things.

`mutate(data, rng)` is one damaged file and the name of what was done to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tests.lower.flatbuffer_edits import edit

Rng = np.random.Generator

SIZES = (-(2**31), -7, -1, 0, 1, 2, 3, 255, 4096, 2**20, 2**28, 2**30, 2**31 - 1)
INDICES = (-(2**31), -2, -1, 0, 1, 2, 7, 99, 2**30, 2**31 - 1)
SCALES = (float("nan"), float("inf"), -1.0, 0.0, 1e-45, 1e-38, 1e-20, 1e-6, 0.5, 1.0, 1e6, 1e30, 3e38)
ZERO_POINTS = (-(2**63), -(2**31), -129, -128, -1, 0, 3, 127, 128, 255, 2**31, 2**62)


def mutate(data: bytes, rng: Rng) -> tuple[str, bytes]:
    """One or a few changes to a file."""
    if rng.random() < 0.4:
        name = str(rng.choice(list(BYTE_MUTATIONS)))
        return name, BYTE_MUTATIONS[name](data, rng)
    names = [str(name) for name in rng.choice(list(TABLE_MUTATIONS), int(rng.integers(1, 4)))]
    names.sort(key=lambda name: name in ("drop all buffers", "change subgraphs"))  # the others need what these take

    def change(model: schema.ModelT) -> None:
        for name in names:
            TABLE_MUTATIONS[name](model, rng)

    return names[0], edit(data, change)


# -- bytes


def _truncate(data: bytes, rng: Rng) -> bytes:
    return data[: int(rng.integers(0, len(data)))]


def _flip_bits(data: bytes, rng: Rng) -> bytes:
    damaged = bytearray(data)
    for place in rng.integers(0, len(data), int(rng.integers(1, 9))):
        damaged[place] ^= 1 << int(rng.integers(8))
    return bytes(damaged)


def _overwrite_words(data: bytes, rng: Rng) -> bytes:
    damaged = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        place = 4 * int(rng.integers(0, len(data) // 4))
        word = int(rng.choice((0, 1, 4, 0xFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, int(rng.integers(0, len(data))))))
        damaged[place : place + 4] = word.to_bytes(4, "little")
    return bytes(damaged)


def _move_part(data: bytes, rng: Rng) -> bytes:
    start, end, target = sorted(int(place) for place in rng.integers(0, len(data), 3))
    return data[:start] + data[end:target] + data[start:end] + data[target:]


BYTE_MUTATIONS: Mapping[str, Callable[[bytes, Rng], bytes]] = {
    "truncated": _truncate,
    "bits flipped": _flip_bits,
    "words overwritten": _overwrite_words,
    "part moved": _move_part,
}


# -- tables


def _pick(items: Any, rng: Rng) -> Any:
    return items[int(rng.integers(len(items)))]


def _pick_buffer(model: schema.ModelT, rng: Rng) -> schema.BufferT:
    return _pick(model.buffers or [schema.BufferT()], rng)


def _tensor(model: schema.ModelT, rng: Rng) -> schema.TensorT:
    return _pick(model.subgraphs[0].tensors, rng)


def _operator(model: schema.ModelT, rng: Rng) -> schema.OperatorT:
    return _pick(model.subgraphs[0].operators, rng)


def _change_size(model: schema.ModelT, rng: Rng) -> None:
    tensor = _tensor(model, rng)
    shape = np.array(tensor.shape if tensor.shape is not None else [], np.int32)
    if shape.size:
        shape[int(rng.integers(shape.size))] = _pick(SIZES, rng)
    tensor.shape = shape


def _change_rank(model: schema.ModelT, rng: Rng) -> None:
    _tensor(model, rng).shape = np.array([_pick(SIZES, rng) for _ in range(int(rng.integers(0, 10)))], np.int32)


def _widen_all(model: schema.ModelT, rng: Rng) -> None:
    """The same factor on one axis of every activation: huge, and yet it fits together."""
    axis, factor = int(rng.integers(0, 4)), int(rng.choice((2, 64, 10_000, 2**20)))
    for tensor in model.subgraphs[0].tensors:
        if not tensor.buffer and tensor.shape is not None and len(tensor.shape) > axis:
            shape = np.array(tensor.shape, np.int64)
            shape[axis] *= factor
            tensor.shape = np.minimum(shape, 2**31 - 1).astype(np.int32)


def _free_batch(model: schema.ModelT, rng: Rng) -> None:
    batch = int(rng.choice((-1, 0, 2)))
    for tensor in model.subgraphs[0].tensors:
        if not tensor.buffer and tensor.shape is not None and len(tensor.shape):
            tensor.shape = np.array([batch, *tensor.shape[1:]], np.int32)


def _change_type(model: schema.ModelT, rng: Rng) -> None:
    _tensor(model, rng).type = int(rng.integers(0, 20))


def _change_all_types(model: schema.ModelT, rng: Rng) -> None:
    types = (schema.TensorType.INT8, _pick((0, 1, 2, 3, 7), rng))
    for tensor in model.subgraphs[0].tensors:
        tensor.type = types[1] if tensor.type == types[0] else tensor.type


def _change_buffer(model: schema.ModelT, rng: Rng) -> None:
    count = len(model.buffers or ())
    _tensor(model, rng).buffer = _pick((0, 1, 2, max(count - 1, 0), count, 2**32 - 1), rng)


def _drop_buffer(model: schema.ModelT, rng: Rng) -> None:
    _pick_buffer(model, rng).data = None


def _cut_buffer(model: schema.ModelT, rng: Rng) -> None:
    buffer = _pick_buffer(model, rng)
    if buffer.data is not None:
        buffer.data = bytes(bytearray(buffer.data)[: int(rng.integers(0, len(buffer.data) + 1))])


def _change_buffer_content(model: schema.ModelT, rng: Rng) -> None:
    buffer = _pick_buffer(model, rng)
    if buffer.data is not None:
        buffer.data = rng.integers(0, 256, len(buffer.data)).astype(np.uint8).tobytes()


def _drop_all_buffers(model: schema.ModelT, _rng: Rng) -> None:
    model.buffers = None


def _change_scale(model: schema.ModelT, rng: Rng) -> None:
    quantization = _tensor(model, rng).quantization
    if quantization is not None and quantization.scale is not None and len(quantization.scale):
        scale = np.array(quantization.scale, np.float32)
        scale[int(rng.integers(len(scale)))] = np.float32(_pick(SCALES, rng))
        quantization.scale = scale


def _change_zero_point(model: schema.ModelT, rng: Rng) -> None:
    quantization = _tensor(model, rng).quantization
    if quantization is not None and quantization.zeroPoint is not None and len(quantization.zeroPoint):
        zero_point = np.array(quantization.zeroPoint, np.int64)
        zero_point[int(rng.integers(len(zero_point)))] = _pick(ZERO_POINTS, rng)
        quantization.zeroPoint = zero_point


def _change_quantized_axis(model: schema.ModelT, rng: Rng) -> None:
    quantization = _tensor(model, rng).quantization
    if quantization is not None:
        quantization.quantizedDimension = _pick(INDICES, rng)


def _drop_quantization(model: schema.ModelT, rng: Rng) -> None:
    _tensor(model, rng).quantization = None


def _change_number_of_scales(model: schema.ModelT, rng: Rng) -> None:
    quantization = _tensor(model, rng).quantization
    if quantization is not None:
        count = int(rng.integers(0, 12))
        quantization.scale = np.full(count, 0.1, np.float32)
        quantization.zeroPoint = np.zeros(int(rng.choice((count, 1))), np.int64)


def _change_operand(model: schema.ModelT, rng: Rng) -> None:
    operator = _operator(model, rng)
    operands = np.array(operator.inputs if operator.inputs is not None else [], np.int32)
    if operands.size:
        choices = (*INDICES, len(model.subgraphs[0].tensors) - 1, len(model.subgraphs[0].tensors))
        operands[int(rng.integers(operands.size))] = _pick(choices, rng)
    operator.inputs = operands


def _change_operand_count(model: schema.ModelT, rng: Rng) -> None:
    count = len(model.subgraphs[0].tensors)
    _operator(model, rng).inputs = rng.integers(0, count, int(rng.integers(0, 15))).astype(np.int32)


def _change_result(model: schema.ModelT, rng: Rng) -> None:
    operator = _operator(model, rng)
    count = len(model.subgraphs[0].tensors)
    operator.outputs = rng.integers(0, count, int(rng.choice((0, 1, 1, 1, 2, 3)))).astype(np.int32)


def _make_cycle(model: schema.ModelT, rng: Rng) -> None:
    first, second = _operator(model, rng), _operator(model, rng)
    if second.outputs is not None and len(second.outputs) and first.inputs is not None and len(first.inputs):
        first.inputs = np.array([second.outputs[0], *first.inputs[1:]], np.int32)


def _change_order(model: schema.ModelT, rng: Rng) -> None:
    operators = model.subgraphs[0].operators
    model.subgraphs[0].operators = [operators[index] for index in rng.permutation(len(operators))]


def _repeat_operator(model: schema.ModelT, rng: Rng) -> None:
    model.subgraphs[0].operators += [_operator(model, rng)] * int(rng.choice((1, 50)))


def _change_code_index(model: schema.ModelT, rng: Rng) -> None:
    _operator(model, rng).opcodeIndex = int(rng.choice((0, 1, len(model.operatorCodes), 2**32 - 1)))


def _change_code(model: schema.ModelT, rng: Rng) -> None:
    code = _pick(model.operatorCodes, rng)
    code.builtinCode = int(rng.choice((rng.integers(0, 210), -1, 32, 2**31 - 1)))
    code.deprecatedBuiltinCode = min(max(code.builtinCode, -128), 127)


def _change_option(model: schema.ModelT, rng: Rng) -> None:
    options = _operator(model, rng).builtinOptions
    fields = [name for name, value in vars(options).items() if isinstance(value, int | float)] if options else []
    if fields:
        name = _pick(fields, rng)
        value = _pick((-(2**31), -3, -1, 0, 1, 2, 3, 7, 100, 2**16, 2**31 - 1), rng)
        is_byte = name in ("padding", "fusedActivationFunction", "weightsFormat", "quantizedBiasType")
        if isinstance(getattr(options, name), bool):
            value = bool(rng.integers(2))
        elif isinstance(getattr(options, name), float):
            value = _pick((*SCALES, -1e30), rng)
        setattr(options, name, max(-128, min(127, value)) if is_byte else value)


def _drop_options(model: schema.ModelT, rng: Rng) -> None:
    operator = _operator(model, rng)
    operator.builtinOptions, operator.builtinOptionsType = None, 0


def _change_edges(model: schema.ModelT, rng: Rng) -> None:
    count = len(model.subgraphs[0].tensors)
    edge = str(rng.choice(("inputs", "outputs")))
    value = rng.integers(-2, count + 2, int(rng.integers(0, 4))).astype(np.int32)
    setattr(model.subgraphs[0], edge, value)


def _change_oddity(model: schema.ModelT, rng: Rng) -> None:
    tensor = _tensor(model, rng)
    tensor.isVariable = bool(rng.integers(2))
    tensor.shapeSignature = np.array([_pick(SIZES, rng) for _ in range(int(rng.integers(0, 5)))], np.int32)
    tensor.hasRank = bool(rng.integers(2))


def _change_subgraphs(model: schema.ModelT, rng: Rng) -> None:
    model.subgraphs = model.subgraphs * int(rng.choice((0, 2, 3)))


def _rename(model: schema.ModelT, rng: Rng) -> None:
    _tensor(model, rng).name = _pick((None, b"", b"input", b"\xff\xfe\n\x1b[31m", b"x" * 100_000, b"../../etc"), rng)


TABLE_MUTATIONS: Mapping[str, Callable[[schema.ModelT, Rng], None]] = {
    function.__name__.strip("_").replace("_", " "): function
    for function in (
        *(_change_size, _change_rank, _widen_all, _free_batch, _change_type, _change_all_types),
        *(_change_buffer, _drop_buffer, _cut_buffer, _change_buffer_content, _drop_all_buffers),
        *(_change_scale, _change_zero_point, _change_quantized_axis, _drop_quantization, _change_number_of_scales),
        *(_change_operand, _change_operand_count, _change_result, _make_cycle, _change_order, _repeat_operator),
        *(_change_code_index, _change_code, _change_option, _drop_options, _change_edges, _change_oddity),
        *(_change_subgraphs, _rename),
    )
}
