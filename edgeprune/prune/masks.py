"""Masks: weights held at zero, one by one. Zeros, not compression: shapes stay, and nothing gets faster by them.

What does get smaller is told by two figures: the file compressed for transport (`measure.transport`), and channels all
of whose filters became zero, which the structured engine then removes for real.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from edgeprune.prune.bench import Bench
from edgeprune.prune.hooks import TrainingHook
from edgeprune.prune.pruning import PruneResult
from edgeprune.prune.surgery import remove_units
from edgeprune.prune.units import ChannelUnits, find_units, guard_units

Masks = Mapping[str, Tensor]  # parameter name -> bool tensor of its shape, True where the weight is kept

MASKABLE_LAYERS = (nn.modules.conv._ConvNd, nn.Linear)


@dataclass(frozen=True)
class MaskableWeights:
    """layers: parameter name -> the layer that holds it, in program order. untouched: (layer, reason) of the others."""

    layers: Mapping[str, str]
    untouched: tuple[tuple[str, str], ...]


def find_maskable(module: fx.GraphModule) -> MaskableWeights:
    """The weights that masks may hold at zero: those of convolutions and linear layers, as far as they train.

    A weight that several layers share is listed once, under the first. Biases, batch norms and recurrent layers stay
    as they are: the papers (LTH, SAP, InCoP) mask convolutions and linear layers.
    """
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    layers: dict[str, str] = {}
    untouched: list[tuple[str, str]] = []
    called = dict.fromkeys(str(node.target) for node in module.graph.nodes if node.op == "call_module")
    for name in called:
        layer = module.get_submodule(name)
        if isinstance(layer, MASKABLE_LAYERS):
            if layer.weight.requires_grad:
                layers.setdefault(names[id(layer.weight)], name)
            else:
                untouched.append((name, "frozen: requires_grad is False"))
        elif isinstance(layer, nn.RNNBase):
            untouched.append((name, f"{type(layer).__name__}: masks are for convolutions and linear layers"))
    return MaskableWeights(layers, tuple(untouched))


def keep_all(module: fx.GraphModule) -> dict[str, Tensor]:
    """Masks that keep every maskable weight."""
    parameters = dict(module.named_parameters())
    return {name: torch.ones(parameters[name].shape, dtype=torch.bool) for name in find_maskable(module).layers}


def apply_masks(module: fx.GraphModule, masks: Masks) -> fx.GraphModule:
    """A copy of the module with the masked weights at exactly (positive) zero."""
    masked = copy.deepcopy(module)
    parameters = dict(masked.named_parameters())
    with torch.no_grad():
        for name, mask in masks.items():
            parameters[name].masked_fill_(~mask.to(parameters[name].device), 0.0)
    return masked


def digest_tensors(tensors: Mapping[str, Tensor]) -> str:
    """A short text that differs wherever names, shapes, types or values do."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


class MaskHook(TrainingHook):
    """Keeps masked weights at exactly zero throughout a training.

    Their gradients are zeroed before the step, so that an optimizer's averages never see them; the weights themselves
    are zeroed at the start and after each step, whatever the optimizer adds of its own.
    """

    def __init__(self, masks: Masks) -> None:
        self._masks = dict(masks)
        self._held: list[tuple[nn.Parameter, Tensor]] = []

    def begin(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        parameters = dict(module.named_parameters())
        self._held = [(parameters[name], ~mask.to(parameters[name].device)) for name, mask in self._masks.items()]
        self.adjust_parameters()

    def adjust_gradients(self) -> None:
        for parameter, masked in self._held:
            if parameter.grad is not None:
                parameter.grad.masked_fill_(masked, 0.0)

    def adjust_parameters(self) -> None:
        with torch.no_grad():
            for parameter, masked in self._held:
                parameter.masked_fill_(
                    masked, 0.0
                )  # not a product: that leaves -0.0, and NaN where a weight is not finite

    def describe(self) -> str:
        return f"masks {digest_tensors(self._masks)}"


def measure_kept(masks: Masks) -> float:
    """Share of the maskable weights that masks keep; 1 without masks."""
    total = sum(mask.numel() for mask in masks.values())
    return sum(int(mask.sum()) for mask in masks.values()) / total if total else 1.0


def describe_zeros(module: fx.GraphModule, removed_channels: int = 0) -> dict[str, Any]:
    """For the report: maskable weights and how many of them are exactly zero, in all and by layer."""
    maskable = find_maskable(module)
    parameters = dict(module.named_parameters())
    rows = [
        {"layer": layer, "weights": parameters[name].numel(), "zeros": int((parameters[name] == 0).sum())}
        for name, layer in maskable.layers.items()
    ]
    return {
        "weights": sum(row["weights"] for row in rows),
        "zeros": sum(row["zeros"] for row in rows),
        "layers": rows,
        "removed_channels": removed_channels,
        "untouched": [{"layer": layer, "reason": reason} for layer, reason in maskable.untouched],
    }


def find_zero_units(module: fx.GraphModule, units: ChannelUnits) -> frozenset[int]:
    """The units all of whose filters are exactly zero, so that their channels are constants; every tensor keeps one."""
    parameters = dict(module.named_parameters())
    dead = []
    for unit in range(units.count):
        filters = units.producers(unit)
        if filters and all(not parameters[name].select(axis, index).any() for name, axis, index in filters):
            dead.append(unit)
    return guard_units(units, dead)


@dataclass(frozen=True, eq=False)
class ZeroRemoval:
    """What became of the channels that masks had emptied: the smaller net, its masks, and the surgery's account."""

    module: fx.GraphModule
    masks: Masks
    pruning: PruneResult
    is_exact: bool


def remove_zero_units(module: fx.GraphModule, masks: Masks, bench: Bench) -> ZeroRemoval | None:
    """The masked net without the channels whose filters are all zero, constants folded; None where there are none.

    The result computes what the masked net did, but where a removed channel's constant went into a zero-padded border:
    there the fold is the mean (`is_exact` False; see `folding`).
    """
    units = find_units(module, bench.example)
    dead = find_zero_units(module, units)
    if not dead:
        return None
    pruning = bench.prune(module, dead)
    left = slice_masks(module, units, pruning.removed, masks)
    return ZeroRemoval(pruning.module, left, pruning, all(fold.exact for fold in pruning.folds))


def slice_masks(module: fx.GraphModule, units: ChannelUnits, dead: frozenset[int], masks: Masks) -> dict[str, Tensor]:
    """The masks of the net that is left when the dead units go: they are cut as the weights are."""
    carrier = copy.deepcopy(module)
    parameters = dict(carrier.named_parameters())
    with torch.no_grad():
        for name, mask in masks.items():
            parameters[name].copy_(mask)
    left = dict(remove_units(carrier, units, dead).named_parameters())
    return {name: left[name].detach() != 0 for name in masks}
