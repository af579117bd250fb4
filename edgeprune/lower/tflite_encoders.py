"""One `Graph` op -> the options table of its TFLite operator, and the constants that hold its other attributes.

The counterpart of `tflite_decoders.py`. `ENCODERS` has a function for each op kind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgeprune.graph import Graph, Op, Tensor
from edgeprune.lower.tflite_schema import ACTIVATION_CODES, PADDING_CODES


@dataclass(frozen=True, eq=False)
class EncodedOperator:
    """What an op becomes besides its inputs: the options table and the attributes that are operands in the file."""

    options: Any = None
    operands: tuple[Tensor, ...] = ()


Encoder = Callable[[Op, Graph], EncodedOperator]


def _int32_operand(values: Any) -> Tensor:
    data = np.array(values, np.int32)
    text = "x".join(map(str, data.shape)) + "_" + "_".join(map(str, data.ravel()))
    return Tensor.constant(f"int32/{text}", data)


def _set_window(options: Any, op: Op) -> Any:
    options.padding = PADDING_CODES[op.attrs["padding"]]
    options.strideH, options.strideW = op.attrs["stride"]
    options.fusedActivationFunction = ACTIVATION_CODES[op.attrs["activation"]]
    return options


def _encode_conv(op: Op, _graph: Graph) -> EncodedOperator:
    options = _set_window(schema.Conv2DOptionsT(), op)
    options.dilationHFactor, options.dilationWFactor = op.attrs["dilation"]
    return EncodedOperator(options)


def _encode_depthwise(op: Op, _graph: Graph) -> EncodedOperator:
    options = _set_window(schema.DepthwiseConv2DOptionsT(), op)
    options.dilationHFactor, options.dilationWFactor = op.attrs["dilation"]
    options.depthMultiplier = op.attrs["depth_multiplier"]
    return EncodedOperator(options)


def _encode_pool(op: Op, _graph: Graph) -> EncodedOperator:
    options = _set_window(schema.Pool2DOptionsT(), op)
    options.filterHeight, options.filterWidth = op.attrs["kernel_size"]
    return EncodedOperator(options)


def _encode_activated(options_type: Callable[[], Any]) -> Encoder:
    """For ops whose only attribute is the fused activation."""

    def encode(op: Op, _graph: Graph) -> EncodedOperator:
        options = options_type()
        options.fusedActivationFunction = ACTIVATION_CODES[op.attrs["activation"]]
        return EncodedOperator(options)

    return encode


def _encode_plain(options_type: Callable[[], Any] | None = None) -> Encoder:
    """For ops without attributes."""

    def encode(_op: Op, _graph: Graph) -> EncodedOperator:
        return EncodedOperator(None if options_type is None else options_type())

    return encode


def _encode_mean(op: Op, _graph: Graph) -> EncodedOperator:
    options = schema.ReducerOptionsT()
    options.keepDims = bool(op.attrs["keep_dims"])
    return EncodedOperator(options, (_int32_operand(op.attrs["axes"]),))


def _encode_concat(op: Op, _graph: Graph) -> EncodedOperator:
    options = schema.ConcatenationOptionsT()
    options.axis = op.attrs["axis"]
    return EncodedOperator(options)


def _encode_pad(op: Op, graph: Graph) -> EncodedOperator:
    paddings = _int32_operand(op.attrs["paddings"])
    if op.attrs["mode"] == "zero":
        return EncodedOperator(schema.PadOptionsT(), (paddings,))
    source = graph.tensors[op.inputs[0]]
    if source.dtype == "float32":
        lowest = Tensor.constant("lowest/float32", np.array([np.finfo(np.float32).min], np.float32))
    else:
        value = np.array([np.iinfo(source.dtype).min], source.dtype)
        lowest = Tensor.constant(f"lowest/{source.name}", value, source.quant)  # PADV2 wants the input's own scale
    return EncodedOperator(schema.PadV2OptionsT(), (paddings, lowest))


def _encode_leaky_relu(op: Op, _graph: Graph) -> EncodedOperator:
    options = schema.LeakyReluOptionsT()
    options.alpha = op.attrs["alpha"]
    return EncodedOperator(options)


def _encode_softmax(op: Op, _graph: Graph) -> EncodedOperator:
    options = schema.SoftmaxOptionsT()
    options.beta = op.attrs["beta"]
    return EncodedOperator(options)


def _encode_reshape(op: Op, graph: Graph) -> EncodedOperator:
    shape = tuple(op.attrs["shape"])
    if shape[:1] == graph.tensors[op.inputs[0]].shape[:1] == (1,):
        shape = (-1, *shape[1:])
    return EncodedOperator(schema.ReshapeOptionsT(), (_int32_operand(shape),))


def _encode_transpose(op: Op, _graph: Graph) -> EncodedOperator:
    return EncodedOperator(schema.TransposeOptionsT(), (_int32_operand(op.attrs["perm"]),))


def _encode_strided_slice(op: Op, graph: Graph) -> EncodedOperator:
    begin, end, stride = (op.attrs[name] for name in ("begin", "end", "stride"))
    options = schema.StridedSliceOptionsT()
    if (begin[0], end[0], stride[0]) == (0, graph.tensors[op.inputs[0]].shape[0], 1):
        options.beginMask = options.endMask = 1  # bit 0: the whole batch axis, whatever its size
    return EncodedOperator(options, (_int32_operand(begin), _int32_operand(end), _int32_operand(stride)))


ENCODERS: Mapping[str, Encoder] = {
    "conv_2d": _encode_conv,
    "depthwise_conv_2d": _encode_depthwise,
    "fully_connected": _encode_activated(schema.FullyConnectedOptionsT),
    "add": _encode_activated(schema.AddOptionsT),
    "sub": _encode_activated(schema.SubOptionsT),
    "mul": _encode_activated(schema.MulOptionsT),
    "max_pool_2d": _encode_pool,
    "average_pool_2d": _encode_pool,
    "mean": _encode_mean,
    "concat": _encode_concat,
    "pad": _encode_pad,
    "relu": _encode_plain(),
    "relu6": _encode_plain(),
    "relu_n1_to_1": _encode_plain(),
    "leaky_relu": _encode_leaky_relu,
    "prelu": _encode_plain(),
    "logistic": _encode_plain(),
    "tanh": _encode_plain(),
    "elu": _encode_plain(),
    "hard_swish": _encode_plain(schema.HardSwishOptionsT),
    "softmax": _encode_softmax,
    "reshape": _encode_reshape,
    "transpose": _encode_transpose,
    "strided_slice": _encode_strided_slice,
    "quantize": _encode_plain(schema.QuantizeOptionsT),
    "dequantize": _encode_plain(schema.DequantizeOptionsT),
}
