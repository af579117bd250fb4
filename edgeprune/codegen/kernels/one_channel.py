"""Convolution of one input channel: the same thing as depthwise convolution with a depth multiplier.

Each of the two kinds is offered the kernels of the other one, under the same program: only weights are laid out anew.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgeprune.codegen.kernel import Call, Kernel, Lowered
from edgeprune.graph import Op, Tensor

_CHANNEL_AXES = {"conv_2d": 0, "depthwise_conv_2d": 3}  # of weights


class OneChannel(Kernel):
    """The cheapest of kernels made for the other kind."""

    def __init__(self, *kernels: Kernel) -> None:
        self.kernels = kernels

    def lower(self, call: Call) -> Lowered | None:
        if call.x.channels != 1:
            return None
        twin = turn_call(call)
        candidates = [lowered for kernel in self.kernels if (lowered := kernel.lower(twin)) is not None]
        return min(candidates, key=lambda lowered: lowered.cycles, default=None)


def turn_call(call: Call) -> Call:
    """A conv_2d of one input channel as depthwise_conv_2d, or the other way round."""
    op = call.op
    kind = "depthwise_conv_2d" if op.kind == "conv_2d" else "conv_2d"
    weight = call.inputs[1]
    assert weight.data is not None
    data = np.ascontiguousarray(weight.data.transpose(3, 1, 2, 0))  # OHWI with one I, 1HWO: their own inverse
    assert weight.quant is not None
    axis = None if weight.quant.axis is None else _CHANNEL_AXES[kind]
    turned = Tensor.constant(weight.name, data, replace(weight.quant, axis=axis))
    attrs = {name: value for name, value in op.attrs.items() if name != "depth_multiplier"}
    if kind == "depthwise_conv_2d":
        attrs["depth_multiplier"] = call.y.channels
    graph = replace(call.graph, tensors={**call.graph.tensors, weight.name: turned})
    return replace(call, op=Op(kind, op.name, op.inputs, op.outputs, attrs), graph=graph)
