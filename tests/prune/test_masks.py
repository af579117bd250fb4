"""Masks: what they hold at exactly zero, and the channels that they empty."""

from __future__ import annotations

import copy
import functools

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

from edgeprune.export import export_onnx, read_onnx
from edgeprune.load import raise_module
from edgeprune.prune import find_units, predict
from edgeprune.prune.bench import Bench
from edgeprune.prune.masks import (
    MaskHook,
    apply_masks,
    describe_zeros,
    digest_tensors,
    find_maskable,
    find_zero_units,
    keep_all,
    measure_kept,
    remove_zero_units,
    slice_masks,
)
from edgeprune.prune.train_settings import TrainSettings
from edgeprune.prune.training import train_model
from edgeprune.quantize import calibrate, quantize_graph
from tests.prune.raised import raise_zoo
from tests.prune.test_training import make_series

FAST = TrainSettings(epochs=4, batch_size=16, learning_rate=0.03, device="cpu")


class Net(nn.Module):
    """Convolutions without padding (so that constants fold exactly), a frozen one, batch norm, a depthwise one."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Conv1d(1, 3, 3, bias=False)
        self.frozen.weight.requires_grad_(False)
        self.first = nn.Conv1d(3, 6, 3, bias=False)
        self.norm = nn.BatchNorm1d(6)
        self.depthwise = nn.Conv1d(6, 6, 3, groups=6)
        self.second = nn.Conv1d(6, 5, 1)
        self.head = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.first(self.frozen(x))))
        return self.head(torch.relu(self.second(self.depthwise(x))).mean(-1))


@functools.cache
def net() -> fx.GraphModule:
    torch.manual_seed(0)
    module = Net()
    nn.init.normal_(module.norm.bias)
    return raise_module(module.eval(), torch.zeros(2, 1, 16))


def draw_masks(module: fx.GraphModule, seed: int, kept: float = 0.4) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(mask.shape, generator=generator) < kept for name, mask in keep_all(module).items()}


def make_bench(module: fx.GraphModule) -> Bench:
    x, y = make_series(40)
    return Bench(module, x, y, x[:0], y[:0], FAST)


def test_weights_of_trained_convolutions_and_linear_layers_are_maskable() -> None:
    found = find_maskable(net())
    assert dict(found.layers) == {f"{name}.weight": name for name in ("first", "depthwise", "second", "head")}
    assert found.untouched == (("frozen", "frozen: requires_grad is False"),)
    graph = fx.Graph()
    graph.output(graph.call_module("head", (graph.call_module("rnn", (graph.placeholder("x"),)),)))
    recurrent = fx.GraphModule(nn.ModuleDict({"rnn": nn.GRU(3, 4), "head": nn.Linear(4, 2)}), graph)
    assert find_maskable(recurrent).untouched == (("rnn", "GRU: masks are for convolutions and linear layers"),)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_masked_weights_are_exactly_zero_under_momentum_and_weight_decay(optimizer: str) -> None:
    masks = draw_masks(net(), 1)
    seen: list[bool] = []

    class Watch(MaskHook):
        """Looks after each step."""

        def adjust_parameters(self) -> None:
            super().adjust_parameters()
            seen.append(all(not parameter[masked].any() for parameter, masked in self._held))

    settings = TrainSettings(**{**vars(FAST), "optimizer": optimizer, "weight_decay": 0.01, "momentum": 0.9})
    x, y = make_series(40)
    result = train_model(net(), x, y, settings, hook=Watch(masks))
    assert len(seen) == 1 + 4 * 3  # at the start, and after each of 3 steps (40 samples: 16, 16, 8) in 4 epochs
    assert all(seen)
    trained = dict(result.module.named_parameters())
    before = dict(net().named_parameters())
    for name, mask in masks.items():
        zeros = trained[name].detach()[~mask]
        assert not zeros.any()
        assert not torch.signbit(zeros).any()  # +0: -0 would make bytes of the file depend on history
        assert (trained[name] != before[name])[mask].all()
    assert torch.equal(trained["frozen.weight"], before["frozen.weight"])


def test_an_optimizer_never_sees_gradients_of_masked_weights() -> None:
    module = copy.deepcopy(net())
    masks = draw_masks(module, 2)
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(parameters, 0.1, weight_decay=0.1)
    hook = MaskHook(masks)
    hook.begin(module, optimizer)
    x, y = make_series(8)
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(torch.from_numpy(x)), torch.from_numpy(y)).backward()
        hook.adjust_gradients()
        optimizer.step()
        for name, mask in masks.items():  # not yet adjusted: Adam alone left them at zero
            assert not dict(module.named_parameters())[name][~mask].any()
    for name, mask in masks.items():
        state = optimizer.state[dict(module.named_parameters())[name]]
        assert not state["exp_avg"][~mask].any()
        assert not state["exp_avg_sq"][~mask].any()


def test_descriptions_differ_where_masks_do() -> None:
    masks = draw_masks(net(), 3)
    other = {name: mask.clone() for name, mask in masks.items()}
    assert MaskHook(masks).describe() == MaskHook(other).describe()
    other["head.weight"][0, 0] ^= True
    assert MaskHook(masks).describe() != MaskHook(other).describe()
    assert digest_tensors({"a": torch.zeros(2, 3)}) != digest_tensors({"a": torch.zeros(3, 2)})


def test_zeros_are_counted_and_stay_zeros_down_to_int8() -> None:
    module = net()
    masks = draw_masks(module, 4)
    masked = apply_masks(module, masks)
    record = describe_zeros(masked)
    expected = {name: int((~mask).sum()) for name, mask in masks.items()}
    assert {f"{row['layer']}.weight": row["zeros"] for row in record["layers"]} == expected
    assert record["zeros"] == sum(expected.values())
    assert record["weights"] == sum(mask.numel() for mask in masks.values())
    assert 1 - record["zeros"] / record["weights"] == pytest.approx(measure_kept(masks))
    assert torch.equal(dict(module.named_parameters())["first.weight"], dict(net().named_parameters())["first.weight"])

    graph = read_onnx(export_onnx(masked, (1, 16)), name="net")  # batch norm folded into `first`
    samples = make_series(20)[0].transpose(0, 2, 1)[:, None]
    int8 = quantize_graph(graph, calibrate(graph, samples))
    for form in (graph, int8):
        for name in ("first", "depthwise", "second", "head"):
            values = form.tensors[f"{name}/weight"].data
            assert values is not None
            assert (values == 0).sum() >= expected[f"{name}.weight"]


def empty_filters(masks: dict[str, Tensor], **channels: tuple[int, ...]) -> dict[str, Tensor]:
    """The masks with whole filters masked: layer = indices."""
    emptied = {name: mask.clone() for name, mask in masks.items()}
    for layer, indices in channels.items():
        emptied[f"{layer}.weight"][list(indices)] = False
    return emptied


def test_a_unit_is_empty_if_all_its_filters_are() -> None:
    module = net()
    units = find_units(module, torch.zeros(2, 1, 16))
    layers = {layer.name: layer.units for layer in units.layers}
    assert (
        layers["first"] == layers["depthwise"]
    ).all()  # coupled: a depthwise filter goes with what makes its channel
    masks = empty_filters(keep_all(module), first=(1, 2), depthwise=(2, 3), second=(0,))
    dead = find_zero_units(apply_masks(module, masks), units)
    assert dead == {int(layers["first"][2]), int(layers["second"][0])}
    everything = empty_filters(keep_all(module), first=tuple(range(6)), depthwise=tuple(range(6)))
    assert len(find_zero_units(apply_masks(module, everything), units)) == 5  # a layer keeps one


def test_empty_channels_are_removed_and_the_net_computes_the_same() -> None:
    module = net()
    bench = make_bench(module)
    masks = empty_filters(draw_masks(module, 5, kept=0.7), first=(2, 4), depthwise=(2, 4), second=(0,))
    # training leaves recalibrated batch norms, which is what removal goes by
    trained = bench.train(module, "masked", hook=MaskHook(masks)).module
    removal = remove_zero_units(trained, masks, bench)
    assert removal is not None
    assert removal.is_exact
    assert {width.layer: width.after for width in removal.pruning.widths} == {
        "frozen": 3, "first": 4, "depthwise": 4, "second": 4, "head": 2
    }  # fmt: skip
    x = make_series(50, seed=7)[0]
    # sums of some ten single-precision products in another order, logits about 1
    np.testing.assert_allclose(predict(removal.module, x), predict(trained, x), atol=2e-6)
    left = dict(removal.module.named_parameters())
    for name, mask in removal.masks.items():
        assert mask.shape == left[name].shape
        assert not left[name][~mask].any()
        assert left[name][mask].all()
    assert removal.masks["second.weight"].shape == (4, 4, 1)
    assert remove_zero_units(trained, masks, bench) is not None  # the trained net was left as it was
    assert remove_zero_units(removal.module, removal.masks, bench) is None


@pytest.mark.slow
def test_masks_are_cut_as_weights_are_on_a_residual_net() -> None:
    raised = raise_zoo("resnet1d")
    masks = draw_masks(raised.module, 6)
    group = max(raised.units.groups, key=lambda group: len(group.layers))
    assert len(group.layers) > 1
    dead = frozenset(group.units[:2])
    cut = slice_masks(raised.module, raised.units, dead, masks)
    changed = 0
    for name, mask in masks.items():
        expected = mask
        for axis in range(mask.dim()):
            ids = raised.units.slices.get((name, axis))
            if ids is not None:
                alive = torch.tensor([int(unit) not in dead for unit in ids])
                expected = expected.index_select(axis, torch.nonzero(alive)[:, 0])
        assert torch.equal(cut[name], expected)
        changed += expected.shape != mask.shape
    assert changed >= 2
