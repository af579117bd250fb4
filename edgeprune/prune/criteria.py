"""Criteria: how much a unit of channels matters. The lowest scores go first.

A new criterion is a class with one method, listed in CRITERIA if it judges weights alone (`taylor` needs data).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, final

import numpy as np
from torch import Tensor, fx

from edgeprune.prune.units import PINNED, ChannelUnits


class Criterion(ABC):
    """Scores the units of a program; settings and data, if it needs any, are given to its constructor.

    relative: whether `select_lowest` must scale the scores of a layer before it compares them with another's.
    """

    relative: ClassVar[bool] = True

    @abstractmethod
    def score_units(self, module: fx.GraphModule, units: ChannelUnits) -> dict[int, float]:
        """A score for every unit that a layer makes (those of units.groups); higher matters more."""


class FilterNorm(Criterion):
    """A norm of the weights of each filter.

    A unit made by several filters (coupled layers, a depthwise layer behind its producer) scores the sum over them.
    """

    @abstractmethod
    def measure_filters(self, filters: Tensor) -> Tensor:
        """Norms (F,) of flattened filters (F, weights of a filter), float64."""

    def score_units(self, module: fx.GraphModule, units: ChannelUnits) -> dict[int, float]:
        parameters = dict(module.named_parameters())
        totals = np.zeros(units.count)
        for name, axis in sorted(units.filters):
            ids = units.slices[(name, axis)]
            filters = parameters[name].detach().double().movedim(axis, 0).reshape(len(ids), -1)
            norms = self.measure_filters(filters).cpu().numpy()
            np.add.at(totals, ids[ids != PINNED], norms[ids != PINNED])
        return {unit: float(totals[unit]) for group in units.groups for unit in group.units}


@final
class L1Norm(FilterNorm):
    """s_j = sum_i sum_k |w_ijk| of filter j (arXiv 2509.05190)."""

    def measure_filters(self, filters: Tensor) -> Tensor:
        return filters.abs().sum(1)


@final
class L2Norm(FilterNorm):
    """s_j = sqrt(sum_i sum_k w_ijk^2) of filter j, a baseline of arXiv 2509.05190."""

    def measure_filters(self, filters: Tensor) -> Tensor:
        return filters.square().sum(1).sqrt()


@final
class RandomScore(Criterion):
    """Scores by lot, uniform in [0, 1): what any criterion must beat.

    The draw depends on the seed and on how many units there are, so pruning in steps draws anew in each step.
    """

    relative: ClassVar[bool] = False

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed

    def score_units(self, module: fx.GraphModule, units: ChannelUnits) -> dict[int, float]:
        scored = [unit for group in units.groups for unit in group.units]
        draws = np.random.default_rng([self._seed, len(scored)]).random(len(scored))
        return dict(zip(scored, draws.tolist(), strict=True))


CRITERIA: dict[str, type[Criterion]] = {"l1": L1Norm, "l2": L2Norm, "random": RandomScore}
