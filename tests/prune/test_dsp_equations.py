"""DSP's equations against figures worked out by hand (arXiv 2602.12744), and which tensors it looks at."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import fx, nn

from edgeprune.errors import InputError
from edgeprune.load import raise_module
from edgeprune.models import build_model
from edgeprune.prune import ChannelUnits, find_units
from edgeprune.prune.observed import ObservedTensor, find_observed_tensors
from edgeprune.prune.sparsity import Activity, SparsityLoss, find_inactive_units, measure_activity, norm_channels


def raise_series(net: nn.Module, channels: int = 1, length: int = 24) -> tuple[fx.GraphModule, ChannelUnits]:
    example = torch.zeros(2, channels, length)
    module = raise_module(net.eval(), example)
    return module, find_units(module, example)


def sources(module: fx.GraphModule, node_name: str) -> list[str]:
    """Names of the nodes a node reads."""
    node = next(node for node in module.graph.nodes if node.name == node_name)
    return [source.name for source in node.all_input_nodes]


def test_lite_gives_the_papers_three_tensors() -> None:
    module, units = raise_series(build_model("lite", in_channels=1, classes=2))
    tensors = find_observed_tensors(module, units)
    assert [sources(module, tensor.node) for tensor in tensors] == [["norm"], ["block1_norm"], ["block2_norm"]]
    assert [(len(tensor.units), len(tensor.learnable)) for tensor in tensors] == [(113, 96), (32, 32), (32, 32)]
    assert tensors[0].learnable.tolist() == list(range(96)), "the 17 hand-crafted filters do not count"


def test_inception_gives_six_block_outputs_two_of_them_after_the_residual_addition() -> None:
    module, units = raise_series(build_model("inception", in_channels=1, classes=2, filters=2, bottleneck=2))
    tensors = find_observed_tensors(module, units)
    before = [sources(module, tensor.node)[0] for tensor in tensors]
    norms = [f"blocks_{index}_norm" for index in range(6)]
    assert [before[0], before[1], before[3], before[4]] == [norms[0], norms[1], norms[3], norms[4]]
    for index, block in ((2, 3), (5, 6)):
        assert before[index].startswith("add"), f"block {block} is observed after its addition"
    assert all(len(tensor.learnable) == 8 for tensor in tensors)


def test_pooling_and_dropout_are_looked_through() -> None:
    module, units = raise_series(build_model("eegcnn", in_channels=2, classes=3, widths=(4, 5, 6)), channels=2)
    assert [len(tensor.learnable) for tensor in find_observed_tensors(module, units)] == [4, 5, 6]


def test_images_concatenation_and_what_only_an_addition_reads() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)
            self.d = nn.Conv2d(8, 5, 1)
            self.head = nn.Linear(5, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            total = torch.relu(self.a(x)) + torch.relu(self.b(x))
            both = torch.cat([total, torch.nn.functional.silu(self.c(x))], dim=1)
            return self.head(torch.relu(self.d(both)).mean((2, 3)))

    example = torch.zeros(2, 3, 8, 8)
    module = raise_module(Net().eval(), example)
    tensors = find_observed_tensors(module, find_units(module, example))
    assert [sources(module, tensor.node)[0] for tensor in tensors] == ["c", "d"]


def test_norms_and_loss_by_hand() -> None:
    # two samples, three channels, two positions; the last channel is frozen
    feature_map = torch.tensor([[[3.0, 4.0], [0.0, 0.0], [8.0, 6.0]], [[0.0, 2.0], [5.0, 12.0], [9.0, 9.0]]])
    assert norm_channels(feature_map)[:, :2].tolist() == [[5.0, 0.0], [2.0, 13.0]]
    tensors = (ObservedTensor("a", np.array([0, 1, -1])), ObservedTensor("b", np.array([2])))
    other = torch.tensor([[[6.0, 8.0]], [[0.0, 0.0]]])
    values = {"a": feature_map, "b": other}
    # equation 1, summed over samples, learnable channels and tensors: 5 + 0 + 2 + 13, and 10 + 0
    assert SparsityLoss(tensors, 0.5).compute_loss(values).item() == 0.5 * (20 + 10)
    assert SparsityLoss(tensors, 0.5, (2.0, 3.0)).compute_loss(values).item() == 0.5 * (2 * 20 + 3 * 10)
    with pytest.raises(InputError, match=r"1 tensor weights for 2 observed tensors \(a, b\)"):
        SparsityLoss(tensors, 0.5, (1.0,))


def test_gradient_is_the_direction_of_each_map_and_zero_where_it_is_silent() -> None:
    feature_map = torch.tensor([[[3.0, 4.0], [0.0, 0.0], [1.0, 1.0]]], requires_grad=True)
    SparsityLoss((ObservedTensor("a", np.array([0, 1, -1])),), 1.0).compute_loss({"a": feature_map}).backward()
    assert feature_map.grad is not None
    # float32: 3/5 and 4/5 are rounded
    torch.testing.assert_close(
        feature_map.grad, torch.tensor([[[0.6, 0.8], [0.0, 0.0], [0.0, 0.0]]]), rtol=1e-6, atol=0
    )


class Direct(nn.Module):
    """relu of the input's channels, scaled by a depthwise convolution of ones, so that s is known by hand."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, channels, 1, bias=False)
        self.head = nn.Linear(channels, 2)
        with torch.no_grad():
            self.conv.weight.copy_(torch.eye(channels)[..., None])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.conv(x)).mean(-1))


def analyse(norms: list[list[float]]) -> tuple[ChannelUnits, Activity]:
    """Activity of a tensor whose s[i, j] is `norms`."""
    module, units = raise_series(Direct(len(norms[0])), channels=len(norms[0]), length=4)
    tensors = find_observed_tensors(module, units)
    x = np.zeros((len(norms), len(norms[0]), 4), np.float32)
    x[:, :, 2] = norms
    (activity,) = measure_activity(module, tensors, x)
    return units, activity


def test_channels_above_the_sample_mean_are_active() -> None:
    # tau: 2, 3; equal to tau is active
    units, activity = analyse([[1.0, 2.0, 3.0, 2.0], [6.0, 3.0, 2.0, 1.0]])
    assert activity.active_samples.tolist() == [1, 2, 1, 1]
    assert activity.mean_norms.tolist() == [3.5, 2.5, 2.5, 1.5]
    assert find_inactive_units(units, [activity]) == frozenset()
    units, activity = analyse([[1.0, 2.0, 3.0, 1.0], [6.0, 3.0, 2.0, 1.0]])
    assert activity.inactive.tolist() == [3]
    assert find_inactive_units(units, [activity]) == {int(activity.tensor.units[3])}


def test_an_all_zero_sample_keeps_nothing() -> None:
    # the paper's s >= tau alone would call all three channels active in sample 1, where tau = 0
    units, activity = analyse([[0.0, 1.0, 5.0], [0.0, 0.0, 0.0]])
    assert activity.active_samples.tolist() == [0, 0, 1]
    assert activity.silent_samples == 1
    assert len(find_inactive_units(units, [activity])) == 2


def test_a_dead_layer_keeps_its_most_active_channel() -> None:
    units, activity = analyse([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    assert len(find_inactive_units(units, [activity])) == 2
    lite, units = raise_series(build_model("lite", in_channels=1, classes=2, filters=4))
    tensors = find_observed_tensors(lite, units)
    # the first convolution's 4 channels are active nowhere, number 2 has the highest norm among them
    first = np.concatenate([np.zeros(4), np.ones(8 + 17)]).astype(np.int64)
    norms = np.concatenate([[0.1, 0.2, 0.4, 0.3], np.ones(8 + 17)])
    activities = [Activity(tensors[0], first, norms, 5, 0)]
    activities += [Activity(t, np.ones(4, np.int64), np.ones(4), 5, 0) for t in tensors[1:]]
    assert find_inactive_units(units, activities) == {int(tensors[0].units[j]) for j in (0, 1, 3)}


def test_a_unit_seen_in_two_tensors_goes_only_if_inactive_in_both() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Conv1d(1, 3, 1), nn.Conv1d(3, 3, 1), nn.Conv1d(3, 2, 1)
            self.head = nn.Linear(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            first = torch.relu(self.a(x))
            second = torch.relu(first + self.b(first))  # its channels are coupled with those of `first`
            return self.head(torch.relu(self.c(second)).mean(-1))

    module, units = raise_series(Net())
    tensors = find_observed_tensors(module, units)
    assert len(tensors) == 3
    assert np.array_equal(tensors[0].units, tensors[1].units)
    activities = [
        Activity(tensors[0], np.array([0, 0, 4]), np.ones(3), 4, 0),
        Activity(tensors[1], np.array([0, 3, 4]), np.ones(3), 4, 0),
        Activity(tensors[2], np.array([4, 4]), np.ones(2), 4, 0),
    ]
    assert find_inactive_units(units, activities) == {int(tensors[0].units[0])}


def test_activity_does_not_depend_on_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    norms = np.random.default_rng(0).uniform(0, 1, (20, 5)).tolist()
    _, whole = analyse(norms)
    monkeypatch.setattr("edgeprune.prune.sparsity.CHUNK_SAMPLES", 7)
    _, parts = analyse(norms)
    assert np.array_equal(whole.active_samples, parts.active_samples)
    np.testing.assert_allclose(whole.mean_norms, parts.mean_norms, rtol=1e-12)  # float64 sums in another order
