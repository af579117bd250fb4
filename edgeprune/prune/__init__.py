"""Prune: find which channels belong together, remove some, train again.

`find_units` labels every channel of a raised program; a criterion scores the units, a selection names the ones that
go, and `prune_channels` removes them.
"""

from edgeprune.prune.criteria import CRITERIA, Criterion, L1Norm
from edgeprune.prune.folding import Fold, fold_constant_channels
from edgeprune.prune.pruning import LayerWidth, PruneResult, prune_channels
from edgeprune.prune.selection import select_lowest
from edgeprune.prune.surgery import remove_units
from edgeprune.prune.units import ChannelUnits, CoupledGroup, Layer, find_units, guard_units

__all__ = [
    "CRITERIA",
    "ChannelUnits",
    "CoupledGroup",
    "Criterion",
    "Fold",
    "L1Norm",
    "Layer",
    "LayerWidth",
    "PruneResult",
    "find_units",
    "fold_constant_channels",
    "guard_units",
    "prune_channels",
    "remove_units",
    "select_lowest",
]
