"""Which tensors the DSP paper looks at, found from the graph alone.

The paper (arXiv 2602.12744) takes the post-BN-ReLU feature maps of LITE's three stages and of Inception's six blocks,
of blocks 3 and 6 after the residual addition. One rule gives just these, on any convolutional net: the output of an
activation function, with channels and positions, that a layer with weights consumes (directly or through pooling,
dropout and concatenation) or that global pooling consumes. What only goes into an addition is not observed (the sum's
own activation is), nor is what a batch norm consumes (the activation behind it is).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import fx, nn

from edgeprune.prune.units import PINNED, ChannelUnits, TensorUnits

aten = torch.ops.aten


def _overloads(*names: str) -> frozenset[object]:
    """Every overload of the named aten functions."""
    packets = [getattr(aten, name) for name in names]
    return frozenset(getattr(packet, overload) for packet in packets for overload in packet.overloads())


ACTIVATIONS = _overloads(
    *("relu", "relu6", "hardtanh", "clamp", "clamp_min", "leaky_relu", "elu", "celu", "selu", "gelu", "silu", "mish"),
    *("hardswish", "softplus", "rrelu", "tanh", "sigmoid", "hardsigmoid"),
)
ACTIVATION_LAYERS = (nn.PReLU,)
GLOBAL_POOLING = _overloads("mean", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "amax")
CONSUMERS = (nn.modules.conv._ConvNd, nn.Linear, nn.RNNBase)
TRANSPARENT = _overloads(
    *("max_pool1d", "max_pool2d", "avg_pool1d", "avg_pool2d", "adaptive_max_pool1d", "adaptive_max_pool2d"),
    *("cat", "flatten", "reshape", "view", "squeeze", "unsqueeze", "transpose", "permute", "pad", "constant_pad_nd"),
)
TRANSPARENT_LAYERS = (nn.modules.dropout._DropoutNd,)


@dataclass(frozen=True, eq=False)
class ObservedTensor:
    """A feature map (N, C, positions...) that DSP looks at.

    node: its name in the graph. units: int64 (C,), the unit of each channel, PINNED for one that cannot be removed.
    """

    node: str
    units: np.ndarray

    @property
    def learnable(self) -> np.ndarray:
        """Indices of the channels that can be removed; the others (frozen filters) do not count in DSP."""
        return np.flatnonzero(self.units != PINNED)


def find_observed_tensors(module: fx.GraphModule, units: ChannelUnits) -> tuple[ObservedTensor, ...]:
    """The feature maps of a raised program that DSP looks at, in program order; those without a learnable channel not.

    units: of the same module, see find_units.
    """
    observed = []
    for node in module.graph.nodes:
        if not _is_activation(module, node) or not _is_consumed(module, node):
            continue
        tensor = units.tensors[node.name]
        if isinstance(tensor, TensorUnits) and len(tensor.shape) >= 3 and tensor.axis in (1, None):
            candidate = ObservedTensor(node.name, units.node_units(node.name))
            if len(candidate.learnable):
                observed.append(candidate)
    return tuple(observed)


def _is_activation(module: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        return isinstance(module.get_submodule(str(node.target)), ACTIVATION_LAYERS)
    return node.op == "call_function" and node.target in ACTIVATIONS


def _is_consumed(module: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a layer with weights or global pooling takes the node's tensor, maybe through transparent nodes."""
    for user in node.users:
        layer = module.get_submodule(str(user.target)) if user.op == "call_module" else None
        if user.target in GLOBAL_POOLING or isinstance(layer, CONSUMERS):
            return True
        if (user.target in TRANSPARENT or isinstance(layer, TRANSPARENT_LAYERS)) and _is_consumed(module, user):
            return True
    return False
