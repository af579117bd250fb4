"""A program being rewritten by a pass: who writes and reads each tensor, and how ops are replaced."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

import numpy as np

from edgeprune.graph import Graph, Op, Tensor, choose_free_name, remove_unused_tensors
from edgeprune.ops import OPS, Shape


class Editor:
    """Mutable inside one pass; `finish` gives the new `Graph`, without ops whose results nobody reads."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._tensors: dict[str, Tensor] = dict(graph.tensors)
        self.ops: list[Op] = list(graph.ops)
        self._index()

    def shape(self, tensor: str) -> Shape:
        """The shape of a tensor."""
        return self._tensors[tensor].shape

    def data(self, tensor: str) -> np.ndarray | None:
        """A constant's values; None for an activation."""
        return self._tensors[tensor].data

    def constant(self, tensor: str) -> np.ndarray:
        """The values of a tensor that is constant, such as weights."""
        data = self._tensors[tensor].data
        assert data is not None, f"{tensor} is no constant"
        return data

    def producer(self, tensor: str) -> Op | None:
        """The op that writes a tensor."""
        return self._producers.get(tensor)

    def consumers(self, tensor: str) -> tuple[Op, ...]:
        """The ops that read a tensor."""
        return tuple(self._consumers.get(tensor, ()))

    def is_output(self, tensor: str) -> bool:
        """Whether the program returns the tensor."""
        return tensor in self._graph.outputs

    def holds(self, ops: Iterable[Op]) -> bool:
        """Whether these very ops are still part of the program, unchanged."""
        return all(self._producers.get(op.outputs[0]) is op for op in ops)

    def sole_consumer(self, tensor: str) -> Op | None:
        """The one op that reads a tensor which nobody else needs; None otherwise."""
        readers = self._consumers.get(tensor, [])
        return readers[0] if len(readers) == 1 and not self.is_output(tensor) else None

    def add_constant(self, name: str, values: np.ndarray) -> str:
        """Store float32 values under a name like this one; returns the name."""
        name = self.unique_name(name)
        self._tensors[name] = Tensor.constant(name, np.asarray(values, np.float32))
        return name

    def set_constant(self, name: str, values: np.ndarray) -> None:
        """Give a constant new values, of any shape."""
        self._tensors[name] = Tensor.constant(name, np.asarray(values, np.float32))

    def unique_name(self, name: str) -> str:
        """The name itself, or with _2, _3, ... where it is taken."""
        return choose_free_name(name, self._tensors)

    def make_op(self, kind: str, name: str, inputs: Sequence[str], **attrs: object) -> Op:
        """A new op of a name like this one, whose result is declared; the caller puts it into place."""
        name = self.unique_name(name)
        op = Op(kind, name, tuple(inputs), (name,), attrs)
        self.declare(op)
        return op

    def declare(self, op: Op) -> None:
        """Declare the tensor that an op writes, of the shape that follows from its inputs."""
        shape = OPS[op.kind].infer_shape(op.attrs, [self.shape(tensor) for tensor in op.inputs])
        self._tensors[op.outputs[0]] = Tensor(op.outputs[0], shape)

    def replace(self, old: Op, *new: Op) -> None:
        """Put ops at the place of another one."""
        place = next(place for place, op in enumerate(self.ops) if op is old)
        self.ops[place : place + 1] = new
        self._index()

    def insert_before(self, tensor: str, *ops: Op) -> None:
        """Put ops in front of the one that writes `tensor`."""
        here = self._producers[tensor]
        self.replace(here, *ops, here)

    def remove(self, ops: Collection[Op]) -> None:
        """Take ops out; their results must not be read any more."""
        gone = {id(op) for op in ops}
        self.ops = [op for op in self.ops if id(op) not in gone]
        for op in ops:
            if not self.is_output(op.outputs[0]):
                del self._tensors[op.outputs[0]]  # the name is free again
        self._index()

    def bypass(self, ops: Sequence[Op], tensor: str) -> str:
        """Take out a chain of ops: whoever read its result reads `tensor` instead, written before.

        Where the result is an output of the program, `tensor` gets its name (see `can_bypass`). Returns the name that
        `tensor` has now. Ops that read or wrote a renamed tensor are new objects.
        """
        result = ops[-1].outputs[0]
        self.remove(ops)
        old, new = (tensor, result) if self.is_output(result) else (result, tensor)
        for place, op in enumerate(self.ops):
            inputs = tuple(new if name == old else name for name in op.inputs)
            outputs = tuple(new if name == old else name for name in op.outputs)
            if (inputs, outputs) != (op.inputs, op.outputs):
                self.ops[place] = replace(op, inputs=inputs, outputs=outputs)
        if new == result:
            self._tensors[result] = replace(self._tensors.pop(tensor), name=result)
        self._index()
        return new

    def can_bypass(self, ops: Sequence[Op], tensor: str) -> bool:
        """Whether `bypass` may give `tensor` the name of an output: not if it is an input or output itself."""
        return not self.is_output(ops[-1].outputs[0]) or (
            self.producer(tensor) is not None and not self.is_output(tensor)
        )

    def finish(self) -> Graph:
        """The rewritten program."""
        needed = set(self._graph.outputs)
        kept = []
        for op in reversed(self.ops):
            if any(name in needed for name in op.outputs):
                kept.append(op)
                needed.update(op.inputs)
        graph = replace(self._graph, ops=tuple(reversed(kept)), tensors=self._tensors)
        return remove_unused_tensors(graph)

    def _index(self) -> None:
        self._producers = {name: op for op in self.ops for name in op.outputs}
        self._consumers: dict[str, list[Op]] = {}
        for op in self.ops:
            for name in op.inputs:  # an op that reads a tensor twice counts twice
                self._consumers.setdefault(name, []).append(op)
