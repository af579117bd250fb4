"""DPRP (Sharma et al., IEEE Access 2025, 10.1109/ACCESS.2025.3533419): weights as U S V^T, ranks cut by training."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import fx

from edgeprune.prune.bench import Bench
from edgeprune.prune.dsp import draw_weights
from edgeprune.prune.low_rank import (
    DprpHook,
    choose_by_macs,
    count_parameters,
    deploy_factors,
    describe_deployment,
    explain_dense_layers,
    factor_layers,
    get_factored,
    measure_costs,
)
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
            "parameters_base": count_parameters(begin),
            "parameters_full_rank": full_rank_parameters,
            **describe_deployment(found, costs, choose_by_macs(get_factored(found)), dense),
            "orthogonality_error": measure_worst_error(found),
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


def measure_worst_error(module: fx.GraphModule) -> float:
    """The largest ||F^T F - I||_F / sqrt(r) of all factors F: 0 where columns are orthonormal."""
    errors = []
    for layer in get_factored(module).values():
        for factor in (layer.U.detach(), layer.V.detach()):
            error = torch.linalg.matrix_norm(factor.T @ factor - torch.eye(layer.rank, dtype=factor.dtype))
            errors.append(float(error) / math.sqrt(layer.rank))
    return max(errors)
