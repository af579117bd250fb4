"""What each op kind becomes in ONNX, on float values between DequantizeLinear and QuantizeLinear.

Tensors of rank 4 are held channels first (N, C, H, W), all others as the program has them. Ops that reorder or merge
axes across that (a reshape of a map, fully connected over a map) get a Transpose to NHWC before them.

The fused activation is left out where quantization does it anyway: after a relu the range starts at 0, the stored
minimum is 0 itself, and saturation clips there. That keeps Conv next to QuantizeLinear, the pattern that ONNX Runtime
turns into one integer kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper

from edgeprune.errors import UnsupportedModelError
from edgeprune.fixedpoint import round_half_away_exact
from edgeprune.graph import Graph, Op, Tensor
from edgeprune.ops import same_padding

_TO_FIRST = (0, 3, 1, 2)  # NHWC -> NCHW
_TO_LAST = (0, 2, 3, 1)  # NCHW -> NHWC
_CLAMPS: Mapping[str, tuple[float, float]] = {
    "relu": (0.0, np.inf),
    "relu6": (0.0, 6.0),
    "relu_n1_to_1": (-1.0, 1.0),
}


def channels_first(shape: Sequence[Any]) -> tuple[Any, ...]:
    """The order of axes inside the ONNX file: NCHW for rank 4, else unchanged.

    >>> channels_first((1, 1, 24, 2))
    (1, 2, 1, 24)
    """
    return tuple(shape[axis] for axis in _TO_FIRST) if len(shape) == 4 else tuple(shape)


class OnnxBuilder:
    """Nodes and initializers of a model being written.

    value_names: what the dequantized value of a tensor is to be called, where not by the tensor's own name.
    """

    def __init__(self, graph: Graph, value_names: Mapping[str, str]) -> None:
        self.graph = graph
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, np.ndarray] = {}
        self._value_names = value_names
        self._values: dict[str, str] = {}  # float value of each tensor that has been read so far
        self._stored: dict[str, str] = {}  # int8 value of each tensor written so far

    def value(self, name: str) -> str:
        """The float value of tensor `name`.

        DequantizeLinear is written when it is first read: without a reader it would still be a second reader of
        QuantizeLinear, which keeps ONNX Runtime from using its integer kernels.
        """
        if name not in self._values:
            inputs = [self._stored[name], *self.quant_inputs(self.graph.tensors[name], np.int8)]
            self._values[name] = self.add("DequantizeLinear", inputs, self._value_names.get(name, name))
        return self._values[name]

    def quantize(self, real: str, name: str) -> None:
        """Round a real value to the steps of tensor `name`; a float32 tensor is that value."""
        tensor = self.graph.tensors[name]
        if tensor.quant is None:
            self._values[name] = real
        else:
            inputs = [real, *self.quant_inputs(tensor, np.int8)]
            self._stored[name] = self.add("QuantizeLinear", inputs, f"{name}/int8")

    def quant_inputs(self, tensor: Tensor, dtype: np.dtype | type) -> tuple[str, str]:
        """Scale and zero point of a quantized tensor, whose stored values are of this type."""
        assert tensor.quant is not None
        scale, zero_point = tensor.quant.scale, tensor.quant.zero_point.astype(dtype)
        if tensor.quant.axis is None:  # scalars, as ONNX has it for a whole tensor
            scale, zero_point = scale.reshape(()), zero_point.reshape(())
        return (
            self.initializer(f"{tensor.name}/scale", scale),
            self.initializer(f"{tensor.name}/zero_point", zero_point),
        )

    def add_constant(self, op: Op, tensor: Tensor, data: np.ndarray) -> None:
        """A weight, bias or other constant operand of `op`, written once."""
        if tensor.name in self._values:
            return
        data = self._lay_out_constant(op, tensor, data)
        if tensor.quant is None:
            self._values[tensor.name] = self.initializer(tensor.name, data)
            return
        inputs = [self.initializer(f"{tensor.name}/stored", data), *self.quant_inputs(tensor, data.dtype)]
        # output channels come first in every weight and bias of ONNX
        attributes = {} if tensor.quant.axis is None else {"axis": 0}
        self._values[tensor.name] = self.add("DequantizeLinear", inputs, tensor.name, **attributes)

    def add(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Append a node; returns its output."""
        self.nodes.append(helper.make_node(operator, list(inputs), [output], name=f"{output}/{operator}", **attributes))
        return output

    def initializer(self, name: str, data: np.ndarray) -> str:
        """A constant under this name; a second one of the same name is the same constant."""
        self.initializers.setdefault(name, np.array(data, order="C"))  # a copy that keeps rank 0
        return name

    def integers(self, values: Sequence[int]) -> str:
        """An int64 constant, equal ones once."""
        return self.initializer("constant/" + "_".join(map(str, values)), np.array(values, np.int64))

    def shape(self, name: str) -> tuple[int, ...]:
        """The tensor's NHWC shape."""
        return self.graph.tensors[name].shape

    def reshape_nhwc(self, name: str, op: Op, shape: Sequence[int]) -> str:
        """The value of tensor `name` reshaped to (batch, *shape) in the program's order of elements.

        Each step is quantized and dequantized with the tensor's own scale, which changes nothing: ONNX Runtime takes
        only operators with DequantizeLinear right before and QuantizeLinear right after them for integer kernels.
        """
        tensor = self.graph.tensors[name]
        prefix = op.outputs[0]

        def keep_steps(value: str) -> str:
            if tensor.quant is None:
                return value
            quant_inputs = self.quant_inputs(tensor, np.int8)
            stored = self.add("QuantizeLinear", [value, *quant_inputs], f"{value}/int8")
            return self.add("DequantizeLinear", [stored, *quant_inputs], f"{value}/dequantized")

        value, source = self.value(name), tensor.shape
        if len(source) == 4 and source[3] > 1 and source[1] * source[2] > 1:
            value = keep_steps(self.add("Transpose", [value], f"{prefix}/nhwc", perm=_TO_LAST))
        # 0: the batch, as it is
        return keep_steps(self.add("Reshape", [value, self.integers([0, *shape])], f"{prefix}/reshaped"))

    def _lay_out_constant(self, op: Op, tensor: Tensor, data: np.ndarray) -> np.ndarray:
        """A constant operand's data as its ONNX operator takes it."""
        if op.kind == "conv_2d" and tensor.name == op.inputs[1]:
            return data.transpose(0, 3, 1, 2)  # OHWI -> OIHW
        if op.kind == "depthwise_conv_2d" and tensor.name == op.inputs[1]:
            return data.transpose(3, 0, 1, 2)  # 1HWO -> O1HW
        is_layer = op.kind in ("conv_2d", "depthwise_conv_2d", "fully_connected")
        if not is_layer and len(self.shape(op.outputs[0])) == 4 and data.ndim > 0:
            return data.reshape((1,) * (4 - data.ndim) + data.shape).transpose(_TO_FIRST)
        return data


Writer = Callable[[OnnxBuilder, Op], str]


def _activate(builder: OnnxBuilder, op: Op, value: str, activation: str) -> str:
    """The value after a (fused) activation; nothing is written where the output's quantization clips there itself."""
    if activation == "none":
        return value
    low, high = _CLAMPS[activation]
    quant = builder.graph.tensors[op.outputs[0]].quant
    if quant is not None:
        # TFLite clamps at the steps nearest to the bounds (CalculateActivationRangeQuantized): so do we
        scale, zero_point = quant.scale[0], int(quant.zero_point[0])
        first = round_half_away_exact(float(np.float32(low) / scale))
        last = round_half_away_exact(float(np.float32(high) / scale)) if high < np.inf else None
        if first + zero_point <= -128 and (last is None or last + zero_point >= 127):
            return value
        low, high = float(scale * first), np.inf if last is None else float(scale * last)
    output = f"{op.outputs[0]}/{activation}"
    if activation == "relu":
        return builder.add("Relu", [value], output)
    bounds = [
        builder.initializer(f"{output}/{name}", np.array(bound, np.float32))
        for name, bound in (("low", low), ("high", high))
    ]
    return builder.add("Clip", [value, *bounds], output)


def _real(op: Op) -> str:
    return f"{op.outputs[0]}/real"


def _pads(builder: OnnxBuilder, op: Op, kernel: Sequence[int]) -> list[int]:
    """ONNX's pads (top, left, bottom, right) of TFLite's padding."""
    if op.attrs["padding"] == "valid":
        return [0, 0, 0, 0]
    shape, dilation = builder.shape(op.inputs[0]), op.attrs.get("dilation", (1, 1))
    (top, bottom), (left, right) = (
        same_padding(shape[1 + axis], kernel[axis], op.attrs["stride"][axis], dilation[axis]) for axis in (0, 1)
    )
    return [top, left, bottom, right]


def _write_conv(builder: OnnxBuilder, op: Op) -> str:
    channels = builder.shape(op.inputs[0])[3]
    weight = builder.shape(op.inputs[1])
    kernel = weight[1:3]
    value = builder.add(
        "Conv",
        [builder.value(name) for name in op.inputs],
        _real(op),
        kernel_shape=kernel,
        strides=op.attrs["stride"],
        dilations=op.attrs["dilation"],
        pads=_pads(builder, op, kernel),
        group=channels if op.kind == "depthwise_conv_2d" else channels // weight[3],
    )
    return _activate(builder, op, value, op.attrs["activation"])


def _write_fully_connected(builder: OnnxBuilder, op: Op) -> str:
    x, weight, bias = op.inputs
    flat = builder.value(x) if len(builder.shape(x)) == 2 else builder.reshape_nhwc(x, op, [-1])
    value = builder.add("Gemm", [flat, builder.value(weight), builder.value(bias)], _real(op), transB=1)
    return _activate(builder, op, value, op.attrs["activation"])


def _write_binary(builder: OnnxBuilder, op: Op) -> str:
    rank = len(builder.shape(op.outputs[0]))
    operands = []
    for place, name in enumerate(op.inputs):
        shape, value = builder.shape(name), builder.value(name)
        if len(shape) < rank and not builder.graph.tensors[name].is_constant:
            # the batch stays in front; numpy's rule would put it elsewhere
            full = channels_first((0, *(1,) * (rank - len(shape)), *shape[1:]))  # 0: as it is
            value = builder.add("Reshape", [value, builder.integers(full)], f"{op.outputs[0]}/operand_{place}")
        operands.append(value)
    value = builder.add({"add": "Add", "sub": "Sub", "mul": "Mul"}[op.kind], operands, _real(op))
    return _activate(builder, op, value, op.attrs["activation"])


def _write_pool(builder: OnnxBuilder, op: Op) -> str:
    kernel = op.attrs["kernel_size"]
    is_average = op.kind == "average_pool_2d"
    value = builder.add(
        "AveragePool" if is_average else "MaxPool",
        [builder.value(op.inputs[0])],
        _real(op),
        kernel_shape=kernel,
        strides=op.attrs["stride"],
        pads=_pads(builder, op, kernel),
        **({"count_include_pad": 0} if is_average else {}),
    )
    return _activate(builder, op, value, op.attrs["activation"])


def _first_axis(rank: int, axis: int) -> int:
    """Where a program's axis stands inside the ONNX file."""
    return _TO_FIRST.index(axis) if rank == 4 else axis


def _write_mean(builder: OnnxBuilder, op: Op) -> str:
    (x,) = op.inputs
    rank, keep = len(builder.shape(x)), op.attrs["keep_dims"]
    left = [axis for axis in range(rank) if axis not in op.attrs["axes"]]
    order = sorted(left, key=lambda axis: _first_axis(rank, axis))  # the order in which the ONNX result has them
    axes = builder.integers(sorted(_first_axis(rank, axis) for axis in op.attrs["axes"]))
    value = builder.add("ReduceMean", [builder.value(x), axes], _real(op), keepdims=int(keep))
    if keep or order == left:
        return value
    return builder.add("Transpose", [value], f"{op.outputs[0]}/ordered", perm=[order.index(axis) for axis in left])


def _write_concat(builder: OnnxBuilder, op: Op) -> str:
    axis = _first_axis(len(builder.shape(op.outputs[0])), op.attrs["axis"])
    return builder.add("Concat", [builder.value(name) for name in op.inputs], _real(op), axis=axis)


def _write_pad(builder: OnnxBuilder, op: Op) -> str:
    paddings = channels_first(op.attrs["paddings"])
    pads = builder.integers([pair[0] for pair in paddings] + [pair[1] for pair in paddings])
    inputs = [builder.value(op.inputs[0]), pads]
    if op.attrs["mode"] == "lowest":
        quant = builder.graph.tensors[op.inputs[0]].quant
        lowest = float(np.finfo(np.float32).min)
        if quant is not None:
            lowest = float(quant.scale[0]) * (-128 - int(quant.zero_point[0]))
        inputs.append(builder.initializer(f"{op.outputs[0]}/lowest", np.array(lowest, np.float32)))
    return builder.add("Pad", inputs, _real(op))


def _write_clamp(builder: OnnxBuilder, op: Op) -> str:
    return _activate(builder, op, builder.value(op.inputs[0]), op.kind)


def _make_unary(operator: str) -> Writer:
    return lambda builder, op: builder.add(operator, [builder.value(op.inputs[0])], _real(op))


def _write_leaky_relu(builder: OnnxBuilder, op: Op) -> str:
    return builder.add("LeakyRelu", [builder.value(op.inputs[0])], _real(op), alpha=float(op.attrs["alpha"]))


def _write_prelu(builder: OnnxBuilder, op: Op) -> str:
    return builder.add("PRelu", [builder.value(name) for name in op.inputs], _real(op))


def _write_softmax(builder: OnnxBuilder, op: Op) -> str:
    (x,) = op.inputs
    value = builder.value(x)
    if op.attrs["beta"] != 1.0:
        beta = builder.initializer(f"{op.outputs[0]}/beta", np.array(op.attrs["beta"], np.float32))
        value = builder.add("Mul", [value, beta], f"{op.outputs[0]}/scaled")
    rank = len(builder.shape(x))
    value = builder.add("Softmax", [value], f"{op.outputs[0]}/softmax", axis=_first_axis(rank, rank - 1))
    # Saturation would do the same, but must not be left to ONNX Runtime: its integer softmax (1.31, uint8, scale 1/256)
    # wraps a probability of 1 around to 0. With Min in between it computes the softmax in float.
    largest = builder.initializer("constant/largest_probability", np.array(255 / 256, np.float32))
    return builder.add("Min", [value, largest], _real(op))


def _write_reshape(builder: OnnxBuilder, op: Op) -> str:
    shape = op.attrs["shape"]
    if builder.shape(op.inputs[0])[0] != shape[0]:
        raise UnsupportedModelError(f"{op.name} (reshape): it moves values into the batch axis; ONNX keeps that free")
    value = builder.reshape_nhwc(op.inputs[0], op, shape[1:])
    return builder.add("Transpose", [value], _real(op), perm=_TO_FIRST) if len(shape) == 4 else value


def _write_transpose(builder: OnnxBuilder, op: Op) -> str:
    perm = op.attrs["perm"]
    if perm[0] != 0:
        raise UnsupportedModelError(f"{op.name} (transpose): it moves the batch axis; ONNX keeps that free")
    return builder.add(
        "Transpose",
        [builder.value(op.inputs[0])],
        _real(op),
        perm=[_first_axis(len(perm), axis) for axis in channels_first(perm)],
    )


def _write_strided_slice(builder: OnnxBuilder, op: Op) -> str:
    rank = len(builder.shape(op.inputs[0]))
    axes = range(1, rank)  # the batch is free
    bounds = [builder.integers([op.attrs[key][axis] for axis in axes]) for key in ("begin", "end")]
    places = builder.integers([_first_axis(rank, axis) for axis in axes])
    steps = builder.integers([op.attrs["stride"][axis] for axis in axes])
    return builder.add("Slice", [builder.value(op.inputs[0]), *bounds, places, steps], _real(op))


def _pass_on(builder: OnnxBuilder, op: Op) -> str:
    """quantize and dequantize: what stands around every op does it."""
    return builder.value(op.inputs[0])


OPERATORS: Mapping[str, Writer] = {
    "conv_2d": _write_conv,
    "depthwise_conv_2d": _write_conv,
    "fully_connected": _write_fully_connected,
    "add": _write_binary,
    "sub": _write_binary,
    "mul": _write_binary,
    "max_pool_2d": _write_pool,
    "average_pool_2d": _write_pool,
    "mean": _write_mean,
    "concat": _write_concat,
    "pad": _write_pad,
    "relu": _write_clamp,
    "relu6": _write_clamp,
    "relu_n1_to_1": _write_clamp,
    "leaky_relu": _write_leaky_relu,
    "prelu": _write_prelu,
    "logistic": _make_unary("Sigmoid"),
    "tanh": _make_unary("Tanh"),
    "elu": _make_unary("Elu"),
    "hard_swish": _make_unary("HardSwish"),
    "softmax": _write_softmax,
    "reshape": _write_reshape,
    "transpose": _write_transpose,
    "strided_slice": _write_strided_slice,
    "quantize": _pass_on,
    "dequantize": _pass_on,
}
