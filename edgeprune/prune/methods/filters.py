"""Filter pruning by a criterion on the weights alone: l1 (arXiv 2509.05190) and its baselines l2 and random.

The paper scores the filters of each convolution, keeps the upper half, copies their weights and retrains once with the
same hyper-parameters: `iterations` 1. Ours: more iterations approach the same numbers of channels in steps of one
factor, scored anew and retrained shortly each time, with the full retraining at the end.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import final

from edgeprune.prune.bench import Bench
from edgeprune.prune.criteria import Criterion, L1Norm, L2Norm, RandomScore
from edgeprune.prune.methods.base import Method, MethodResult, describe_pruning
from edgeprune.prune.methods.structured import ChannelPruner, finish, finish_schedule, list_asked
from edgeprune.prune.schedule import run_schedule
from edgeprune.prune.selection import select_lowest
from edgeprune.prune.units import find_units


@dataclass(frozen=True)
class FilterPruning(Method):
    """Remove the filters of lowest score and retrain; options: see `method_table`."""

    retrain: str
    ratio: float
    scope: str
    iterations: int
    step_epochs: int
    stop: str
    epsilon: float | None

    @abstractmethod
    def make_criterion(self, bench: Bench) -> Criterion:
        """What scores the filters."""

    def run(self, bench: Bench) -> MethodResult:
        return self._prune_once(bench) if self.iterations == 1 else self._prune_in_steps(bench)

    def _prune_once(self, bench: Bench) -> MethodResult:
        units = find_units(bench.base, bench.example)
        criterion = self.make_criterion(bench)
        scores = criterion.score_units(bench.base, units)
        dead = select_lowest(units, scores, self.ratio, self.scope, relative=criterion.relative)
        result = bench.prune(bench.base, dead, asked=list_asked(units, self.ratio, self.scope))
        return finish(bench, result.module, result.removed, self.retrain, describe_pruning(result))

    def _prune_in_steps(self, bench: Bench) -> MethodResult:
        shares = divide_ratio(self.ratio, self.iterations)
        pruner = ChannelPruner(self.make_criterion(bench), shares, self.scope)
        schedule = run_schedule(
            bench,
            pruner,
            iterations=self.iterations,
            step_epochs=self.step_epochs,
            stop=self.stop,
            epsilon=self.epsilon,
        )
        asked = list_asked(find_units(bench.base, bench.example), self.ratio, self.scope)
        return finish_schedule(bench, pruner, schedule, self.retrain, asked)


def divide_ratio(ratio: float, iterations: int) -> list[float]:
    """Shares gone after each of so many steps, which remove the same share of what is left each; the last is `ratio`.

    >>> divide_ratio(0.75, 2)
    [0.5, 0.75]
    """
    return [1 - (1 - ratio) ** (step / iterations) for step in range(1, iterations)] + [ratio]


@final
class L1Pruning(FilterPruning):
    """arXiv 2509.05190: the sum of absolute weights."""

    def make_criterion(self, bench: Bench) -> Criterion:
        return L1Norm()


@final
class L2Pruning(FilterPruning):
    """The L2 norm of the weights."""

    def make_criterion(self, bench: Bench) -> Criterion:
        return L2Norm()


@final
class RandomPruning(FilterPruning):
    """By lot, drawn from the bench's seed."""

    def make_criterion(self, bench: Bench) -> Criterion:
        return RandomScore(bench.seed)
