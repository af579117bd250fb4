"""The forms of low-rank layers on a microcontroller: by modelled cycles, within the target's RAM."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import fx, nn

from edgeprune.codegen import Estimate, Layer
from edgeprune.load import raise_module
from edgeprune.progress import SILENT
from edgeprune.prune import predict
from edgeprune.prune.low_rank import deploy_factors, factor_layers, get_factored
from edgeprune.prune.low_rank.ranks import cut_rank
from edgeprune.prune.methods import MethodResult
from edgeprune.stages import factor_forms
from edgeprune.stages.factor_forms import choose_forms, deploy_low_rank
from edgeprune.target import load_target

SHAPE = (4, 40)
THIN = {"long": ["long.taps/pad", "long.taps", "long.mix"], "head": ["head.taps", "head.mix"]}


class LongKernels(nn.Module):
    """One layer that gains much as factors, one whose few outputs do not carry two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.long, self.short = nn.Conv1d(4, 32, 24, padding="same"), nn.Conv1d(32, 16, 3, padding=1)
        self.head = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.short(torch.relu(self.long(x)))).mean(-1))


def make_low_rank(**ranks: int) -> tuple[fx.GraphModule, fx.GraphModule]:
    torch.manual_seed(0)
    module = raise_module(LongKernels().eval(), torch.zeros(2, *SHAPE), compare_training=False)
    factored = factor_layers(module)
    for name, rank in ranks.items():
        cut_rank(get_factored(factored)[name], rank)
    return module, factored


def make_job(module: fx.GraphModule, target: str = "cortex-m4", **changes: Any) -> Any:
    """What the stage reads of a job."""
    x = np.random.default_rng(0).standard_normal((8, *SHAPE)).astype(np.float32)
    return SimpleNamespace(
        target=replace(load_target(target), **changes),
        model=SimpleNamespace(module=module, input_shape=SHAPE),
        data=SimpleNamespace(x_train=x),
        progress=SILENT,
    )


def test_factors_where_multiplications_and_cycles_fall() -> None:
    module, factored = make_low_rank(long=2)
    result = MethodResult(deploy_factors(factored), {"low-rank": ("Low-rank", module)}, {"ranks": []}, factored)
    job = make_job(module)
    deployed = deploy_low_rank(job, result)
    record = deployed.record
    rows = {row["layer"]: row for row in record["ranks"]}
    assert {name: row["form"] for name, row in rows.items()} == {"long": "factors", "short": "dense", "head": "dense"}
    assert rows["long"]["cycles_factors"] < rows["long"]["cycles_dense"]
    assert "cycles_dense" not in rows["short"], "at full rank it was no candidate"
    assert (record["forms"]["candidates"], record["forms"]["factors"]) == (1, 1)
    assert record["forms"]["cycles_chosen"] < record["forms"]["cycles_dense"]
    assert record["forms"]["arena_bytes_chosen"] > 0
    assert record["macs_deployed"] < record["macs_base"]
    assert [name for name, _ in deployed.module.get_submodule("long").named_children()] == ["taps", "mix"]
    assert isinstance(deployed.module.get_submodule("head"), nn.Linear)
    assert deployed.variants["low-rank"][1] is deployed.module
    outputs = [predict(net, job.data.x_train) for net in (deployed.module, factored)]
    np.testing.assert_allclose(*outputs, rtol=1e-4, atol=1e-5)  # float32, sums in another order


def test_fewer_multiplications_in_more_cycles_stay_dense(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of head, 3 (16 + 5) = 63 of 80 multiplications; two layers cost more than that saves, says this table."""
    _, factored = make_low_rank(long=2, head=3)
    cycles = {"long": 1000, "long.taps/pad": 10, "long.taps": 100, "long.mix": 300, "short": 500, "head": 90}
    cycles |= {"head.taps": 50, "head.mix": 41}

    def estimate(_job: Any, _net: Any, forms: dict[str, str]) -> Estimate:
        wanted = [name for layer, form in forms.items() for name in ([layer] if form == "dense" else THIN[layer])]
        return Estimate(tuple(Layer(name, "", "", "", 0, cycles[name]) for name in wanted), 1, 1)

    monkeypatch.setattr(factor_forms, "_estimate", estimate)
    choice = choose_forms(make_job(factored), factored)
    assert choice.forms == {"long": "factors", "short": "dense", "head": "dense"}
    assert choice.cycles == {
        "long": {"cycles_dense": 1000, "cycles_factors": 410},
        "head": {"cycles_dense": 90, "cycles_factors": 91},
    }
    assert (choice.figures["candidates"], choice.figures["factors"]) == (2, 1)


def test_large_maps_go_back_to_dense_where_ram_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Costs as a table: an arena of 1000 bytes, and 500 more for each layer as factors."""
    _, factored = make_low_rank(long=2, short=1, head=1)

    def estimate(_job: Any, _net: Any, forms: dict[str, str]) -> Estimate:
        thin = [name for name, form in forms.items() if form == "factors"]
        layers = [Layer(name, "", "", "", 0, 10 if name in thin else 100) for name in forms]
        return Estimate(tuple(layers), 1000 + 500 * len(thin), sum(layer.estimated_cycles for layer in layers))

    monkeypatch.setattr(factor_forms, "_estimate", estimate)
    outcomes = {}
    for ram in (None, 4096, 1800, 1024, 256):
        choice = choose_forms(make_job(factored, ram_bytes=ram), factored)
        outcomes[ram] = [name for name, form in choice.forms.items() if form == "factors"]
        assert choice.figures["dense_for_ram"] == [
            name for name in ("short", "long", "head") if name not in outcomes[ram]
        ]
    # maps: long 4 x 2 x 40 values, short 32 x 1 x 40, head 1; the dense net's own 1000 bytes are never undercut
    assert outcomes[None] == outcomes[4096] == ["long", "short", "head"]
    assert outcomes[1800] == ["head"]
    assert outcomes[1024] == outcomes[256] == []


def test_other_targets_keep_what_the_method_chose() -> None:
    module, factored = make_low_rank(long=2)
    result = MethodResult(module, {"low-rank": ("Low-rank", module)}, {}, factored)
    assert deploy_low_rank(make_job(module, "host"), result) is result
    without = MethodResult(module, {"pruned": ("Pruned", module)})
    assert deploy_low_rank(make_job(module), without) is without
