"""A program under construction: operations are appended, names stay unique, shapes follow from the op table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from edgeprune.graph import Graph, Op, Tensor, choose_free_name, verify_graph
from edgeprune.ops import OPS, AttributeValue, Shape


class ProgramBuilder:
    """Collects tensors and ops; `finish` makes the verified `Graph`.

    Each op writes one tensor, which has the op's name; a layer's constants are '<layer>/weight' and so on.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._tensors: dict[str, Tensor] = {}
        self._ops: list[Op] = []

    def shape(self, tensor: str) -> Shape:
        """The shape of a tensor."""
        return self._tensors[tensor].shape

    def add_input(self, name: str, shape: Sequence[int]) -> str:
        """Declare an input of the program."""
        self._tensors[name] = Tensor(name, tuple(shape))
        return name

    def add_constant(self, name: str, values: np.ndarray) -> str:
        """Store float32 values under a name like this one; returns the name."""
        name = self.unique_name(name)
        self._tensors[name] = Tensor.constant(name, np.asarray(values, np.float32))
        return name

    def add_op(
        self, kind: str, layer: str, inputs: Sequence[str], attrs: Mapping[str, AttributeValue] | None = None
    ) -> str:
        """Append an op of this layer; returns the tensor that it writes."""
        attrs = dict(attrs or {})
        name = self.unique_name(layer)
        shape = OPS[kind].infer_shape(attrs, [self.shape(tensor) for tensor in inputs])
        self._tensors[name] = Tensor(name, shape)
        self._ops.append(Op(kind, name, tuple(inputs), (name,), attrs))
        return name

    def unique_name(self, name: str) -> str:
        """The name itself, or with _2, _3, ... where it is taken."""
        return choose_free_name(name, self._tensors)

    def finish(self, inputs: Sequence[str], outputs: Mapping[str, str]) -> Graph:
        """The program. outputs: tensor -> the name that it gets as an output of the program."""

        def rename(name: str) -> str:
            return outputs.get(name, name)

        # an inner tensor that happens to have an output's name gives way
        taken = {name: self.unique_name(f"{name}_inner") for name in outputs.values() if name in self._tensors}
        ops = [
            replace(
                op,
                inputs=tuple(rename(taken.get(name, name)) for name in op.inputs),
                outputs=tuple(rename(taken.get(name, name)) for name in op.outputs),
            )
            for op in self._ops
        ]
        tensors = [replace(tensor, name=rename(taken.get(name, name))) for name, tensor in self._tensors.items()]
        graph = Graph(
            self._name, {tensor.name: tensor for tensor in tensors}, tuple(ops), tuple(inputs), tuple(outputs.values())
        )
        verify_graph(graph)
        return graph
