"""Random networks, pruned at random: equal to the original with the removed weights at zero, always."""

import random
from collections import Counter

import pytest
import torch

from edgeprune.errors import UnsupportedModelError
from edgeprune.prune import guard_units, prune_channels, remove_units
from tests.prune.independent_check import compare_with_masked, flatten_outputs
from tests.prune.raised import draw_units, make_samples, raise_network, slim_units
from tests.prune.random_networks import RandomNetwork

# float64 networks of some 15 layers: 1e-14 is seen, 1e-9 leaves room
TOLERANCE = 1e-9


def prune_random_networks(seeds: range, choices: int = 2) -> Counter[str]:
    """Random choices of units for each network; counts of cases equal, refused, with nothing to remove.

    Raises AssertionError naming seed and steps where the pruned network is wrong.
    """
    counts: Counter[str] = Counter()
    for seed in seeds:
        torch.manual_seed(seed)
        network = RandomNetwork(seed)
        try:
            case = raise_network(network, (2, *network.spatial), seed)
        except UnsupportedModelError as error:
            print(f"seed {seed} refused: {error}")
            counts["refused"] += 1
            continue
        generator = random.Random(seed)
        for choice in range(choices):
            if choice % 2:
                anything = generator.sample(range(case.units.count), generator.randint(0, case.units.count))
                dead = guard_units(case.units, anything)
            else:
                dead = draw_units(case.units, seed + choice)
            if not dead:
                counts["nothing to remove"] += 1
                continue
            pruned = remove_units(case.module, case.units, dead)
            difference, _ = compare_with_masked(case.original, pruned, make_samples((2, *network.spatial), 3, seed))
            assert difference < TOLERANCE, f"seed {seed}: {difference:.1e} after {network.step_names}"
            counts["equal"] += 1
    return counts


def test_random_networks() -> None:
    counts = prune_random_networks(range(4, 9), choices=4)
    assert counts["equal"] >= 15
    assert counts["refused"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("start", range(1000, 1420, 30))
def test_many_random_networks(start: int) -> None:
    """14 runs of at least 36 equal cases each: more than 500, none wrong."""
    counts = prune_random_networks(range(start, start + 30))
    print(dict(counts))
    assert counts["equal"] >= 36
    assert counts["refused"] <= 1


@pytest.mark.slow
@pytest.mark.parametrize("start", range(2000, 2090, 30))
def test_folds_that_are_called_exact_are_exact(start: int) -> None:
    """Slimmed random networks: where every fold is exact, the pruned network computes what the slimmed one did."""
    exact = 0
    for seed in range(start, start + 30):
        torch.manual_seed(seed)
        network = RandomNetwork(seed)
        shape = (2, *network.spatial)
        case = raise_network(network, shape, seed)
        dead = draw_units(case.units, seed, ratio=0.5)
        slimmed = slim_units(case.module, case.units, dead)
        result = prune_channels(slimmed, case.example, dead, fold_batches=[make_samples(shape, 8, seed)])
        if dead and all(fold.exact for fold in result.folds):
            batch = make_samples(shape, 4, seed + 1)
            with torch.no_grad():
                expected, found = flatten_outputs(slimmed(batch)), flatten_outputs(result.module(batch))
            assert (found - expected).abs().max() <= TOLERANCE * expected.abs().max(), f"seed {seed}"
            exact += 1
    print(f"{exact} of 30 networks folded exactly")
    assert exact >= 3
