"""Whether the operands of an op fit together: ranks, sizes, attributes, types.

Graphs that edgeprune makes fit by construction; files that others made are checked with these rules before anything is
computed from them, so that later rooms need no checks of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from edgeprune.graph import Op, Tensor
from edgeprune.ops import window_output_size

WEIGHTED_KINDS = ("conv_2d", "depthwise_conv_2d", "fully_connected")
BIAS_DTYPES = {"float32": "float32", "int8": "int32", "int16": "int64"}


def find_operand_fault(op: Op, tensors: Mapping[str, Tensor]) -> str | None:
    """How an op's operand shapes and attributes contradict each other, as the rest of a sentence; None if they fit."""
    return _RULES[op.kind](op, [tensors[name] for name in op.inputs])


def find_type_fault(op: Op, tensors: Mapping[str, Tensor]) -> str | None:
    """Why an op over tensors of these types has no meaning here, as the rest of a sentence; None if it has.

    Either all of an op's tensors are float32, or all are int8 with a scale (biases int32) or int16 (biases int64).
    """
    operands, output = [tensors[name] for name in op.inputs], tensors[op.outputs[0]]
    for tensor in (*operands, output):
        if tensor.dtype in ("int8", "int16") and tensor.quant is None:
            return f"{tensor.name} is {tensor.dtype} without a scale"
    if op.kind == "quantize":
        return None if output.dtype in ("int8", "int16") else f"the output is {output.dtype}"
    if op.kind == "dequantize":
        return None if output.dtype == "float32" else f"the output is {output.dtype}"
    types = {tensor.dtype for tensor in operands[:2]} if op.kind in WEIGHTED_KINDS else {t.dtype for t in operands}
    if op.kind in WEIGHTED_KINDS and operands[0].dtype == "int16" and operands[1].dtype == "int8":
        types = {"int16"}
    if types != {output.dtype} or output.dtype not in BIAS_DTYPES:
        found = ", ".join(f"{tensor.name} {tensor.dtype}" for tensor in (*operands, output))
        return f"its tensors are of different or unknown types ({found})"
    if op.kind in WEIGHTED_KINDS:
        bias = operands[2]
        if bias.dtype != BIAS_DTYPES[output.dtype]:
            return f"the bias is {bias.dtype}, expected {BIAS_DTYPES[output.dtype]}"
        weight = operands[1]
        if weight.quant is not None and weight.quant.zero_point.any():
            return "the weights have a zero point other than 0"
    return None


def _check_rank(tensor: Tensor, rank: int) -> str | None:
    return None if len(tensor.shape) == rank else f"{tensor.name} has the shape {tensor.shape}, expected {rank} axes"


def _check_bias(bias: Tensor, outputs: int) -> str | None:
    return None if bias.shape == (outputs,) else f"the bias has the shape {bias.shape}, expected ({outputs},)"


def _check_window(op: Op, shape: tuple[int, ...], kernel: tuple[int, ...]) -> str | None:
    dilation = op.attrs.get("dilation", (1, 1))
    for axis in (0, 1):
        stride = op.attrs["stride"][axis]
        if min(stride, dilation[axis], kernel[axis]) < 1:
            return f"stride {stride}, dilation {dilation[axis]} and kernel size {kernel[axis]} must be at least 1"
        if window_output_size(shape[1 + axis], kernel[axis], stride, dilation[axis], op.attrs["padding"]) < 1:
            return f"a kernel of {kernel[axis]} with dilation {dilation[axis]} is longer than its input {shape}"
    return None


def _check_conv(op: Op, operands: list[Tensor]) -> str | None:
    source, weight, bias = operands
    fault = _check_rank(source, 4) or _check_rank(weight, 4)
    if fault is not None:
        return fault
    channels, filters, group_channels = source.shape[3], weight.shape[0], weight.shape[3]
    if channels % group_channels or filters % (channels // group_channels):
        return f"{channels} input channels and weights {weight.shape} (OHWI) make no whole number of groups"
    return _check_bias(bias, filters) or _check_window(op, source.shape, weight.shape[1:3])


def _check_depthwise(op: Op, operands: list[Tensor]) -> str | None:
    source, weight, bias = operands
    fault = _check_rank(source, 4) or _check_rank(weight, 4)
    if fault is not None:
        return fault
    multiplier = op.attrs["depth_multiplier"]
    if weight.shape[0] != 1 or weight.shape[3] != source.shape[3] * multiplier:
        return f"weights {weight.shape} (1HWO) do not fit {source.shape[3]} input channels times {multiplier}"
    return _check_bias(bias, weight.shape[3]) or _check_window(op, source.shape, weight.shape[1:3])


def _check_fully_connected(_op: Op, operands: list[Tensor]) -> str | None:
    source, weight, bias = operands
    if len(source.shape) < 1 or len(weight.shape) != 2:
        return f"the input {source.shape} or the weights {weight.shape} have too few axes"
    if source.element_count != source.shape[0] * weight.shape[1]:
        return f"the input {source.shape} does not hold {weight.shape[1]} values per sample"
    return _check_bias(bias, weight.shape[0])


def _check_pool(op: Op, operands: list[Tensor]) -> str | None:
    return _check_rank(operands[0], 4) or _check_window(op, operands[0].shape, op.attrs["kernel_size"])


def _check_broadcast(_op: Op, operands: list[Tensor]) -> str | None:
    first, second = (tensor.shape[::-1] for tensor in operands)
    if all(1 in sizes or sizes[0] == sizes[1] for sizes in zip(first, second, strict=False)):
        return None
    return f"the shapes {operands[0].shape} and {operands[1].shape} do not broadcast"


def _check_mean(op: Op, operands: list[Tensor]) -> str | None:
    axes = op.attrs["axes"]
    if len(set(axes)) == len(axes) and all(0 <= axis < len(operands[0].shape) for axis in axes):
        return None
    return f"the axes {axes} are not axes of {operands[0].shape}"


def _check_concat(op: Op, operands: list[Tensor]) -> str | None:
    axis, shape = op.attrs["axis"], operands[0].shape
    if not 0 <= axis < len(shape):
        return f"the axis {axis} is not an axis of {shape}"
    for tensor in operands[1:]:
        if (*tensor.shape[:axis], *tensor.shape[axis + 1 :]) != (*shape[:axis], *shape[axis + 1 :]) or len(
            tensor.shape
        ) != len(shape):
            return f"the shapes {shape} and {tensor.shape} differ besides axis {axis}"
    return None


def _check_pad(op: Op, operands: list[Tensor]) -> str | None:
    paddings = op.attrs["paddings"]
    if len(paddings) == len(operands[0].shape) and all(min(pair) >= 0 for pair in paddings):
        return None
    return f"the paddings {paddings} do not fit the shape {operands[0].shape}"


def _check_prelu(op: Op, operands: list[Tensor]) -> str | None:
    source, alpha = operands
    if len(alpha.shape) > len(source.shape) or any(
        size not in (1, full) for size, full in zip(alpha.shape[::-1], source.shape[::-1], strict=False)
    ):
        return f"the slopes {alpha.shape} do not broadcast to {source.shape}"
    return None


def _check_reshape(op: Op, operands: list[Tensor]) -> str | None:
    if math.prod(op.attrs["shape"]) == operands[0].element_count:
        return None
    return f"{operands[0].shape} cannot become {op.attrs['shape']}"


def _check_transpose(op: Op, operands: list[Tensor]) -> str | None:
    if sorted(op.attrs["perm"]) == list(range(len(operands[0].shape))):
        return None
    return f"{op.attrs['perm']} is no permutation of the axes of {operands[0].shape}"


def _check_strided_slice(op: Op, operands: list[Tensor]) -> str | None:
    begin, end, stride, shape = *(op.attrs[name] for name in ("begin", "end", "stride")), operands[0].shape
    if len(begin) == len(end) == len(stride) == len(shape) and all(
        0 <= first < last <= size and step > 0
        for first, last, step, size in zip(begin, end, stride, shape, strict=True)
    ):
        return None
    return f"begin {begin}, end {end} and stride {stride} select nothing of {shape}"


def _check_number(attribute: str) -> Callable[[Op, list[Tensor]], str | None]:
    def check(op: Op, operands: list[Tensor]) -> str | None:
        if not operands[0].shape:
            return "the input has no axes"
        value = op.attrs[attribute]
        return None if math.isfinite(value) else f"{attribute} is {value}"

    return check


def _check_nothing(_op: Op, _operands: list[Tensor]) -> str | None:
    return None


_RULES: Mapping[str, Callable[[Op, list[Tensor]], str | None]] = {
    "conv_2d": _check_conv,
    "depthwise_conv_2d": _check_depthwise,
    "fully_connected": _check_fully_connected,
    "add": _check_broadcast,
    "sub": _check_broadcast,
    "mul": _check_broadcast,
    "max_pool_2d": _check_pool,
    "average_pool_2d": _check_pool,
    "mean": _check_mean,
    "concat": _check_concat,
    "pad": _check_pad,
    "relu": _check_nothing,
    "relu6": _check_nothing,
    "relu_n1_to_1": _check_nothing,
    "leaky_relu": _check_number("alpha"),
    "prelu": _check_prelu,
    "logistic": _check_nothing,
    "tanh": _check_nothing,
    "hard_swish": _check_nothing,
    "softmax": _check_number("beta"),
    "reshape": _check_reshape,
    "transpose": _check_transpose,
    "strided_slice": _check_strided_slice,
    "quantize": _check_nothing,
    "dequantize": _check_nothing,
}
