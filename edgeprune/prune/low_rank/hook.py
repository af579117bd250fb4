"""DPRP in a training: its losses in every batch, its cut after every epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from edgeprune.prune.epoch_figures import Epoch
from edgeprune.prune.hooks import TrainingHook
from edgeprune.prune.low_rank.costs import NetCosts, count_parameters
from edgeprune.prune.low_rank.deploy import choose_by_macs
from edgeprune.prune.low_rank.factors import Factored, get_factored
from edgeprune.prune.low_rank.losses import (
    ORTHOGONALITY_WEIGHT,
    SORTING_WEIGHT,
    STRUCTURE_WEIGHT,
    measure_compression,
    measure_disorder,
    measure_orthogonality,
    stack_spectra,
)
from edgeprune.prune.low_rank.ranks import cut_rank, find_cuts, get_ranks


class DprpHook(TrainingHook):
    """Adds lambda_str (mu_orth L_orth + mu_sort L_sort) + lambda_comp L_comp; cuts each layer's rank at tau.

    The learning rate follows the classification loss, as in the paper: L_orth keeps jumping by what one step moves,
    times 1000 / r^2, which would look like a plateau. Ours: ranks are cut after each epoch (the paper leaves it open),
    and never rise. What the last epoch leaves is the result, for an earlier epoch has other shapes.

    compression_weight: lambda_comp. rank_epsilon: epsilon of tau. costs: of the net, for `history`.
    history: a row for each epoch, after its cut: parameters as the paper counts them (every layer as factors), MACs of
    the net that would be deployed, ranks in the order of the layers. Row 0 is the start.
    """

    keeps_last = True
    schedules_by_task = True

    def __init__(self, compression_weight: float, rank_epsilon: float, costs: NetCosts) -> None:
        self._compression_weight, self._rank_epsilon, self._costs = compression_weight, rank_epsilon, costs
        self._layers: dict[str, Factored] = {}
        self._module: nn.Module | None = None
        self._optimizer: torch.optim.Optimizer | None = None
        self.history: list[dict[str, Any]] = []

    def begin(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self._module, self._optimizer, self._layers = module, optimizer, get_factored(module)
        self.history = [self._describe(0)]

    def compute_loss(self, tensors: Mapping[str, Tensor]) -> Tensor:
        layers = self._layers.values()
        spectra, ranks = stack_spectra([layer.S for layer in layers])
        orthogonality = measure_orthogonality([(layer.U, layer.V) for layer in layers])
        structure = ORTHOGONALITY_WEIGHT * orthogonality + SORTING_WEIGHT * measure_disorder(spectra, ranks)
        compression = measure_compression(spectra, ranks, self._rank_epsilon)
        return STRUCTURE_WEIGHT * structure + self._compression_weight * compression

    def end_epoch(self, epoch: Epoch) -> bool:
        spectra, ranks = stack_spectra([layer.S.detach() for layer in self._layers.values()])
        cuts = find_cuts(spectra, ranks, self._rank_epsilon).tolist()
        self._cut(dict(zip(self._layers, cuts, strict=True)))
        self.history.append(self._describe(len(self.history)))
        return False

    def get_figures(self) -> dict[str, float | str]:
        last, first = (sum(self.history[place]["ranks"]) for place in (-1, 0))
        return {"ranks": f"{last} of {first}"}

    def get_state(self) -> dict[str, Any]:
        return {"ranks": get_ranks(self._layers), "history": self.history}

    def set_state(self, state: Mapping[str, Any]) -> None:
        self._cut(state["ranks"])
        self.history = [dict(row) for row in state["history"]]

    def describe(self) -> str:
        return f"DprpHook(compression_weight={self._compression_weight}, rank_epsilon={self._rank_epsilon})"

    def _cut(self, ranks: Mapping[str, int]) -> None:
        for name, layer in self._layers.items():
            if ranks[name] < layer.rank:
                cut_rank(layer, ranks[name], self._optimizer)

    def _describe(self, epoch: int) -> dict[str, Any]:
        assert self._module is not None  # begin comes first
        return {
            "epoch": epoch,
            "parameters": count_parameters(self._module),
            "macs": self._costs.count_macs(self._layers, choose_by_macs(self._layers)),
            "ranks": list(get_ranks(self._layers).values()),
        }
