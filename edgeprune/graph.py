"""The inference program: tensors by name, operations in order, NHWC, quantization on the tensor.

One immutable `Graph` is what ONNX, TFLite and C are made from. Conventions, which every room relies on:

- Activations are NHWC with a batch of 1: (1, H, W, C). A series of T steps and C channels is (1, 1, T, C); a vector is
  (1, C). Executors accept any number of samples along axis 0.
- Constants (weights, biases, other operands) are tensors with `data`; an op names them among its inputs.
- Padding is 'same' or 'valid' with TFLite's meaning; any other padding is an explicit `pad` op before the layer.
- int8 tensors carry `quant`: real = scale * (stored - zero_point). Weights are symmetric (zero point 0, -127..127),
  biases int32 with scale = input scale * weight scale.

What each op kind means, its attributes, its shape rule and its MACs: `ops.py`; its arithmetic: `reference.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np

from edgeprune.errors import EdgepruneError
from edgeprune.ops import OPS, AttributeValue, ShapeError

DTYPES = {"float32": np.float32, "int8": np.int8, "int16": np.int16, "int32": np.int32, "int64": np.int64}


class GraphError(EdgepruneError):
    """A graph that breaks its own rules: a fault in the pass that made it."""


@dataclass(frozen=True, eq=False)
class Quant:
    """Affine quantization of a tensor: real = scale * (stored - zero_point).

    scale: float32, shape (1,) per tensor or (channels,) along `axis`.
    zero_point: int32, the same shape.
    axis: the channel axis of a per-channel quantization; None per tensor.
    """

    scale: np.ndarray
    zero_point: np.ndarray
    axis: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", np.atleast_1d(np.asarray(self.scale, np.float32)))
        object.__setattr__(self, "zero_point", np.atleast_1d(np.asarray(self.zero_point, np.int32)))
        if self.scale.shape != self.zero_point.shape or self.scale.ndim != 1:
            raise GraphError(f"scale {self.scale.shape} and zero point {self.zero_point.shape} must be equal vectors")
        if self.axis is None and len(self.scale) != 1:
            raise GraphError(f"{len(self.scale)} scales need a channel axis")
        if not (np.isfinite(self.scale).all() and (self.scale > 0).all()):
            raise GraphError("scales must be finite and positive")

    @classmethod
    def per_tensor(cls, scale: float, zero_point: int) -> Quant:
        """One scale and zero point for the whole tensor."""
        return cls(np.array([scale], np.float32), np.array([zero_point], np.int32))


@dataclass(frozen=True, eq=False)
class Tensor:
    """A value of the program; a constant where `data` is given. `dtype` is a key of DTYPES."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    data: np.ndarray | None = None
    quant: Quant | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(size) for size in self.shape))
        if self.dtype not in DTYPES:
            raise GraphError(f"{self.name}: dtype is {self.dtype}; allowed: {', '.join(DTYPES)}")
        if self.data is not None and (self.data.shape != self.shape or self.data.dtype != DTYPES[self.dtype]):
            raise GraphError(
                f"{self.name}: data is {self.data.dtype}{self.data.shape}, declared {self.dtype}{self.shape}"
            )

    @classmethod
    def constant(cls, name: str, data: np.ndarray, quant: Quant | None = None) -> Tensor:
        """A constant tensor; shape and dtype are those of `data`."""
        data = np.ascontiguousarray(data).reshape(np.shape(data))  # ascontiguousarray turns () into (1,)
        return cls(name, data.shape, data.dtype.name, data, quant)

    @property
    def is_constant(self) -> bool:
        return self.data is not None

    @property
    def element_count(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def byte_count(self) -> int:
        return self.element_count * np.dtype(DTYPES[self.dtype]).itemsize


@dataclass(frozen=True)
class Op:
    """One operation. `kind` is a key of `ops.OPS`; `name` is the layer's name in the user's model, for reports."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attrs: Mapping[str, AttributeValue] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "inputs", tuple(self.inputs))
        object.__setattr__(self, "outputs", tuple(self.outputs))
        object.__setattr__(self, "attrs", MappingProxyType(dict(self.attrs)))


@dataclass(frozen=True, eq=False)
class Graph:
    """A program: `ops` in execution order over `tensors`; inputs and outputs by tensor name."""

    name: str
    tensors: Mapping[str, Tensor]
    ops: tuple[Op, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "tensors", MappingProxyType(dict(self.tensors)))
        object.__setattr__(self, "ops", tuple(self.ops))
        object.__setattr__(self, "inputs", tuple(self.inputs))
        object.__setattr__(self, "outputs", tuple(self.outputs))

    @property
    def is_quantized(self) -> bool:
        """Whether every input and output is int8."""
        return all(self.tensors[name].dtype == "int8" for name in (*self.inputs, *self.outputs))

    def producer(self, tensor: str) -> Op | None:
        """The op that writes `tensor`; None for an input or a constant."""
        return next((op for op in self.ops if tensor in op.outputs), None)

    def consumers(self, tensor: str) -> tuple[Op, ...]:
        """The ops that read `tensor`, in order."""
        return tuple(op for op in self.ops if tensor in op.inputs)

    def with_tensors(self, tensors: Iterable[Tensor]) -> Graph:
        """The same program with these tensors put in place of those of the same name."""
        return replace(self, tensors={**self.tensors, **{tensor.name: tensor for tensor in tensors}})


GraphPass = Callable[[Graph], Graph]


def run_passes(graph: Graph, passes: Iterable[GraphPass]) -> Graph:
    """Apply passes in order, verifying the graph after each."""
    for graph_pass in passes:
        graph = graph_pass(graph)
        try:
            verify_graph(graph)
        except GraphError as error:
            raise GraphError(f"after pass {graph_pass.__name__}: {error}") from error
    return graph


def verify_graph(graph: Graph) -> None:
    """Raise `GraphError` unless the graph keeps the rules at the head of this file."""
    for key, tensor in graph.tensors.items():
        if key != tensor.name:
            raise GraphError(f"tensor {tensor.name} is stored as {key}")
    known = {name for name, tensor in graph.tensors.items() if tensor.is_constant}
    for name in graph.inputs:
        if name not in graph.tensors or name in known:
            raise GraphError(f"input {name} is missing or constant")
        known.add(name)
    for op in graph.ops:
        missing = [name for name in op.inputs if name not in known]
        if missing:
            raise GraphError(f"{op.name} ({op.kind}) reads {missing[0]} before it is written")
        expected = infer_output_shape(graph, op)
        for name in op.outputs:
            if name in known:
                raise GraphError(f"{op.name} ({op.kind}) writes {name} a second time")
            if name not in graph.tensors:
                raise GraphError(f"{op.name} ({op.kind}) writes {name}, which is not declared")
            if graph.tensors[name].shape != expected:
                raise GraphError(
                    f"{op.name} ({op.kind}): {name} is declared {graph.tensors[name].shape}, computed {expected}"
                )
            known.add(name)
    for name in graph.outputs:
        if name not in known:
            raise GraphError(f"output {name} is never written")


def infer_output_shape(graph: Graph, op: Op) -> tuple[int, ...]:
    """The output's shape by the table of ops; GraphError where kind, operands or attributes don't fit it."""
    if op.kind not in OPS:
        raise GraphError(f"{op.name}: unknown op kind {op.kind}; allowed: {', '.join(OPS)}")
    kind = OPS[op.kind]
    if set(op.attrs) != set(kind.attributes):
        raise GraphError(
            f"{op.name} ({op.kind}): attributes are {', '.join(sorted(op.attrs)) or 'none'}; "
            f"it has {', '.join(kind.attributes) or 'none'}"
        )
    any_number = kind.operands[-1].endswith("*")
    if len(op.inputs) != len(kind.operands) and not (any_number and op.inputs):
        raise GraphError(f"{op.name} ({op.kind}): {len(op.inputs)} operands; it takes {', '.join(kind.operands)}")
    try:
        return kind.infer_shape(op.attrs, [graph.tensors[name].shape for name in op.inputs])
    except ShapeError as error:
        raise GraphError(f"{op.name} ({op.kind}): {error}") from error


def count_op_macs(graph: Graph, op: Op) -> int:
    """Multiply-accumulates of one op, by the table of ops."""
    shapes = [graph.tensors[name].shape for name in op.inputs]
    return OPS[op.kind].count_macs(op.attrs, shapes, graph.tensors[op.outputs[0]].shape)


def cut_op(graph: Graph, index: int) -> Graph:
    """The one-op program of `graph.ops[index]`: its activations become inputs, its constants stay."""
    op = graph.ops[index]
    inputs = tuple(dict.fromkeys(name for name in op.inputs if not graph.tensors[name].is_constant))
    tensors = {name: graph.tensors[name] for name in (*op.inputs, *op.outputs)}
    return Graph(f"{graph.name}/{op.name}", tensors, (op,), inputs, op.outputs)


def choose_free_name(name: str, taken: Container[str]) -> str:
    """The name itself, or with _2, _3, ... where it is taken.

    >>> choose_free_name("conv", {"conv", "conv_2"})
    'conv_3'
    """
    candidate, count = name, 1
    while candidate in taken:
        count += 1
        candidate = f"{name}_{count}"
    return candidate


def remove_unused_tensors(graph: Graph) -> Graph:
    """Drop tensors that no op, input or output names."""
    used = {*graph.inputs, *graph.outputs}
    for op in graph.ops:
        used.update(op.inputs, op.outputs)
    return replace(graph, tensors={name: tensor for name, tensor in graph.tensors.items() if name in used})


def is_same_graph(first: Graph, second: Graph) -> bool:
    """Whether two graphs are equal: ops, names, shapes, types, constants and quantization, to the bit."""
    if (first.ops, first.inputs, first.outputs) != (second.ops, second.inputs, second.outputs):
        return False
    if set(first.tensors) != set(second.tensors):
        return False
    return all(_is_same_tensor(first.tensors[name], second.tensors[name]) for name in first.tensors)


def _is_same_tensor(first: Tensor, second: Tensor) -> bool:
    if (first.shape, first.dtype, first.is_constant) != (second.shape, second.dtype, second.is_constant):
        return False
    if first.data is not None and second.data is not None and first.data.tobytes() != second.data.tobytes():
        return False
    if first.quant is None or second.quant is None:
        return first.quant is second.quant
    return (
        first.quant.axis == second.quant.axis
        and np.array_equal(first.quant.scale, second.quant.scale)
        and np.array_equal(first.quant.zero_point, second.quant.zero_point)
    )


def format_graph(graph: Graph) -> str:
    """The program as text, a line per op, for reading and for golden tests."""

    def describe(name: str) -> str:
        tensor = graph.tensors[name]
        text = f"{name}:{tensor.dtype}{list(tensor.shape)}"
        if tensor.quant is not None and len(tensor.quant.scale) == 1:
            text += f"@{tensor.quant.scale[0]:.6g}{int(tensor.quant.zero_point[0]):+d}"
        return text

    lines = [f"graph {graph.name}({', '.join(map(describe, graph.inputs))})"]
    for op in graph.ops:
        attrs = ", ".join(f"{key}={value}" for key, value in op.attrs.items())
        operands = ", ".join(op.inputs)
        lines.append(f"  {', '.join(map(describe, op.outputs))} = {op.kind}({operands}) {{{attrs}}}  # {op.name}")
    lines.append(f"  return {', '.join(graph.outputs)}")
    return "\n".join(lines)
