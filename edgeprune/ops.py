"""Every kind of operation of the program in one table: attributes, operands, shape rule, MACs.

The kinds and their meaning are those of TFLite's built-in operators of the same name (TensorFlow, `schema.fbs`).
Shapes are NHWC. A multiply-accumulate (MAC) is counted for each weight used at each output position of convolution and
fully connected layers; other ops count 0 MACs. FLOPs are 2 x MACs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeprune.errors import EdgepruneError

AttributeValue = Any  # int, float, bool, str or a (nested) tuple of them: whatever compares with == and hashes
Shape = tuple[int, ...]
Attributes = Mapping[str, AttributeValue]

ACTIVATIONS = ("none", "relu", "relu6", "relu_n1_to_1")
PADDINGS = ("same", "valid")


class ShapeError(EdgepruneError):
    """Operands or attributes of an op that don't fit together; `verify_graph` adds the op's name."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ShapeError(message)


@dataclass(frozen=True)
class OpKind:
    """What is to be known of one kind of op without knowing its arithmetic.

    operands: names of the inputs in order; a trailing '*' stands for any number (concat).
    attributes: names that `Op.attrs` holds, all of them, always.
    infer_shape: (attrs, input shapes) -> the output's shape. Raises ShapeError where they don't fit together.
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
    _require(len(shape) == 4, f"the input is {shape}; it must be NHWC")
    _require(attrs["padding"] in PADDINGS, f"padding is {attrs['padding']!r}; allowed: {', '.join(PADDINGS)}")
    height, width = (
        window_output_size(shape[1 + axis], kernel[axis], attrs["stride"][axis], dilation[axis], attrs["padding"])
        for axis in (0, 1)
    )
    _require(height > 0 and width > 0, f"a window of {tuple(kernel)}, dilation {dilation}, does not fit into {shape}")
    return shape[0], height, width, channels


def _require_bias(shapes: Sequence[Shape], channels: int) -> None:
    _require(shapes[2] == (channels,), f"the bias is {shapes[2]}; it must be ({channels},)")


def _conv_shape(attrs: Attributes, shapes: Sequence[Shape]) -> Shape:
    _require(len(shapes[1]) == 4, f"the weight is {shapes[1]}; it must be OHWI")
    channels_out, group_in = shapes[1][0], shapes[1][3]
    groups, rest = divmod(shapes[0][-1], group_in)
    _require(
        rest == 0 and groups > 0 and channels_out % groups == 0,
        f"{shapes[0][-1]} input and {channels_out} output channels do not split into groups of {group_in} inputs",
    )
    _require_bias(shapes, channels_out)
    return _window_shape(attrs, shapes[0], shapes[1][1:3], channels_out)


def _depthwise_shape(attrs: Attributes, shapes: Sequence[Shape]) -> Shape:
    _require(len(shapes[1]) == 4 and shapes[1][0] == 1, f"the weight is {shapes[1]}; it must be 1HWO")
    channels, multiplier = shapes[0][-1], attrs["depth_multiplier"]
    _require(
        shapes[1][3] == channels * multiplier,
        f"{shapes[1][3]} filters for {channels} channels with depth_multiplier {multiplier}",
    )
    _require_bias(shapes, shapes[1][3])
    return _window_shape(attrs, shapes[0], shapes[1][1:3], shapes[1][3])


def _pool_shape(attrs: Attributes, shapes: Sequence[Shape]) -> Shape:
    return _window_shape(attrs, shapes[0], attrs["kernel_size"], shapes[0][3])


def _fully_connected_shape(_attrs: Attributes, shapes: Sequence[Shape]) -> Shape:
    features = _product(shapes[0][1:])
    _require(
        len(shapes[1]) == 2 and shapes[1][1] == features, f"the weight is {shapes[1]}; it must be (outputs, {features})"
    )
    _require_bias(shapes, shapes[1][0])
    return shapes[0][0], shapes[1][0]


def _broadcast_shape(_attrs: Attributes, shapes: Sequence[Shape]) -> Shape:
    rank = max(len(shape) for shape in shapes)
    padded = [(1,) * (rank - len(shape)) + tuple(shape) for shape in shapes]
    result = tuple(max(sizes) for sizes in zip(*padded, strict=True))
    fits = all(size in (1, wanted) for shape in padded for size, wanted in zip(shape, result, strict=True))
    _require(fits, f"shapes {' and '.join(map(str, shapes))} do not broadcast")
    return result


def _prelu_shape(attrs: Attributes, shapes: Sequence[Shape]) -> Shape:
    shape = _broadcast_shape(attrs, shapes)
    _require(shape == shapes[0], f"alpha {shapes[1]} is larger than the input {shapes[0]}")
    return shape


def _require_axes(axes: Sequence[int], rank: int) -> None:
    _require(all(0 <= axis < rank for axis in axes), f"axes are {tuple(axes)}; allowed: 0 to {rank - 1}")


def _mean_shape(attrs: Attributes, shapes: Sequence[Shape]) -> Shape:
    _require_axes(attrs["axes"], len(shapes[0]))
    axes = set(attrs["axes"])
    if attrs["keep_dims"]:
        return tuple(1 if axis in axes else size for axis, size in enumerate(shapes[0]))
    return tuple(size for axis, size in enumerate(shapes[0]) if axis not in axes)


def _concat_shape(attrs: Attributes, shapes: Sequence[Shape]) -> Shape:
    axis = attrs["axis"]
    _require_axes((axis,), len(shapes[0]))
    others = {(*shape[:axis], *shape[axis + 1 :]) for shape in shapes}
    _require(len(others) == 1, f"shapes {', '.join(map(str, shapes))} differ beside axis {axis}")
    return (*shapes[0][:axis], sum(shape[axis] for shape in shapes), *shapes[0][axis + 1 :])


def _pad_shape(attrs: Attributes, shapes: Sequence[Shape]) -> Shape:
    _require_one_per_axis(attrs["paddings"], shapes[0])
    return tuple(size + sum(pair) for size, pair in zip(shapes[0], attrs["paddings"], strict=True))


def _strided_slice_shape(attrs: Attributes, shapes: Sequence[Shape]) -> Shape:
    for name in ("begin", "end", "stride"):
        _require_one_per_axis(attrs[name], shapes[0])
    bounds = list(zip(attrs["begin"], attrs["end"], attrs["stride"], strict=True))
    fits = all(
        0 <= begin < end <= size and stride > 0 for (begin, end, stride), size in zip(bounds, shapes[0], strict=True)
    )
    _require(fits, f"begin, end and stride {bounds} do not fit {shapes[0]}")
    return tuple(len(range(begin, end, stride)) for begin, end, stride in bounds)


def _require_one_per_axis(values: Sequence[Any], shape: Shape) -> None:
    _require(len(values) == len(shape), f"{tuple(values)} must hold one entry for each axis of {shape}")


def _reshape_shape(attrs: Attributes, shapes: Sequence[Shape]) -> Shape:
    shape = tuple(attrs["shape"])
    _require(_product(shape) == _product(shapes[0]), f"{shapes[0]} does not fill {shape}")
    return shape


def _transpose_shape(attrs: Attributes, shapes: Sequence[Shape]) -> Shape:
    fits = sorted(attrs["perm"]) == list(range(len(shapes[0])))
    _require(fits, f"perm {tuple(attrs['perm'])} is no permutation of the axes of {shapes[0]}")
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
# fully_connected OI over the input flattened in NHWC order. Every one of them has a bias. Axes count from 0.
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
    "prelu": OpKind(("x", "alpha"), (), _prelu_shape, _no_macs),
    "logistic": _UNARY,
    "tanh": _UNARY,
    "elu": _UNARY,  # exp(x) - 1 below 0
    "hard_swish": _UNARY,
    "softmax": OpKind(("x",), ("beta",), _first_shape, _no_macs),  # over the last axis
    "reshape": OpKind(("x",), ("shape",), _reshape_shape, _no_macs),
    "transpose": OpKind(("x",), ("perm",), _transpose_shape, _no_macs),
    # begin, end, stride: one non-negative integer (stride: positive) per axis, already resolved
    "strided_slice": OpKind(("x",), ("begin", "end", "stride"), _strided_slice_shape, _no_macs),
    "quantize": _UNARY,  # float32 -> int8, or int8 -> int8 with another scale
    "dequantize": _UNARY,  # int8 -> float32
}
