"""What a pruning method is: options in, a bench to work at, the net to deploy and its history out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import fx

from edgeprune.prune.bench import Bench
from edgeprune.prune.pruning import PruneResult


@dataclass(frozen=True, eq=False)
class MethodResult:
    """What a method leaves behind.

    module: the net to deploy, plain layers, eval mode, batch norms recalibrated.
    variants: key -> (label, module), every state worth a line in the report, in the order they came about; without
        the base; the deployed one last, under the key "retrained" if it was retrained after pruning.
    record: plain values for the report; `describe_pruning` gives the part that all structured methods share.
    factored: of dprp, the same net with its layers still as U S V^T, from which the deployed form is chosen.
    """

    module: fx.GraphModule
    variants: Mapping[str, tuple[str, fx.GraphModule]]
    record: Mapping[str, Any] = field(default_factory=dict)
    factored: fx.GraphModule | None = None


class Method(ABC):
    """A pruning method; subclasses are frozen dataclasses whose fields are the options of `method_table`.

    Fields have no defaults: `make_method` fills them in from the table, which is where users read them.
    """

    @abstractmethod
    def run(self, bench: Bench) -> MethodResult:
        """Prune (and retrain) the bench's base."""


def describe_pruning(result: PruneResult) -> dict[str, Any]:
    """Widths, and what could not shrink with the reason, for the report."""
    return {
        "removed_units": len(result.removed),
        "widths": [asdict(width) for width in result.widths],
        "pinned": [{"layer": layer, "reason": reason} for layer, reason in result.pinned],
        "not_shrunk": [{"layer": layer, "reason": reason} for layer, reason in result.not_shrunk],
    }
