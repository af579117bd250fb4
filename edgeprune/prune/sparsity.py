"""The instance-wise sparsity loss of DSP, and the activity of channels over a training set (arXiv 2602.12744)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, fx

from edgeprune.errors import InputError
from edgeprune.prune.hooks import TrainingHook
from edgeprune.prune.observed import ObservedTensor
from edgeprune.prune.program_views import view_nodes
from edgeprune.prune.units import ChannelUnits, guard_units

CHUNK_SAMPLES = 256


def norm_channels(feature_map: Tensor) -> Tensor:
    """s[i, c] = ||F[i, c, :]||_2 over all positions: (N, C, ...) to (N, C), equation 3. Its gradient at 0 is 0."""
    return torch.linalg.vector_norm(feature_map.flatten(2), dim=2)


class SparsityLoss(TrainingHook):
    """lambda * sum over tensors l of w_l * sum_i sum_c ||F_l[i, c, :]||_2, equations 1 and 2.

    Summed, not averaged, over the batch's samples i; channels c that cannot be removed (frozen filters) are left out.

    strength: lambda, 1e-5 in the paper. tensor_weights: w_l, one for each tensor; by default 1, as in the paper (its
    code weighs LITE's three tensors 4, 2, 1).
    """

    def __init__(
        self, tensors: Sequence[ObservedTensor], strength: float, tensor_weights: Sequence[float] = ()
    ) -> None:
        if tensor_weights and len(tensor_weights) != len(tensors):
            names = ", ".join(tensor.node for tensor in tensors)
            raise InputError(f"{len(tensor_weights)} tensor weights for {len(tensors)} observed tensors ({names})")
        self.observed = tuple(tensor.node for tensor in tensors)
        self._strength = strength
        weights = tensor_weights or (1.0,) * len(tensors)
        self._terms = [
            (tensor.node, torch.from_numpy(tensor.learnable), float(weight))
            for tensor, weight in zip(tensors, weights, strict=True)
        ]

    def compute_loss(self, tensors: Mapping[str, Tensor]) -> Tensor:
        terms = []
        for node, learnable, weight in self._terms:
            norms = norm_channels(tensors[node])
            terms.append(weight * norms.index_select(1, learnable.to(norms.device)).sum())
        return self._strength * torch.stack(terms).sum()

    def describe(self) -> str:
        terms = [(node, learnable.tolist(), weight) for node, learnable, weight in self._terms]
        return f"DSP sparsity {self._strength} {terms}"


@dataclass(frozen=True, eq=False)
class Activity:
    """How active the channels of one observed tensor are over a set of samples.

    active_samples: int64 (C,), samples in which the channel is active: M of equation 5 summed over i. Zero for channels
    that do not count. mean_norms: float64 (C,), mean of s over the samples. samples: how many.
    silent_samples: how many had no learnable channel above zero; the paper's M would call every channel active in them.
    """

    tensor: ObservedTensor
    active_samples: np.ndarray
    mean_norms: np.ndarray
    samples: int
    silent_samples: int

    @property
    def inactive(self) -> np.ndarray:
        """Indices of the learnable channels that are active in no sample."""
        learnable = self.tensor.learnable
        return learnable[self.active_samples[learnable] == 0]


def measure_activity(module: fx.GraphModule, tensors: Sequence[ObservedTensor], x: np.ndarray) -> tuple[Activity, ...]:
    """Global activation analysis over samples x (N, C, ...), equations 3 to 5; batch norms recalibrated before.

    tau_i = mean of s_ij over the learnable channels j; M = (s >= tau) & (s > 0). The second condition is ours: in a
    sample whose learnable channels are all zero, s >= tau holds for every one of them, and one such sample would keep
    the whole layer (SonyAIBORobotSurface1: 4 % pruned with the paper's rule, 71 % with this one).
    """
    view = view_nodes(module, [tensor.node for tensor in tensors]).eval()
    active = [np.zeros(len(tensor.units), np.int64) for tensor in tensors]
    totals = [np.zeros(len(tensor.units)) for tensor in tensors]
    silent = [0] * len(tensors)
    with torch.inference_mode():
        for start in range(0, len(x), CHUNK_SAMPLES):
            maps = view(torch.tensor(x[start : start + CHUNK_SAMPLES], dtype=torch.float32))
            for index, (tensor, feature_map) in enumerate(zip(tensors, maps, strict=True)):
                norms = norm_channels(feature_map.double()).numpy()
                totals[index] += norms.sum(axis=0)
                counted = norms[:, tensor.learnable]
                tau = counted.mean(axis=1, keepdims=True)
                mask = (counted >= tau) & (counted > 0)
                active[index][tensor.learnable] += mask.sum(axis=0)
                silent[index] += int((tau == 0).sum())
    return tuple(
        Activity(tensor, active[index], totals[index] / len(x), len(x), silent[index])
        for index, tensor in enumerate(tensors)
    )


def find_inactive_units(units: ChannelUnits, activities: Sequence[Activity]) -> frozenset[int]:
    """The units that DSP removes: seen in at least one observed tensor, and active in no sample of any.

    A layer, tensor or parameter that would lose all its channels keeps the one of the highest mean norm.
    """
    norms: dict[int, float] = {}
    alive: set[int] = set()
    for activity in activities:
        for channel in activity.tensor.learnable.tolist():
            unit = int(activity.tensor.units[channel])
            norms[unit] = max(norms.get(unit, 0.0), float(activity.mean_norms[channel]))
            if activity.active_samples[channel]:
                alive.add(unit)
    return guard_units(units, norms.keys() - alive, norms)
