"""dprp from a bench to a net that deploys."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from edgeprune.errors import UnsupportedModelError
from edgeprune.load import raise_module
from edgeprune.prune import predict
from edgeprune.prune.low_rank import get_factored
from edgeprune.prune.methods import MethodResult, make_method
from tests.prune.methods.benches import RECIPE, check_exportable, count_parameters, equal_states, tiny_bench

STRONG = {"compression_weight": 1.0, "rank_epsilon": 0.5}
FAST = replace(RECIPE, epochs=6, learning_rate=0.01)


def run(retrain: str = "none", start: str = "trained") -> MethodResult:
    return make_method("dprp", retrain, start=start, **STRONG).run(tiny_bench(recipe=FAST))


def test_ranks_found_deployed_and_told() -> None:
    bench = tiny_bench(recipe=FAST)
    result = make_method("dprp", **STRONG).run(bench)
    record = result.record
    rows = {row["layer"]: row for row in record["ranks"]}
    assert list(rows) == ["conv1", "conv2", "fc"]
    assert [rows[name]["full_rank"] for name in rows] == [5, 3, 2]
    assert [row["rank"] for row in rows.values()] == record["rank_history"][-1]["ranks"]
    assert sum(row["rank"] for row in rows.values()) < 10
    for row in rows.values():
        assert len(row["singular_values"]) == row["rank"]
        assert row["form"] == ("factors" if row["macs_factors"] < row["macs_dense"] else "dense")
    assert record["parameters_base"] == count_parameters(bench.base)
    assert record["macs_deployed"] <= record["macs_base"]
    assert record["macs_deployed"] == record["rank_history"][-1]["macs"]
    assert [row["title"] for row in bench.trainings] == ["low-rank training"]
    assert list(result.variants) == ["low-rank"]
    check_exportable(result.module)
    assert not get_factored(result.module)
    assert result.factored is not None
    outputs = [predict(module, bench.x_val) for module in (result.module, result.factored)]
    np.testing.assert_allclose(*outputs, rtol=1e-4, atol=1e-5)  # float32 sums in another order


def test_equal_seeds_give_equal_bits_and_finetuning_keeps_the_ranks() -> None:
    once, tuned, scratch = run(), run("finetune"), run(start="scratch")
    assert equal_states(once.module, run().module)
    assert list(tuned.variants) == ["low-rank", "retrained"]
    assert tuned.module is tuned.variants["retrained"][1]
    assert equal_states(tuned.variants["low-rank"][1], once.module)
    assert not equal_states(tuned.module, once.module)
    assert [row["rank"] for row in tuned.record["ranks"]] == [row["rank"] for row in once.record["ranks"]]
    assert not equal_states(scratch.factored, once.factored)  # type: ignore[arg-type]  # dprp always gives it


def test_a_net_without_layers_to_factor_is_refused() -> None:
    net = nn.Sequential(nn.Conv1d(1, 2, 24), nn.Flatten())
    net[0].requires_grad_(False)
    bench = tiny_bench(base=raise_module(net, torch.zeros(2, 1, 24)))
    with pytest.raises(UnsupportedModelError, match="frozen"):
        make_method("dprp").run(bench)
