"""The program as the firmware runs it: steps in order, and where each tensor lies.

Many tensors need no memory of their own. A reshape is another view of the same bytes; the operands of a concat over
channels are written where the concat's output lies, with its pixels' stride; a slice of channels is read where it is.
What is left is a list of buffers, which memory.py puts into the arena.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from edgeprune.codegen.kernel import find_area
from edgeprune.errors import UnsupportedModelError
from edgeprune.graph import Graph, Op

INPUT, OUTPUT = "input", "output"  # the caller's buffers

# Kinds that read and write whole pixels, so that their operands may be part of a wider map.
_PIXELWISE = frozenset(
    {
        *("conv_2d", "depthwise_conv_2d", "max_pool_2d", "average_pool_2d", "mean", "add", "sub", "mul", "concat"),
        *("relu", "relu6", "relu_n1_to_1", "leaky_relu", "prelu", "logistic", "tanh", "elu", "hard_swish", "quantize"),
    }
)


@dataclass(frozen=True)
class Place:
    """Where a tensor lies: bytes from the start of a buffer, and from one pixel to the next."""

    buffer: str
    offset: int
    stride: int


@dataclass(frozen=True, eq=False)
class Step:
    """One kernel call of the program.

    name: its C identifier. part: which input of the op it takes in, for an op that is computed an input at a time.
    inputs: the activations it reads. output: the tensor it writes, or a part of.
    """

    name: str
    op: Op
    part: int
    inputs: tuple[str, ...]
    output: str


@dataclass(frozen=True, eq=False)
class Program:
    """An upright int8 graph, its steps, where its tensors lie, and the bytes of each buffer."""

    graph: Graph
    steps: tuple[Step, ...]
    places: Mapping[str, Place]
    buffer_bytes: Mapping[str, int]

    def members(self, buffer: str) -> tuple[str, ...]:
        """The tensors that lie in a buffer."""
        return tuple(name for name, place in self.places.items() if place.buffer == buffer)


def make_program(graph: Graph) -> Program:
    """Steps and places of an upright int8 graph.

    Raises UnsupportedModelError for inputs and outputs that are not int8, and outputs that nothing computes.
    """
    _check_edges(graph)
    places = _Placing(graph).find_places()
    steps = []
    names: set[str] = set()
    for op in graph.ops:
        for part, inputs in _split_op(graph, op, places):
            name = _choose_identifier(op.name if part is None else f"{op.name}_{part}", names)
            steps.append(Step(name, op, part or 0, inputs, op.outputs[0]))
    sizes: dict[str, int] = {}
    for name, place in places.items():
        area = find_area(graph.tensors[name].shape)
        end = place.offset + (area.pixels - 1) * place.stride + area.channels
        sizes[place.buffer] = max(sizes.get(place.buffer, 0), end)
    return Program(graph, tuple(steps), places, sizes)


def _check_edges(graph: Graph) -> None:
    for name, tensor in graph.tensors.items():
        if not tensor.is_constant and tensor.dtype != "int8":
            raise UnsupportedModelError(
                f"{name}: is {tensor.dtype}; firmware is made of int8 programs only. Quantize the whole model to int8, "
                "input and output too"
            )
    for name in graph.outputs:
        if graph.producer(name) is None:
            raise UnsupportedModelError(f"output {name}: no op computes it; firmware needs at least one op before it")


def _split_op(graph: Graph, op: Op, places: Mapping[str, Place]) -> list[tuple[int | None, tuple[str, ...]]]:
    """The calls an op needs: none for a view, one for each operand of a concat that is not in place, else one."""
    activations = tuple(name for name in op.inputs if not graph.tensors[name].is_constant)
    output = places[op.outputs[0]]
    if op.kind == "concat":
        calls: list[tuple[int | None, tuple[str, ...]]] = []
        for part, name in enumerate(op.inputs):
            if graph.tensors[name].is_constant:
                raise UnsupportedModelError(
                    f"{op.name} (concat): operand {name} is constant; fold it into its consumer"
                )
            expected = _concat_place(graph, op, part, output)
            if places[name] != expected:
                calls.append((part, (name,)))
        return calls
    # two tensors of one buffer need not be views of each other: all outputs of the program lie in one
    if op.kind == "reshape":
        source = places[op.inputs[0]]
        if (source.buffer, source.offset) == (output.buffer, output.offset):
            return []
    if op.kind == "strided_slice" and output == _slice_place(graph, op, places[op.inputs[0]]):
        return []
    return [(None, activations)]


def _concat_place(graph: Graph, op: Op, part: int, output: Place) -> Place | None:
    """Where operand `part` must lie to need no copy; None where no single stride says it."""
    before = [find_area(graph.tensors[name].shape) for name in op.inputs[:part]]
    area = find_area(graph.tensors[op.inputs[part]].shape)
    rank = len(graph.tensors[op.inputs[part]].shape)
    if op.attrs["axis"] == rank - 1:
        return Place(output.buffer, output.offset + sum(other.channels for other in before), output.stride)
    if rank == 4 and op.attrs["axis"] == 1:
        return Place(
            output.buffer, output.offset + sum(other.pixels for other in before) * output.stride, output.stride
        )
    if area.rows == 1 and op.attrs["axis"] == rank - 2:
        return Place(
            output.buffer, output.offset + sum(other.pixels for other in before) * output.stride, output.stride
        )
    return None


def _slice_place(graph: Graph, op: Op, place: Place) -> Place | None:
    """The slice as a view: whole rows and columns of some channels, or some rows with all that is in them."""
    shape = graph.tensors[op.inputs[0]].shape
    if len(shape) != 4 or any(step != 1 for step in op.attrs["stride"]):
        return None
    begin, end = op.attrs["begin"], op.attrs["end"]
    cut = [axis for axis in range(4) if (begin[axis], end[axis]) != (0, shape[axis])]
    if cut in ([], [3]):
        return Place(place.buffer, place.offset + begin[3], place.stride)
    if cut == [1]:
        return Place(place.buffer, place.offset + begin[1] * shape[2] * place.stride, place.stride)
    return None


class _Placing:
    """Places of all tensors, found from the outputs backwards, views of inputs last."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.places: dict[str, Place] = {}
        self._put_at_edge(INPUT, graph.inputs)
        self._put_at_edge(OUTPUT, dict.fromkeys(graph.outputs))

    def find_places(self) -> dict[str, Place]:
        for op in reversed(self.graph.ops):
            output = op.outputs[0]
            if output not in self.places:
                self.places[output] = Place(output, 0, self._channels(output))
            if op.kind == "concat":
                self._place_operands(op)
            elif op.kind == "reshape" and self._is_free(op.inputs[0]) and self._keeps_bytes(op, self.places[output]):
                self.places[op.inputs[0]] = replace(self.places[output], stride=self._channels(op.inputs[0]))
        for op in self.graph.ops:
            self._view_input(op)
        return self.places

    def _put_at_edge(self, buffer: str, names: tuple[str, ...] | dict[str, None]) -> None:
        offset = 0
        for name in names:
            self.places[name] = Place(buffer, offset, self._channels(name))
            offset += self.graph.tensors[name].byte_count

    def _channels(self, name: str) -> int:
        return find_area(self.graph.tensors[name].shape).channels

    def _is_free(self, name: str) -> bool:
        return name not in self.places and not self.graph.tensors[name].is_constant

    def _keeps_bytes(self, op: Op, output: Place) -> bool:
        """Whether both shapes are one run of bytes, which a view needs."""
        return output.stride == self._channels(op.outputs[0])

    def _place_operands(self, op: Op) -> None:
        output = self.places[op.outputs[0]]
        for part, name in enumerate(op.inputs):
            place = None if self.graph.tensors[name].is_constant else _concat_place(self.graph, op, part, output)
            if place is None or not self._is_free(name) or op.inputs.count(name) > 1:
                continue
            producer = self.graph.producer(name)
            others = [*self.graph.consumers(name), *([producer] if producer is not None else [])]
            if place.stride == self._channels(name) or all(other.kind in _PIXELWISE for other in others):
                self.places[name] = place

    def _view_input(self, op: Op) -> None:
        """Make the output a view of the input, where it has a buffer to itself."""
        output, source = op.outputs[0], op.inputs[0]
        own = self.places[output] == Place(output, 0, self._channels(output))
        if op.kind not in ("reshape", "strided_slice") or not own:
            return
        place = self.places[source]
        if op.kind == "reshape":
            if place.stride == self._channels(source):
                self._move(output, replace(place, stride=self._channels(output)))
            return
        view = _slice_place(self.graph, op, place)
        readers = self.graph.consumers(output)
        if view is not None and (
            view.stride == self._channels(output) or all(reader.kind in _PIXELWISE for reader in readers)
        ):
            self._move(output, view)

    def _move(self, buffer: str, place: Place) -> None:
        """Put the tensors of a buffer (whose owner has its name) into another one."""
        for name, old in self.places.items():
            if old.buffer == buffer:
                self.places[name] = Place(place.buffer, place.offset + old.offset, old.stride)
        self.places[buffer] = place


def _choose_identifier(name: str, taken: set[str]) -> str:
    """A C identifier for a layer, unique in the program; `taken` is added to.

    >>> _choose_identifier("block.0/conv-1", set())
    'block_0_conv_1'
    """
    base = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_") or "layer"
    base = base[-48:].strip("_") or "layer"
    base = f"l{base}" if base[0].isdigit() else base
    candidate, count = base, 1
    while candidate.lower() in taken:
        count += 1
        candidate = f"{base}_{count}"
    taken.add(candidate.lower())
    return candidate
