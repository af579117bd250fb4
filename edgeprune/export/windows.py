"""Sliding windows of Conv and the pools: ONNX attributes made explicit, padding as an op of its own.

Every window op is read as an explicit `pad` and a 'valid' op; `passes.pads` then makes 'same' of the pairs where that
is exactly equal, and trims padding that no window reads. One place decides, whoever wrote the padding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edgeprune.export.nodes import Node
from edgeprune.export.reader import Reader
from edgeprune.ops import Shape, same_padding

Pair = tuple[int, int]


@dataclass(frozen=True)
class Window:
    """(height, width) each. before, after: padding, with what a ceil_mode adds after; output: positions."""

    kernel: Pair
    stride: Pair
    dilation: Pair
    before: Pair
    after: Pair
    overhang: Pair
    output: Pair


def read_window(node: Node, shape: Sequence[int], kernel: Sequence[int] | None = None) -> Window:
    """The window of a Conv or pool over a value of this ONNX shape, (N, C, T) or (N, C, H, W).

    kernel: of a convolution's weights, (height, width); a pool's is an attribute.
    `overhang` is the part of `after` that ceil_mode adds: no padding of the user, and never counted in averages.
    """
    rank = len(shape) - 2
    if rank not in (1, 2):
        raise node.refusal(f"it has {rank} spatial axes", "Only windows over 1 or 2 axes are supported")
    if kernel is None:
        kernel = _lift(node.integers("kernel_shape", ()), 1)
    sizes = _lift(tuple(shape[2:]), 1)
    stride = _lift(node.integers("strides", (1,) * rank), 1)
    dilation = _lift(node.integers("dilations", (1,) * rank), 1)
    before, after = _read_padding(node, sizes, (kernel[0], kernel[1]), stride, dilation)
    output, overhang = [0, 0], [0, 0]
    for axis in (0, 1):
        span = (kernel[axis] - 1) * dilation[axis] + 1
        room = sizes[axis] + before[axis] + after[axis] - span
        if room < 0:
            raise node.refusal(
                f"a window of {span} does not fit an input of {sizes[axis]} with padding {before[axis]}, {after[axis]}",
                "Use a longer input or a smaller kernel",
            )
        if node.integer("ceil_mode", 0):
            count = math.ceil(room / stride[axis]) + 1
            if (count - 1) * stride[axis] >= sizes[axis] + before[axis]:
                count -= 1  # the last window must begin inside the input or the padding before it
        else:
            count = room // stride[axis] + 1
        output[axis] = count
        overhang[axis] = max(0, (count - 1) * stride[axis] - room)
    full_after = (after[0] + overhang[0], after[1] + overhang[1])
    return Window(
        (kernel[0], kernel[1]),
        stride,
        dilation,
        before,
        full_after,
        (overhang[0], overhang[1]),
        (output[0], output[1]),
    )


def pad_window(reader: Reader, node: Node, tensor: str, window: Window, mode: str) -> str:
    """Append the `pad` op in front of a window, if it pads at all; returns the tensor to read."""
    pairs = ((0, 0), *zip(window.before, window.after, strict=True), (0, 0))
    if not any(map(any, pairs)):
        return tensor
    return reader.builder.add_op("pad", f"{node.layer}/pad", [tensor], {"paddings": pairs, "mode": mode})


def _read_padding(node: Node, sizes: Pair, kernel: Pair, stride: Pair, dilation: Pair) -> tuple[Pair, Pair]:
    rank = len(node.integers("pads", ())) // 2
    auto = node.text("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        pairs = [same_padding(*axis) for axis in zip(sizes, kernel, stride, dilation, strict=True)]
        if auto == "SAME_LOWER":
            pairs = [(after, before) for before, after in pairs]
        return (pairs[0][0], pairs[1][0]), (pairs[0][1], pairs[1][1])
    if auto == "VALID" or rank == 0:
        return (0, 0), (0, 0)
    pads = node.integers("pads", ())
    if min(pads) < 0:
        raise node.refusal(f"its padding is negative {pads}", "Crop the input with a slice instead")
    return _lift(pads[:rank], 0), _lift(pads[rank:], 0)


def _lift(values: Shape, filler: int) -> Pair:
    """(height, width) from the values of 1 or 2 axes: a series has height 1."""
    return (filler, values[0]) if len(values) == 1 else (values[0], values[1])
