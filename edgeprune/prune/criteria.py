"""Criteria: how much a unit of channels matters. The lowest scores go first.

A new criterion is a class with one method, listed in CRITERIA.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import final

import numpy as np
from torch import fx

from edgeprune.prune.units import PINNED, ChannelUnits


class Criterion(ABC):
    """Scores the units of a program; settings and data, if it needs any, are given to its constructor."""

    @abstractmethod
    def score_units(self, module: fx.GraphModule, units: ChannelUnits) -> dict[int, float]:
        """A score for every unit that a layer makes (those of units.groups); higher matters more."""


@final
class L1Norm(Criterion):
    """s_j = sum_i sum_k |w_ijk| of filter j (arXiv 2509.05190).

    A unit made by several filters (coupled layers, a depthwise layer behind its producer) scores the sum over them.
    """

    def score_units(self, module: fx.GraphModule, units: ChannelUnits) -> dict[int, float]:
        parameters = dict(module.named_parameters())
        totals = np.zeros(units.count)
        for name, axis in sorted(units.filters):
            ids = units.slices[(name, axis)]
            weight = parameters[name].detach().double().abs()
            norms = weight.movedim(axis, 0).reshape(len(ids), -1).sum(1).cpu().numpy()
            np.add.at(totals, ids[ids != PINNED], norms[ids != PINNED])
        return {unit: float(totals[unit]) for group in units.groups for unit in group.units}


CRITERIA: dict[str, type[Criterion]] = {"l1": L1Norm}
