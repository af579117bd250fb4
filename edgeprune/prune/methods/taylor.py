"""Taylor pruning (Molchanov et al. 2017, arXiv 1611.06440): remove the channels that matter least, a few at a time.

Each iteration scores all channels by the loss change that zeroing them would bring to first order (`prune.taylor`),
removes the lowest and fine-tunes shortly. It ends at the share `ratio`, or, under an accuracy limit, by itself at the
last net within the limit: the supervision that the survey (papers.md P3) misses in the method. A fine-tuning with the
full recipe follows.

Ours: the paper removes one feature map at a time; `step` is a share of the channels that are left. Under a limit, a
net whose final fine-tuning leaves the limit is deployed as the schedule left it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from edgeprune.prune.bench import Bench
from edgeprune.prune.losses import balance_classes
from edgeprune.prune.methods.base import Method, MethodResult
from edgeprune.prune.methods.structured import ChannelPruner, finish_schedule, list_asked
from edgeprune.prune.schedule import run_schedule
from edgeprune.prune.taylor import TaylorScore
from edgeprune.prune.training import check_classifier
from edgeprune.prune.units import find_units


@final
@dataclass(frozen=True)
class TaylorPruning(Method):
    """Activation x gradient, step by step; options: see `method_table`."""

    retrain: str
    ratio: float
    scope: str
    step: float
    step_epochs: int
    stop: str
    epsilon: float | None

    def run(self, bench: Bench) -> MethodResult:
        classes = check_classifier(bench.base, bench.x_train, bench.y_train)
        balanced = bench.recipe.class_weights == "balanced"
        weights = balance_classes(bench.y_train, classes) if balanced else None
        criterion = TaylorScore(bench.x_train, bench.y_train, weights)
        shares = list_shares(self.ratio, self.step)
        pruner = ChannelPruner(criterion, shares, self.scope)
        schedule = run_schedule(
            bench,
            pruner,
            iterations=len(shares),
            step_epochs=self.step_epochs,
            stop=self.stop,
            epsilon=self.epsilon,
        )
        asked = list_asked(find_units(bench.base, bench.example), self.ratio, self.scope)
        return finish_schedule(bench, pruner, schedule, self.retrain, asked)


def list_shares(ratio: float, step: float) -> list[float]:
    """Shares gone after each step, when `step` of what is left goes each time, up to `ratio`.

    >>> [round(share, 3) for share in list_shares(0.3, 0.1)]
    [0.1, 0.19, 0.271, 0.3]
    """
    shares = []
    left = 1 - step
    while 1 - left < ratio - 1e-9:
        shares.append(1 - left)
        left *= 1 - step
    return [*shares, ratio] if ratio else []
