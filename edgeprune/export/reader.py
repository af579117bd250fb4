"""What the readers of single ONNX nodes work with: values so far, constants, and the program under construction.

The reader of a node takes its operands from here, appends ops to `builder`, and says with `set_value` where the node's
output lies. NCHW becomes NHWC here: `LAYOUTS` and `view_axes`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgeprune.export.builder import ProgramBuilder
from edgeprune.export.nodes import Node, as_integers
from edgeprune.export.views import Moves, View, view_axes, view_whole
from edgeprune.ops import Shape

# For each rank, the axis of the ONNX value that stands at each place of the tensor (None: an axis of 1). First the
# program's own layout, NHWC of a value that is channels-first; then that of a value that is channels-last.
Axes = tuple[int | None, ...]
LAYOUTS: dict[int, tuple[Axes, ...]] = {
    1: ((0,),),
    2: ((0, 1),),
    3: ((0, None, 2, 1), (0, None, 1, 2)),
    4: ((0, 2, 3, 1), (0, 1, 2, 3)),
}


@dataclass(frozen=True)
class Value:
    """An ONNX value: the tensor that holds its elements, and how to read them."""

    tensor: str
    view: View

    @property
    def shape(self) -> Shape:
        """The ONNX shape, batch of 1."""
        return self.view.shape


class Reader:
    """The state of reading one ONNX graph."""

    def __init__(self, name: str) -> None:
        self.builder = ProgramBuilder(name)
        self.constants: dict[str, np.ndarray] = {}
        self.consumers: dict[str, list[Node]] = {}
        self._values: dict[str, Value] = {}
        self._moved: dict[tuple[str, Moves], str] = {}

    def set_value(self, name: str, value: Value) -> None:
        """Say where the ONNX value `name` lies."""
        self._values[name] = value

    def value(self, node: Node, index: int = 0) -> Value:
        """An operand that is computed from the input."""
        name = node.inputs[index]
        if name not in self._values:
            raise node.refusal(
                f"operand {index + 1} is a constant, where a value computed from the input is expected",
                "Take the constant out of the model's computation, or fold it into the weights",
            )
        return self._values[name]

    def output(self, name: str) -> Value | None:
        """The ONNX value of this name, if it was computed."""
        return self._values.get(name)

    def is_constant(self, node: Node, index: int) -> bool:
        """Whether an operand is given and constant."""
        return node.has_input(index) and node.inputs[index] in self.constants

    def constant(self, node: Node, index: int, what: str) -> np.ndarray:
        """An operand that must be constant, such as weights."""
        if not self.is_constant(node, index):
            raise node.refusal(
                f"the {what} is computed from the input", f"Only a constant {what} is supported; make it a parameter"
            )
        return self.constants[node.inputs[index]]

    def integers_or(self, node: Node, index: int, attribute: str) -> tuple[int, ...] | None:
        """Integers that older opsets hold in an attribute, newer ones in an operand; None where they are left out."""
        if node.has_input(index):
            return as_integers(self.constant(node, index, attribute))
        return node.integers(attribute, ()) if attribute in node.attributes else None

    # -- layouts ---------------------------------------------------------------------------------------------------

    def find_layout(self, node: Node, *values: Value) -> Axes:
        """The layout of the values' rank in which they all lie already; else the channels-first one."""
        rank = len(values[0].shape)
        if rank not in LAYOUTS:
            raise node.refusal(
                f"it works on a tensor of {rank} axes ({', '.join(map(str, values[0].shape))})",
                "Tensors of up to 4 axes are supported; only reshape and transpose may go through more",
            )
        for axes in LAYOUTS[rank]:
            if all(self._lies_in(value, axes) for value in values):
                return axes
        return LAYOUTS[rank][0]

    def as_nhwc(self, node: Node, value: Value) -> str:
        """The tensor that holds a channels-first value in NHWC, (1, C) for a vector."""
        if len(value.shape) not in LAYOUTS:
            self.find_layout(node, value)
        return self.arrange(node.layer, value, LAYOUTS[len(value.shape)][0])

    def arrange(self, layer: str, value: Value, axes: Axes) -> str:
        """The tensor that holds the value's axes in the order `axes`; moves elements only where it must."""
        moves = value.view.find_moves(axes)
        if moves is None:
            value = self.flatten(layer, value)
            moves = value.view.find_moves(axes)
            assert moves is not None  # a value in its own order can be read along each of its axes
        return self._move(layer, value.tensor, moves)

    def flatten(self, layer: str, value: Value) -> Value:
        """The same value, its elements in memory in the value's own order."""
        factors, order = value.view.factors, value.view.order
        flat = (1, math.prod(factors))
        tensor = self._move(layer, value.tensor, Moves(factors, order, flat))
        return Value(tensor, view_whole(flat).reshaped(value.shape))

    def transpose(self, layer: str, value: Value, perm: Sequence[int]) -> Value:
        """The value after ONNX Transpose."""
        view = value.view.transposed(perm)
        if view is None:
            value = self.flatten(layer, value)
            view = value.view.transposed(perm)
            assert view is not None
        return Value(value.tensor, view)

    def set_arranged(self, name: str, tensor: str, axes: Axes, shape: Sequence[int]) -> Value:
        """Say that the ONNX value `name` of this shape lies in `tensor` with its axes in the order `axes`."""
        value = Value(tensor, view_axes(self.builder.shape(tensor), axes, shape))
        self.set_value(name, value)
        return value

    def constant_beside(self, value: Value, constant: np.ndarray) -> np.ndarray:
        """A constant that broadcasts against an ONNX value, as one that broadcasts against the value's tensor.

        Axes along which it doesn't vary become 1; the rank is the tensor's. The constant may not widen the value.
        """
        view, shape = value.view, self.builder.shape(value.tensor)
        in_order = np.broadcast_to(constant, value.shape).reshape([view.factors[index] for index in view.order])
        in_memory = in_order.transpose(np.argsort(view.order)).reshape(shape) if view.order else in_order.reshape(shape)
        for axis in range(in_memory.ndim):
            first = in_memory.take([0], axis)
            if (in_memory == first).all():
                in_memory = first
        return np.ascontiguousarray(in_memory, np.float32)

    def _lies_in(self, value: Value, axes: Axes) -> bool:
        moves = value.view.find_moves(axes)
        return moves is not None and moves.keep_order

    def _move(self, layer: str, tensor: str, moves: Moves) -> str:
        """Append what moves a tensor's elements, once for all who need it."""
        key = (tensor, moves)
        if key not in self._moved:
            if not moves.keep_order:
                # the batch stays an axis of its own in front, so that programs run on any number of samples
                tensor = self._reshape(layer, tensor, (1, *moves.sizes))
                perm = (0, *(place + 1 for place in moves.perm))
                tensor = self.builder.add_op("transpose", f"{layer}/transpose", [tensor], {"perm": perm})
            self._moved[key] = self._reshape(layer, tensor, moves.shape)
        return self._moved[key]

    def _reshape(self, layer: str, tensor: str, shape: Shape) -> str:
        if self.builder.shape(tensor) == shape:
            return tensor
        return self.builder.add_op("reshape", f"{layer}/reshape", [tensor], {"shape": shape})
