"""One TFLite operator -> the op kind, operands and attributes of a `Graph` op.

Each decoder reads an `OperatorView` and knows one operator's options and constant operands. `DECODERS` lists the
operators that can be read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgeprune.errors import InputError, UnsupportedModelError
from edgeprune.lower.tflite_file import OperatorRecord, TensorRecord, read_values
from edgeprune.lower.tflite_schema import ACTIVATION_CODES, PADDING_CODES

_ACTIVATIONS = {code: name for name, code in ACTIVATION_CODES.items()}
_PADDINGS = {code: name for name, code in PADDING_CODES.items()}


@dataclass(frozen=True)
class DecodedOperator:
    """An op in the making.

    operands: positions in the operator's inputs.
    is_reshaped: the operator also drops or keeps axes where the op does not; a reshape to the declared output shape
        follows.
    seen_as: the shape in which an operand goes into the op, by position, where it is not its own.
    """

    kind: str
    operands: tuple[int, ...]
    attrs: Mapping[str, Any]
    is_reshaped: bool = False
    seen_as: Mapping[int, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class OperatorView:
    """An operator with its tensors at hand. `place` is 'layer (OPERATOR)', the head of every message."""

    place: str
    record: OperatorRecord
    tensors: tuple[TensorRecord, ...]

    @property
    def options(self) -> Any:
        """The options table, an object of the schema's object API."""
        return self.record.options

    @property
    def input_count(self) -> int:
        return len(self.record.inputs)

    @property
    def output_shape(self) -> tuple[int, ...]:
        return self.tensors[self.record.outputs[0]].shape

    def operand(self, position: int) -> TensorRecord:
        """The tensor at this position of the inputs; `InputError` where it is missing."""
        if position >= self.input_count or self.record.inputs[position] < 0:
            raise self.contradiction(f"operand {position} is missing")
        return self.tensors[self.record.inputs[position]]

    def shape(self, position: int = 0) -> tuple[int, ...]:
        """The shape of an operand."""
        return self.operand(position).shape

    def constant(self, position: int) -> np.ndarray:
        """The integers of a constant operand (int32 or int64), in the shape of the operand."""
        tensor = self.operand(position)
        if tensor.data is None:
            raise self.unsupported(
                f"operand {position} is computed at run time", "export the model with fixed shapes and attributes"
            )
        values = read_values(tensor)
        if values is None or tensor.type_name not in ("INT32", "INT64"):
            raise self.contradiction(f"operand {position} is no constant of integers")
        return values

    def vector(self, position: int, length: int | None = None) -> tuple[int, ...]:
        """The integers of a constant vector operand (a scalar counts as one)."""
        values = tuple(int(value) for value in self.constant(position).ravel())
        if length is not None and len(values) != length:
            raise self.contradiction(f"operand {position} holds {len(values)} values, expected {length}")
        return values

    def resolve_axis(self, axis: int) -> int:
        """An axis of the first operand, counted from the front."""
        rank = len(self.shape())
        if not -rank <= axis < rank:
            raise self.contradiction(f"axis {axis} is not an axis of {self.shape()}")
        return axis % rank

    def activation(self) -> str:
        """The fused activation."""
        code = self.options.fusedActivationFunction
        if code not in _ACTIVATIONS:
            raise self.unsupported(
                f"the fused activation has code {code}; supported: {', '.join(ACTIVATION_CODES)}",
                "use one of these, or an activation layer of its own",
            )
        return _ACTIVATIONS[code]

    def window(self) -> dict[str, Any]:
        """Stride, padding and activation of a sliding window."""
        if self.options.padding not in _PADDINGS:
            raise self.contradiction(f"the padding has the unknown code {self.options.padding}")
        return {
            "stride": (self.options.strideH, self.options.strideW),
            "padding": _PADDINGS[self.options.padding],
            "activation": self.activation(),
        }

    def unsupported(self, found: str, advice: str) -> UnsupportedModelError:
        """The error for what a `Graph` cannot say."""
        return UnsupportedModelError(f"{self.place}: {found}; {advice}")

    def contradiction(self, found: str) -> InputError:
        """The error for a file that no converter would write."""
        return InputError(f"{self.place}: {found}; the TFLite file is damaged, convert the model again")


# an op for each output of the operator
Decoder = Callable[[OperatorView], DecodedOperator | tuple[DecodedOperator, ...]]


def _decode_conv(view: OperatorView) -> DecodedOperator:
    attrs = view.window()
    attrs["dilation"] = (view.options.dilationHFactor, view.options.dilationWFactor)
    return DecodedOperator("conv_2d", (0, 1, 2), attrs)


def _decode_depthwise(view: OperatorView) -> DecodedOperator:
    attrs = view.window()
    attrs["dilation"] = (view.options.dilationHFactor, view.options.dilationWFactor)
    source, weight = view.shape(0), view.shape(1)
    if len(source) != 4 or len(weight) != 4 or not 0 < source[3] <= weight[3]:
        raise view.contradiction(f"weights {weight} do not fit the input {source}")
    attrs["depth_multiplier"] = weight[3] // source[3]  # the option of this name is ignored by kernels, and may be 0
    return DecodedOperator("depthwise_conv_2d", (0, 1, 2), attrs)


def _decode_fully_connected(view: OperatorView) -> DecodedOperator:
    if view.options.weightsFormat != schema.FullyConnectedOptionsWeightsFormat.DEFAULT:
        raise view.unsupported("the weights are shuffled", "convert the model for portable kernels")
    source, weight = view.shape(0), view.shape(1)
    if len(weight) == 2 and source[-1:] == weight[1:] and any(size != 1 for size in source[1:-1]):
        return _decode_dense_over_positions(view, source, weight)
    return DecodedOperator("fully_connected", (0, 1, 2), {"activation": view.activation()}, is_reshaped=True)


def _decode_dense_over_positions(
    view: OperatorView, source: tuple[int, ...], weight: tuple[int, ...]
) -> DecodedOperator:
    """A dense layer over the last of several axes: a convolution with kernel size 1, which sums and rounds alike."""
    if source[0] != 1 or view.output_shape != (*source[:-1], weight[0]):
        raise view.unsupported(
            f"it works on each position of {source} and gives {view.output_shape}",
            "use a convolution with kernel size 1 for that, or keep the axes (keep_num_dims)",
        )
    positions = 1
    for size in source[1:-1]:
        positions *= size
    attrs = {"stride": (1, 1), "dilation": (1, 1), "padding": "valid", "activation": view.activation()}
    return DecodedOperator(
        "conv_2d",
        (0, 1, 2),
        attrs,
        is_reshaped=True,
        seen_as={0: (1, 1, positions, source[-1]), 1: (weight[0], 1, 1, weight[1])},
    )


def _decode_binary(kind: str) -> Decoder:
    def decode(view: OperatorView) -> DecodedOperator:
        return DecodedOperator(kind, (0, 1), {"activation": view.activation()})

    return decode


def _decode_pool(kind: str) -> Decoder:
    def decode(view: OperatorView) -> DecodedOperator:
        kernel_size = (view.options.filterHeight, view.options.filterWidth)
        return DecodedOperator(kind, (0,), {"kernel_size": kernel_size, **view.window()})

    return decode


def _decode_mean(view: OperatorView) -> DecodedOperator:
    axes = tuple(view.resolve_axis(axis) for axis in view.vector(1))
    return DecodedOperator("mean", (0,), {"axes": axes, "keep_dims": bool(view.options.keepDims)})


def _decode_concat(view: OperatorView) -> DecodedOperator:
    if view.activation() != "none":
        raise view.unsupported("it has a fused activation", "put the activation into a layer of its own")
    axis = view.resolve_axis(view.options.axis)
    return DecodedOperator("concat", tuple(range(view.input_count)), {"axis": axis})


def _decode_pad(view: OperatorView) -> DecodedOperator:
    return DecodedOperator("pad", (0,), {"paddings": _read_paddings(view), "mode": "zero"})


def _decode_pad_v2(view: OperatorView) -> DecodedOperator:
    source, constant = view.operand(0), view.operand(2)
    values = read_values(constant)
    if values is None or values.size != 1:
        raise view.unsupported("the padding value is no constant of one value", "pad with a fixed value")
    value = values.ravel()[0]
    is_float = constant.type_name == "FLOAT32"
    lowest = np.finfo(np.float32).min if is_float else np.iinfo(value.dtype).min
    zero = 0 if is_float or not len(source.zero_point) else source.zero_point[0]
    if not (value <= lowest or value == zero):  # -inf is lowest, too
        raise view.unsupported(f"it pads with the value {value}", "supported: zero, or the lowest value of the type")
    mode = "lowest" if value <= lowest else "zero"
    return DecodedOperator("pad", (0,), {"paddings": _read_paddings(view), "mode": mode})


def _read_paddings(view: OperatorView) -> tuple[tuple[int, int], ...]:
    values = view.vector(1, 2 * len(view.shape()))
    return tuple(zip(values[::2], values[1::2], strict=True))


def _decode_plain(kind: str, operand_count: int = 1) -> Decoder:
    def decode(_view: OperatorView) -> DecodedOperator:
        return DecodedOperator(kind, tuple(range(operand_count)), {})

    return decode


def _decode_leaky_relu(view: OperatorView) -> DecodedOperator:
    return DecodedOperator("leaky_relu", (0,), {"alpha": float(view.options.alpha)})


def _decode_softmax(view: OperatorView) -> DecodedOperator:
    return DecodedOperator("softmax", (0,), {"beta": float(view.options.beta)})


def _decode_reshape(view: OperatorView) -> DecodedOperator:
    return DecodedOperator("reshape", (0,), {"shape": view.output_shape})


def _decode_transpose(view: OperatorView) -> DecodedOperator:
    perm = tuple(view.resolve_axis(axis) for axis in view.vector(1, len(view.shape())))
    return DecodedOperator("transpose", (0,), {"perm": perm})


def _decode_slice(view: OperatorView) -> DecodedOperator:
    shape = view.shape()
    begin = view.vector(1, len(shape))
    sizes = view.vector(2, len(shape))  # -1: up to the end
    end = tuple(full if size == -1 else first + size for first, size, full in zip(begin, sizes, shape, strict=True))
    return DecodedOperator("strided_slice", (0,), {"begin": begin, "end": end, "stride": (1,) * len(shape)})


def _decode_strided_slice(view: OperatorView) -> DecodedOperator:
    options, shape = view.options, view.shape()
    if options.ellipsisMask or options.newAxisMask or options.offset:
        raise view.unsupported("it uses an ellipsis, a new axis or offsets", "slice each axis by begin, end and stride")
    bounds = [view.vector(position, len(shape)) for position in (1, 2, 3)]
    begin, end, stride = [], [], []
    for axis, (first, last, step) in enumerate(zip(*bounds, strict=True)):
        if step < 1:
            raise view.unsupported(f"the stride along axis {axis} is {step}", "use a positive stride")
        is_single = bool(options.shrinkAxisMask >> axis & 1)
        if is_single:
            first = first + shape[axis] if first < 0 else first
            resolved = first, first + 1, 1
        else:
            # Python resolves negative, missing and too large bounds as TensorFlow does
            wanted = slice(
                None if options.beginMask >> axis & 1 else first, None if options.endMask >> axis & 1 else last, step
            )
            resolved = wanted.indices(shape[axis])
        begin.append(resolved[0])
        end.append(resolved[1])
        stride.append(resolved[2])
    attrs = {"begin": tuple(begin), "end": tuple(end), "stride": tuple(stride)}
    return DecodedOperator("strided_slice", (0,), attrs, is_reshaped=options.shrinkAxisMask != 0)


def _decode_split(view: OperatorView) -> tuple[DecodedOperator, ...]:
    """SPLIT: (axis, value) into equal parts."""
    count = len(view.record.outputs)
    (axis,) = view.vector(0, 1)
    shape = view.shape(1)
    axis = _resolve(view, axis, shape)
    if count == 0 or shape[axis] % count:
        raise view.contradiction(f"{count} equal parts of axis {axis} of {shape}")
    return _cut(shape, axis, (shape[axis] // count,) * count, operand=1)


def _decode_split_v(view: OperatorView) -> tuple[DecodedOperator, ...]:
    """SPLIT_V: (value, sizes, axis); one size may be -1, the rest."""
    shape, count = view.shape(0), len(view.record.outputs)
    sizes = view.vector(1, count)
    axis = _resolve(view, view.vector(2, 1)[0], shape)
    rest = shape[axis] - sum(size for size in sizes if size != -1)
    sizes = tuple(rest if size == -1 else size for size in sizes)
    if not sizes or min(sizes) < 1 or sum(sizes) != shape[axis]:
        raise view.contradiction(f"parts of {sizes} along axis {axis} of {shape}")
    return _cut(shape, axis, sizes, operand=0)


def _resolve(view: OperatorView, axis: int, shape: tuple[int, ...]) -> int:
    if not -len(shape) <= axis < len(shape):
        raise view.contradiction(f"axis {axis} is not an axis of {shape}")
    return axis % len(shape)


def _cut(shape: tuple[int, ...], axis: int, sizes: tuple[int, ...], operand: int) -> tuple[DecodedOperator, ...]:
    """A slice for each part."""
    parts, start = [], 0
    for size in sizes:
        begin = tuple(start if place == axis else 0 for place in range(len(shape)))
        end = tuple(start + size if place == axis else full for place, full in enumerate(shape))
        attrs = {"begin": begin, "end": end, "stride": (1,) * len(shape)}
        parts.append(DecodedOperator("strided_slice", (operand,), attrs))
        start += size
    return tuple(parts)


DECODERS: Mapping[str, Decoder] = {
    "CONV_2D": _decode_conv,
    "DEPTHWISE_CONV_2D": _decode_depthwise,
    "FULLY_CONNECTED": _decode_fully_connected,
    "ADD": _decode_binary("add"),
    "SUB": _decode_binary("sub"),
    "MUL": _decode_binary("mul"),
    "MAX_POOL_2D": _decode_pool("max_pool_2d"),
    "AVERAGE_POOL_2D": _decode_pool("average_pool_2d"),
    "MEAN": _decode_mean,
    "CONCATENATION": _decode_concat,
    "PAD": _decode_pad,
    "PADV2": _decode_pad_v2,
    "RELU": _decode_plain("relu"),
    "RELU6": _decode_plain("relu6"),
    "RELU_N1_TO_1": _decode_plain("relu_n1_to_1"),
    "LEAKY_RELU": _decode_leaky_relu,
    "PRELU": _decode_plain("prelu", operand_count=2),
    "LOGISTIC": _decode_plain("logistic"),
    "TANH": _decode_plain("tanh"),
    "ELU": _decode_plain("elu"),
    "HARD_SWISH": _decode_plain("hard_swish"),
    "SOFTMAX": _decode_softmax,
    "RESHAPE": _decode_reshape,
    "SQUEEZE": _decode_reshape,
    "EXPAND_DIMS": _decode_reshape,
    "TRANSPOSE": _decode_transpose,
    "SLICE": _decode_slice,
    "STRIDED_SLICE": _decode_strided_slice,
    "SPLIT": _decode_split,
    "SPLIT_V": _decode_split_v,
    "QUANTIZE": _decode_plain("quantize"),
    "DEQUANTIZE": _decode_plain("dequantize"),
}

_NOT_DATA = "values that are computed from indices or shapes have no place in the firmware"
# What people meet most of what cannot be read: (why, what to do).
REFUSED: Mapping[str, tuple[str, str]] = {
    "MIRROR_PAD": ("it pads with mirrored values", "pad with zeros: padding='same', or ZeroPadding"),
    "TRANSPOSE_CONV": ("transposed convolution is not there", "use convolutions, and leave enlarging to the caller"),
    "RESIZE_NEAREST_NEIGHBOR": ("resizing is not there", "leave resizing to the caller"),
    "RESIZE_BILINEAR": ("resizing is not there", "leave resizing to the caller"),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": ("recurrent layers are not there", "use convolutions over time"),
    "LSTM": ("recurrent layers are not there", "use convolutions over time"),
    "GRU": ("recurrent layers are not there", "use convolutions over time"),
    "BATCH_MATMUL": ("products of two activations are not there", "use dense layers with trained weights"),
    "GATHER": (_NOT_DATA, "use slices with fixed bounds"),
    "ARG_MAX": ("the class is chosen by the caller", "export the model up to its scores"),
    "SPACE_TO_BATCH_ND": (
        "it prepares a dilated convolution in an old way",
        "convert with a newer TensorFlow, which writes the dilation into CONV_2D or DEPTHWISE_CONV_2D",
    ),
    "WHILE": ("loops are not there", "export the model without control flow"),
    "IF": ("conditions are not there", "export the model without control flow"),
}
