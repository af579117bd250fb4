"""Networks raised once and shared by the tests of pruning (which never changes its input)."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, fx, nn

from edgeprune.load import raise_module
from edgeprune.prune import ChannelUnits, find_units, guard_units
from tests.prune.independent_check import randomize_uniquely
from tests.zoo import make_batch, make_model


@dataclass(frozen=True, eq=False)
class Raised:
    """original: the user's network, float64, every weight a different number. module: raised. example: two samples."""

    original: nn.Module
    module: fx.GraphModule
    example: Tensor
    units: ChannelUnits


def raise_network(model: nn.Module, sample_shape: tuple[int, ...], seed: int = 0) -> Raised:
    """The network with unique weights (see independent_check), raised, with its units."""
    original = randomize_uniquely(model, make_samples(sample_shape, 16, seed), seed)
    example = make_samples(sample_shape, 2, seed + 1)
    module = raise_module(original, example, compare_training=False)
    return Raised(original, module, example, find_units(module, example))


@cache
def raise_zoo(name: str) -> Raised:
    """A network of tests/zoo."""
    return raise_network(make_model(name), tuple(make_batch(name, 1).shape[1:]))


def make_samples(sample_shape: tuple[int, ...], count: int, seed: int = 0) -> Tensor:
    """Random float64 samples (count, *sample_shape)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, *sample_shape, generator=generator, dtype=torch.float64)


def draw_units(units: ChannelUnits, seed: int, ratio: float | None = None) -> frozenset[int]:
    """Random units that can go: of each group of layers the given ratio, or any number."""
    generator = random.Random(seed)
    dead: list[int] = []
    for group in units.groups:
        count = generator.randint(0, len(group.units)) if ratio is None else int(ratio * len(group.units))
        dead += generator.sample(group.units, count)
    return guard_units(units, dead)


def slim_units(module: fx.GraphModule, units: ChannelUnits, dead: Iterable[int]) -> fx.GraphModule:
    """A copy in which the filters and BatchNorm scales of the units are zero, as network slimming leaves them.

    The shifts stay, so the units' channels are constants.
    """
    slimmed = copy.deepcopy(module)
    norms = {name for name, layer in slimmed.named_modules() if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d))}
    parameters = dict(slimmed.named_parameters())
    with torch.no_grad():
        for unit in dead:
            for name, axis, index in units.members(unit):
                is_scale = name.rpartition(".")[0] in norms and name.endswith(".weight")
                if is_scale or (name, axis) in units.filters:
                    parameters[name].select(axis, index).zero_()
    return slimmed


class Branches(nn.Module):
    """For each function: conv<name>(2 -> 6) -> relu -> function -> mean over the rest -> fc<name>; outputs joined.

    One network for many functions, for raising is what takes the time. `name` is the function's number.
    """

    def __init__(self, functions: Iterable[Callable[[Tensor], Tensor]]) -> None:
        super().__init__()
        self.functions = tuple(functions)
        self.layers = nn.ModuleList([function for function in self.functions if isinstance(function, nn.Module)])
        self.convs = nn.ModuleList([nn.Conv1d(2, 6, 3, padding=1) for _ in self.functions])
        with torch.no_grad():
            widths = [function(torch.zeros(2, 6, 8)).shape[1] for function in self.functions]
        self.heads = nn.ModuleList([nn.Linear(width, 3) for width in widths])

    def forward(self, x: Tensor) -> Tensor:
        outputs = []
        for conv, function, head in zip(self.convs, self.functions, self.heads, strict=True):
            outputs.append(head(function(torch.relu(conv(x))).flatten(2).mean(-1)))
        return torch.cat(outputs, 1)
