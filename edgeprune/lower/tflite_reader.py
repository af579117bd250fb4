"""TFLite file -> Graph: files that edgeprune wrote come back equal, those of other converters as far as `ops.py` goes.

What other converters do differently, and what becomes of it:

- Attributes in constant tensors (paddings, axes, ...) become attributes. Where one is computed at run time the file is
  refused, but for the shape of a RESHAPE: converters compute it where the batch is free; the declared shape has it.
- SLICE, SQUEEZE and EXPAND_DIMS become strided_slice and reshape, SPLIT and SPLIT_V a strided_slice per part.
- A missing bias becomes zeros.
- A FULLY_CONNECTED that keeps leading axes and a slice that drops an axis become the plain op and a reshape; one that
  works on each of several positions becomes a convolution with kernel size 1 between reshapes.
- Tensors of the same name, or of none, are told apart by a number. A layer is called after its output tensor.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from edgeprune.errors import InputError, UnsupportedModelError
from edgeprune.graph import DTYPES, Graph, GraphError, Op, Quant, Tensor, verify_graph
from edgeprune.lower.operand_rules import BIAS_DTYPES, WEIGHTED_KINDS, find_attribute_fault, find_type_fault
from edgeprune.lower.tflite_decoders import DECODERS, REFUSED, DecodedOperator, OperatorView
from edgeprune.lower.tflite_file import FileRecord, OperatorRecord, TensorRecord, parse_tflite, read_values
from edgeprune.lower.tflite_schema import TYPE_CODES, derive_layer_name
from edgeprune.ops import OPS, ShapeError

_DTYPES = {name.upper(): name for name in TYPE_CODES}
# Where weights have their output channels. With one channel the file can't tell per-channel from per-tensor scales.
_CHANNEL_AXES = {"conv_2d": 0, "depthwise_conv_2d": 3}


def read_tflite(data: bytes) -> Graph:
    """The program in a TFLite file: `is_same_graph(read_tflite(write_tflite(graph)), graph)`.

    Raises `InputError` for bytes that are no TFLite file, or a damaged one, or one that contradicts itself, and
    `UnsupportedModelError`, naming layer and operator, for what has no form in a `Graph`.
    """
    return read_records(parse_tflite(data))


def read_records(file: FileRecord) -> Graph:
    """The program in the records of a file; raises as `read_tflite`."""
    graph = _Reader(file).read()
    try:
        verify_graph(graph)
    except GraphError as error:
        raise InputError(f"the TFLite file contradicts itself: {error}; convert the model again") from error
    return graph


class _Reader:
    """The tensors and ops of one file, collected in the order of its operators."""

    def __init__(self, file: FileRecord) -> None:
        self.file = file
        self.names = _name_tensors(file.tensors)
        self.tensors: dict[str, Tensor] = {}
        self.ops: list[Op] = []

    def read(self) -> Graph:
        """The graph, not yet verified."""
        inputs, outputs = self.file.inputs, self.file.outputs
        if not inputs or not outputs or len(set(inputs)) < len(inputs):
            raise InputError("the TFLite file names no inputs or outputs, or one twice; convert the model again")
        for index in inputs:
            self._check_input(index)
        skipped = _find_shape_computations(self.file)
        for position, record in enumerate(self.file.operators):
            if position not in skipped:
                self._read_operator(position, record)
        return Graph(
            self.file.name,
            self.tensors,
            tuple(self.ops),
            tuple(self._tensor(index).name for index in inputs),
            tuple(self._tensor(index).name for index in outputs),
        )

    def _tensor(self, index: int) -> Tensor:
        """The tensor of this index, made on first use."""
        name = self.names[index]
        if name not in self.tensors:
            self.tensors[name] = _make_tensor(name, self.file.tensors[index])
        return self.tensors[name]

    def _infer_shape(self, op: Op, view: OperatorView) -> tuple[int, ...]:
        """The shape of the op's output, once all is found to fit together."""
        fault = find_type_fault(op, self.tensors)
        if fault is not None:
            raise view.unsupported(
                fault, "convert the model to float32, or to int8 throughout (full integer quantization)"
            )
        fault = find_attribute_fault(op, self.tensors)
        if fault is not None:
            raise view.contradiction(fault)
        try:
            return OPS[op.kind].infer_shape(op.attrs, [self.tensors[name].shape for name in op.inputs])
        except ShapeError as error:
            raise view.contradiction(str(error)) from error

    def _add_tensor(self, tensor: Tensor) -> str:
        """Take in a tensor that the file does not have, under a fresh name."""
        name = _make_unique(tensor.name, {*self.names, *self.tensors})
        self.tensors[name] = replace(tensor, name=name)
        return name

    def _check_input(self, index: int) -> None:
        record = self.file.tensors[index]
        if any(axis > 0 for axis in record.free_axes):
            raise UnsupportedModelError(
                f"input {self.names[index]}: its size along axis {max(record.free_axes)} is free; only the batch "
                "may be; convert the model with a fixed input shape"
            )
        if record.shape[:1] != (1,):
            raise UnsupportedModelError(
                f"input {self.names[index]}: its shape is {record.shape}; the first axis must be a batch of 1; "
                "convert the model with batch size 1"
            )

    def _read_operator(self, position: int, record: OperatorRecord) -> None:
        layer = self._layer_name(position, record)
        place = f"{layer} ({record.name})"
        if record.name not in DECODERS:
            raise _refuse_operator(place, record.name)
        view = OperatorView(place, record, self.file.tensors)
        if not record.outputs:
            raise view.contradiction("it has no outputs")
        decoded = DECODERS[record.name](view)
        parts = decoded if isinstance(decoded, tuple) else (decoded,)
        if len(record.outputs) != len(parts):
            raise view.contradiction(f"it has {len(record.outputs)} outputs, expected {len(parts)}")
        for part, index in zip(parts, record.outputs, strict=True):
            self._add_op(part, view, layer if len(parts) == 1 else derive_layer_name(self.names[index]), index)

    def _add_op(self, decoded: DecodedOperator, view: OperatorView, layer: str, index: int) -> None:
        output = self._tensor(index)
        if output.is_constant:
            raise view.contradiction(f"it writes the constant {output.name}")
        attrs = {name: decoded.attrs[name] for name in OPS[decoded.kind].attributes}
        op = Op(decoded.kind, layer, self._find_operands(decoded, view, layer), (output.name,), attrs)
        self._settle_channel_axes(op)
        shape = self._infer_shape(op, view)
        if decoded.is_reshaped and shape != output.shape:
            between = self._add_tensor(replace(output, name=f"{output.name}/{op.kind}", shape=shape))
            self.ops.append(replace(op, outputs=(between,)))
            op = Op("reshape", f"{layer}/reshape", (between,), (output.name,), {"shape": output.shape})
            shape = self._infer_shape(op, view)
        if shape != output.shape:
            raise view.contradiction(f"its output is declared {output.shape}, computed {shape}")
        self.ops.append(op)

    def _layer_name(self, position: int, record: OperatorRecord) -> str:
        name = self.file.layer_names[position] if self.file.layer_names else None
        if name is not None:
            return name
        return derive_layer_name(self.names[record.outputs[0]]) if record.outputs else f"operator {position}"

    def _find_operands(self, decoded: DecodedOperator, view: OperatorView, layer: str) -> tuple[str, ...]:
        indices = view.record.inputs
        names: list[str] = []
        for position in decoded.operands:
            if position == 2 and decoded.kind in WEIGHTED_KINDS and (view.input_count == 2 or indices[2] < 0):
                names.append(self._add_zero_bias(decoded, names, layer, view))
            else:
                view.operand(position)  # raises where it is missing
                name = self._tensor(indices[position]).name
                seen_as = decoded.seen_as.get(position)
                names.append(name if seen_as is None else self._reshape_operand(name, seen_as, layer))
        return tuple(names)

    def _reshape_operand(self, name: str, shape: tuple[int, ...], layer: str) -> str:
        """The operand in another shape with as many values: a constant of its own, or the result of a reshape."""
        tensor = self.tensors[name]
        if tensor.shape == shape:
            return name
        if tensor.data is not None:
            return self._add_tensor(replace(tensor, name=f"{name}/seen", shape=shape, data=tensor.data.reshape(shape)))
        seen = self._add_tensor(replace(tensor, name=f"{layer}/input", shape=shape))
        self.ops.append(Op("reshape", f"{layer}/input", (name,), (seen,), {"shape": shape}))
        return seen

    def _add_zero_bias(self, decoded: DecodedOperator, names: list[str], layer: str, view: OperatorView) -> str:
        source, weight = (self.tensors[name] for name in names)
        axis = _CHANNEL_AXES.get(decoded.kind, 0)
        if axis >= len(weight.shape) or source.dtype not in BIAS_DTYPES or not weight.is_constant:
            raise view.contradiction(f"weights {weight.shape} over {source.dtype} values")
        size, dtype = weight.shape[axis], BIAS_DTYPES[source.dtype]
        quant = None
        if source.quant is not None and weight.quant is not None:
            scale = source.quant.scale[0] * weight.quant.scale
            quant = Quant(scale, np.zeros(len(scale)), None if len(scale) == 1 else 0)
        return self._add_tensor(Tensor.constant(f"{layer}/bias", np.zeros(size, DTYPES[dtype]), quant))

    def _settle_channel_axes(self, op: Op) -> None:
        """Convolutions have scales per output channel, also where there is one channel."""
        if op.kind not in _CHANNEL_AXES:
            return
        for name, axis in ((op.inputs[1], _CHANNEL_AXES[op.kind]), (op.inputs[2], 0)):
            tensor = self.tensors[name]
            has_one = tensor.quant is not None and tensor.quant.axis is None and tensor.shape[axis : axis + 1] == (1,)
            if tensor.quant is not None and has_one:
                self.tensors[name] = replace(tensor, quant=replace(tensor.quant, axis=axis))


def _name_tensors(records: tuple[TensorRecord, ...]) -> list[str]:
    """A name for each tensor, all different."""
    taken: set[str] = set()
    names = []
    for index, record in enumerate(records):
        name = record.name or f"tensor_{index}"
        name = f"{name}_{index}" if name in taken else name
        name = _make_unique(name, taken)
        taken.add(name)
        names.append(name)
    return names


def _refuse_operator(place: str, operator: str) -> UnsupportedModelError:
    if operator.startswith("CUSTOM"):
        return UnsupportedModelError(
            f"{place}: a custom operator means what its own runtime says; allowed are TFLite's built-in operators; "
            "build the layer from those"
        )
    found, advice = REFUSED.get(
        operator,
        (
            "edgeprune has no form for this operator",
            "build the layer from convolutions, dense layers, pooling, activations and element-wise operators",
        ),
    )
    return UnsupportedModelError(f"{place}: {found}; {advice}")


def _make_unique(name: str, taken: Collection[str]) -> str:
    while name in taken:
        name += "_"
    return name


def _make_tensor(name: str, record: TensorRecord) -> Tensor:
    if record.type_name not in _DTYPES:
        raise UnsupportedModelError(
            f"tensor {name}: its type is {record.type_name}; supported: {', '.join(_DTYPES)}; "
            "convert the model to float32 or to int8 throughout"
        )
    if record.oddity is not None:
        raise UnsupportedModelError(f"tensor {name}: it {record.oddity}; convert the model without")
    if 0 in record.shape:
        raise InputError(f"tensor {name}: its shape {record.shape} holds no values; convert the model again")
    dtype = _DTYPES[record.type_name]
    data = None
    if record.data is not None:
        values = read_values(record)
        if values is None:
            raise InputError(
                f"tensor {name}: its {len(record.data)} bytes do not fill the shape {record.shape} of {dtype}; "
                "the TFLite file is damaged, convert the model again"
            )
        data = values.astype(DTYPES[dtype], copy=False)
    return Tensor(name, record.shape, dtype, data, None if dtype == "float32" else _make_quant(name, dtype, record))


def _make_quant(name: str, dtype: str, record: TensorRecord) -> Quant | None:
    scale, zero_point = record.scale, record.zero_point
    if not len(scale):
        return None
    if not len(zero_point):
        zero_point = np.zeros(len(scale), np.int64)
    limits = np.iinfo("int32" if dtype == "int64" else dtype)
    fault = None
    if len(scale) != len(zero_point):
        fault = f"{len(scale)} scales and {len(zero_point)} zero points"
    elif not (np.isfinite(scale).all() and (scale > 0).all()):
        fault = "a scale that is not a positive number"
    elif (zero_point < limits.min).any() or (zero_point > limits.max).any():
        fault = f"a zero point outside {dtype}"
    elif len(scale) > 1 and record.shape[record.axis : record.axis + 1] != (len(scale),):
        fault = f"{len(scale)} scales along axis {record.axis} of {record.shape}"
    elif record.axis < 0:
        fault = f"scales along axis {record.axis}"
    if fault is not None:
        raise InputError(f"tensor {name}: it has {fault}; convert the model again")
    return Quant(scale, zero_point, record.axis if len(scale) > 1 else None)


def _find_shape_computations(file: FileRecord) -> set[int]:
    """Positions of operators that only serve to compute the shape operand of RESHAPE (SHAPE, PACK, ...)."""
    skipped: set[int] = set()
    needed = set(file.outputs)
    shapes: set[int] = set()  # read as shape operands only, unless also in `needed`
    for position in reversed(range(len(file.operators))):
        record = file.operators[position]
        if record.outputs and all(index in shapes and index not in needed for index in record.outputs):
            skipped.add(position)
            shapes.update(record.inputs)
        elif record.name == "RESHAPE":
            needed.update(record.inputs[:1])
            shapes.update(record.inputs[1:])
        else:
            needed.update(record.inputs)
    return skipped
