"""Every kind of operation of the program in one table: attributes, operands, shape rule, MACs.

The kinds and their meaning are those of TFLite's built-in operators of the same name (TensorFlow, `schema.fbs`).
Shapes are NHWC. A multiply-accumulate (MAC) is counted for each weight used at each output position of convolution and
fully connected layers; other ops count 0 MACs. FLOPs are 2 x MACs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

AttributeValue = Any  # int, float, bool, str or a (nested) tuple of them: whatever compares with == and hashes
Shape = tuple[int, ...]
Attributes = Mapping[str, AttributeValue]

ACTIVATIONS = ("none", "relu", "relu6", "relu_n1_to_1")
PADDINGS = ("same", "valid")


@dataclass(frozen=True)
class OpKind:
    """What is to be known of one kind of op without knowing its arithmetic.

    operands: names of the inputs in order; a trailing '*' stands for any number (concat).
    attributes: names that `Op.attrs` holds, all of them, always.
    infer_shape: (attrs, input shapes) -> the output's shape.
    count_macs: (attrs, input shapes, output shape) -> multiply-accumulates of one sample.
    """

    operands: tuple[str, ...]
    attributes: tuple[str, ...]
    infer_shape: Callable[[Attributes, Sequence[Shape]], Shape]
    count_macs: Callable[[Attributes, Sequence[Shape], Shape], int]


def same_padding(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """Zeros before and after one axis under TFLite's 'same' padding; the odd one goes after.

    >>> same_padding(24, 40, 1, 1)
    (19, 20)
    """
    total = max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2


def window_output_size(size: int, kernel: int, stride: int, dilation: int, padding: str) -> int:
    """Output positions of a sliding window along one axis."""
    if padding == "same":
        return -(-size // stride)
    return (size - (kernel - 1) * dilation - 1) // stride + 1


def _window_shape(attrs: Attributes, shape: Shape, kernel: Sequence[int], channels: int) -> Shape:
    dilation = attrs.get("dilation", (1, 1))
    height, width = (
        window_output_size(shape[1 + axis], kernel[axis], attrs["stride"][axis], dilation[axis], attrs["padding"])
        for axis in (0, 1)
    )
    return shape[0], height, width, channels


def _conv_shape(attrs: Attributes, shapes: Sequence[Shape]) -> Shape:
    return _window_shape(attrs, shapes[0], shapes[1][1:3], shapes[1][0])


def _depthwise_shape(attrs: Attributes, shapes: Sequence[Shape]) -> Shape:
    return _window_shape(attrs, shapes[0], shapes[1][1:3], shapes[1][3])


def _pool_shape(attrs: Attributes, shapes: Sequence[Shape]) -> Shape:
    return _window_shape(attrs, shapes[0], attrs["kernel_size"], shapes[0][3])


def _fully_connected_shape(_attrs: Attributes, shapes: Sequence[Shape]) -> Shape:
    return shapes[0][0], shapes[1][0]


def _broadcast_shape(_attrs: Attributes, shapes: Sequence[Shape]) -> Shape:
    rank = max(len(shape) for shape in shapes)
    padded = [(1,) * (rank - len(shape)) + tuple(shape) for shape in shapes]
    return tuple(max(sizes) if min(sizes) > 0 else 0 for sizes in zip(*padded, strict=True))


def _mean_shape(attrs: Attributes, shapes: Sequence[Shape]) -> Shape:
    axes = set(attrs["axes"])
    if attrs["keep_dims"]:
        return tuple(1 if axis in axes else size for axis, size in enumerate(shapes[0]))
    return tuple(size for axis, size in enumerate(shapes[0]) if axis not in axes)


def _concat_shape(attrs: Attributes, shapes: Sequence[Shape]) -> Shape:
    axis = attrs["axis"]
    return (*shapes[0][:axis], sum(shape[axis] for shape in shapes), *shapes[0][axis + 1 :])


def _pad_shape(attrs: Attributes, shapes: Sequence[Shape]) -> Shape:
    return tuple(size + sum(pair) for size, pair in zip(shapes[0], attrs["paddings"], strict=True))


def _strided_slice_shape(attrs: Attributes, _shapes: Sequence[Shape]) -> Shape:
    bounds = zip(attrs["begin"], attrs["end"], attrs["stride"], strict=True)
    return tuple(len(range(begin, end, stride)) for begin, end, stride in bounds)


def _transpose_shape(attrs: Attributes, shapes: Sequence[Shape]) -> Shape:
    return tuple(shapes[0][axis] for axis in attrs["perm"])


def _first_shape(_attrs: Attributes, shapes: Sequence[Shape]) -> Shape:
    return tuple(shapes[0])


def _no_macs(_attrs: Attributes, _shapes: Sequence[Shape], _output: Shape) -> int:
    return 0


def _product(sizes: Sequence[int]) -> int:
    result = 1
    for size in sizes:
        result *= size
    return result


def _conv_macs(_attrs: Attributes, shapes: Sequence[Shape], output: Shape) -> int:
    return _product(output) * _product(shapes[1][1:])


def _depthwise_macs(_attrs: Attributes, shapes: Sequence[Shape], output: Shape) -> int:
    return _product(output) * _product(shapes[1][1:3])


def _fully_connected_macs(_attrs: Attributes, shapes: Sequence[Shape], output: Shape) -> int:
    return output[0] * _product(shapes[1])


_WINDOW = ("stride", "dilation", "padding", "activation")
_POOL = ("kernel_size", "stride", "padding", "activation")
_UNARY = OpKind(("x",), (), _first_shape, _no_macs)
_BINARY = OpKind(("a", "b"), ("activation",), _broadcast_shape, _no_macs)

# stride, dilation, kernel_size: (height, width). padding: PADDINGS. activation: ACTIVATIONS, fused after the op.
# Weight layouts: conv_2d OHWI (I = input channels / groups), depthwise 1HWO (O = input channels x depth_multiplier),
# fully_connected OI over the input flattened in NHWC order. Every one of them has a bias.
OPS: Mapping[str, OpKind] = {
    "conv_2d": OpKind(("x", "weight_ohwi", "bias"), _WINDOW, _conv_shape, _conv_macs),
    "depthwise_conv_2d": OpKind(
        ("x", "weight_1hwo", "bias"), (*_WINDOW, "depth_multiplier"), _depthwise_shape, _depthwise_macs
    ),
    "fully_connected": OpKind(
        ("x", "weight_oi", "bias"), ("activation",), _fully_connected_shape, _fully_connected_macs
    ),
    "add": _BINARY,
    "sub": _BINARY,
    "mul": _BINARY,
    "max_pool_2d": OpKind(("x",), _POOL, _pool_shape, _no_macs),
    "average_pool_2d": OpKind(("x",), _POOL, _pool_shape, _no_macs),  # the padding is left out of the average
    "mean": OpKind(("x",), ("axes", "keep_dims"), _mean_shape, _no_macs),
    "concat": OpKind(("x*",), ("axis",), _concat_shape, _no_macs),
    # paddings: ((before, after), ...) per axis; mode: 'zero', or 'lowest' (the least value of the type: max pooling)
    "pad": OpKind(("x",), ("paddings", "mode"), _pad_shape, _no_macs),
    "relu": _UNARY,
    "relu6": _UNARY,
    "relu_n1_to_1": _UNARY,
    "leaky_relu": OpKind(("x",), ("alpha",), _first_shape, _no_macs),
    "prelu": OpKind(("x", "alpha"), (), _first_shape, _no_macs),
    "logistic": _UNARY,
    "tanh": _UNARY,
    "hard_swish": _UNARY,
    "softmax": OpKind(("x",), ("beta",), _first_shape, _no_macs),  # over the last axis
    "reshape": OpKind(("x",), ("shape",), lambda attrs, shapes: tuple(attrs["shape"]), _no_macs),
    "transpose": OpKind(("x",), ("perm",), _transpose_shape, _no_macs),
    # begin, end, stride: one non-negative integer (stride: positive) per axis, already resolved
    "strided_slice": OpKind(("x",), ("begin", "end", "stride"), _strided_slice_shape, _no_macs),
    "quantize": _UNARY,  # float32 -> int8, or int8 -> int8 with another scale
    "dequantize": _UNARY,  # int8 -> float32
}
