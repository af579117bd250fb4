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

from collections.abc import Mapping, Sequence

import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeprune.errors import InputError
from edgeprune.graph import Graph, Op
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
    (name,) = graph.inputs
    as_series = [
        output
        for output in graph.outputs
        if is_series and len(graph.tensors[output].shape) == 4 and graph.tensors[output].shape[1] == 1
    ]
    names = {name: f"{name}/dequantized", **{output: f"{output}/image" for output in as_series}}
    writer = _QdqWriter(graph, names)
    builder = writer.builder
    value = writer.add_input(name, input_shape)
    if is_series:
        value = builder.add("Unsqueeze", [value, builder.integers([2])], f"{name}/image")
    builder.quantize(value, name)
    for op in graph.ops:
        writer.add_op(op)
    for output in graph.outputs:
        value, shape = builder.value(output), channels_first(graph.tensors[output].shape)[1:]
        if output in as_series:
            shape = (shape[0], shape[2])
            value = builder.add("Squeeze", [value, builder.integers([2])], output)
        writer.add_output(value, output, shape)
    return writer.finish()


def write_qdq_op(graph: Graph) -> onnx.ModelProto:
    """A program of one op (`graph.cut_op`) as QDQ ONNX with real-valued inputs and output, to be run on its own.

    Tensors of rank 4 are (batch, C, H, W); others as they are. Values on the tensors' steps pass the edges unchanged.
    (With int8 at the edges, ONNX Runtime would not use the integer kernels that it uses inside a whole model.)
    """
    (op,) = graph.ops
    (output,) = op.outputs
    writer = _QdqWriter(graph, {name: f"{name}/dequantized" for name in graph.inputs})
    for name in graph.inputs:
        writer.builder.quantize(writer.add_input(name, channels_first(graph.tensors[name].shape)[1:]), name)
    writer.add_op(op)
    writer.add_output(writer.builder.value(output), output, channels_first(graph.tensors[output].shape)[1:])
    return writer.finish()


class _QdqWriter:
    """A model being written; its inputs and outputs are float32 with a free batch."""

    def __init__(self, graph: Graph, value_names: Mapping[str, str]) -> None:
        self.graph = graph
        self.builder = OnnxBuilder(graph, value_names)
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []

    def add_input(self, name: str, shape: Sequence[int]) -> str:
        """Declare a model input of this shape per sample."""
        self._inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape]))
        return name

    def add_output(self, value: str, name: str, shape: Sequence[int]) -> None:
        """Declare a model output that is `value`."""
        if value != name:  # only where no quantization stands between, at a dequantize op
            self.builder.add("Identity", [value], name)
        self._outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape]))

    def add_op(self, op: Op) -> None:
        """Write an op, its constants before it."""
        for name in op.inputs:
            tensor = self.graph.tensors[name]
            if tensor.data is not None:
                self.builder.add_constant(op, tensor, tensor.data)
        self.builder.quantize(OPERATORS[op.kind](self.builder, op), op.outputs[0])

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
