"""What TFLite's file format calls things: codes of types, activations and operators, and operator versions.

Sources, TensorFlow 2.x: `schema.fbs` (codes), `lite/tools/versioning/op_version.cc` (the version of an operator by its
operands' types) and `runtime_version.cc` (the first runtime that knows a version).
"""

from __future__ import annotations

from collections.abc import Mapping

from ai_edge_litert import schema_py_generated as schema

from edgeprune.file_kinds import TFLITE_IDENTIFIER
from edgeprune.graph import Graph, Op

FILE_IDENTIFIER = TFLITE_IDENTIFIER
SCHEMA_VERSION = 3
BUFFER_ALIGNMENT = 16  # schema.fbs: `data:[ubyte] (force_align: 16)`; TFLite Micro reads weights in place
SIGNATURE_KEY = "serving_default"
RUNTIME_VERSION_METADATA = "min_runtime_version"
RUNTIME_VERSION_BYTES = 16
# Names of the user's layers: JSON list in op order, 0 where it is `derive_layer_name` of the op's output tensor.
LAYER_NAMES_METADATA = "edgeprune_layers"

TYPE_CODES: Mapping[str, int] = {
    "float32": schema.TensorType.FLOAT32,
    "int8": schema.TensorType.INT8,
    "int16": schema.TensorType.INT16,
    "int32": schema.TensorType.INT32,
    "int64": schema.TensorType.INT64,
}
ACTIVATION_CODES: Mapping[str, int] = {
    "none": schema.ActivationFunctionType.NONE,
    "relu": schema.ActivationFunctionType.RELU,
    "relu6": schema.ActivationFunctionType.RELU6,
    "relu_n1_to_1": schema.ActivationFunctionType.RELU_N1_TO_1,
}
PADDING_CODES: Mapping[str, int] = {"same": schema.Padding.SAME, "valid": schema.Padding.VALID}

# The operator of each op kind; 'pad' with the mode 'lowest' is PADV2.
OPERATOR_NAMES: Mapping[str, str] = {
    "conv_2d": "CONV_2D",
    "depthwise_conv_2d": "DEPTHWISE_CONV_2D",
    "fully_connected": "FULLY_CONNECTED",
    "add": "ADD",
    "sub": "SUB",
    "mul": "MUL",
    "max_pool_2d": "MAX_POOL_2D",
    "average_pool_2d": "AVERAGE_POOL_2D",
    "mean": "MEAN",
    "concat": "CONCATENATION",
    "pad": "PAD",
    "relu": "RELU",
    "relu6": "RELU6",
    "relu_n1_to_1": "RELU_N1_TO_1",
    "leaky_relu": "LEAKY_RELU",
    "prelu": "PRELU",
    "logistic": "LOGISTIC",
    "tanh": "TANH",
    "elu": "ELU",
    "hard_swish": "HARD_SWISH",
    "softmax": "SOFTMAX",
    "reshape": "RESHAPE",
    "transpose": "TRANSPOSE",
    "strided_slice": "STRIDED_SLICE",
    "quantize": "QUANTIZE",
    "dequantize": "DEQUANTIZE",
}

# (operator, version) -> the first runtime that runs it (runtime_version.cc), for every pair `operator_version` returns.
RUNTIME_VERSIONS: Mapping[tuple[str, int], str] = {
    ("CONV_2D", 1): "1.5.0",
    ("CONV_2D", 3): "1.14.0",
    ("CONV_2D", 6): "2.9.0",
    ("DEPTHWISE_CONV_2D", 1): "1.5.0",
    ("DEPTHWISE_CONV_2D", 2): "1.12.0",
    ("DEPTHWISE_CONV_2D", 3): "1.14.0",
    ("FULLY_CONNECTED", 1): "1.5.0",
    ("FULLY_CONNECTED", 4): "1.14.0",
    ("ADD", 1): "1.5.0",
    ("ADD", 2): "1.14.0",
    ("SUB", 1): "1.6.0",
    ("SUB", 2): "1.14.0",
    ("SUB", 3): "2.3.0",
    ("MUL", 1): "1.5.0",
    ("MUL", 2): "1.14.0",
    ("MUL", 3): "1.15.0",
    ("MAX_POOL_2D", 1): "1.5.0",
    ("MAX_POOL_2D", 2): "1.14.0",
    ("AVERAGE_POOL_2D", 1): "1.5.0",
    ("AVERAGE_POOL_2D", 2): "1.14.0",
    ("MEAN", 1): "1.6.0",
    ("MEAN", 2): "1.14.0",
    ("CONCATENATION", 1): "1.5.0",
    ("CONCATENATION", 2): "1.14.0",
    ("PAD", 1): "1.5.0",
    ("PAD", 2): "1.14.0",
    ("PAD", 4): "2.6.0",
    ("PADV2", 1): "1.9.0",
    ("PADV2", 2): "1.14.0",
    ("PADV2", 4): "2.6.0",
    ("RELU", 1): "1.5.0",
    ("RELU", 2): "2.1.0",
    ("RELU6", 1): "1.5.0",
    ("RELU6", 2): "1.14.0",
    ("RELU_N1_TO_1", 1): "1.5.0",
    ("LEAKY_RELU", 1): "1.13.1",
    ("PRELU", 1): "1.8.0",
    ("LOGISTIC", 1): "1.14.0",
    ("LOGISTIC", 2): "1.14.0",
    ("TANH", 1): "1.14.0",
    ("TANH", 2): "1.14.0",
    ("ELU", 1): "1.14.0",
    ("HARD_SWISH", 1): "1.15.0",
    ("SOFTMAX", 1): "1.5.0",
    ("SOFTMAX", 2): "1.14.0",
    ("RESHAPE", 1): "1.5.0",
    ("TRANSPOSE", 1): "1.6.0",
    ("TRANSPOSE", 2): "1.14.0",
    ("TRANSPOSE", 4): "2.3.0",
    ("TRANSPOSE", 6): "2.12.0",
    ("STRIDED_SLICE", 1): "1.6.0",
    ("STRIDED_SLICE", 2): "1.14.0",
    ("STRIDED_SLICE", 4): "2.2.0",
    ("QUANTIZE", 1): "1.14.0",
    ("DEQUANTIZE", 1): "1.13.1",
    ("DEQUANTIZE", 2): "1.14.0",
}

# Operators whose int8 kernel is part of version 1.
_ONE_VERSION = ("RELU_N1_TO_1", "LEAKY_RELU", "PRELU", "ELU", "HARD_SWISH", "RESHAPE", "QUANTIZE")


def derive_layer_name(output: str) -> str:
    """The layer name that an op has unless the file says otherwise: its output tensor's.

    TensorFlow joins the names of all fused layers with ';'; the first one stands for them.

    >>> derive_layer_name("conv2d/Relu;conv2d/BiasAdd;conv2d/Conv2D")
    'conv2d/Relu'
    """
    return output.split(";")[0]


def operator_name(op: Op) -> str:
    """The TFLite operator that an op becomes, such as 'CONV_2D'."""
    if op.kind == "pad" and op.attrs["mode"] == "lowest":
        return "PADV2"
    return OPERATOR_NAMES[op.kind]


def operator_version(op: Op, graph: Graph) -> int:
    """The operator version that op_version.cc gives for float32 and int8 operands."""
    name = operator_name(op)
    operands = [graph.tensors[tensor] for tensor in op.inputs]
    rank = max(len(tensor.shape) for tensor in operands)
    quantized = operands[0].dtype == "int8"
    if name == "CONV_2D" and operands[0].shape[3] != operands[1].shape[3]:
        return 6  # grouped
    if name in ("CONV_2D", "DEPTHWISE_CONV_2D") and quantized:
        return 3
    if name == "DEPTHWISE_CONV_2D" and op.attrs["dilation"] != (1, 1):
        return 2
    if name == "FULLY_CONNECTED" and quantized:
        return 4
    if name == "MUL" and quantized and _mul_rescale(op, graph) >= 1.0:
        return 3
    if name == "SUB" and operands[0].shape != operands[1].shape and rank > 4:
        return 3
    if name in ("PAD", "PADV2", "STRIDED_SLICE", "TRANSPOSE") and rank > 4:
        return 6 if name == "TRANSPOSE" and rank > 5 else 4
    if quantized and name not in _ONE_VERSION and name not in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
        return 2
    return 1


def _mul_rescale(op: Op, graph: Graph) -> float:
    """Product of the input scales over the output scale; from 1 on, MUL needs version 3."""
    quants = [graph.tensors[tensor].quant for tensor in (*op.inputs, *op.outputs)]
    if any(quant is None for quant in quants):
        return 0.0
    first, second, output = (float(quant.scale[0]) for quant in quants if quant is not None)
    return first * second / output


def newest_runtime_version(operators: list[tuple[str, int]]) -> str:
    """The first runtime that runs all of these (operator, version) pairs.

    >>> newest_runtime_version([("CONV_2D", 3), ("RELU", 2), ("MUL", 3)])
    '2.1.0'
    """
    versions = [RUNTIME_VERSIONS[operator] for operator in operators]
    return max(versions, key=lambda version: tuple(map(int, version.split("."))), default="1.5.0")
