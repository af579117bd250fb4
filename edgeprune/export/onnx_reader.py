"""ONNX -> Graph: NCHW becomes NHWC, the batch becomes 1, and every node is read by one entry of `READERS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
from onnx import numpy_helper

from edgeprune.errors import InputError, UnsupportedModelError
from edgeprune.export import read_elementwise, read_layers, read_movement, read_pooling
from edgeprune.export.nodes import PRODUCER, Node, name_layer, read_node
from edgeprune.export.onnx_checks import check_onnx, find_input, find_sample_shape, fix_batch
from edgeprune.export.parity_checks import check_graph, check_step, run_random_samples
from edgeprune.export.passes import PASSES
from edgeprune.export.reader import LAYOUTS, Reader, Value
from edgeprune.graph import Graph, run_passes
from edgeprune.layout import nhwc_shape

READERS: Mapping[str, Callable[[Reader, Node], None]] = {
    "Conv": read_layers.read_conv,
    "Gemm": read_layers.read_gemm,
    "MatMul": read_layers.read_matmul,
    "BatchNormalization": read_layers.read_batchnorm,
    "MaxPool": read_pooling.read_max_pool,
    "AveragePool": read_pooling.read_average_pool,
    "GlobalAveragePool": read_pooling.read_global_pool,
    "GlobalMaxPool": read_pooling.read_global_pool,
    "ReduceMean": read_pooling.read_reduce,
    "ReduceSum": read_pooling.read_reduce,
    "ReduceMax": read_pooling.read_reduce,
    **dict.fromkeys(read_elementwise.UNARY_KINDS, read_elementwise.read_unary),
    "LeakyRelu": read_elementwise.read_leaky_relu,
    "Elu": read_elementwise.read_elu,
    "PRelu": read_elementwise.read_prelu,
    "Clip": read_elementwise.read_clip,
    "Max": read_elementwise.read_bound,
    "Min": read_elementwise.read_bound,
    "HardSigmoid": read_elementwise.read_hard_sigmoid,
    "Softmax": read_elementwise.read_softmax,
    "Add": read_elementwise.read_binary,
    "Sub": read_elementwise.read_binary,
    "Mul": read_elementwise.read_binary,
    "Div": read_elementwise.read_binary,
    "Sum": read_elementwise.read_sum,
    "Neg": read_elementwise.read_negate,
    "Identity": read_movement.read_identity,
    "Dropout": read_movement.read_identity,
    "Cast": read_movement.read_identity,
    "Reshape": read_movement.read_reshape,
    "Flatten": read_movement.read_flatten,
    "Squeeze": read_movement.read_squeeze,
    "Unsqueeze": read_movement.read_unsqueeze,
    "Transpose": read_movement.read_transpose,
    "Expand": read_movement.read_expand,
    "Slice": read_movement.read_slice,
    "Split": read_movement.read_split,
    "Gather": read_movement.read_gather,
    "Concat": read_movement.read_concat,
    "Pad": read_movement.read_pad,
}

_NO_RECURRENCE = "Recurrent layers run in the float32 ONNX file only; use convolutions for the device"
_NO_NORM = "Normalisation by the values of a sample is not supported; use BatchNorm"
_USE_RELU = "Use ReLU, ReLU6, LeakyReLU, PReLU, ELU, Sigmoid, Tanh, Hardswish or SiLU"
WAYS_OUT: Mapping[str, str] = {
    **dict.fromkeys(("LSTM", "GRU", "RNN", "Scan", "Loop"), _NO_RECURRENCE),
    **dict.fromkeys(
        ("LayerNormalization", "InstanceNormalization", "GroupNormalization", "LpNormalization", "LRN"), _NO_NORM
    ),
    **dict.fromkeys(("Selu", "Celu", "Gelu", "Erf", "Mish", "Softplus", "Softsign", "ThresholdedRelu"), _USE_RELU),
    "LogSoftmax": "End the model with logits or Softmax",
    "ConvTranspose": "Transposed convolutions are not supported",
    "Resize": "Resizing is not supported; use strides and pools",
    "If": "A compiled program has one path; take the decision out of the model",
}


def read_onnx(
    model: onnx.ModelProto, *, name: str = "model", input_shape: Sequence[int] | None = None, check: bool = True
) -> Graph:
    """Read an ONNX model as a float32 program in NHWC with a batch of 1.

    model: opset 9 to 22, one float32 input (N, C), (N, C, T) or (N, C, H, W), batch free or fixed; any outputs.
    name: of the program.
    input_shape: of one sample, where the model leaves more than the batch free.
    check: compare ONNX Runtime before and after the constants are folded, and with the program, on random samples.

    In the result the input is called 'input', the output 'output' (several: 'output_0', ...); layers have the names of
    the user's modules as far as the file tells them; BatchNorm is folded, activations are fused, padding is explicit.

    Raises InputError for a malformed model, UnsupportedModelError naming the node and the way out, ParityError if a
    step changed values.
    """
    check_onnx(model)
    sample_shape = find_sample_shape(model, input_shape)
    samples, expected = run_random_samples(model, sample_shape) if check else (np.empty(0), [])
    fixed = fix_batch(model, sample_shape)
    graph = run_passes(_read_nodes(fixed, name, sample_shape), PASSES)
    if check:
        check_step("folding constants for a batch of 1", expected, fixed, samples)
        check_graph(graph, samples, expected)
    return graph


def _read_nodes(model: onnx.ModelProto, name: str, sample_shape: tuple[int, ...]) -> Graph:
    """The program node by node, before any pass."""
    reader = Reader(name)
    reader.constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    source = find_input(model)
    shape = nhwc_shape(sample_shape)
    reader.builder.add_input("input", shape)
    reader.set_arranged(source.name, "input", LAYOUTS[len(sample_shape) + 1][0], (1, *sample_shape))
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    trusted = model.producer_name == PRODUCER
    nodes = [read_node(proto, name_layer(proto, trusted=trusted), opset) for proto in model.graph.node]
    _refuse_unknown(nodes)
    for node in nodes:
        for operand in node.inputs:
            reader.consumers.setdefault(operand, []).append(node)
    for node in nodes:
        if node.op_type == "Constant":
            reader.constants[node.outputs[0]] = _read_constant(node)
        else:
            READERS[node.op_type](reader, node)
    return reader.builder.finish(["input"], _name_outputs(reader, model))


def _refuse_unknown(nodes: Sequence[Node]) -> None:
    """Name the first node that has no reader, and the kinds of the others, before anything else is said."""
    unknown = [node for node in nodes if node.op_type not in READERS and node.op_type != "Constant"]
    if unknown:
        first = unknown[0]
        others = sorted({node.op_type for node in unknown} - {first.op_type})
        also = f" (nor are {', '.join(others)}, further on)" if others else ""
        way_out = WAYS_OUT.get(first.op_type, "Replace it in the model")
        raise first.refusal(f"the operator is not supported{also}", way_out)


def _read_constant(node: Node) -> np.ndarray:
    for attribute in ("value", "value_float", "value_floats", "value_int", "value_ints"):
        if attribute in node.attributes:
            return np.asarray(node.attributes[attribute])
    raise node.refusal("it holds no numbers", "Only numeric constants are supported")


def _name_outputs(reader: Reader, model: onnx.ModelProto) -> dict[str, str]:
    """Tensor -> its name as an output of the program, in order."""
    names: dict[str, str] = {}
    count = len(model.graph.output)
    for index, output in enumerate(model.graph.output):
        value = reader.output(output.name)
        if value is None:
            raise InputError(f"the ONNX model's output {output.name} does not depend on the input")
        tensor = _finish_output(reader, output.name, value)
        if tensor == "input" or tensor in names:  # an output needs a tensor of its own
            shape = reader.builder.shape(tensor)
            tensor = reader.builder.add_op("reshape", f"{output.name}/copy", [tensor], {"shape": shape})
        names[tensor] = "output" if count == 1 else f"output_{index}"
    return names


def _finish_output(reader: Reader, name: str, value: Value) -> str:
    """The tensor of an output: (1, C), or NHWC of a channels-first map."""
    if not value.shape or value.shape[0] != 1:
        raise UnsupportedModelError(
            f"output {name} has the shape {value.shape} for one sample; its first axis must be the batch. "
            "Reduce or reshape within a sample only"
        )
    if len(value.shape) == 1:  # one number per sample
        return reader.arrange(name, Value(value.tensor, value.view.reshaped((1, 1))), (0, 1))
    if len(value.shape) not in LAYOUTS:
        raise UnsupportedModelError(
            f"output {name} has {len(value.shape)} axes; supported are (N, C), (N, C, T) and (N, C, H, W)"
        )
    return reader.arrange(name, value, LAYOUTS[len(value.shape)][0])
