"""--accuracy-drop: the strongest pruning that keeps the validation metric within a limit.

A method with a strength (a ratio, a penalty, a width) is run at several strengths, as a bisection would choose them: if
a strength keeps the limit, weaker ones are not tried. A metric on few validation samples is no smooth function of
strength, so that is an assumption; the report shows all that was tried. A method that prunes step by step needs no
search: its schedule ends at the limit.

Every training of the search has its checkpoint, so a search that is cut off goes on where it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from edgeprune.method_table import OPTIONS, MethodInfo
from edgeprune.prune.bench import Bench
from edgeprune.prune.methods.base import MethodResult


@dataclass(frozen=True)
class Trial:
    """One strength that was tried.

    validation_metric: of the net that the method gave. parameters: of all its layers.
    """

    value: float
    validation_metric: float
    parameters: int
    within_limit: bool
    trainings: int


@dataclass(frozen=True, eq=False)
class SearchResult:
    """What a search found: the strongest result within the limit, None if not even the weakest was."""

    result: MethodResult | None
    value: float | None
    trials: tuple[Trial, ...]

    @property
    def trainings(self) -> int:
        """Networks trained in all."""
        return sum(trial.trainings for trial in self.trials)


def search_strength(info: MethodInfo, options: Mapping[str, Any], bench: Bench) -> SearchResult:
    """Bisect over `info.strengths` (weakest first) within bench.limit, which must be set.

    options: of the method, with its `retrain`.
    """
    from edgeprune.prune.methods import make_method  # the methods import what this module sits beside

    assert bench.limit is not None
    assert info.strength is not None
    weakest, strongest = 0, len(info.strengths) - 1
    best: tuple[float, MethodResult] | None = None
    trials: list[Trial] = []
    while weakest <= strongest:
        middle = (weakest + strongest) // 2
        value = OPTIONS[info.strength].kind(info.strengths[middle])
        bench.progress.note(
            f"--accuracy-drop: trying {OPTIONS[info.strength].flag} {value:g} ({len(trials) + 1} of at most "
            f"{len(info.strengths).bit_length()})"
        )
        done_before = len(bench.trainings)
        # without the limit: a method in steps must reach the strength that is asked of it
        result = make_method(info.name, **{**options, info.strength: value}).run(replace(bench, limit=None))
        score = bench.score(result.module)
        is_within = bench.limit.allows(score)
        parameters = sum(parameter.numel() for parameter in result.module.parameters())
        trials.append(Trial(value, score, parameters, is_within, len(bench.trainings) - done_before))
        if is_within:
            best = (value, result)
            weakest = middle + 1
        else:
            strongest = middle - 1
    if best is None:
        return SearchResult(None, None, tuple(trials))
    return SearchResult(best[1], best[0], tuple(trials))


def describe_search(info: MethodInfo, bench: Bench, found: SearchResult) -> dict[str, Any]:
    """A search for the report."""
    assert bench.limit is not None
    return {
        "option": OPTIONS[str(info.strength)].flag,
        **asdict(bench.limit),
        "tried": [asdict(trial) for trial in found.trials],
        "chosen": found.value,
        "trainings": found.trainings,
    }
