"""Readers of ONNX nodes that reduce positions: pools and reductions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeprune.export.nodes import Node
from edgeprune.export.read_layers import add_constant_op, set_nhwc
from edgeprune.export.reader import Axes, Reader, Value
from edgeprune.export.views import view_axes
from edgeprune.export.windows import Window, pad_window, read_window
from edgeprune.ops import same_padding


def read_max_pool(reader: Reader, node: Node) -> None:
    """MaxPool -> pad with the lowest value, max_pool_2d."""
    if len(node.outputs) > 1 and node.outputs[1]:
        raise node.refusal("it also returns the positions of the maxima", "Use the pool without return_indices")
    value = reader.value(node)
    window = read_window(node, value.shape)
    if window.dilation != (1, 1):
        raise node.refusal(f"its dilation is {window.dilation}", "Pools are supported with a dilation of 1 only")
    x = pad_window(reader, node, reader.as_nhwc(node, value), window, "lowest")
    y = reader.builder.add_op("max_pool_2d", node.layer, [x], _pool_attrs(window))
    set_nhwc(reader, node.outputs[0], y, len(value.shape))


def read_average_pool(reader: Reader, node: Node) -> None:
    """AveragePool -> mean over the whole map, average_pool_2d, or that and a correction at the borders.

    TFLite's op leaves padding out of the average. Where ONNX counts otherwise, the input is padded with zeros, averaged
    over whole windows, and multiplied by kernel size / ONNX's divisor at each position.
    """
    value = reader.value(node)
    window = read_window(node, value.shape)
    if window.dilation != (1, 1):
        raise node.refusal(f"its dilation is {window.dilation}", "Pools are supported with a dilation of 1 only")
    x = reader.as_nhwc(node, value)
    sizes = reader.builder.shape(x)[1:3]
    rank = len(value.shape)
    padded = any((*window.before, *window.after))
    if not padded and window.output == (1, 1) and window.kernel == sizes:
        y = reader.builder.add_op("mean", node.layer, [x], {"axes": (1, 2), "keep_dims": True})
        set_nhwc(reader, node.outputs[0], y, rank)
        return
    counts_padding = bool(node.integer("count_include_pad", 0))
    is_same = all(
        same_padding(sizes[axis], window.kernel[axis], window.stride[axis], 1)
        == (window.before[axis], _read_part(window, sizes, axis))
        for axis in (0, 1)
    )
    if padded and is_same and not counts_padding:
        y = reader.builder.add_op("average_pool_2d", node.layer, [x], _pool_attrs(window) | {"padding": "same"})
        set_nhwc(reader, node.outputs[0], y, rank)
        return
    x = pad_window(reader, node, x, window, "zero")
    y = reader.builder.add_op("average_pool_2d", node.layer, [x], _pool_attrs(window))
    set_nhwc(reader, node.outputs[0], y, rank)
    divisors = [_count_elements(window, sizes, axis, counts_padding) for axis in (0, 1)]
    correction = np.prod(window.kernel) / np.outer(*divisors)
    if (correction != 1).any():
        result = reader.value(Node("AveragePool", node.layer, node.outputs[:1], (), {}, node.opset))
        map_shape = correction.shape if rank == 4 else correction.shape[1:]
        corrected = add_constant_op(reader, "mul", f"{node.layer}/border", result, correction.reshape(1, 1, *map_shape))
        reader.set_value(node.outputs[0], corrected)


def read_global_pool(reader: Reader, node: Node) -> None:
    """GlobalAveragePool -> mean; GlobalMaxPool -> max_pool_2d over the whole map."""
    axes = tuple(range(2, len(reader.value(node).shape)))
    _reduce(reader, node, axes, keep_dims=True)


def read_reduce(reader: Reader, node: Node) -> None:
    """ReduceMean -> mean, ReduceSum -> mean and mul, ReduceMax -> max_pool_2d."""
    value = reader.value(node)
    rank = len(value.shape)
    axes = reader.integers_or(node, 1, "axes")
    if not axes:
        if node.integer("noop_with_empty_axes", 0):
            reader.set_value(node.outputs[0], value)
            return
        axes = tuple(range(rank))
    _reduce(reader, node, tuple(sorted(axis % rank for axis in axes)), keep_dims=bool(node.integer("keepdims", 1)))


def _reduce(reader: Reader, node: Node, axes: tuple[int, ...], *, keep_dims: bool) -> None:
    value = reader.value(node)
    if 0 in axes:
        raise node.refusal("it reduces the batch axis", "Reduce the axes of a sample only")
    layout = reader.find_layout(node, value)
    x = reader.arrange(node.layer, value, layout)
    places = [place for place, axis in enumerate(layout) if axis in axes]
    if len(layout) == 4 and layout[1] is None and 2 in places:
        places = [1, *places]  # a series has height 1: reduced with the time, it is a reduction over the map
    kept = tuple(1 if axis in axes else size for axis, size in enumerate(value.shape))
    result = kept if keep_dims else tuple(size for axis, size in enumerate(value.shape) if axis not in axes)
    if node.op_type in ("ReduceMax", "GlobalMaxPool"):
        y = _add_max(reader, node, x, places)
    else:
        y, layout = _add_mean(reader, node, x, places, layout, drop=len(result) == 2)
    view = view_axes(reader.builder.shape(y), layout, kept).reshaped(result)
    reader.set_value(node.outputs[0], Value(y, view))
    if node.op_type == "ReduceSum":
        count = np.prod([value.shape[axis] for axis in axes])
        total = add_constant_op(reader, "mul", f"{node.layer}/count", Value(y, view), np.array(count))
        reader.set_value(node.outputs[0], total)


def _add_mean(
    reader: Reader, node: Node, x: str, places: Sequence[int], layout: Axes, *, drop: bool
) -> tuple[str, Axes]:
    """Append mean; where a vector (N, C) is left, without the axes of 1 (and the layout without them)."""
    drop = drop and list(places) == [1, 2]
    y = reader.builder.add_op("mean", node.layer, [x], {"axes": tuple(places), "keep_dims": not drop})
    return y, tuple(axis for place, axis in enumerate(layout) if not drop or place not in places)


def _add_max(reader: Reader, node: Node, x: str, places: Sequence[int]) -> str:
    shape = reader.builder.shape(x)
    if len(shape) != 4 or not set(places) <= {1, 2}:
        raise node.refusal("it takes the maximum over the channels", "Only maxima over positions are supported")
    kernel = tuple(shape[place] if place in places else 1 for place in (1, 2))
    attrs = {"kernel_size": kernel, "stride": (1, 1), "padding": "valid", "activation": "none"}
    return reader.builder.add_op("max_pool_2d", node.layer, [x], attrs)


def _pool_attrs(window: Window) -> dict[str, object]:
    return {"kernel_size": window.kernel, "stride": window.stride, "padding": "valid", "activation": "none"}


def _read_part(window: Window, sizes: Sequence[int], axis: int) -> int:
    """The padding after an axis that some window reads."""
    reach = (window.output[axis] - 1) * window.stride[axis] + window.kernel[axis]
    return max(0, reach - window.before[axis] - sizes[axis])


def _count_elements(window: Window, sizes: Sequence[int], axis: int, counts_padding: bool) -> np.ndarray:
    """ONNX's divisor along one axis, at each position: the elements of the window that count."""
    first, last = window.before[axis], window.before[axis] + sizes[axis]
    if counts_padding:
        first, last = 0, last + window.after[axis] - window.overhang[axis]
    begin = np.arange(window.output[axis]) * window.stride[axis]
    return np.minimum(begin + window.kernel[axis], last) - np.maximum(begin, first)
