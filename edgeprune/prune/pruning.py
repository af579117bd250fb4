"""Pruning from a set of units to a smaller module and an account of what became of each layer."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import torch
from torch import fx

from edgeprune.prune.folding import Fold, fold_constant_channels
from edgeprune.prune.surgery import remove_units
from edgeprune.prune.units import ChannelUnits, find_units, guard_units


@dataclass(frozen=True)
class LayerWidth:
    """Output channels of a layer before and after."""

    layer: str
    before: int
    after: int


@dataclass(frozen=True, eq=False)
class PruneResult:
    """A pruned module and what was done.

    widths: every layer that makes channels. pinned: (layer, reason), see ChannelUnits.pinned. not_shrunk:
    (layer, reason) of each layer that was asked to shrink and did not. removed: the units that went.
    folds: what became of the removed channels' mean contributions; empty where nothing was folded.
    """

    module: fx.GraphModule
    widths: tuple[LayerWidth, ...]
    pinned: tuple[tuple[str, str], ...]
    not_shrunk: tuple[tuple[str, str], ...]
    removed: frozenset[int]
    folds: tuple[Fold, ...] = ()


def prune_channels(
    module: fx.GraphModule,
    example: torch.Tensor,
    dead: Collection[int],
    *,
    fold_batches: Iterable[torch.Tensor] | None = None,
    asked: Collection[str] | None = None,
) -> PruneResult:
    """Remove units from a raised module; the module passed in stays as it is.

    example: a batch of two or more samples. dead: unit ids of find_units(module, example); where they would leave a
    tensor without channels, one unit stays. fold_batches: batches of samples to measure what the removed channels
    contribute; that is folded into biases or BatchNorm means (see `folding`). asked: names of the layers that were
    meant to shrink (by default those with a unit in `dead`): each that did not is named in `not_shrunk`.

    Raises InputError for an id that is no unit.
    """
    units = find_units(module, example)
    removed = guard_units(units, dead)
    folds: tuple[Fold, ...] = ()
    folded = module
    if fold_batches is not None and removed:
        folded, folds = fold_constant_channels(module, units, removed, fold_batches)
    mask = units.is_dead(removed)
    widths = tuple(
        LayerWidth(layer.name, layer.width, layer.width - int(mask[layer.units].sum())) for layer in units.layers
    )
    return PruneResult(
        module=remove_units(folded, units, removed),
        widths=widths,
        pinned=units.pinned,
        not_shrunk=_explain_not_shrunk(units, dead, removed, asked),
        removed=removed,
        folds=folds,
    )


def _explain_not_shrunk(
    units: ChannelUnits, dead: Collection[int], removed: frozenset[int], asked: Collection[str] | None
) -> tuple[tuple[str, str], ...]:
    wanted, gone = units.is_dead(dead), units.is_dead(removed)
    rows = []
    for layer in units.layers:
        if gone[layer.units].any() or not (wanted[layer.units].any() if asked is None else layer.name in asked):
            continue
        if layer.fixed:
            reason = layer.fixed
        elif wanted[layer.units].any():
            reason = "it, or a tensor or layer that its channels are coupled with, would lose its last channel"
        else:
            reason = f"none of its {layer.width} channels was selected"
        rows.append((layer.name, reason))
    return tuple(rows)
