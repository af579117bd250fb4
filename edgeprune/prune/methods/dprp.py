"""DPRP (Sharma et al., IEEE Access 2025, 10.1109/ACCESS.2025.3533419): weights as U S V^T, ranks cut by training."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx

from edgeprune.prune.bench import Bench
from edgeprune.prune.dsp import draw_weights
from edgeprune.prune.low_rank import (
    DprpHook,
    NetCosts,
    choose_by_macs,
    deploy_factors,
    describe_ranks,
    explain_dense_layers,
    factor_layers,
    get_factored,
    measure_costs,
)
from edgeprune.prune.low_rank.ranks import count_parameters
from edgeprune.prune.methods.base import Method, MethodResult


@dataclass(frozen=True)
class Dprp(Method):
    """Factor all layers at full rank, train with the structure and compression losses, cut ranks after each epoch.

    The paper starts from new weights; ours is the trained base by default (`start`), whose spectra are those of the
    task already. Ours too: factors are deployed as two thin layers where that takes fewer multiply-accumulates. The
    paper rebuilds dense kernels, so that its MACs do not fall.

    compression_weight: lambda_comp. rank_epsilon: epsilon of tau. start: "trained" or "scratch". retrain: "none", or
    "finetune" at the ranks found, without the losses.
    """

    retrain: str
    compression_weight: float
    rank_epsilon: float
    start: str

    def run(self, bench: Bench) -> MethodResult:
        begin = draw_weights(bench.base, bench.seed, bench.factory) if self.start == "scratch" else bench.base
        dense = explain_dense_layers(begin)
        factored = factor_layers(begin)
        costs = measure_costs(factored, bench.x_train.shape[1:])
        full_rank_parameters = count_parameters(factored)
        hook = DprpHook(self.compression_weight, self.rank_epsilon, costs)
        # the ranks need their epochs: no early stopping
        recipe = replace(bench.recipe, early_stopping="none")
        found = bench.train(factored, "low-rank training", recipe=recipe, hook=hook).module
        bench.progress.note(_describe_ranks_found(found))
        variants = {"low-rank": ("Low-rank", deploy_factors(found))}
        if self.retrain == "finetune":
            found = bench.train(found, "fine-tuning").module
            variants["retrained"] = ("Finetuned", deploy_factors(found))
        record = {
            **_describe_net(found, costs),
            "parameters_base": count_parameters(begin),
            "parameters_full_rank": full_rank_parameters,
            "ranks": describe_ranks(get_factored(found), costs, choose_by_macs(get_factored(found)), dense),
            "rank_history": hook.history,
        }
        module = variants["retrained" if "retrained" in variants else "low-rank"][1]
        return MethodResult(module, variants, record, factored=found)


def _describe_ranks_found(module: fx.GraphModule) -> str:
    """The ranks in one line."""
    layers = get_factored(module)
    before, after = (sum(values) for values in zip(*((x.full_rank, x.rank) for x in layers.values()), strict=True))
    cut = sum(layer.rank < layer.full_rank for layer in layers.values())
    return f"DPRP: {cut} of {len(layers)} layers lost rank, {before} ranks in all became {after}"


def _describe_net(module: fx.GraphModule, costs: NetCosts) -> dict[str, Any]:
    """Sums over the net, for the report."""
    layers = get_factored(module)
    dense = dict.fromkeys(layers, "dense")
    forms = choose_by_macs(layers)
    return {
        "macs_base": costs.count_macs(layers, dense),
        "macs_deployed": costs.count_macs(layers, forms),
        "parameters_low_rank": count_parameters(module),
        "orthogonality_error": max(_measure_error(layer.U) for layer in layers.values()),
    }


def _measure_error(factor: torch.Tensor) -> float:
    """||F^T F - I||_F / r: 0 where the columns are orthonormal."""
    gram = factor.detach().T @ factor.detach()
    return float(torch.linalg.matrix_norm(gram - torch.eye(len(gram))) / math.sqrt(len(gram)))
