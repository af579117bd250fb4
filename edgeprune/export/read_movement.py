"""Readers of ONNX nodes that move or pick elements: reshapes, transposes, slices, concatenation, padding."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from edgeprune.export.nodes import Node, as_integers
from edgeprune.export.reader import Axes, Reader, Value


def read_identity(reader: Reader, node: Node) -> None:
    """Identity, Dropout (at inference), Cast to float32: the value itself."""
    if node.op_type == "Cast" and node.integer("to", 1) != 1:
        raise node.refusal(f"it casts to ONNX type {node.integer('to', 1)}", "Only float32 computations are supported")
    reader.set_value(node.outputs[0], reader.value(node))


def read_reshape(reader: Reader, node: Node) -> None:
    """Reshape: another view of the same elements."""
    value = reader.value(node)
    wanted = list(as_integers(reader.constant(node, 1, "shape")))
    if not node.integer("allowzero", 0):
        wanted = [value.shape[axis] if size == 0 else size for axis, size in enumerate(wanted)]
    if -1 in wanted:
        known = math.prod(size for size in wanted if size != -1)
        wanted[wanted.index(-1)] = math.prod(value.shape) // max(known, 1)
    _set_reshaped(reader, node, value, wanted)


def read_flatten(reader: Reader, node: Node) -> None:
    """Flatten: two axes, split at `axis`."""
    value = reader.value(node)
    axis = node.integer("axis", 1)
    axis += len(value.shape) if axis < 0 else 0
    _set_reshaped(reader, node, value, (math.prod(value.shape[:axis]), math.prod(value.shape[axis:])))


def read_squeeze(reader: Reader, node: Node) -> None:
    """Squeeze: without axes of 1."""
    value = reader.value(node)
    rank = len(value.shape)
    axes = reader.integers_or(node, 1, "axes")
    if axes is None:  # every axis of 1; the batch is one only because we compile for a batch of 1
        axes = tuple(axis for axis in range(1, rank) if value.shape[axis] == 1)
    dropped = {axis % rank for axis in axes}
    _set_reshaped(reader, node, value, [size for axis, size in enumerate(value.shape) if axis not in dropped])


def read_unsqueeze(reader: Reader, node: Node) -> None:
    """Unsqueeze: with more axes of 1."""
    value = reader.value(node)
    axes = reader.integers_or(node, 1, "axes") or ()
    rank = len(value.shape) + len(axes)
    added = {axis % rank for axis in axes}
    sizes = iter(value.shape)
    _set_reshaped(reader, node, value, [1 if axis in added else next(sizes) for axis in range(rank)])


def read_transpose(reader: Reader, node: Node) -> None:
    """Transpose: another view; elements move only when a later op needs them to."""
    value = reader.value(node)
    perm = node.integers("perm", tuple(reversed(range(len(value.shape)))))
    reader.set_value(node.outputs[0], reader.transpose(node.layer, value, perm))


def read_expand(reader: Reader, node: Node) -> None:
    """Expand: nothing, where the ops that read it broadcast by themselves."""
    value = reader.value(node)
    wanted = np.broadcast_shapes(value.shape, as_integers(reader.constant(node, 1, "shape")))
    if wanted != value.shape and not _broadcasts_anyway(reader, node, wanted):
        raise node.refusal(f"it repeats {value.shape} to {wanted}", "Let the arithmetic broadcast instead of expand()")
    reader.set_value(node.outputs[0], value)


def read_slice(reader: Reader, node: Node) -> None:
    """Slice -> strided_slice."""
    value = reader.value(node)
    rank = len(value.shape)
    starts, ends = reader.integers_or(node, 1, "starts") or (), reader.integers_or(node, 2, "ends") or ()
    axes = reader.integers_or(node, 3, "axes") or tuple(range(len(starts)))
    steps = reader.integers_or(node, 4, "steps") or (1,) * len(starts)
    picks = {}
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if step < 1:
            raise node.refusal(f"its step is {step}", "Only positive steps are supported")
        picks[axis % rank] = range(*slice(start, end, step).indices(value.shape[axis % rank]))
    _set_slice(reader, node, value, picks, node.outputs[0])


def read_split(reader: Reader, node: Node) -> None:
    """Split -> a strided_slice for each part."""
    value = reader.value(node)
    axis = node.integer("axis", 0) % len(value.shape)
    size, parts = value.shape[axis], len(node.outputs)
    even = -(-size // parts)
    sizes = reader.integers_or(node, 1, "split") or tuple(min(even, size - even * part) for part in range(parts))
    begin = 0
    for output, length in zip(node.outputs, sizes, strict=True):
        if output:
            _set_slice(reader, node, value, {axis: range(begin, begin + length)}, output)
        begin += length


def read_gather(reader: Reader, node: Node) -> None:
    """Gather of one position, or of evenly spaced ones -> strided_slice."""
    value = reader.value(node)
    axis = node.integer("axis", 0) % len(value.shape)
    indices = reader.constant(node, 1, "index")
    picked = [int(index) % value.shape[axis] for index in indices.reshape(-1)]
    steps = {after - before for before, after in itertools.pairwise(picked)} or {1}
    if indices.ndim > 1 or len(steps) > 1 or min(steps) < 1:
        raise node.refusal("it picks unevenly spaced positions", "Only a slice with one positive step is supported")
    _set_slice(reader, node, value, {axis: range(picked[0], picked[-1] + 1, steps.pop())}, node.outputs[0])
    if indices.ndim == 0:
        result = reader.value(_reading(node))
        kept = [size for place, size in enumerate(result.shape) if place != axis]
        _set_reshaped(reader, node, result, kept)


def read_concat(reader: Reader, node: Node) -> None:
    """Concat -> concat; zeros at an end (a padded shortcut) -> pad."""
    computed = [index for index in range(len(node.inputs)) if not reader.is_constant(node, index)]
    values = [reader.value(node, index) for index in computed]
    rank = len(values[0].shape)
    axis = node.integer("axis", 1) % rank
    if axis == 0:
        raise node.refusal("it joins along the batch axis", "Join channels or positions")
    before, after = _read_zero_ends(reader, node, computed, axis)
    layout = reader.find_layout(node, *values)
    tensors = [reader.arrange(node.layer, value, layout) for value in values]
    place = layout.index(axis)
    tensor = tensors[0]
    if len(tensors) > 1:
        tensor = reader.builder.add_op("concat", node.layer, tensors, {"axis": place})
    if before or after:
        pairs = tuple((before, after) if at == place else (0, 0) for at in range(len(layout)))
        tensor = reader.builder.add_op("pad", node.layer, [tensor], {"paddings": pairs, "mode": "zero"})
    joined = sum(value.shape[axis] for value in values) + before + after
    shape = tuple(joined if at == axis else size for at, size in enumerate(values[0].shape))
    reader.set_arranged(node.outputs[0], tensor, layout, shape)


def read_pad(reader: Reader, node: Node) -> None:
    """Pad -> pad; negative padding -> strided_slice."""
    value = reader.value(node)
    rank = len(value.shape)
    if node.text("mode", "constant") != "constant":
        raise node.refusal(f"its mode is {node.text('mode', 'constant')}", "Only padding with zeros is supported")
    given = reader.integers_or(node, 1, "pads") or ()
    axes = as_integers(reader.constant(node, 3, "axes")) if node.has_input(3) else tuple(range(rank))
    pads = {axis % rank: (given[at], given[at + len(axes)]) for at, axis in enumerate(axes)}
    fill = float(reader.constant(node, 2, "value").reshape(-1)[0]) if node.has_input(2) else node.number("value", 0.0)
    if fill != 0 and fill > -3e38:
        raise node.refusal(f"it pads with {fill:g}", "Only padding with zeros is supported")
    if pads.get(0, (0, 0)) != (0, 0):
        raise node.refusal("it pads the batch axis", "Pad channels or positions")
    picks = {
        axis: range(max(0, -before), value.shape[axis] - max(0, -after))
        for axis, (before, after) in pads.items()
        if min(before, after) < 0
    }
    if picks:
        _set_slice(reader, node, value, picks, node.outputs[0])
        value = reader.value(_reading(node))
    shape = tuple(size + sum(max(0, side) for side in pads.get(axis, (0, 0))) for axis, size in enumerate(value.shape))
    if shape == value.shape:
        reader.set_value(node.outputs[0], value)
        return
    layout = reader.find_layout(node, value)
    x = reader.arrange(node.layer, value, layout)
    pairs = [(0, 0) if axis is None else tuple(max(0, side) for side in pads.get(axis, (0, 0))) for axis in layout]
    attrs = {"paddings": tuple(pairs), "mode": "zero" if fill == 0 else "lowest"}
    tensor = reader.builder.add_op("pad", node.layer, [x], attrs)
    reader.set_arranged(node.outputs[0], tensor, layout, shape)


def _set_reshaped(reader: Reader, node: Node, value: Value, shape: Sequence[int]) -> None:
    if math.prod(shape) != math.prod(value.shape):
        raise node.refusal(
            f"{value.shape} can't become {tuple(shape)} for a batch of 1", "Keep the batch axis free (-1)"
        )
    reader.set_value(node.outputs[0], Value(value.tensor, value.view.reshaped(shape)))


def _set_slice(reader: Reader, node: Node, value: Value, picks: dict[int, range], output: str) -> None:
    """Append the strided_slice that picks these positions along these axes of the value."""
    picks = {axis: picked for axis, picked in picks.items() if picked != range(value.shape[axis])}
    if not picks:
        reader.set_value(output, value)
        return
    if 0 in picks:
        raise node.refusal("it slices the batch axis", "Slice channels or positions")
    if any(len(picked) == 0 for picked in picks.values()):
        raise node.refusal("it selects nothing", "Check its bounds")
    layout: Axes = reader.find_layout(node, value)
    x = reader.arrange(node.layer, value, layout)
    sizes = reader.builder.shape(x)
    ranges = [
        picks.get(axis, range(sizes[place])) if axis is not None else range(1) for place, axis in enumerate(layout)
    ]
    attrs = {
        "begin": tuple(picked.start for picked in ranges),
        "end": tuple(picked[-1] + 1 for picked in ranges),
        "stride": tuple(picked.step for picked in ranges),
    }
    tensor = reader.builder.add_op("strided_slice", node.layer, [x], attrs)
    shape = tuple(len(picks.get(axis, range(size))) for axis, size in enumerate(value.shape))
    reader.set_arranged(output, tensor, layout, shape)


def _read_zero_ends(reader: Reader, node: Node, computed: Sequence[int], axis: int) -> tuple[int, int]:
    """How many zeros a Concat puts before and after the computed values."""
    ends = [0, 0]
    for index in range(len(node.inputs)):
        if index in computed:
            continue
        constant = reader.constant(node, index, "operand")
        inside = computed[0] < index < computed[-1]
        if constant.any() or inside:
            raise node.refusal(
                "it joins a constant with computed values", "Only zeros at an end are supported; use padding instead"
            )
        ends[0 if index < computed[0] else 1] += constant.shape[axis]
    return ends[0], ends[1]


def _broadcasts_anyway(reader: Reader, node: Node, wanted: tuple[int, ...]) -> bool:
    """Whether each reader of an Expand is arithmetic with another value of the full shape."""
    readers = reader.consumers.get(node.outputs[0], [])
    for consumer in readers:
        others = [reader.output(name) for name in consumer.inputs if name != node.outputs[0]]
        if consumer.op_type not in ("Add", "Sub", "Mul") or len(others) != 1:
            return False
        if others[0] is None or others[0].shape != wanted:
            return False
    return bool(readers)


def _reading(node: Node) -> Node:
    """The node as its own output's reader."""
    return Node(node.op_type, node.layer, node.outputs[:1], (), {}, node.opset)
