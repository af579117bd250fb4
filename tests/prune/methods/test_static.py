"""Fixed widths: the static LITEs of the DSP paper by their exact parameter counts, and every kind of coupling."""

from collections import Counter

import pytest
import torch
from torch import nn

from edgeprune.load import raise_module
from edgeprune.models import build_model
from edgeprune.prune import find_units, prune_channels
from edgeprune.prune.methods import make_method
from edgeprune.prune.methods.static import select_beyond
from edgeprune.prune.units import PINNED
from tests.prune.methods.benches import check_exportable, count_parameters, equal_states, list_widths, tiny_bench
from tests.prune.raised import Raised, raise_network, raise_zoo
from tests.prune.test_units import SHAPE, DepthwiseAndShuffle, FrozenBetween, Residual

FROZEN_WEIGHTS = 438  # of LITE's hand-crafted filters


def count_lite(width: int, classes: int) -> int:
    """Trainable parameters of a LITE of that width, layer by layer (../models/lite.py; papers.md P1)."""
    hybrid = 3 * width + 17
    first = (40 + 20 + 10) * width + 2 * hybrid  # three convolutions, batch norm
    second = 20 * hybrid + hybrid * width + 2 * width  # depthwise, pointwise, batch norm
    third = 10 * width + width * width + 2 * width
    return first + second + third + (width + 1) * classes


def test_static_lites_have_the_sizes_of_the_paper() -> None:
    """DSP paper, Table 2: 55.8/76.5/84.9 % fewer parameters at widths 16/8/4, the mean over 128 data sets.

    The sets have 8.73 classes on average: 50,511 parameters are five models of 9,814 + 33 C.
    """
    assert [count_lite(32, classes) for classes in (2, 60)] == [9814 + 33 * classes for classes in (2, 60)]
    torch.manual_seed(0)
    example = torch.randn(2, 1, 64)
    base = raise_module(build_model("lite", in_channels=1, classes=2).eval(), example)
    units = find_units(base, example)
    assert count_parameters(base) == count_lite(32, 2) + FROZEN_WEIGHTS
    classes = (50_511 / 5 - 9_814) / 33
    for width, published in ((16, 55.8), (8, 76.5), (4, 84.9)):
        pruned = prune_channels(base, example, select_beyond(units, width)).module
        assert count_parameters(pruned) == count_lite(width, 2) + FROZEN_WEIGHTS
        per_class = width + 1
        smaller = count_lite(width, 0) + per_class * classes + FROZEN_WEIGHTS
        larger = count_lite(32, 0) + 33 * classes + FROZEN_WEIGHTS
        # .05 is the paper's rounding, and .01 that the mean of the sets' shares is not the share of their means
        assert 100 * (1 - smaller / larger) == pytest.approx(published, abs=0.06)


def check_widths(case: Raised, width: int) -> None:
    """No group keeps more than `width` channels in a layer, but a lone unit; and none could keep one more."""
    dead = select_beyond(case.units, width)
    channels = {layer.name: Counter(layer.units[layer.units != PINNED].tolist()) for layer in case.units.layers}
    for group in case.units.groups:
        kept = [unit for unit in group.units if unit not in dead]
        assert kept
        for name in group.layers:
            assert len(kept) == 1 or sum(channels[name][unit] for unit in kept) <= width
        if len(kept) < len(group.units):
            more = next(unit for unit in group.units if unit in dead)
            assert any(sum(channels[name][unit] for unit in [*kept, more]) > width for name in group.layers)
    result = prune_channels(case.module, case.example, dead)
    assert result.module(case.example).shape == case.module(case.example).shape


@pytest.mark.parametrize("model", [Residual, DepthwiseAndShuffle, FrozenBetween])
def test_no_group_is_wider(model: type[nn.Module]) -> None:
    case = raise_network(model(), SHAPE)
    for width in (1, 2, 3, 100):
        check_widths(case, width)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["lite", "inception_time", "resnet20", "mobilenet_v2", "densenet", "shared_conv", "gru"]
)
def test_no_group_is_wider_in_the_zoo(name: str) -> None:
    for width in (3, 16):
        check_widths(raise_zoo(name), width)


def test_frozen_filters_stay() -> None:
    case = raise_network(FrozenBetween(), SHAPE)
    widths = prune_channels(case.module, case.example, select_beyond(case.units, 2)).widths
    assert [(row.layer, row.after) for row in widths] == [("first", 2), ("frozen", 5), ("last", 2), ("fc", 2)]


def test_trains_new_weights_in_the_narrow_net() -> None:
    bench = tiny_bench()
    result = make_method("static", width=3).run(bench)
    assert list_widths(result) == {"conv1": 3, "conv2": 3, "fc": 2}
    assert {key: label for key, (label, _) in result.variants.items()} == {"retrained": "Scratch-trained"}
    assert [row["title"] for row in bench.trainings] == ["Scratch-trained"]
    check_exportable(result.module)
    assert equal_states(result.module, make_method("static", width=3).run(tiny_bench()).module)


def test_the_weights_of_the_base_do_not_matter() -> None:
    bench = tiny_bench()
    doubled = {name: 2 * value for name, value in bench.base.state_dict().items()}
    other = raise_module(bench.base, bench.example)
    other.load_state_dict(doubled)
    first, second = (make_method("static", width=2).run(tiny_bench(base=base)).module for base in (bench.base, other))
    assert equal_states(first, second)


def test_layers_that_are_too_wide_and_cannot_shrink_are_named() -> None:
    result = make_method("static", width=1).run(tiny_bench())
    assert result.record["not_shrunk"] == [{"layer": "fc", "reason": "model output"}]
