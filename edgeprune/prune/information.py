"""InCoP's two measures of what flows through a net (Gharatappeh and Yasaei Sekeh): a pruned net against the dense.

Information flow, equation (2): Delta(f_i^(l), f_j^(l+1)) = E[f_i^(l) f_j^(l+1)], channels i, j of consecutive layers.
Gradient flow, equation (3): g_l = dL/dw^(l) (*) m^(l), the masked gradient of each layer.

Where the paper is open (ours): f is the mean over positions of what a convolution or linear layer gives out,
standardised over the samples, so Delta is a correlation; all entries count, not their mean. Both are taken in one pass
over all training samples, dropout off, batch norms on the statistics of the samples at hand (running averages lag
behind the weights of a training under way). Layers are consecutive where one reads the other with no convolution or
linear layer in between: through activations, pooling, additions and concatenations.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import final

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from edgeprune.errors import UnsupportedModelError
from edgeprune.prune.fast_training import fast_depthwise
from edgeprune.prune.masks import MASKABLE_LAYERS, Masks, find_maskable
from edgeprune.prune.program_views import find_head, view_nodes
from edgeprune.prune.units import ChannelUnits

FORWARD_CHUNK = 512
BACKWARD_CHUNK = 128  # keeps all activations of its samples
SIZES = (torch.ops.aten.sym_size.int, torch.ops.aten.sym_numel.default)  # numbers, not tensors
ROUNDINGS = 1e-5  # a channel that varies by less, relative to its largest value, counts as constant

Phi = Mapping[str, Tensor]  # name -> float64 tensor: of a pair of layers the matrix Delta, of a weight its gradient
Probe = Callable[[Tensor, Tensor], Phi]  # (x, y) -> Phi


@dataclass(frozen=True, eq=False)
class Kept:
    """Which channels of the dense net are still there.

    indices: (parameter, axis) -> positions along that axis of the dense net's parameter; all where there is no entry.
    """

    indices: Mapping[tuple[str, int], np.ndarray] = field(default_factory=dict)

    def remove(self, units: ChannelUnits, dead: Collection[int]) -> Kept:
        """After a step that removed `dead` of `units`, which were found on the net before that step."""
        gone = units.is_dead(dead)
        indices = dict(self.indices)
        for key, ids in units.slices.items():
            if gone[ids].any():
                indices[key] = indices.get(key, np.arange(len(ids)))[~gone[ids]]
        return Kept(indices)

    def select(self, tensor: Tensor, axes: tuple[tuple[str, int], ...]) -> Tensor:
        """What is left of a tensor of the dense net; axes: the (parameter, axis) that each of its axes goes with."""
        for axis, key in enumerate(axes):
            if key in self.indices:
                tensor = tensor.index_select(axis, torch.from_numpy(self.indices[key]))
        return tensor


class Flow(ABC):
    """One of the two measures; made for the dense net, measured on it and on its pruned forms.

    axes: name in Phi -> for each axis of the tensor, the parameter and axis of the net that it goes with.
    """

    axes: Mapping[str, tuple[tuple[str, int], ...]]

    @abstractmethod
    def make_probe(self, module: fx.GraphModule) -> Probe:
        """What measures Phi of this net whenever it is called, over the samples given; the net is left as it was."""

    def measure(self, module: fx.GraphModule, x: Tensor, y: Tensor) -> Phi:
        """Phi of a net over the samples x (N, C, ...), y (N,), which are where its parameters are."""
        return self.make_probe(module)(x, y)

    @abstractmethod
    def find_alive(self, name: str, masks: Masks) -> Tensor | None:
        """bool, broadcastable to Phi[name] of the pruned net: entries that masks leave; None for all."""

    def compute_distance(self, phi: Phi, reference: Phi, kept: Kept, masks: Masks) -> float:
        """||Phi - Phi*|| / ||Phi*|| over the entries that survive (both ours); inf where Phi* is zero there."""
        difference = norm = 0.0
        for name, dense in reference.items():
            expected = kept.select(dense, self.axes[name])
            change = phi[name] - expected
            alive = self.find_alive(name, masks)
            if alive is not None:
                expected, change = expected * alive, change * alive
            difference += float(change.square().sum())
            norm += float(expected.square().sum())
        if not norm:
            return float("inf") if difference else 0.0
        return float(np.sqrt(difference / norm))


@final
class InformationFlow(Flow):
    """Equation (2). Raises UnsupportedModelError for a net without two consecutive layers."""

    def __init__(self, module: fx.GraphModule) -> None:
        self._pairs = find_consecutive_layers(module)
        if not self._pairs:
            raise UnsupportedModelError(
                "incop-if compares what consecutive convolutions or linear layers give out, and this model has no two "
                "of them; use --stop incop-gf, accuracy or epochs"
            )
        self._nodes = tuple(dict.fromkeys(itertools.chain.from_iterable(self._pairs)))
        layers = {node.name: module.get_submodule(str(node.target)) for node in _list_layer_nodes(module)}
        weights = {id(parameter): name for name, parameter in module.named_parameters()}
        self._channel_axis = {node: _find_channel_axis(layers[node]) for node in self._nodes}
        self._outputs = {
            node: (weights[id(layers[node].weight)], _find_output_axis(layers[node])) for node in self._nodes
        }
        self.axes = {f"{a} -> {b}": (self._outputs[a], self._outputs[b]) for a, b in self._pairs}

    def make_probe(self, module: fx.GraphModule) -> Probe:
        view = view_nodes(module, self._nodes)
        return lambda x, y: self._correlate(view, x)

    def _correlate(self, view: fx.GraphModule, x: Tensor) -> Phi:
        means: list[list[Tensor]] = [[] for _ in self._nodes]
        with measuring(view), torch.no_grad():
            for chunk in split_evenly(x, FORWARD_CHUNK):
                for rows, node, output in zip(means, self._nodes, view(chunk), strict=True):
                    rows.append(average_positions(output, self._channel_axis[node], len(chunk), node))
        features = {node: standardize(torch.cat(rows)) for node, rows in zip(self._nodes, means, strict=True)}
        return {f"{a} -> {b}": (features[a].T @ features[b] / len(x)).cpu() for a, b in self._pairs}

    def find_alive(self, name: str, masks: Masks) -> Tensor | None:
        if all(weight not in masks for weight, _ in self.axes[name]):
            return None
        rows, columns = (_find_alive_filters(masks.get(weight), axis) for weight, axis in self.axes[name])
        return rows[:, None] & columns[None, :]


@final
class GradientFlow(Flow):
    """Equation (3), of the weights that masks may hold.

    The loss is the training's cross-entropy; class_weights (classes,): its weights, None for 1 each. A layer that no
    longer exists in this form (its rank cut, say) cannot be compared.
    """

    def __init__(self, module: fx.GraphModule, class_weights: Tensor | None = None) -> None:
        self._class_weights = class_weights
        self._weights = tuple(find_maskable(module).layers)
        parameters = dict(module.named_parameters())
        self.axes = {name: tuple((name, axis) for axis in range(parameters[name].dim())) for name in self._weights}

    def make_probe(self, module: fx.GraphModule) -> Probe:
        view = view_nodes(module, (find_head(module).node,))
        parameters = dict(module.named_parameters())
        weights = [parameters[name] for name in self._weights]
        return lambda x, y: self._differentiate(view, weights, x, y)

    def _differentiate(self, view: fx.GraphModule, weights: Sequence[Tensor], x: Tensor, y: Tensor) -> Phi:
        totals = [torch.zeros_like(weight, dtype=torch.float64) for weight in weights]
        classes = None if self._class_weights is None else self._class_weights.to(x.device)
        with measuring(view), torch.enable_grad():
            for chunk, labels in zip(split_evenly(x, BACKWARD_CHUNK), split_evenly(y, BACKWARD_CHUNK), strict=True):
                value = functional.cross_entropy(view(chunk)[0], labels, classes)
                gradients = torch.autograd.grad(value, weights, allow_unused=True)
                for total, gradient in zip(totals, gradients, strict=True):
                    if gradient is not None:
                        total += gradient.double() * (len(chunk) / len(x))
        return {name: total.cpu() for name, total in zip(self._weights, totals, strict=True)}

    def find_alive(self, name: str, masks: Masks) -> Tensor | None:
        return masks[name].cpu() if name in masks else None


def find_consecutive_layers(module: fx.GraphModule) -> tuple[tuple[str, str], ...]:
    """(a, b) for each pair of nodes that call convolutions or linear layers where b reads a with none in between.

    Additions, concatenations and gates give a layer several before it; a shared layer counts at each of its calls.
    """
    layers = _list_layer_nodes(module)
    names = {node.name for node in layers}
    order = {node.name: index for index, node in enumerate(module.graph.nodes)}
    pairs = []
    for layer in layers:
        before: set[str] = set()
        seen: set[fx.Node] = set()
        front = list(layer.all_input_nodes)
        while front:
            node = front.pop()
            if node in seen or node.target in SIZES or _is_recurrent(module, node):
                continue
            seen.add(node)
            if node.name in names:
                before.add(node.name)
            else:
                front += node.all_input_nodes
        pairs += [(name, layer.name) for name in sorted(before, key=order.__getitem__)]
    return tuple(pairs)


def average_positions(output: Tensor, channel_axis: int, samples: int, node: str) -> Tensor:
    """A layer's output as float64 (samples, channels): its mean over positions.

    An output whose first axis holds samples times positions (a linear layer over a flattened series) is taken as
    sample-major. Raises UnsupportedModelError where the first axis is no multiple of the samples.
    """
    if len(output) % samples:
        raise UnsupportedModelError(
            f"{node}: its output {tuple(output.shape)} does not have the samples in front, so its information flow "
            "cannot be taken; use --stop incop-gf, accuracy or epochs"
        )
    channels_last = output.movedim(channel_axis, -1)
    return channels_last.reshape(samples, -1, channels_last.shape[-1]).double().mean(1)


def standardize(features: Tensor) -> Tensor:
    """(N, C) with mean 0 and (population) variance 1 in each column; 0 in a column that is constant."""
    spread = features.std(0, correction=0)
    varies = spread > ROUNDINGS * features.abs().amax(0)
    return torch.where(varies, (features - features.mean(0)) / torch.where(varies, spread, 1.0), 0.0)


def split_evenly(samples: Tensor, most: int) -> tuple[Tensor, ...]:
    """Consecutive parts of equal size (within one) of at most `most`: batch norms cannot work on a lone last sample."""
    return torch.tensor_split(samples, -(-len(samples) // most))


@contextmanager
def measuring(module: nn.Module) -> Iterator[None]:
    """Inside the block, dropout is off, and batch norms use the samples at hand and learn nothing."""
    modes = [(layer, layer.training) for layer in module.modules()]
    norms = [layer for layer in module.modules() if isinstance(layer, _BatchNorm) and layer.track_running_stats]
    recurrent = [(layer, layer.dropout) for layer in module.modules() if isinstance(layer, nn.RNNBase)]
    module.eval()
    for norm in norms:
        norm.train()
        norm.track_running_stats = False
    for layer, _ in recurrent:
        layer.train()  # CUDA's recurrent kernels have no backward pass in eval mode
        layer.dropout = 0.0
    try:
        with fast_depthwise(module):
            yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
        for layer, dropout in recurrent:
            layer.dropout = dropout
        for part, mode in modes:
            part.training = mode


def _list_layer_nodes(module: fx.GraphModule) -> list[fx.Node]:
    return [
        node
        for node in module.graph.nodes
        if node.op == "call_module" and isinstance(module.get_submodule(str(node.target)), MASKABLE_LAYERS)
    ]


def _is_recurrent(module: fx.GraphModule, node: fx.Node) -> bool:
    return node.op == "call_module" and isinstance(module.get_submodule(str(node.target)), nn.RNNBase)


def _find_channel_axis(layer: nn.Module) -> int:
    """Where a layer's output has its channels."""
    return -1 if isinstance(layer, nn.Linear) else 1


def _find_output_axis(layer: nn.Module) -> int:
    """Where a layer's weight has its output channels; of a grouped transposed convolution only a group's are there."""
    return 1 if isinstance(layer, nn.modules.conv._ConvTransposeNd) else 0


def _find_alive_filters(mask: Tensor | None, axis: int) -> Tensor:
    """bool (filters,): which have a weight left; (1,) True for a layer without a mask."""
    if mask is None:
        return torch.ones(1, dtype=torch.bool)
    return mask.cpu().movedim(axis, 0).flatten(1).any(1)
