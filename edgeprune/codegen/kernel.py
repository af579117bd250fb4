"""What a kernel is: one way to compute one kind of op on some cores.

A kernel is a class with one method, `lower`: given a `Call` (the op, where its operands lie, how many rows are asked at
a time) it answers with a `Lowered` (the C function, its parameters, its constants, the files it needs, what it costs),
or None where it does not fit. `kernels.KERNELS` lists, for each kind of op, the kernels in order of preference; the one
with the fewest modelled cycles is taken.

Every C kernel has the same form, `void name(const name_op *op, const ep_call *call)` (runtime/ep.h), and computes a
*range of rows* of its output: all of them when whole maps are kept, a few at a time when rows are streamed. That one
rule is what makes streaming possible without a second set of kernels.

Programs that reach the kernels are *upright*: feature maps are NHWC with time on the rows, (1, T, 1, C) for a series
(see upright.py), so that a row is a step in time or a line of an image.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from edgeprune.graph import Graph, Op, Tensor
from edgeprune.target import Target


@dataclass(frozen=True)
class Area:
    """A tensor as kernels see it: rows x columns pixels of `channels` int8 values."""

    rows: int
    columns: int
    channels: int

    @property
    def pixels(self) -> int:
        return self.rows * self.columns


@cache
def find_area(shape: tuple[int, ...]) -> Area:
    """Rows, columns and channels of a tensor's shape; what has no rows is one row of one pixel.

    >>> find_area((1, 140, 1, 32)), find_area((1, 10))
    (Area(rows=140, columns=1, channels=32), Area(rows=1, columns=1, channels=10))
    """
    if len(shape) == 4:
        return Area(shape[1], shape[2], shape[3])
    if len(shape) == 3:
        return Area(shape[1], 1, shape[2])
    count = 1
    for size in shape:
        count *= size
    return Area(1, 1, count)


@dataclass(frozen=True, eq=False)
class Call:
    """One op as it is to be computed.

    name: the layer's C identifier, unique in the program; constants are named `<name>_weight` and the like.
    op, graph: the op in its upright int8 program.
    target: what the core has (`dsp`, `mve`, ...).
    x_strides: bytes from one pixel to the next in each activation input, in the order of the op's inputs; equal to
        the channels unless the tensor is a part of a wider one (a concat's operand).
    y_stride: the same for the output.
    rows: the most output rows that one call will ask for (of a reduction over rows: input rows).
    part: which input is meant, for an op that is computed an input at a time (concat).
    """

    name: str
    op: Op
    graph: Graph
    target: Target
    x_strides: tuple[int, ...]
    y_stride: int
    rows: int
    part: int = 0

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """All operands, constants too, in the op's order."""
        return tuple(self.graph.tensors[name] for name in self.op.inputs)

    @property
    def output(self) -> Tensor:
        return self.graph.tensors[self.op.outputs[0]]

    @property
    def x(self) -> Area:
        """The first input's area."""
        return find_area(self.inputs[0].shape)

    @property
    def y(self) -> Area:
        return find_area(self.output.shape)


@dataclass(frozen=True, eq=False)
class Constant:
    """A constant array of the firmware: C name, C element type ('int8_t', 'uint32_t', ...), values, alignment in bytes.

    Equal values of the same type are stored once (emit.py).
    """

    name: str
    c_type: str
    values: np.ndarray
    alignment: int = 4


@dataclass(frozen=True)
class Assembly:
    """A generated assembly function. Its name says all that the text depends on: layers of one shape share it."""

    name: str
    text: str
    prototype: str


@dataclass(frozen=True, eq=False)
class Lowered:
    """An op made into C: a call of `function` with parameters of type `function + "_op"`.

    kernel: the kernel's name for reports ("line convolution, packed pairs").
    function: the C function.
    fields: the parameters, in the order of the C struct: an integer, or the name of a constant or function.
    constants, assembly: what the parameters name.
    sources: files of runtime/ that hold the function ("ep_conv_2d.c"); headers are found from their #include lines.
    scratch_bytes: memory needed during the call only (8-byte aligned).
    state_bytes: memory that must keep its content from the first row's call to the last's (a reduction's sums).
    in_place: the activation inputs (0 or 1) whose memory the output may take, strides being equal.
    in_place_whole: the same, where one call computes the whole map (never in a streamed segment).
    in_place_rows: whether rows of the output may be written over the first rows of the input's window, those that no
        later row needs: a call for n rows from row r on has read all it needs of the n input rows from r - padding on
        before it writes there.
    cycles: modelled Cortex-M4-like cycles of one inference, `rows` at a time: a closed formula to choose kernels by;
        what is reported is measured.
    """

    kernel: str
    function: str
    fields: Mapping[str, int | str]
    cycles: int
    constants: tuple[Constant, ...] = ()
    assembly: tuple[Assembly, ...] = ()
    sources: tuple[str, ...] = ()
    scratch_bytes: int = 0
    state_bytes: int = 0
    in_place: tuple[int, ...] = field(default=())
    in_place_whole: tuple[int, ...] = field(default=())
    in_place_rows: bool = False

    @property
    def constant_bytes(self) -> int:
        return sum(constant.values.nbytes for constant in self.constants)


class Kernel(ABC):
    """One way to compute one kind of op."""

    @abstractmethod
    def lower(self, call: Call) -> Lowered | None:
        """The op in C; None where this kernel cannot compute it exactly or the core lacks what it needs."""
