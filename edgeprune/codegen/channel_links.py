"""Which channels of an op's input and output stand or fall together.

A channel is a position along the last axis. Most ops carry each of their output's channels over from one channel of an
input: the two can only be removed together. `link_channels` says which; convolutions and dense layers link nothing, and
an input it has no rule for must keep all its channels.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgeprune.graph import Graph, Op

# Functions of one variable, and what moves or joins values along other axes than the last.
_SAME_CHANNEL_KINDS = (
    *("max_pool_2d", "average_pool_2d", "quantize"),
    *("relu", "relu6", "relu_n1_to_1", "leaky_relu", "logistic", "tanh", "elu", "hard_swish"),
)
_BINARY_KINDS = ("add", "sub", "mul", "prelu")


def link_channels(op: Op, graph: Graph) -> Mapping[int, np.ndarray]:
    """For each activation input, by position: the input's channel that each output channel comes from, -1 for none.

    An input that is missing here has no link: it must keep its channels (and the output those that no link covers).
    """
    shapes = [graph.tensors[name].shape for name in op.inputs]
    output = graph.tensors[op.outputs[0]].shape
    if not output or not all(shape for shape in shapes[:1]):
        return {}
    channels = output[-1]
    same = np.arange(channels)
    if op.kind in _SAME_CHANNEL_KINDS:
        return {0: same}
    if op.kind == "depthwise_conv_2d":
        if not all(graph.tensors[name].is_constant for name in op.inputs[1:]):
            return {}
        return {0: same // op.attrs["depth_multiplier"]}
    if op.kind in _BINARY_KINDS:
        return {
            position: same
            for position, name in enumerate(op.inputs)
            if not graph.tensors[name].is_constant and shapes[position][-1:] == (channels,)
        }
    if op.kind == "concat":
        return _link_concat(op, shapes, channels)
    last = len(shapes[0]) - 1
    if op.kind == "strided_slice":
        # every other channel of what is left would be another choice
        return {0: op.attrs["begin"][last] + same} if op.attrs["stride"][last] == 1 else {}
    if op.kind == "reshape":
        return {0: same % shapes[0][-1]} if channels % shapes[0][-1] == 0 else {}
    keeps_the_last_axis = {
        "pad": lambda attrs: attrs["paddings"][last] == (0, 0),
        "mean": lambda attrs: last not in attrs["axes"],
        "transpose": lambda attrs: attrs["perm"][last] == last,
    }
    if op.kind in keeps_the_last_axis and keeps_the_last_axis[op.kind](op.attrs):
        return {0: same}
    return {}


def _link_concat(op: Op, shapes: list[tuple[int, ...]], channels: int) -> Mapping[int, np.ndarray]:
    if op.attrs["axis"] != len(shapes[0]) - 1:
        return dict.fromkeys(range(len(op.inputs)), np.arange(channels))
    links, start = {}, 0
    for position, shape in enumerate(shapes):
        link = np.full(channels, -1)
        link[start : start + shape[-1]] = np.arange(shape[-1])
        links[position] = link
        start += shape[-1]
    return links
