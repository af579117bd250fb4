"""Conversions at the edges of a TFLite file, taken off: what is left reads and writes int8.

Converters leave the model's inputs and outputs in float32 (QUANTIZE first, DEQUANTIZE last) or uint8 (QUANTIZE on both
sides) unless they are told otherwise. A microcontroller wants neither: the caller quantizes with the scale and zero
point that stand in the file, which is what those operators do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from edgeprune.lower.tflite_file import FileRecord, OperatorRecord, TensorRecord

_CONVERSIONS = ("QUANTIZE", "DEQUANTIZE")
_OUTSIDE_TYPES = ("FLOAT32", "UINT8")


def strip_edges(file: FileRecord) -> tuple[FileRecord, tuple[str, ...]]:
    """The same program between its int8 tensors, and a sentence for each conversion that was taken off.

    uint8 values are taken for int8 ones only where the two differ by 128 in their zero points and in nothing else. What
    does not fit (an input that something else reads, too) stays as it is.
    """
    inputs, outputs = list(file.inputs), list(file.outputs)
    operators = list(file.operators)
    notes = []
    for position, index in enumerate(inputs):
        readers = [operator for operator in operators if index in operator.inputs]
        if len(readers) != 1 or index in outputs:
            continue
        inner = _find_inside(readers[0], file, outer=readers[0].inputs[:1], inner=readers[0].outputs[:1])
        if inner is not None:
            operators.remove(readers[0])
            inputs[position] = inner
            notes.append(_describe("input", file.tensors[index], file.tensors[inner]))
    for position, index in enumerate(outputs):
        writers = [operator for operator in operators if index in operator.outputs]
        if len(writers) != 1 or any(index in operator.inputs for operator in operators):
            continue
        inner = _find_inside(writers[0], file, outer=writers[0].outputs[:1], inner=writers[0].inputs[:1])
        if inner is not None:
            operators.remove(writers[0])
            outputs[position] = inner
            notes.append(_describe("output", file.tensors[index], file.tensors[inner]))
    if not notes:
        return file, ()
    names: Mapping[int, str | None] = dict(enumerate(file.layer_names))
    kept = [place for place, operator in enumerate(file.operators) if any(operator is left for left in operators)]
    return replace(
        file,
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        operators=tuple(operators),
        layer_names=tuple(names[place] for place in kept) if names else (),
    ), tuple(notes)


def _find_inside(
    operator: OperatorRecord, file: FileRecord, outer: tuple[int, ...], inner: tuple[int, ...]
) -> int | None:
    """The int8 tensor on the other side of a conversion; None if the operator is none that can be taken off."""
    if operator.name not in _CONVERSIONS or len(outer) != 1 or len(inner) != 1 or -1 in (*outer, *inner):
        return None
    outside, inside = file.tensors[outer[0]], file.tensors[inner[0]]
    if outside.type_name not in _OUTSIDE_TYPES or inside.type_name != "INT8" or outside.shape != inside.shape:
        return None
    if inside.data is not None or outside.data is not None:
        return None
    if outside.type_name == "UINT8" and not _differ_by_128(outside, inside):
        return None
    return inner[0]


def _differ_by_128(outside: TensorRecord, inside: TensorRecord) -> bool:
    scales = (outside.scale, inside.scale)
    zero_points = (outside.zero_point, inside.zero_point)
    if any(len(values) != 1 for values in (*scales, *zero_points)):
        return False
    return bool(scales[0][0] == scales[1][0] and int(zero_points[0][0]) - 128 == int(zero_points[1][0]))


def _describe(edge: str, outside: TensorRecord, inside: TensorRecord) -> str:
    kind = "float32" if outside.type_name == "FLOAT32" else "uint8"
    scale = f"{inside.scale[0]:.9g}" if len(inside.scale) else "?"
    zero_point = int(inside.zero_point[0]) if len(inside.zero_point) else 0
    if kind == "uint8":
        rule = "int8 value = uint8 value - 128"
    else:
        rule = f"real value = {scale} * (int8 value - {zero_point})"
    name = outside.name or edge
    return f"the file's {edge} {name} is {kind}; the compiled program's is int8 ({rule}), without the conversion"
