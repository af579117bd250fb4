"""Proximal network slimming (Bui et al. 2023): BatchNorm scales gamma with twins xi that reach exact zeros.

The problem: min L(W, gamma) + lambda ||xi||_1 + beta/2 ||gamma - xi||^2. With a = 1/learning rate, the paper's step is

    gamma' = argmin <grad L, gamma> + a/2 ||gamma - gamma_t||^2 + beta/2 ||gamma - xi_t||^2
           = (a (gamma_t - grad L / a) + beta xi_t) / (a + beta)
    xi'    = argmin lambda ||xi||_1 + a/2 ||xi - xi_t||^2 + beta/2 ||gamma' - xi||^2
           = S((a xi_t + beta gamma') / (a + beta), lambda / (a + beta)),     S(x, t) = sign(x) max(|x| - t, 0)

The bracket in gamma' is what a step of plain SGD makes of gamma, so the hook works behind the optimizer's step. Under
momentum or Adam, gamma has taken that optimizer's step instead; the paper and its code use SGD.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import torch
from torch import Tensor, nn

from edgeprune.prune.hooks import TrainingHook
from edgeprune.prune.slimming import Scales

XI_RANGE = (0.47, 0.53)  # around the 0.5 that the scales start from in the paper's code


def shrink_values(values: Tensor, threshold: float) -> Tensor:
    """S(x, t) = sign(x) max(|x| - t, 0), the proximal operator of t |x|; exactly 0 for |x| <= t.

    >>> shrink_values(torch.tensor([-2.0, -0.5, 0.25, 1.5]), 0.5).tolist()
    [-1.5, -0.0, 0.0, 1.0]
    """
    return values.sign() * (values.abs() - threshold).clamp(min=0)


def update_pair(gamma: Tensor, xi: Tensor, a: float, beta: float, weight: float) -> tuple[Tensor, Tensor]:
    """(gamma, xi) after one alternating update; gamma: behind the optimizer's step. See the head of this file."""
    gamma = (a * gamma + beta * xi) / (a + beta)
    return gamma, shrink_values((a * xi + beta * gamma) / (a + beta), weight / (a + beta))


@final
class ProxHook(TrainingHook):
    """Keeps xi beside the scales and updates both after each step of the optimizer.

    weight, beta: lambda and beta of the paper. seed: draws xi_0 from U(.47, .53), as in the paper, for scales that
    start at .5; None (for a trained base, ours): xi_0 = gamma_0, so that the first steps do not disturb it.
    """

    keeps_last = True  # the lowest training loss would be that of a start without sparsity

    def __init__(self, scales: Scales, weight: float, beta: float, seed: int | None = None) -> None:
        self._scales, self._weight, self._beta, self._seed = scales, weight, beta, seed
        self._gammas: dict[str, nn.Parameter] = {}
        self._masks: dict[str, Tensor] = {}
        self._optimizer: torch.optim.Optimizer | None = None
        self.xi: dict[str, Tensor] = {}  # parameter name -> (C,); beside scales that stand for no unit: gamma

    def begin(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        parameters = dict(module.named_parameters())
        self._optimizer = optimizer
        self._gammas = {name: parameters[name] for name in self._scales.units}
        self._masks = {name: self._scales.make_mask(name, gamma) != 0 for name, gamma in self._gammas.items()}
        generator = torch.Generator().manual_seed(self._seed) if self._seed is not None else None
        low, high = XI_RANGE
        for name, gamma in self._gammas.items():
            self.xi[name] = gamma.detach().clone()
            if generator is not None:
                drawn = low + (high - low) * torch.rand(gamma.shape, generator=generator)
                self.xi[name] = torch.where(self._masks[name], drawn.to(gamma), self.xi[name])

    @torch.no_grad()
    def adjust_parameters(self) -> None:
        assert self._optimizer is not None, "train_model calls begin first"
        a = 1 / self._optimizer.param_groups[0]["lr"]
        for name, gamma in self._gammas.items():
            new_gamma, new_xi = update_pair(gamma, self.xi[name], a, self._beta, self._weight)
            gamma.copy_(torch.where(self._masks[name], new_gamma, gamma))
            self.xi[name] = torch.where(self._masks[name], new_xi, gamma)

    def get_figures(self) -> dict[str, float | str]:
        zeros = sum(int((xi == 0)[self._masks[name]].sum()) for name, xi in self.xi.items())
        return {"scales at zero": f"{zeros} of {sum(int(mask.sum()) for mask in self._masks.values())}"}

    def get_state(self) -> dict[str, Any]:
        return {name: xi.detach().cpu().clone() for name, xi in self.xi.items()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        self.xi = {name: state[name].to(gamma.detach()) for name, gamma in self._gammas.items()}

    def describe(self) -> str:
        return (
            f"ProxHook(weight={self._weight!r}, beta={self._beta!r}, seed={self._seed}, "
            f"scales={self._scales.compute_digest()})"
        )
