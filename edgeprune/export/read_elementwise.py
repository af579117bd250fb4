"""Readers of ONNX nodes that work element by element: activations and arithmetic."""

from __future__ import annotations

import math

import numpy as np

from edgeprune.export.nodes import Node
from edgeprune.export.read_layers import add_constant_op
from edgeprune.export.reader import LAYOUTS, Reader, Value
from edgeprune.export.views import view_axes

UNARY_KINDS = {"Relu": "relu", "Sigmoid": "logistic", "Tanh": "tanh", "HardSwish": "hard_swish"}
_NO_BOUND = 3e38  # exporters write 'no upper bound' as the largest float32


def read_unary(reader: Reader, node: Node) -> None:
    """Relu, Sigmoid, Tanh, HardSwish -> the op of that meaning."""
    _set_unary(reader, node, UNARY_KINDS[node.op_type])


def read_leaky_relu(reader: Reader, node: Node) -> None:
    """LeakyRelu -> leaky_relu."""
    _set_unary(reader, node, "leaky_relu", alpha=node.number("alpha", 0.01))


def read_elu(reader: Reader, node: Node) -> None:
    """Elu of alpha 1, as TFLite has it -> elu."""
    alpha = node.number("alpha", 1.0)
    if alpha != 1.0:
        raise node.refusal(f"its alpha is {alpha:g}", "Use alpha = 1, as nn.ELU() has it, or LeakyReLU")
    _set_unary(reader, node, "elu")


def read_prelu(reader: Reader, node: Node) -> None:
    """PRelu -> prelu, or leaky_relu where all slopes are equal."""
    value = reader.value(node)
    slopes = reader.constant(node, 1, "slope")
    if np.ptp(slopes) == 0:
        _set_unary(reader, node, "leaky_relu", alpha=float(slopes.reshape(-1)[0]))
        return
    # PRelu broadcasts one way, (C, 1, 1) against (N, C, H, W)
    beside = reader.constant_beside(value, slopes)
    alpha = reader.builder.add_constant(f"{node.layer}/alpha", beside[0])
    tensor = reader.builder.add_op("prelu", node.layer, [value.tensor, alpha])
    reader.set_value(node.outputs[0], Value(tensor, value.view))


def read_clip(reader: Reader, node: Node) -> None:
    """Clip -> relu, relu6 or relu_n1_to_1; Clip(0, a) -> relu6 between two factors."""
    low = _read_bound(reader, node, 1, "min", -math.inf)
    high = _read_bound(reader, node, 2, "max", math.inf)
    value = reader.value(node)
    _clip(reader, node, node.outputs[0], value, low, high)


def read_bound(reader: Reader, node: Node) -> None:
    """Max and Min of a value and one number -> as Clip."""
    value_index = 1 if reader.is_constant(node, 0) else 0
    if len(node.inputs) != 2 or not reader.is_constant(node, 1 - value_index):
        raise node.refusal("it compares computed values", f"Only {node.op_type} with one constant is supported")
    bound = reader.constant(node, 1 - value_index, "bound")
    if bound.size != 1:
        raise node.refusal(f"its bound has the shape {bound.shape}", "Only a single number is supported")
    number = float(bound.reshape(-1)[0])
    low, high = (number, math.inf) if node.op_type == "Max" else (-math.inf, number)
    _clip(reader, node, node.outputs[0], reader.value(node, value_index), low, high)


def read_hard_sigmoid(reader: Reader, node: Node) -> None:
    """HardSigmoid = max(0, min(1, alpha x + beta)) -> relu6(6 alpha x + 6 beta) / 6, as TFLite has no op for it."""
    value = reader.value(node)
    alpha, beta = 6 * node.number("alpha", 0.2), 6 * node.number("beta", 0.5)
    if not math.isclose(alpha, 1.0, rel_tol=1e-6):  # 1/6 as float32
        value = add_constant_op(reader, "mul", f"{node.layer}/slope", value, np.array(alpha))
    value = add_constant_op(reader, "add", f"{node.layer}/shift", value, np.array(beta))
    value = _append(reader, "relu6", f"{node.layer}/relu6", value)
    reader.set_value(node.outputs[0], add_constant_op(reader, "mul", node.layer, value, np.array(1 / 6)))


def read_softmax(reader: Reader, node: Node) -> None:
    """Softmax -> softmax over the tensor's last axis."""
    value = reader.value(node)
    rank = len(value.shape)
    axis = node.integer("axis", -1 if node.opset >= 13 else 1) % rank
    if node.opset < 13 and math.prod(value.shape[axis:]) != value.shape[axis]:
        raise node.refusal(f"it is one softmax over {value.shape[axis:]} (opset < 13)", "Export with opset 13 or later")
    if axis == 0:
        raise node.refusal("it normalises over the batch axis", "Use dim=1 for the classes")
    if rank not in LAYOUTS:
        reader.find_layout(node, value)  # refuses
    # the softmax axis must be the last of the tensor; the rest may lie in any order
    others = [other for other in range(rank) if other != axis]
    while len(others) > 1 and rank == 4 and others[1] == 1:
        others = [others[0], *others[2:], others[1]]
    axes = (*others, axis) if rank != 3 else (others[0], None, others[1], axis)
    moves = value.view.find_moves(axes)
    if moves is not None and moves.keep_order and reader.builder.shape(value.tensor)[-1] == value.shape[axis]:
        tensor, view = value.tensor, value.view
    else:
        tensor = reader.arrange(node.layer, value, axes)
        view = view_axes(reader.builder.shape(tensor), axes, value.shape)
    result = reader.builder.add_op("softmax", node.layer, [tensor], {"beta": 1.0})
    reader.set_value(node.outputs[0], Value(result, view))


def read_binary(reader: Reader, node: Node) -> None:
    """Add, Sub, Mul, Div: of two values, or of a value and a constant."""
    if len(node.inputs) != 2:
        raise node.refusal(f"it has {len(node.inputs)} operands", "Use two")
    if reader.is_constant(node, 0) or reader.is_constant(node, 1):
        _read_with_constant(reader, node)
        return
    if node.op_type == "Div":
        raise node.refusal("it divides by a computed value", "Only division by a constant is supported")
    kind = node.op_type.lower()
    first, second = reader.value(node, 0), reader.value(node, 1)
    same_tensor_shape = reader.builder.shape(first.tensor) == reader.builder.shape(second.tensor)
    if first.view == second.view and same_tensor_shape:
        tensor = reader.builder.add_op(kind, node.layer, [first.tensor, second.tensor], {"activation": "none"})
        reader.set_value(node.outputs[0], Value(tensor, first.view))
        return
    if len(first.shape) != len(second.shape):
        raise node.refusal(
            f"it combines {first.shape} and {second.shape}, so that the batch meets another axis",
            "Give both the same number of axes",
        )
    result = tuple(np.broadcast_shapes(first.shape, second.shape))
    axes = reader.find_layout(node, first, second)
    operands = [reader.arrange(node.layer, value, axes) for value in (first, second)]
    tensor = reader.builder.add_op(kind, node.layer, operands, {"activation": "none"})
    reader.set_arranged(node.outputs[0], tensor, axes, result)


def read_negate(reader: Reader, node: Node) -> None:
    """Neg -> mul with -1."""
    reader.set_value(node.outputs[0], add_constant_op(reader, "mul", node.layer, reader.value(node), np.array(-1.0)))


def read_sum(reader: Reader, node: Node) -> None:
    """Sum of several values -> a chain of add."""
    if len(node.inputs) == 1:
        reader.set_value(node.outputs[0], reader.value(node))
        return
    left = node.inputs[0]
    for index, right in enumerate(node.inputs[1:], start=1):
        is_last = index == len(node.inputs) - 1
        output = node.outputs[0] if is_last else f"{node.outputs[0]}/sum{index}"
        read_binary(reader, Node("Add", node.layer, (left, right), (output,), {}, node.opset))
        left = output


def _read_with_constant(reader: Reader, node: Node) -> None:
    constant_index = 0 if reader.is_constant(node, 0) else 1
    value = reader.value(node, 1 - constant_index)
    constant = reader.constant(node, constant_index, "operand").astype(np.float64)
    if np.broadcast_shapes(value.shape, constant.shape) != value.shape or constant.ndim > len(value.shape):
        raise node.refusal(
            f"its constant {constant.shape} widens the value {value.shape}", "Give both the same shape, or factors of 1"
        )
    kind, negate = {"Add": ("add", False), "Sub": ("add", True), "Mul": ("mul", False), "Div": ("mul", False)}[
        node.op_type
    ]
    if node.op_type == "Div":
        if constant_index == 0:
            raise node.refusal("it divides by a computed value", "Only division by a constant is supported")
        if (constant == 0).any():
            raise node.refusal("it divides by 0", "Remove the division")
        constant = 1 / constant
    if negate and constant_index == 0:  # c - x
        value = add_constant_op(reader, "mul", f"{node.layer}/negate", value, np.array(-1.0))
    elif negate:
        constant = -constant
    reader.set_value(node.outputs[0], add_constant_op(reader, kind, node.layer, value, constant))


def _clip(reader: Reader, node: Node, output: str, value: Value, low: float, high: float) -> None:
    low = -math.inf if low <= -_NO_BOUND else low
    high = math.inf if high >= _NO_BOUND else high
    kinds = {(0.0, math.inf): "relu", (0.0, 6.0): "relu6", (-1.0, 1.0): "relu_n1_to_1"}
    if (low, high) == (-math.inf, math.inf):
        result = value
    elif (low, high) in kinds:
        result = _append(reader, kinds[low, high], node.layer, value)
    elif 0 < high < math.inf and low in (0.0, -high):
        kind, limit = ("relu6", 6.0) if low == 0 else ("relu_n1_to_1", 1.0)
        scaled = add_constant_op(reader, "mul", f"{node.layer}/scale", value, np.array(limit / high))
        clipped = _append(reader, kind, f"{node.layer}/{kind}", scaled)
        result = add_constant_op(reader, "mul", node.layer, clipped, np.array(high / limit))
    else:
        raise node.refusal(
            f"it clips to {low:g}..{high:g}",
            "Supported are 0..infinity (ReLU), 0..a (ReLU6 for 6) and -a..a (Hardtanh)",
        )
    reader.set_value(output, result)


def _read_bound(reader: Reader, node: Node, index: int, attribute: str, default: float) -> float:
    if node.has_input(index):
        return float(reader.constant(node, index, f"{attribute} bound").reshape(-1)[0])
    return node.number(attribute, default)


def _set_unary(reader: Reader, node: Node, kind: str, **attrs: float) -> None:
    reader.set_value(node.outputs[0], _append(reader, kind, node.layer, reader.value(node), **attrs))


def _append(reader: Reader, kind: str, layer: str, value: Value, **attrs: float) -> Value:
    """Append an op that works on each element, whatever the layout."""
    return Value(reader.builder.add_op(kind, layer, [value.tensor], attrs), value.view)
