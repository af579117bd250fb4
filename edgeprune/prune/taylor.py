"""Taylor scores: how much the loss would change, to first order, if a channel's feature map were zero.

Molchanov et al. 2017 (arXiv 1611.06440): the score of feature map k of layer l, of M positions, is

    Theta(z_l^(k)) = | 1/M sum_m dL/dz_m z_m |      for one sample, averaged over samples;

zeroing the map changes the loss by -sum_m dL/dz_m z_m to first order. Then each layer's scores are divided by their l2
norm, so that layers can be compared.

Ours, where the paper (plain convolutions, each followed by a ReLU) is silent:
- A layer is judged at the activation that all of its output goes into (through norms, pooling, concatenation,
  addition); without one at its norm's output, else at its own output.
- Where a unit has several channels in one tensor (grouped convolutions, shuffling, flattening), they are zeroed
  together, so products are summed over all of them before the absolute value, and M counts them all.
- A unit over several layers (residuals, depthwise behind its producer) scores the sum of its normalised scores, over
  every tensor where it is judged; a tensor that two layers share (the sum of a block and its shortcut) counts once.
- Eval mode: running statistics of batch norms, no dropout; cross-entropy, weighed by class as in training.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _NormBase

from edgeprune.prune.criteria import Criterion
from edgeprune.prune.observed import ACTIVATION_LAYERS, ACTIVATIONS, TRANSPARENT, TRANSPARENT_LAYERS
from edgeprune.prune.program_views import find_head, view_nodes
from edgeprune.prune.propagation import evaluation_mode
from edgeprune.prune.units import PINNED, ChannelUnits, TensorUnits

aten = torch.ops.aten

BATCH_SIZE = 256
ADDITIONS = (aten.add.Tensor,)
NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm)


@dataclass(frozen=True, eq=False)
class FeatureMaps:
    """Where the channels of a layer are judged.

    node: name of the tensor. axis: its channels' axis, ids: unit per index along it (PINNED and units of other layers
    among them); axis None: all of the tensor belongs to one unit. units: ascending ids of the layer's own units.
    """

    layer: str
    node: str
    axis: int | None
    ids: np.ndarray
    units: tuple[int, ...]


def find_feature_maps(module: fx.GraphModule, units: ChannelUnits) -> tuple[FeatureMaps, ...]:
    """Where each layer with prunable channels is judged, in program order; a shared layer at each of its calls.

    units: of this module.
    """
    found: dict[tuple[str, tuple[int, ...]], FeatureMaps] = {}
    layers = {id(module.get_submodule(layer.name)): layer for layer in units.layers}
    for node in module.graph.nodes:
        layer = layers.get(id(module.get_submodule(str(node.target)))) if node.op == "call_module" else None
        if layer is None:
            continue
        own = tuple(sorted(set(layer.units.tolist()) - {PINNED}))
        for start in _iterate_tensor_nodes(node, units):
            place = _find_place(module, units, start, own)
            tensor = units.tensors[place.name]
            if own and _holds(tensor, own):
                maps = FeatureMaps(layer.name, place.name, tensor.axis, tensor.ids, own)
                found.setdefault((place.name, own), maps)
    return tuple(found.values())


def _iterate_tensor_nodes(node: fx.Node, units: ChannelUnits) -> Iterator[fx.Node]:
    """The node, or of a node with several outputs (an RNN) those that are used."""
    if isinstance(units.tensors[node.name], TensorUnits):
        yield node
        return
    for user in node.users:
        if user.target is operator.getitem:
            yield from _iterate_tensor_nodes(user, units)


def _holds(tensor: Any, own: Sequence[int]) -> bool:
    return isinstance(tensor, TensorUnits) and set(own) <= set(tensor.ids.tolist())


def _find_place(module: fx.GraphModule, units: ChannelUnits, start: fx.Node, own: Sequence[int]) -> fx.Node:
    """The activation that all of a layer's output goes into, else the last norm on the way, else `start`."""
    place = node = start
    while len(node.users) == 1:
        node = next(iter(node.users))
        layer = module.get_submodule(str(node.target)) if node.op == "call_module" else None
        if not _holds(units.tensors[node.name], own):
            break
        if node.target in ACTIVATIONS or isinstance(layer, ACTIVATION_LAYERS):
            return node
        if isinstance(layer, NORMS):
            place = node
        elif not (node.target in TRANSPARENT or node.target in ADDITIONS or isinstance(layer, TRANSPARENT_LAYERS)):
            break
    return place


@final
class TaylorScore(Criterion):
    """Theta of every unit over a set of samples; see the module's docstring.

    x: float32 (N, C, ...). y: classes (N,). class_weights: (classes,), of the training's loss; default: all equal.
    A unit that no tensor shows has no score, so it is never selected.
    """

    relative: ClassVar[bool] = False  # the l2 norm has made layers comparable

    def __init__(self, x: np.ndarray, y: np.ndarray, class_weights: Tensor | None = None) -> None:
        self._x, self._y, self._class_weights = x, y, class_weights

    def score_units(self, module: fx.GraphModule, units: ChannelUnits) -> dict[int, float]:
        maps = find_feature_maps(module, units)
        scores = {unit: 0.0 for place in maps for unit in place.units}
        measured = measure_maps(module, maps, self._x, self._y, self._class_weights)
        for place, theta in zip(maps, measured, strict=True):
            norm = float(np.linalg.norm(theta))
            for unit, value in zip(place.units, theta.tolist(), strict=True):
                scores[unit] += value / norm if norm else 0.0
        return scores


def measure_maps(
    module: fx.GraphModule,
    maps: Sequence[FeatureMaps],
    x: np.ndarray,
    y: np.ndarray,
    class_weights: Tensor | None = None,
) -> list[np.ndarray]:
    """Theta of each layer's units, not normalised: float64 (units,) for each of `maps`.

    The program stays as it is: eval mode for the time of this call, gradients of activations only.
    """
    if not maps:
        return []
    names = tuple(dict.fromkeys(place.node for place in maps))
    totals = [np.zeros(len(place.units)) for place in maps]
    some = next(module.parameters(), torch.empty(0))
    with evaluation_mode(module), torch.enable_grad():
        view = view_nodes(module, (find_head(module).node, *names))
        batch_axes = _find_batch_axes(view, names, torch.as_tensor(np.resize(x, (3, *x.shape[1:]))).to(some))
        for start in range(0, len(x), BATCH_SIZE):
            batch = torch.as_tensor(x[start : start + BATCH_SIZE]).to(some)
            labels = torch.as_tensor(y[start : start + BATCH_SIZE], device=some.device, dtype=torch.int64)
            logits, *tensors = view(batch)
            weights = None if class_weights is None else class_weights.to(some)
            # the sum, not the mean: each sample's gradient is that of its own loss, whatever the batch
            loss = functional.cross_entropy(logits, labels, weights, reduction="sum")
            gradients = torch.autograd.grad(loss, tensors, allow_unused=True)
            products = {}
            for name, tensor, gradient in zip(names, tensors, gradients, strict=True):
                if gradient is not None:  # None: the tensor feeds another output only
                    product = (tensor.detach() * gradient).double().cpu()
                    products[name] = product.movedim(batch_axes[name], 0) if batch_axes[name] else product
            for place, total in zip(maps, totals, strict=True):
                if place.node in products:
                    axis = place.axis
                    if axis is not None and axis < batch_axes[place.node]:
                        axis += 1  # the batch axis has moved before it
                    total += reduce_products(products[place.node], axis, place.ids, place.units, len(batch))
    return [total / len(x) for total in totals]


def _find_batch_axes(view: fx.GraphModule, names: Sequence[str], samples: Tensor) -> dict[str, int]:
    """The axis along which samples lie, for each named tensor of a view that gives out logits, then these tensors.

    samples: three. An RNN's states, or its output without batch_first, have theirs second.
    """
    with torch.no_grad():
        two, three = ([tensor.shape for tensor in view(samples[:count])[1:]] for count in (2, 3))
    return {
        name: next((axis for axis, size in enumerate(small) if size != large[axis]), 0)
        for name, small, large in zip(names, two, three, strict=True)
    }


def reduce_products(
    products: Tensor, axis: int | None, ids: np.ndarray, units: Sequence[int], samples: int
) -> np.ndarray:
    """sum over samples of |1/M sum_m products_m| for each unit: float64 (units,).

    products: dL/dz z, float64 (samples * k, ...), k > 1 where time steps lie in the batch. axis: of the channels;
    ids: unit per index along it.
    """
    if axis is None:
        per_channel = products.reshape(samples, -1, 1)
    else:
        per_channel = products.movedim(axis, -1).reshape(samples, -1, products.shape[axis])
    sums = per_channel.sum(1).numpy()  # (samples, channels)
    positions = per_channel.shape[1]
    theta = np.empty(len(units))
    for index, unit in enumerate(units):
        channels = np.flatnonzero(ids == unit)
        theta[index] = np.abs(sums[:, channels].sum(1)).sum() / (positions * len(channels))
    return theta


__all__ = ["FeatureMaps", "TaylorScore", "find_feature_maps", "measure_maps", "reduce_products"]
