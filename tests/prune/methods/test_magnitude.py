"""LTH and SAP: which weights go, and the whole way from a trained base to a net that can be exported."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

from edgeprune.errors import InputError, UnsupportedModelError
from edgeprune.export import export_onnx, read_onnx
from edgeprune.load import raise_module
from edgeprune.prune import predict
from edgeprune.prune.bench import AccuracyLimit, Bench
from edgeprune.prune.masks import keep_all
from edgeprune.prune.methods import MethodResult, make_method
from edgeprune.prune.methods.magnitude import FixedShare, IndexedShare, mask_smallest
from edgeprune.prune.schedule import State
from edgeprune.prune.train_settings import TrainSettings
from edgeprune.reference import run_graph
from tests.prune.test_training import make_series

RECIPE = TrainSettings(epochs=6, batch_size=16, learning_rate=0.02, device="cpu")


class Net(nn.Module):
    """Two convolutions without padding, batch norms, a head; 12 + 32 + 10 maskable weights."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(1, 4, 3, bias=False)
        self.first_norm = nn.BatchNorm1d(4)
        self.second = nn.Conv1d(4, 4, 2, bias=False)
        self.second_norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first_norm(self.first(x)))
        return self.head(torch.relu(self.second_norm(self.second(x))).mean(-1))


@functools.cache
def base() -> Bench:
    torch.manual_seed(0)
    x, y = make_series(60)
    x_val, y_val = make_series(30, seed=5)
    bench = Bench(raise_module(Net().eval(), torch.zeros(2, 1, 16)), x, y, x_val, y_val, RECIPE)
    return replace(bench, base=bench.train(bench.base, "base").module)


def run(name: str, retrain: str = "none", bench: Bench | None = None, **options: Any) -> MethodResult:
    return make_method(name, retrain, **{"iterations": 2, "step_epochs": 3, **options}).run(bench or base())


def set_weights(**weights: list[float]) -> fx.GraphModule:
    torch.manual_seed(0)
    module = raise_module(Net().eval(), torch.zeros(2, 1, 16))
    with torch.no_grad():
        for layer, values in weights.items():
            module.get_parameter(f"{layer}.weight").reshape(-1)[:] = torch.tensor(values)
    return module


def test_the_smallest_magnitudes_go_and_each_tensor_keeps_its_largest() -> None:
    weights = [torch.tensor([[0.5, -0.1], [0.3, -0.7]]), torch.tensor([0.02, -0.01])]
    masks = [torch.tensor([[True, True], [False, True]]), torch.tensor([True, True])]
    after = mask_smallest(weights, masks, 2)
    assert [mask.tolist() for mask in after] == [[[True, False], [False, True]], [True, False]]
    after = mask_smallest(weights, masks, 100)
    assert [mask.tolist() for mask in after] == [[[False, False], [False, True]], [True, False]]
    assert masks[0].sum() == 3  # those passed in stay
    equal = mask_smallest([torch.ones(4)], [torch.ones(4, dtype=torch.bool)], 2)
    assert equal[0].tolist() == [False, False, True, True]


def test_lth_takes_its_share_of_what_is_left_by_layer_or_of_all() -> None:
    module = set_weights(first=[0.01 * (i + 1) for i in range(12)], second=[1.0 + i for i in range(32)], head=[9.0] * 8)
    pruned = FixedShare("layer", 0.25).prune(State(module), base())
    assert pruned is not None
    assert {name: int(mask.sum()) for name, mask in pruned.state.masks.items()} == {
        "first.weight": 9, "second.weight": 24, "head.weight": 6
    }  # fmt: skip
    assert pruned.figures["layers"][0] == {"layer": "first", "left_before": 12, "pruned": 3}
    again = FixedShare("layer", 0.25).prune(pruned.state, base())
    assert again is not None
    assert again.figures["pruned"] == 2 + 6 + 1  # floor of .25 * 9, 24, 6
    everywhere = FixedShare("global", 0.25).prune(State(module), base())
    assert everywhere is not None
    # 13 of 52: all of `first` but its largest, then the two smallest of `second`
    assert {name: int(mask.sum()) for name, mask in everywhere.state.masks.items()} == {
        "first.weight": 1, "second.weight": 30, "head.weight": 8
    }  # fmt: skip
    assert not everywhere.state.module.first.weight.flatten()[:11].any()
    assert float(everywhere.state.module.first.weight.detach().flatten()[11]) == pytest.approx(0.12)


def test_sap_takes_what_the_index_says() -> None:
    first = [0.5] * 3 + [0.0] * 9  # r = 3 (see test_pq_index): 9 go
    second = [1.0] * 32  # all equal: none go
    head = [4.0, 1.0] * 4  # by hand at (.5, 1): 1 - I = 9/10, r = 8 * .9 = 7.2, c = 0
    module = set_weights(first=first, second=second, head=head)
    pruned = IndexedShare("layer", 0.5, 1.0).prune(State(module), base())
    assert pruned is not None
    rows = {row["layer"]: row for row in pruned.figures["layers"]}
    assert [rows[layer]["pruned"] for layer in ("first", "second", "head")] == [9, 0, 0]
    assert rows["head"]["pq_index"] == pytest.approx(0.1)
    assert rows["head"]["r"] == pytest.approx(7.2)
    assert pruned.figures["pq_index"] == pytest.approx((12 * (1 - 0.25) + 0 + 8 * 0.1) / 52)
    # the index is that of what is left: three equal weights in `first`, so nothing more goes
    assert IndexedShare("layer", 0.5, 1.0).prune(pruned.state, base()) is None
    # all together, once more: d = 43, ||w||_1 = 1.5 + 32 + 20 = 53.5, ||w||_(1/2) = (3 sqrt .5 + 32 + 12)^2
    together = IndexedShare("global", 0.5, 1.0).prune(pruned.state, base())
    assert together is not None
    index = 1 - (3 * 0.5**0.5 + 32 + 12) ** 2 / (43 * 53.5)
    assert together.figures["layers"][0]["pq_index"] == pytest.approx(index)
    assert together.figures["pruned"] == int(43 * index) == 3


def test_a_net_with_nothing_to_mask_is_refused() -> None:
    module = set_weights()
    for parameter in (module.first.weight, module.second.weight, module.head.weight):
        parameter.requires_grad_(False)
    with pytest.raises(UnsupportedModelError, match="nothing to mask"):
        FixedShare("layer", 0.5).prune(State(module), base())


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("lth", {"step": 0.5, "rewind": "init", "iterations": 3}),
        ("lth", {"step": 0.6, "scope": "global", "stop": "accuracy"}),
        ("sap", {"rewind": "warmup", "stop": "incop-if", "epsilon": 0.3}),
        ("sap", {"pq": "1,2", "scope": "global", "stop": "incop-gf", "epsilon": 0.5}),
    ],
)
def test_equal_seeds_give_equal_bits(name: str, options: dict[str, Any]) -> None:
    first, second = run(name, **options), run(name, **options)
    assert list(first.variants) == list(second.variants)
    assert first.record == second.record
    for (key, one), other in zip(first.module.state_dict().items(), second.module.state_dict().values(), strict=True):
        assert torch.equal(one, other), key
    masks = first.record["masks"]
    assert sum(row["zeros"] for row in masks["layers"]) == masks["zeros"] > 0
    assert first.record["steps"][-1]["weights_left"] < 1
    assert next(reversed(first.variants.values()))[1] is first.module


@pytest.mark.slow  # the default suite takes lth and sap from model to firmware (tests/test_methods_to_firmware.py)
def test_a_masked_net_exports_and_computes_the_same() -> None:
    module = run("sap").module
    graph = read_onnx(export_onnx(module, (1, 16)), name="net")
    x = base().x_val
    (logits,) = run_graph(graph, x.transpose(0, 2, 1)[:, None]).values()
    # batch norms folded: sums of some ten single-precision products in another order, logits of a few units
    np.testing.assert_allclose(logits.reshape(-1, 2), predict(module, x), atol=1e-5)


@pytest.mark.parametrize("retrain", ["none", "finetune"])
def test_channels_that_became_zero_are_removed_for_real(retrain: str) -> None:
    result = run("lth", retrain, step=0.75, scope="global", iterations=2)
    record = result.record
    removed = record["masks"]["removed_channels"]
    assert removed == record["removed_units"] > 0
    assert record["removal_is_exact"]
    assert list(result.variants) == ["masked", "pruned"] + ["retrained"] * (retrain == "finetune")
    masked, pruned = result.variants["masked"][1], result.variants["pruned"][1]
    count = {net: sum(parameter.numel() for parameter in net.parameters()) for net in (masked, pruned)}
    assert count[pruned] < count[masked] == 12 + 8 + 32 + 8 + 10
    x = base().x_val
    np.testing.assert_allclose(predict(pruned, x), predict(masked, x), atol=1e-5)  # rounding, as above
    layers = {row["layer"]: row for row in record["masks"]["layers"]}
    assert layers["second"]["weights"] == result.module.second.weight.numel() < 32
    assert layers["second"]["zeros"] == int((result.module.second.weight == 0).sum())
    if retrain == "finetune":
        assert not torch.equal(result.module.head.bias, pruned.head.bias)
        assert all(((result.module.get_parameter(f"{layer}.weight") == 0)
                    == (pruned.get_parameter(f"{layer}.weight") == 0)).all() for layer in layers)  # fmt: skip


def test_without_a_net_in_the_limit_the_base_is_given_back() -> None:
    bench = replace(base(), limit=AccuracyLimit("macro_f1", 0.0, 2.0))  # nobody reaches an F1 of 2
    result = run("sap", "finetune", bench)
    assert result.module is bench.base
    assert result.record["ended_by"] == "accuracy limit"
    assert result.record["masks"]["zeros"] == 0
    assert keep_all(bench.base).keys() == {"first.weight", "second.weight", "head.weight"}


@pytest.mark.parametrize(("name", "options"), [("sap", {"pq": "2,1"}), ("sap", {"step": 0.1}), ("lth", {"ratio": 0.5})])
def test_options_that_do_not_fit_are_refused(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        make_method(name, **options)
