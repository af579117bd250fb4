"""What a program costs, by counting: multiply-accumulates, parameters, weight bytes, activation bytes.

A MAC is counted for each weight used at each output position of convolution and fully connected layers (`ops.py`), and
in PyTorch also for matrix products (attention) and recurrent layers; padding counts like data. Activations, pooling,
additions and normalization count nothing. FLOPs are 2 x MACs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeprune.graph import Graph, count_op_macs


@dataclass(frozen=True)
class LayerProfile:
    """One op. parameters, weight_bytes: of its constants, each counted at the first op that reads it.

    output_shape: NHWC with the batch of 1. live_bytes: all activations that must exist while the op runs.
    """

    name: str
    kind: str
    output_shape: tuple[int, ...]
    macs: int
    parameters: int
    weight_bytes: int
    live_bytes: int

    @property
    def flops(self) -> int:
        return 2 * self.macs

    @property
    def output_channels(self) -> int:
        return self.output_shape[-1]


@dataclass(frozen=True)
class Profile:
    """A whole program.

    peak_activation_bytes: the largest `live_bytes`, at the layer `peak_layer`.
    """

    layers: tuple[LayerProfile, ...]
    macs: int
    parameters: int
    weight_bytes: int
    peak_activation_bytes: int
    peak_layer: str

    @property
    def flops(self) -> int:
        return 2 * self.macs


def profile_graph(graph: Graph) -> Profile:
    """Count a program, op by op.

    Activation bytes are those of the live tensors, by the plainest executor: an op's inputs and its output exist at
    once (nothing is computed in place), concat, reshape and pad copy, a tensor is freed after its last reader, the
    program's inputs exist until they are last read and its outputs to the end. Working memory of kernels, alignment and
    the fragmentation of a real arena come on top; merging concats or computing in place would save some.

    Weight bytes are the constants as stored (int8 weights 1, int32 biases 4, float32 4), without scales.
    """
    live_bytes = _count_live_bytes(graph)
    counted: set[str] = set()
    layers = []
    for index, op in enumerate(graph.ops):
        constants = [name for name in dict.fromkeys(op.inputs) if graph.tensors[name].is_constant]
        new = [graph.tensors[name] for name in constants if name not in counted]
        counted.update(constants)
        layers.append(
            LayerProfile(
                name=op.name,
                kind=op.kind,
                output_shape=graph.tensors[op.outputs[0]].shape,
                macs=count_op_macs(graph, op),
                parameters=sum(tensor.element_count for tensor in new),
                weight_bytes=sum(tensor.byte_count for tensor in new),
                live_bytes=live_bytes[index],
            )
        )
    peak = max(layers, key=lambda layer: layer.live_bytes, default=None)
    return Profile(
        layers=tuple(layers),
        macs=sum(layer.macs for layer in layers),
        parameters=sum(layer.parameters for layer in layers),
        weight_bytes=sum(layer.weight_bytes for layer in layers),
        peak_activation_bytes=peak.live_bytes if peak else 0,
        peak_layer=peak.name if peak else "",
    )


def _count_live_bytes(graph: Graph) -> Sequence[int]:
    """Bytes of the activations that exist while each op runs."""
    born = dict.fromkeys(graph.inputs, 0)
    last_read = dict.fromkeys(graph.inputs, 0)
    for index, op in enumerate(graph.ops):
        for name in op.outputs:
            born[name] = last_read[name] = index
        for name in op.inputs:
            if not graph.tensors[name].is_constant:
                last_read[name] = index
    last_read.update(dict.fromkeys(graph.outputs, len(graph.ops)))
    return [
        sum(graph.tensors[name].byte_count for name in born if born[name] <= index <= last_read[name])
        for index in range(len(graph.ops))
    ]
