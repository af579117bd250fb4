"""Readers of ONNX nodes with weights: Conv, Gemm, MatMul, BatchNormalization."""

from __future__ import annotations

import numpy as np

from edgeprune.export.nodes import Node
from edgeprune.export.reader import Axes, Reader, Value
from edgeprune.export.views import view_whole
from edgeprune.export.windows import pad_window, read_window
from edgeprune.ops import Shape


def read_conv(reader: Reader, node: Node) -> None:
    """Conv of 1 or 2 spatial axes -> pad, conv_2d or depthwise_conv_2d. Weights OIHW -> OHWI or 1HWO."""
    value = reader.value(node)
    weight = reader.constant(node, 1, "weight")
    if weight.ndim not in (3, 4):
        raise node.refusal(f"it has {weight.ndim - 2} spatial axes", "Only Conv1d and Conv2d are supported")
    if weight.ndim == 3:
        weight = weight[:, :, None, :]
    bias = reader.constant(node, 2, "bias") if node.has_input(2) else np.zeros(len(weight))
    groups, channels = node.integer("group", 1), value.shape[1]
    window = read_window(node, value.shape, weight.shape[2:])
    x = pad_window(reader, node, reader.as_nhwc(node, value), window, "zero")
    attrs: dict[str, object] = {"stride": window.stride, "dilation": window.dilation}
    attrs |= {"padding": "valid", "activation": "none"}
    if groups == channels and groups > 1:
        kind, stored = "depthwise_conv_2d", weight.transpose(1, 2, 3, 0)
        attrs["depth_multiplier"] = len(weight) // channels
    else:
        kind, stored = "conv_2d", weight.transpose(0, 2, 3, 1)
    y = add_layer(reader, kind, node.layer, x, stored, bias, attrs)
    set_nhwc(reader, node.outputs[0], y, len(value.shape))


def read_gemm(reader: Reader, node: Node) -> None:
    """Gemm with constant B -> fully_connected. alpha and beta are folded into the weights."""
    weight = reader.constant(node, 1, "second matrix")
    if node.integer("transA", 0):
        raise node.refusal("its first operand is transposed (transA = 1)", "Export the layer as x @ W")
    weight_oi = weight if node.integer("transB", 0) else weight.T
    weight_oi = weight_oi * np.float32(node.number("alpha", 1.0))
    bias = np.zeros(1)
    if node.has_input(2):
        bias = reader.constant(node, 2, "bias").reshape(-1) * np.float32(node.number("beta", 1.0))
    _add_fully_connected(reader, node, reader.value(node), weight_oi, np.broadcast_to(bias, (len(weight_oi),)))


def read_matmul(reader: Reader, node: Node) -> None:
    """MatMul with a constant matrix at its right -> fully_connected; over several positions -> a 1x1 conv_2d."""
    if not (reader.is_constant(node, 1) and reader.constant(node, 1, "matrix").ndim == 2):
        raise node.refusal(
            "it multiplies two computed values, or is a batch of products",
            "Only a product with one constant matrix (nn.Linear) is supported; attention is not",
        )
    value, weight = reader.value(node), reader.constant(node, 1, "matrix")
    if len(value.shape) == 2:
        _add_fully_connected(reader, node, value, weight.T, np.zeros(weight.shape[1]))
        return
    layouts: dict[int, Axes] = {3: (0, None, 1, 2), 4: (0, 1, 2, 3)}
    if len(value.shape) not in layouts:
        reader.find_layout(node, value)  # refuses
        raise node.refusal(f"its operand has the shape {value.shape}", "Use 2 to 4 axes")
    axes = layouts[len(value.shape)]
    x = reader.arrange(node.layer, value, axes)
    attrs: dict[str, object] = {"stride": (1, 1), "dilation": (1, 1), "padding": "valid", "activation": "none"}
    y = add_layer(reader, "conv_2d", node.layer, x, weight.T[:, None, None, :], np.zeros(weight.shape[1]), attrs)
    reader.set_arranged(node.outputs[0], y, axes, (*value.shape[:-1], weight.shape[1]))


def read_batchnorm(reader: Reader, node: Node) -> None:
    """BatchNormalization -> mul and add of one constant per channel; `fold_affine` folds them into a neighbour.

    y = x * a + b with a = gamma / sqrt(variance + epsilon), b = beta - mean * a (Ioffe and Szegedy 2015, section 3.1).
    """
    if node.integer("training_mode", 0) or (len(node.outputs) > 1 and any(node.outputs[1:])):
        raise node.refusal("it computes statistics of the batch", "Export the model in eval mode")
    value = reader.value(node)
    names = ("scale", "bias", "mean", "variance")
    gamma, beta, mean, variance = (
        reader.constant(node, index, what).astype(np.float64) for index, what in enumerate(names, start=1)
    )
    scale = gamma / np.sqrt(variance + node.number("epsilon", 1e-5))
    shift = beta - mean * scale
    per_channel = (1, -1, *(1,) * (len(value.shape) - 2))
    scaled = add_constant_op(reader, "mul", node.layer, value, scale.reshape(per_channel))
    shifted = add_constant_op(reader, "add", f"{node.layer}/shift", scaled, shift.reshape(per_channel))
    reader.set_value(node.outputs[0], shifted)


def add_constant_op(reader: Reader, kind: str, layer: str, value: Value, constant: np.ndarray) -> Value:
    """Append add or mul of a value and a constant that doesn't widen it."""
    stored = reader.constant_beside(value, np.asarray(constant, np.float32))
    operand = reader.builder.add_constant(f"{layer}/constant", stored)
    tensor = reader.builder.add_op(kind, layer, [value.tensor, operand], {"activation": "none"})
    return Value(tensor, value.view)


def add_layer(
    reader: Reader, kind: str, layer: str, x: str, weight: np.ndarray, bias: np.ndarray, attrs: dict[str, object]
) -> str:
    """Append an op with weights and bias, named after the layer; returns its tensor."""
    layer = reader.builder.unique_name(layer)
    weight_name = reader.builder.add_constant(f"{layer}/weight", weight)
    bias_name = reader.builder.add_constant(f"{layer}/bias", bias)
    return reader.builder.add_op(kind, layer, [x, weight_name, bias_name], attrs)


def set_nhwc(reader: Reader, name: str, tensor: str, rank: int) -> None:
    """Say that the channels-first ONNX value `name` of this rank (3 or 4) lies in `tensor`, NHWC."""
    batch, height, width, channels = reader.builder.shape(tensor)
    if rank == 3:
        reader.set_arranged(name, tensor, (0, None, 2, 1), (batch, channels, width))
    else:
        reader.set_arranged(name, tensor, (0, 2, 3, 1), (batch, channels, height, width))


def _add_fully_connected(reader: Reader, node: Node, value: Value, weight_oi: np.ndarray, bias: np.ndarray) -> None:
    """fully_connected flattens its input in memory order: the weights' columns go the same way instead of the data."""
    count = weight_oi.shape[1]
    if value.shape != (1, count):
        raise node.refusal(f"its input has the shape {value.shape}, its weights need (1, {count})", "Flatten it first")
    view = value.view
    sizes: Shape = tuple(view.factors[index] for index in view.order)
    columns = weight_oi.reshape(-1, *sizes).transpose(0, *(1 + place for place in np.argsort(view.order)))
    weight = columns.reshape(len(weight_oi), count)
    y = add_layer(reader, "fully_connected", node.layer, value.tensor, weight, bias, {"activation": "none"})
    reader.set_value(node.outputs[0], Value(y, view_whole((1, len(weight_oi)))))
