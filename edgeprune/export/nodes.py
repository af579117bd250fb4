"""One ONNX node as the readers see it: name of the layer, attributes, and how a refusal is worded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from edgeprune.errors import UnsupportedModelError

PRODUCER = "edgeprune"  # models that we exported carry the user's module paths as node names


@dataclass(frozen=True, eq=False)
class Node:
    """op_type, inputs ('' where an optional one is left out), outputs: as in ONNX. layer: the name for reports."""

    op_type: str
    layer: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, object]
    opset: int

    def has_input(self, index: int) -> bool:
        """Whether an optional input is given."""
        return index < len(self.inputs) and self.inputs[index] != ""

    def integer(self, name: str, default: int) -> int:
        """An integer attribute."""
        return int(self.attributes.get(name, default))  # type: ignore[call-overload]

    def number(self, name: str, default: float) -> float:
        """A float attribute: a float32, as ONNX stores it."""
        return float(np.float32(self.attributes.get(name, default)))  # type: ignore[arg-type]

    def integers(self, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
        """An attribute that is a list of integers."""
        return tuple(int(value) for value in self.attributes.get(name, default))  # type: ignore[attr-defined]

    def text(self, name: str, default: str) -> str:
        """A string attribute."""
        value = self.attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else str(value)

    def refusal(self, found: str, way_out: str) -> UnsupportedModelError:
        """The error that says what of this node is not supported, and what to do."""
        return UnsupportedModelError(f"{self.layer} ({self.op_type}): {found}. {way_out}")


def read_node(proto: onnx.NodeProto, layer: str, opset: int) -> Node:
    """Take an ONNX node apart."""
    attributes = {
        attribute.name: (
            onnx.numpy_helper.to_array(attribute.t)
            if attribute.type == onnx.AttributeProto.TENSOR
            else onnx.helper.get_attribute_value(attribute)
        )
        for attribute in proto.attribute
    }
    return Node(proto.op_type, layer, tuple(proto.input), tuple(proto.output), attributes, opset)


def name_layer(proto: onnx.NodeProto, *, trusted: bool) -> str:
    """The layer's name in the user's model, as well as the file tells it.

    A weight is called like its module ('block1.conv.weight'); PyTorch's older exporter writes the modules into the
    node's name ('/block1/conv/Conv'); else the node's own name stands. trusted: the file is ours, node names are right.

    >>> name_layer(onnx.helper.make_node("Conv", ["x", "block1.conv.weight"], ["y"], name="node_Conv_7"), trusted=False)
    'block1.conv'
    >>> name_layer(onnx.helper.make_node("Relu", ["x"], ["y"], name="/block1/relu/Relu"), trusted=False)
    'block1.relu'
    """
    if trusted and proto.name:
        return proto.name
    for operand in proto.input[1:]:
        if operand.endswith((".weight", ".bias")):
            return operand.rpartition(".")[0]
    if proto.name.startswith("/"):
        parts = [part for part in proto.name.split("/") if part]
        inner = [part for part in parts if not re.fullmatch(rf"{proto.op_type}(_\d+)?", part)]
        return ".".join(inner or parts)
    if re.fullmatch(rf"(node_)?{proto.op_type}_\d+", proto.name):  # a number that tells nothing
        return proto.op_type.lower()
    return proto.name.removeprefix("node_") or (proto.output[0] if proto.output else proto.op_type.lower())


def as_integers(values: np.ndarray) -> tuple[int, ...]:
    """A constant operand such as axes or a shape."""
    return tuple(int(value) for value in np.asarray(values).reshape(-1))
