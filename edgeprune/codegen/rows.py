"""Which input rows an op needs for its output rows: what row streaming is computed from."""

from __future__ import annotations

from dataclasses import dataclass

from edgeprune.codegen.kernel import find_area
from edgeprune.graph import Graph, Op
from edgeprune.ops import same_padding

_ELEMENTWISE = frozenset(
    ("relu", "relu6", "relu_n1_to_1", "leaky_relu", "prelu", "logistic", "tanh", "elu", "hard_swish", "quantize")
)


@dataclass(frozen=True)
class RowWindow:
    """Output row r reads the input rows from r * stride - before, `size` of them; those outside the map are padding."""

    stride: int
    before: int
    size: int

    def rows_needed(self, made: int, input_rows: int) -> int:
        """How many input rows must exist for the first `made` output rows."""
        if made == 0:
            return 0
        return min(max((made - 1) * self.stride - self.before + self.size, 0), input_rows)

    def first_needed(self, made: int, count_padding: bool = False) -> int:
        """The first input row that is still needed once `made` output rows exist; below 0 only with count_padding."""
        first = made * self.stride - self.before
        return first if count_padding else max(first, 0)


ONE_TO_ONE = RowWindow(1, 0, 1)


def find_row_window(graph: Graph, op: Op) -> RowWindow | None:
    """The window of an op's activations; None for an op that is not computed row by row.

    A reduction over rows is one to one, its 'output rows' being the rows it has taken in (`is_row_reduction`).
    """
    x = find_area(graph.tensors[op.inputs[0]].shape)
    rank = len(graph.tensors[op.inputs[0]].shape)
    if rank != 4:
        return None
    if op.kind in _ELEMENTWISE or is_row_reduction(graph, op):
        return ONE_TO_ONE
    if op.kind in ("conv_2d", "depthwise_conv_2d"):
        kernel = graph.tensors[op.inputs[1]].shape[1]
        return _slide(x.rows, kernel, op.attrs["stride"][0], op.attrs["dilation"][0], op.attrs["padding"])
    if op.kind in ("max_pool_2d", "average_pool_2d"):
        return _slide(x.rows, op.attrs["kernel_size"][0], op.attrs["stride"][0], 1, op.attrs["padding"])
    if op.kind in ("add", "sub", "mul"):
        shapes = {graph.tensors[name].shape for name in op.inputs if not graph.tensors[name].is_constant}
        return ONE_TO_ONE if shapes == {graph.tensors[op.outputs[0]].shape} else None
    if op.kind == "concat":
        return ONE_TO_ONE if op.attrs["axis"] in (2, 3) else None
    if op.kind == "pad":
        return RowWindow(1, op.attrs["paddings"][1][0], 1)
    return None


def is_row_reduction(graph: Graph, op: Op) -> bool:
    """Whether an op reduces all rows and columns to one pixel, and so can take its input in row by row."""
    x, y = graph.tensors[op.inputs[0]].shape, graph.tensors[op.outputs[0]].shape
    if len(x) != 4:
        return False
    if op.kind == "mean":
        return {axis for axis in op.attrs["axes"] if x[axis] > 1} == {axis for axis in (1, 2) if x[axis] > 1}
    return op.kind == "average_pool_2d" and y[1:3] == (1, 1) and tuple(op.attrs["kernel_size"]) == x[1:3]


def _slide(rows: int, kernel: int, stride: int, dilation: int, padding: str) -> RowWindow:
    before = same_padding(rows, kernel, stride, dilation)[0] if padding == "same" else 0
    return RowWindow(stride, before, (kernel - 1) * dilation + 1)
