"""Network slimming (Liu et al. 2017): which BatchNorm scales stand for which units, and the L1 penalty on them.

In the paper each channel has one scale gamma, of the BatchNorm right behind its convolution. Here a unit may have any
number of them (a residual sum has one per branch, pre-activation nets one per reader, a separable convolution one
behind the other), or none. A unit can be judged by its scales if, with all of them at zero, no filter of the unit has
any influence left: every way from its filters to a layer that mixes channels then leads through one of the scales.

Ours, the paper knows only plain chains:
- a unit scores max |gamma| over its scales, so it goes only when all of them are small. Of two scales in series one at
  zero would do, but then nothing but the penalty acts on the other, which follows to zero;
- a gate (sigmoid or hardsigmoid that multiplies a map, as in squeeze-and-excitation) needs no scale of its own;
- scales of channels that cannot go, or that are not judged, are not penalised;
- frozen scales (requires_grad False) and BatchNorms without (affine=False) do not count.
"""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from edgeprune.errors import UnsupportedModelError
from edgeprune.prune.hooks import TrainingHook
from edgeprune.prune.units import PINNED, ChannelUnits, Layer, iterate_tensors

aten = torch.ops.aten
GATES = (aten.sigmoid.default, aten.hardsigmoid.default)
RESHAPES = (aten.unsqueeze.default, aten.reshape.default, aten.view.default, aten.expand.default)
# What these leave out goes elsewhere, it is not read: ShuffleNet takes both halves of its channels, each by a getitem.
SELECTIONS = (operator.getitem, aten.slice.Tensor, aten.select.int, aten.narrow.default, aten.index_select.default)


@dataclass(frozen=True, eq=False)
class Scales:
    """The BatchNorm scales that stand for units.

    units: parameter name -> int64 (C,), the unit that each scale stands for, PINNED for one that stands for none.
    judged: the units that their scales can judge.
    unjudged: (layer, reason) of layers that have channels to remove but no scales to judge them by.
    """

    units: Mapping[str, np.ndarray]
    judged: tuple[int, ...]
    unjudged: tuple[tuple[str, str], ...]

    def score_units(self, values: Mapping[str, Tensor]) -> dict[int, float]:
        """max |value| over each judged unit's scales; values: name of a scale parameter -> (C,)."""
        largest: dict[int, float] = dict.fromkeys(self.judged, 0.0)
        for name, ids in self.units.items():
            for unit, value in zip(ids.tolist(), values[name].detach().abs().tolist(), strict=True):
                if unit != PINNED:
                    largest[unit] = max(largest[unit], value)
        return largest

    def make_mask(self, name: str, like: Tensor) -> Tensor:
        """(C,), 1 where a scale stands for a unit, else 0; of the type and on the device of `like`."""
        return torch.from_numpy(self.units[name] != PINNED).to(like)

    def compute_digest(self) -> str:
        """Of which scales stand for which units."""
        digest = hashlib.sha256()
        for name, ids in self.units.items():
            digest.update(name.encode() + ids.astype("<i8").tobytes())
        return digest.hexdigest()[:16]


def find_scales(module: fx.GraphModule, units: ChannelUnits) -> Scales:
    """The scales of a raised program's units, see the head of this file. units: of this module."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    layers = {id(module.get_submodule(layer.name)): layer for layer in units.layers}
    scales: dict[str, np.ndarray] = {}
    bare: dict[fx.Node, frozenset[int]] = {}  # units that reach a node on some way without a scale
    gates: set[fx.Node] = set()
    readers: dict[int, str] = {}  # unit -> the first layer that reads it bare
    for node in module.graph.nodes:
        arriving = _join_inputs(node, bare, gates)
        made: frozenset[int] = frozenset()
        if node.op == "call_module":
            part = module.get_submodule(str(node.target))
            if isinstance(part, _BatchNorm) and part.weight is not None and part.weight.requires_grad:
                name = names[id(part.weight)]
                scales[name] = units.slices[(name, 0)]
                arriving -= frozenset(scales[name].tolist())
            made = _get_made_units(part, layers.get(id(part)), node, units)
            if isinstance(part, nn.RNNBase):
                readers.update(dict.fromkeys(made - readers.keys(), "its own next step"))
        elif node.target in GATES or (node.target in RESHAPES and node.all_input_nodes[0] in gates):
            gates.add(node)
        leaving = _get_units(node, units)
        read = arriving & made if node.target in SELECTIONS else arriving - (leaving - made)
        where = "the model's output" if node.op == "output" else str(node.target)
        readers.update(dict.fromkeys(read - readers.keys(), where))
        bare[node] = (arriving & leaving) | made
    scaled = {unit for ids in scales.values() for unit in ids.tolist()} - {PINNED}
    judged = tuple(unit for group in units.groups for unit in group.units if unit in scaled and unit not in readers)
    known = np.array([*judged, PINNED])
    return Scales(
        {
            name: np.where(np.isin(ids, known), ids, PINNED)
            for name, ids in scales.items()
            if np.isin(ids, judged).any()
        },
        judged,
        tuple(row for layer in units.layers if (row := _explain_unjudged(layer, frozenset(judged), readers))),
    )


def require_scales(module: fx.GraphModule, units: ChannelUnits, method: str) -> Scales:
    """`find_scales`; raises UnsupportedModelError where no unit has any."""
    scales = find_scales(module, units)
    if not scales.judged:
        raise UnsupportedModelError(
            f"{method}: none of this model's channels that could be removed passes a BatchNorm with a trainable scale, "
            "by which it judges them; use --method l1, taylor or dsp, or train it with BatchNorm behind its layers"
        )
    return scales


def _join_inputs(node: fx.Node, bare: Mapping[fx.Node, frozenset[int]], gates: set[fx.Node]) -> frozenset[int]:
    """Units that arrive bare at a node; what gates a map is left out."""
    sources = node.all_input_nodes
    if node.target is aten.mul.Tensor:
        sources = [source for source in sources if source not in gates] or sources
    return frozenset().union(*(bare[source] for source in sources))


def _get_made_units(part: nn.Module, layer: Layer | None, node: fx.Node, units: ChannelUnits) -> frozenset[int]:
    """The units that a layer's filters make; a depthwise convolution hands on those that it is given."""
    if layer is None:
        return frozenset()
    made = frozenset(layer.units.tolist()) - {PINNED}
    if isinstance(part, _ConvNd) and part.groups == part.in_channels > 1:
        return made - frozenset().union(*(_get_units(source, units) for source in node.all_input_nodes))
    return made


def _get_units(node: fx.Node, units: ChannelUnits) -> frozenset[int]:
    """The units in a node's output."""
    found: set[int] = set()
    for tensor in iterate_tensors(units.tensors.get(node.name)):
        found.update(tensor.ids.tolist())
    return frozenset(found - {PINNED})


def _explain_unjudged(layer: Layer, judged: frozenset[int], readers: Mapping[int, str]) -> tuple[str, str] | None:
    left = [unit for unit in layer.units.tolist() if unit != PINNED and unit not in judged]
    if not left:
        return None
    part = "" if len(left) == layer.width else f"{len(left)} of {layer.width} channels: "
    where = dict.fromkeys(readers[unit] for unit in left if unit in readers)
    if not where:
        return layer.name, f"{part}no trainable BatchNorm scale behind it"
    more = f" and {len(where) - 1} more" if len(where) > 1 else ""
    return layer.name, f"{part}no trainable BatchNorm scale on the way to {next(iter(where))}{more}"


@final
class SlimmingHook(TrainingHook):
    """Adds weight * sign(gamma) to the gradient of gamma: the subgradient of the penalty weight * sum |gamma|.

    Liu et al. 2017, equation 1 and section 3. At gamma = 0 the sign, and so the penalty's share, is 0. The optimizer
    sees it as part of the gradient: Adam rescales it along with the rest.
    """

    keeps_last = True  # the lowest training loss would be that of a start without sparsity

    def __init__(self, scales: Scales, weight: float) -> None:
        self._scales, self._weight = scales, weight
        self._gammas: list[tuple[nn.Parameter, Tensor]] = []

    def begin(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        parameters = dict(module.named_parameters())
        self._gammas = [
            (parameters[name], self._weight * self._scales.make_mask(name, parameters[name].detach()))
            for name in self._scales.units
        ]

    @torch.no_grad()
    def adjust_gradients(self) -> None:
        for gamma, strength in self._gammas:
            penalty = strength * gamma.sign()
            if gamma.grad is None:
                gamma.grad = penalty
            else:
                gamma.grad += penalty

    @torch.no_grad()
    def get_figures(self) -> dict[str, float | str]:
        total = sum(float(((strength != 0) * gamma.abs()).sum()) for gamma, strength in self._gammas)
        count = sum(int((strength != 0).sum()) for _, strength in self._gammas)
        return {"mean scale": total / count}

    def describe(self) -> str:
        return f"SlimmingHook(weight={self._weight!r}, scales={self._scales.compute_digest()})"
