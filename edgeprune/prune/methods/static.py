"""Fixed widths: every layer keeps at most so many channels, trained from scratch.

The baselines LITETime_16, _8 and _4 of arXiv 2602.12744: what a method that finds widths by itself must beat.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import final

from edgeprune.prune.bench import Bench
from edgeprune.prune.dsp import draw_pruned_weights
from edgeprune.prune.methods.base import Method, MethodResult, describe_pruning
from edgeprune.prune.pruning import prune_channels
from edgeprune.prune.units import PINNED, ChannelUnits, find_units, guard_units


@final
@dataclass(frozen=True)
class StaticWidths(Method):
    """Cut every group of coupled layers to a width and train new weights; options: see `method_table`."""

    retrain: str
    width: int

    def run(self, bench: Bench) -> MethodResult:
        units = find_units(bench.base, bench.example)
        dead = select_beyond(units, self.width)
        asked = [layer.name for layer in units.layers if layer.width > self.width]
        account = prune_channels(bench.base, bench.example, dead, asked=asked)
        fresh = draw_pruned_weights(bench.base, bench.example, account.removed, bench.seed, bench.factory)
        trained = bench.train(fresh, "Scratch-trained").module
        return MethodResult(trained, {"retrained": ("Scratch-trained", trained)}, describe_pruning(account))


def select_beyond(units: ChannelUnits, width: int) -> frozenset[int]:
    """The units that leave each group of coupled layers at most `width` channels in each of its layers.

    Pinned channels (frozen filters, the classes) do not count and stay. Which units go is of no account, for the
    weights are drawn anew: the first ones stay. A group whose unit alone has more channels keeps one unit.
    """
    channels: dict[int, Counter[str]] = {}  # unit -> its channels in each layer
    for layer in units.layers:
        for unit in layer.units[layer.units != PINNED].tolist():
            channels.setdefault(unit, Counter())[layer.name] += 1
    dead: set[int] = set()
    for group in units.groups:
        kept: Counter[str] = Counter()
        for unit in group.units:
            total = kept + channels[unit]
            if kept and max(total.values()) > width:
                dead.add(unit)
            else:
                kept = total
    return guard_units(units, dead)
