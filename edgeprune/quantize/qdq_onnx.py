"""int8 program -> QDQ ONNX: the same scales and stored weights, in the form that ONNX Runtime and other tools read.

Every activation passes QuantizeLinear and DequantizeLinear with the program's scale and zero point; between them stands
the float operator. ONNX Runtime replaces such groups by its integer kernels where it has one. Weights are int8
initializers, biases int32 initializers, each behind a DequantizeLinear. What each op becomes: `qdq_operators.py`.

Tensors are channels first inside, (batch, C, H, W); a series has H = 1, added after the input and taken off before the
output. The batch is free.

Names: the dequantized value has the tensor's own name, its stored form is "<name>/int8", the value before that
"<name>/real".

Opset 18: the lowest whose ReduceMean and Pad take axes as an input, so that the writer needs one form of each, and the
lowest that torch's exporter writes, so that the float and the int8 file ask for the same runtime. Per-channel
DequantizeLinear needs 13. IR version 8 is the one of that opset's release (ONNX 1.13).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeprune.errors import InputError
from edgeprune.graph import Graph, Op, Quant, Tensor
from edgeprune.layout import nhwc_shape
from edgeprune.quantize.qdq_operators import OPERATORS, OnnxBuilder, channels_first

OPSET = 18
IR_VERSION = 8


def write_qdq_onnx(graph: Graph, input_shape: Sequence[int]) -> onnx.ModelProto:
    """The int8 program as QDQ ONNX with float32 input and outputs in PyTorch's layout.

    input_shape: of one sample, (C,), (C, T) or (C, H, W). Input (batch, *input_shape); outputs of rank 4 come as
    (batch, C, T) for a series, (batch, C, H, W) for an image.
    Raises InputError if the program's input is not of that shape, UnsupportedModelError for ops that mix samples.
    """
    if len(graph.inputs) != 1 or graph.tensors[graph.inputs[0]].shape != nhwc_shape(input_shape):
        shapes = ", ".join(str(graph.tensors[name].shape) for name in graph.inputs)
        raise InputError(f"{graph.name}: its input is {shapes} in NHWC; a sample {tuple(input_shape)} does not fit")
    is_series = len(input_shape) == 2
    writer = _QdqWriter(graph)
    (name,) = graph.inputs
    value = writer.add_input(name, input_shape, TensorProto.FLOAT)
    if is_series:
        value = writer.builder.add("Unsqueeze", [value, writer.builder.integers([2])], f"{name}/image")
    writer.quantize(value, name, f"{name}/int8")
    writer.dequantize(name, f"{name}/dequantized")
    as_series = {
        name
        for name in graph.outputs
        if is_series and len(graph.tensors[name].shape) == 4 and graph.tensors[name].shape[1] == 1
    }
    for op in graph.ops:
        (output,) = op.outputs
        writer.quantize(writer.add_op(op), output, f"{output}/int8")
        writer.dequantize(output, f"{output}/image" if output in as_series else output)
    for name in graph.outputs:
        value, shape = writer.builder.values[name], channels_first(graph.tensors[name].shape)[1:]
        if name in as_series:
            shape = (shape[0], shape[2])
            value = writer.builder.add("Squeeze", [value, writer.builder.integers([2])], name)
        writer.add_output(value, name, shape, TensorProto.FLOAT)
    return writer.finish()


def write_qdq_op(graph: Graph) -> onnx.ModelProto:
    """A program of one op (`graph.cut_op`) as QDQ ONNX with real-valued inputs and output, to be run on its own.

    Tensors of rank 4 are (batch, C, H, W); others as they are. Values on the tensors' steps pass the edges unchanged.
    (With int8 at the edges, ONNX Runtime would not use the integer kernels that it uses inside a whole model.)
    """
    (op,) = graph.ops
    (output,) = op.outputs
    writer = _QdqWriter(graph)
    for name in graph.inputs:
        shape = channels_first(graph.tensors[name].shape)[1:]
        writer.quantize(writer.add_input(name, shape, TensorProto.FLOAT), name, f"{name}/int8")
        writer.dequantize(name, f"{name}/dequantized")
    writer.quantize(writer.add_op(op), output, f"{output}/int8")
    writer.dequantize(output, output)
    shape = channels_first(graph.tensors[output].shape)[1:]
    writer.add_output(writer.builder.values[output], output, shape, TensorProto.FLOAT)
    return writer.finish()


class _QdqWriter:
    """A model being written."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.builder = OnnxBuilder(graph)
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []

    def add_input(self, name: str, shape: Sequence[int], element_type: int) -> str:
        """Declare a model input of this shape per sample."""
        self._inputs.append(helper.make_tensor_value_info(name, element_type, ["batch", *shape]))
        return name

    def add_output(self, value: str, name: str, shape: Sequence[int], element_type: int) -> None:
        """Declare a model output that is `value`."""
        if value != name:
            self.builder.add("Identity", [value], name)
        self._outputs.append(helper.make_tensor_value_info(name, element_type, ["batch", *shape]))

    def add_op(self, op: Op) -> str:
        """Write an op with its constants; returns its real-valued output."""
        for name in op.inputs:
            tensor = self.graph.tensors[name]
            if tensor.data is not None and name not in self.builder.values:
                self.builder.values[name] = self._add_constant(op, tensor, tensor.data)
        return OPERATORS[op.kind](self.builder, op)

    def quantize(self, real: str, name: str, stored: str) -> None:
        """Round a real value to the steps of tensor `name`; a float32 tensor stays what it is."""
        quant = self.graph.tensors[name].quant
        if quant is None:
            self.builder.values[name] = real
        else:
            self.builder.stored[name] = self.builder.add(
                "QuantizeLinear", [real, *self._quant_inputs(name, quant, np.int8)], stored
            )

    def dequantize(self, name: str, value: str) -> None:
        """Make tensor `name`, if it is stored as int8, readable as the float value `value`."""
        quant = self.graph.tensors[name].quant
        if quant is not None:
            inputs = [self.builder.stored[name], *self._quant_inputs(name, quant, np.int8)]
            self.builder.values[name] = self.builder.add("DequantizeLinear", inputs, value)

    def _add_constant(self, op: Op, tensor: Tensor, data: np.ndarray) -> str:
        """A weight, bias or other constant operand, laid out as its ONNX operator takes it."""
        data = self.builder.lay_out_constant(op, tensor, data)
        if tensor.quant is None:
            return self.builder.initializer(tensor.name, data)
        stored = self.builder.initializer(f"{tensor.name}/stored", data)
        quant_inputs = self._quant_inputs(tensor.name, tensor.quant, data.dtype)
        # output channels come first in every weight and bias of ONNX
        attributes = {} if tensor.quant.axis is None else {"axis": 0}
        return self.builder.add("DequantizeLinear", [stored, *quant_inputs], tensor.name, **attributes)

    def _quant_inputs(self, name: str, quant: Quant, dtype: np.dtype | type) -> tuple[str, str]:
        scale, zero_point = quant.scale, quant.zero_point.astype(dtype)
        if quant.axis is None:  # scalars, as ONNX has it for a whole tensor
            scale, zero_point = scale.reshape(()), zero_point.reshape(())
        return (
            self.builder.initializer(f"{name}/scale", scale),
            self.builder.initializer(f"{name}/zero_point", zero_point),
        )

    def finish(self) -> onnx.ModelProto:
        """The model; same graph, same bytes."""
        body = helper.make_graph(
            self.builder.nodes,
            self.graph.name,
            self._inputs,
            self._outputs,
            [numpy_helper.from_array(data, name) for name, data in self.builder.initializers.items()],
        )
        model = helper.make_model(
            body,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="edgeprune",
        )
        onnx.checker.check_model(model)
        return model
