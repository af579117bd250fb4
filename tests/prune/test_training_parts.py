"""The parts of training: faster depthwise, batch-norm recalibration, prediction."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from edgeprune.errors import InputError
from edgeprune.load import raise_module
from edgeprune.models import build_model
from edgeprune.prune.batchnorm import recalibrate_batchnorm
from edgeprune.prune.fast_training import fast_depthwise
from edgeprune.prune.frozen_prefix import cut_frozen_prefix
from edgeprune.prune.inference import predict


@pytest.mark.parametrize("length", [7, 24, 61])
@pytest.mark.parametrize(("kernel_size", "dilation"), [(20, 2), (10, 4), (3, 3), (2, 5)])
@pytest.mark.parametrize("padding", ["same", "valid", 6])
def test_phases_compute_the_same_sums(length: int, kernel_size: int, dilation: int, padding: str | int) -> None:
    if padding != "same" and (kernel_size - 1) * dilation >= length + 2 * (padding if isinstance(padding, int) else 0):
        return  # no output at all
    torch.manual_seed(0)
    layer = nn.Conv1d(6, 12, kernel_size, dilation=dilation, padding=padding, groups=6).double()
    x = torch.randn(3, 6, length, dtype=torch.float64, requires_grad=True)

    def run() -> list[torch.Tensor]:
        y = layer(x)
        return [y.detach(), *torch.autograd.grad((y**2).sum(), [x, layer.weight, layer.bias])]

    plain = run()
    with fast_depthwise(layer):
        assert "forward" in vars(layer)
        fast = run()
    assert "forward" not in vars(layer)
    for a, b in zip(plain, fast, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)  # float64 sums in another order


def test_only_dilated_depthwise_layers_are_replaced() -> None:
    lite = build_model("lite", in_channels=1, classes=2)
    with fast_depthwise(lite):
        replaced = [name for name, layer in lite.named_modules() if "forward" in vars(layer)]
    assert replaced == ["block1.depthwise", "block2.depthwise"]
    strided = nn.Conv1d(4, 4, 3, dilation=2, groups=4, stride=2)
    with fast_depthwise(strided):
        assert "forward" not in vars(strided)


def test_recalibrated_statistics_are_those_of_the_whole_set() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv1d(2, 3, 3), nn.BatchNorm1d(3, momentum=0.3), nn.ReLU(), nn.Dropout(0.5))
    x = np.random.default_rng(0).standard_normal((67, 2, 10)).astype(np.float32)
    fresh = recalibrate_batchnorm(net.train(), x)
    with torch.no_grad():
        inputs = net[0](torch.tensor(x))
    norm = fresh[1]
    # float32 sums in another order
    torch.testing.assert_close(norm.running_mean, inputs.mean((0, 2)), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(norm.running_var, inputs.var((0, 2), unbiased=True), rtol=1e-5, atol=1e-6)
    assert norm.momentum == 0.3
    assert all(layer.training for layer in fresh.modules())
    assert torch.equal(net[1].running_mean, torch.zeros(3)), "the input stays as it was"
    shuffled = recalibrate_batchnorm(net, x[::-1].copy())
    torch.testing.assert_close(shuffled[1].running_var, norm.running_var, rtol=1e-5, atol=1e-6)


def test_recalibration_follows_the_layers_before() -> None:
    # the second norm must see what the first one gives out after recalibration, dropout off
    torch.manual_seed(0)
    net = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout(0.9), nn.BatchNorm1d(2)).eval()
    x = 5 + 3 * np.random.default_rng(0).standard_normal((40, 2, 8)).astype(np.float32)
    fresh = recalibrate_batchnorm(raise_module(net, torch.zeros(2, 2, 8)), x)
    norms = [layer for layer in fresh.modules() if isinstance(layer, nn.BatchNorm1d)]
    torch.testing.assert_close(norms[1].running_mean, torch.zeros(2), rtol=0, atol=1e-6)  # rounding
    torch.testing.assert_close(norms[1].running_var, torch.ones(2), rtol=0.005, atol=0)  # n/(n-1) and eps
    assert not fresh.training


def test_recalibration_in_chunks_and_without_norms() -> None:
    net = nn.Sequential(nn.BatchNorm1d(2))
    x = np.random.default_rng(0).standard_normal((100, 2, 8)).astype(np.float32)
    fresh = recalibrate_batchnorm(net, x, chunk_samples=30)
    torch.testing.assert_close(fresh[0].running_mean, torch.tensor(x.mean((0, 2))), rtol=0, atol=1e-6)  # equal chunks
    recalibrate_batchnorm(nn.Conv1d(2, 2, 1), x)
    with pytest.raises(InputError, match="1 samples: batch-norm statistics need at least 2"):
        recalibrate_batchnorm(net, x[:1])


def test_recalibration_in_chunks_does_not_mind_samples_sorted_by_class() -> None:
    # two classes of very different size, one behind the other, as recordings and image folders lie: in chunks of the
    # given order the second norm would see each class by itself, normalised to 1
    generator = np.random.default_rng(0)
    scales = np.repeat([0.1, 10.0], 300)[:, None, None]
    x = (scales * (generator.standard_normal((600, 2, 8)) + 3)).astype(np.float32)
    net = nn.Sequential(nn.BatchNorm1d(2), nn.ReLU(), nn.BatchNorm1d(2))
    chunked, whole = (recalibrate_batchnorm(net, x, chunk_samples=size) for size in (100, 600))
    for index in (0, 2):
        # six draws of 100 of 600 are not quite the whole
        torch.testing.assert_close(chunked[index].running_var, whole[index].running_var, rtol=0.05, atol=0)
        torch.testing.assert_close(chunked[index].running_mean, whole[index].running_mean, rtol=0.05, atol=0.05)


def test_predict_runs_in_eval_mode_and_puts_the_mode_back() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(8, 3)).train()
    net[0].eval()
    x = np.random.default_rng(0).standard_normal((11, 2, 4)).astype(np.float32)
    first = predict(net, x, batch_size=4)
    assert first.shape == (11, 3)
    assert first.dtype == np.float32
    assert [layer.training for layer in net] == [False, True, True]
    np.testing.assert_allclose(first, predict(net, x), atol=1e-6)  # batches of another size


def test_frozen_filters_are_cut_off_and_computed_once() -> None:
    torch.manual_seed(0)
    lite = raise_module(build_model("lite", in_channels=1, classes=2).eval(), torch.zeros(2, 1, 24))
    cut = cut_frozen_prefix(lite)
    assert cut is not None
    x = torch.randn(5, 1, 24)
    maps = cut.compute_maps(x)
    assert maps is not None
    assert [tuple(part.shape) for part in maps] == [(5, 17, 24)]
    with torch.no_grad():
        assert torch.equal(cut.rest(x, *maps), lite(x))
    rest = {name for name, _ in cut.rest.named_parameters()}
    assert rest == {name for name, parameter in lite.named_parameters() if parameter.requires_grad}
    assert cut.rest.get_parameter("head.weight") is lite.get_parameter("head.weight")


def test_maps_that_do_not_fit_the_cache_are_computed_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    lite = raise_module(build_model("lite", in_channels=1, classes=2).eval(), torch.zeros(2, 1, 24))
    cut = cut_frozen_prefix(lite)
    assert cut is not None
    monkeypatch.setattr("edgeprune.prune.frozen_prefix.MAX_CACHE_BYTES", 5 * 17 * 24 * 4 - 1)
    assert cut.compute_maps(torch.zeros(5, 1, 24)) is None


def test_only_frozen_layers_at_the_input_are_cut_off() -> None:
    def raised(*layers: nn.Module, frozen: int) -> torch.fx.GraphModule:
        net = nn.Sequential(*layers)
        net[frozen].requires_grad_(False)
        return raise_module(net.eval(), torch.zeros(2, 3, 8))

    conv = nn.Conv1d(3, 3, 3)
    assert cut_frozen_prefix(raised(conv, nn.ReLU(), nn.Conv1d(3, 2, 1), frozen=2)) is None, "behind a trained layer"
    assert cut_frozen_prefix(raised(nn.BatchNorm1d(3), nn.Conv1d(3, 2, 1), frozen=0)) is None, "batch norm still moves"
    cut = cut_frozen_prefix(raised(nn.Conv1d(3, 4, 3), nn.ReLU(), nn.Dropout(0.5), nn.Conv1d(4, 2, 1), frozen=0))
    assert cut is not None
    assert [node.name for node in cut.frozen.graph.nodes if node.op == "call_function"] == ["relu"]
    assert [type(layer) for layer in cut.rest.children()] == [nn.Dropout, nn.Conv1d]
